"""An experiment: do the differences between the released loss and the paper matter?

    python -m experiments.quirks [--seeds 0 1 2] [--jobs 2] [--plan]

The released code of Norton differs from its paper in four places. Each arm replaces one of them, or
all four, by the form of the paper. One more arm trains the temperature. All weights are trained.

In the release and in the paper, the fine-grained similarity is a log-sum-exp over tokens. It grows
with the number of tokens (token_lengths.py). Three more arms take the logarithm of the mean of the
exponentials instead. With alpha 1, it is close to the mean of the cosines. With alpha 0.1, it is
closer to their maximum. C is the mean-pooled similarity alone, as in control.py.
"""

import sys
from collections.abc import Iterator

from experiments.arms import (
    ALL_WEIGHTS,
    NO_BUCKET,
    PLAIN_LOSS,
    POOLED_LOSS,
    Arm,
    Experiment,
    Overrides,
)
from experiments.command import main
from experiments.corpora import HOWTO100M, Corpus

QUIRKS: dict[str, str] = {
    "loss.masked_outer_sum": "padding is not summed",
    "loss.similarity_norm": "no min-max normalisation",
    "loss.transport_mass": "the plan keeps its mass",
    "loss.clip_temperature": "temperature in the clip loss",
}
"""Key with the values `released` and `paper` -> what the paper's form does."""
LOG_MEAN: Overrides = {"loss.log_mean_exp": True}
SHARP: Overrides = {**LOG_MEAN, "loss.alpha_lse": 0.1}


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""

    def arm(name: str, title: str, loss: Overrides, against: str = "plain") -> Arm:
        return Arm(name, title, {**ALL_WEIGHTS, **loss}, against=against)

    yield Arm("plain", "plain loss (control)", {**ALL_WEIGHTS, **PLAIN_LOSS})
    yield arm("released", "Norton as released", {})
    for key, title in QUIRKS.items():
        yield arm(key.removeprefix("loss."), title, {key: "paper"}, "released")
    all_four = dict.fromkeys(QUIRKS, "paper")
    yield arm("paper", "all four as in the paper", all_four, "released")
    trained = {"loss.learnable_temperature": True}
    yield arm("temperature", "trained temperature", trained, "released")
    yield arm("log-mean-exp", "log-mean-exp, alpha 1", LOG_MEAN)
    yield arm("log-mean-exp 0.1", "log-mean-exp, alpha 0.1", SHARP)
    yield arm(
        "log-mean-exp 0.1, no bucket",
        "log-mean-exp, alpha 0.1, no bucket",
        {**SHARP, **NO_BUCKET},
    )
    yield arm("pooled", "mean-pooled similarity alone, no bucket (C)", POOLED_LOSS)


EXPERIMENT = Experiment(
    name="quirks",
    question="Do the differences between the released loss and the paper matter?",
    make_arms=arms,
    later=("transport_mass", "temperature"),
    corpora=(HOWTO100M,),
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
