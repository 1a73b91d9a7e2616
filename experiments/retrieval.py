"""An experiment: how much do retrieved batches help VideoCLIP?

    python -m experiments.retrieval [--seeds 0 1 2] [--jobs 2] [--plan]

VideoCLIP is trained from random weights. A batch has 8 videos, which are drawn from the nearest
neighbours of a centre. The arms differ in how the batches are chosen: at random, by the plan of the
first epoch in all epochs (which is how the release trained by accident), or by a new plan in each
epoch; with more or fewer neighbours; and by an index that searches one list only, as the release
does, or all vectors. The paper of VideoCLIP reports a gain of 4.2 points of R@1 from retrieval.
"""

import sys
from collections.abc import Iterator

from experiments.arms import START, VIDEOCLIP, Arm, Experiment
from experiments.command import main
from experiments.corpora import DEMO, Corpus

NEVER = 1000
"""An epoch after the last one."""
NUM_CANDS = (8, 96)
"""Numbers of neighbours, next to the demo's 24. The corpus has 400 videos."""


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""

    def arm(name: str, title: str, **overrides: object) -> Arm:
        return Arm(name, title, overrides, yaml=VIDEOCLIP, against="random")

    yield Arm("random", "random batches", {"retri_epoch": NEVER}, yaml=VIDEOCLIP)
    yield arm("frozen", "the first plan in all epochs", freeze_plan=True)
    yield Arm(
        "new plans", "a new plan in each epoch", yaml=START.yaml, against="random"
    )
    for num_cands in NUM_CANDS:
        name = f"{num_cands} neighbours"
        yield arm(name, f"a new plan, {num_cands} neighbours", num_cands=num_cands)
    yield arm("one list", "a new plan, one list searched", nprobe=1)
    yield arm("exact", "a new plan, exact search", db_type="exact")


EXPERIMENT = Experiment(
    name="retrieval",
    question="How much do retrieved batches help VideoCLIP?",
    make_arms=arms,
    corpora=(DEMO,),
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
