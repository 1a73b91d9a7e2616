"""An experiment: do the differences between the released loss and the paper matter?

    python -m experiments.quirks [--seeds 0 1 2] [--jobs 2] [--plan]

The released code of Norton differs from its paper in four places. Each arm takes one of them, or
all, from the paper. One arm also trains the temperature. All weights are trained.
"""

import sys
from collections.abc import Iterator

from experiments.arms import ALL_WEIGHTS, PLAIN_LOSS, Arm, Experiment, Overrides
from experiments.command import main
from experiments.corpora import DEMO, Corpus

QUIRKS: dict[str, str] = {
    "loss.masked_outer_sum": "padding is not summed",
    "loss.similarity_norm": "no min-max normalisation",
    "loss.transport_mass": "the plan keeps its mass",
    "loss.clip_temperature": "temperature in the clip loss",
}
"""Key with the values `released` and `paper` -> what the paper's form does."""


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""

    def arm(name: str, title: str, loss: Overrides) -> Arm:
        return Arm(name, title, {**ALL_WEIGHTS, **loss}, against="released")

    yield Arm("released", "Norton as released", ALL_WEIGHTS)
    for key, title in QUIRKS.items():
        yield arm(key.removeprefix("loss."), title, {key: "paper"})
    yield arm("paper", "all four as in the paper", dict.fromkeys(QUIRKS, "paper"))
    yield arm(
        "temperature", "trained temperature", {"loss.learnable_temperature": True}
    )
    yield arm("plain", "plain loss (control)", PLAIN_LOSS)


EXPERIMENT = Experiment(
    name="quirks",
    question="Do the differences between the released loss and the paper matter?",
    make_arms=arms,
    later=("masked_outer_sum", "transport_mass"),
    corpora=(DEMO,),
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
