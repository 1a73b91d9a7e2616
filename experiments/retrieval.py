"""An experiment: how much do retrieved batches help VideoCLIP?

    python -m experiments.retrieval [--seeds 0 1 2] [--jobs 2] [--plan]

VideoCLIP is trained from random weights with the plain loss. A batch has 8 videos, which are drawn
from the nearest neighbours of a centre. All arms make 300 updates. They differ in how the batches
are chosen:

- at random
- by the plan of the first epoch in all epochs, with one list of the index searched. The release
  trains in this way, because its loader workers keep their first plan.
- by the plan of the first epoch in all epochs, with as many lists searched as needed
- by a new plan in each epoch, with one list searched
- by a new plan in each epoch, with as many lists searched as needed (our default), or with a search
  of all vectors
- by a new plan in each epoch, with more neighbours
- at random in four epochs, and then by the plan of the fifth epoch, or by a new plan in each epoch.
  The difference between the plans of the first and the fifth epoch is that the model is trained.

The paper of VideoCLIP reports a gain of 4.2 points of R@1 from retrieval.

Two more arms post-train a VideoCLIP checkpoint with Norton's loss, with the plan of the first epoch
in all epochs, and with a new plan in each epoch. Here, the model is already trained when the first
plan is made.

Two other faults of the release have no arm. Each of its processes searches among its own share of
the videos, but a run here has one process. Searching one list makes a batch short if the list has
fewer videos than a batch. On this corpus a list has about 50 videos, so no batch is short.
"""

import sys
from collections.abc import Iterator

from experiments.arms import (
    ALL_WEIGHTS,
    NORTON_LOSS,
    VIDEOCLIP,
    Arm,
    Experiment,
    Overrides,
)
from experiments.command import main
from experiments.corpora import HOWTO100M, Corpus

NUM_EPOCHS = 12
NEVER = 1000
"""An epoch after the last one."""
LATE = 5
"""Epoch in which a plan is made with weights that were trained on random batches before."""
NUM_CANDS = (48, 96, 192, 384)
"""Numbers of neighbours. The demo has 24. The corpus has 400 videos."""
RANDOM = "random"
CHOICES: dict[str, tuple[str, Overrides]] = {
    RANDOM: ("random batches", {"retri_epoch": NEVER}),
    "released": (
        "the first plan in all epochs, one list (released)",
        {"freeze_plan": True, "nprobe": 1},
    ),
    "frozen": ("the first plan in all epochs", {"freeze_plan": True}),
    "one list": ("a new plan in each epoch, one list", {"nprobe": 1}),
    "new plans": ("a new plan in each epoch", {}),
    "exact": ("a new plan, exact search", {"db_type": "exact"}),
    "late frozen": (
        "from epoch 5: the plan of epoch 5 in all epochs",
        {"retri_epoch": LATE, "freeze_plan": True},
    ),
    "late": ("from epoch 5: a new plan in each epoch", {"retri_epoch": LATE}),
}
"""Name -> title and overrides."""


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""
    choices = dict(CHOICES)
    for number in NUM_CANDS:
        name = f"{number} neighbours"
        choices[name] = (f"a new plan, {name}", {"num_cands": number})
    for name, (title, overrides) in choices.items():
        yield Arm(
            name,
            title,
            {**overrides, "fairseq.optimization.max_epoch": NUM_EPOCHS},
            yaml=VIDEOCLIP,
            against="" if name == RANDOM else RANDOM,
        )
    new: Overrides = {**ALL_WEIGHTS, **NORTON_LOSS, "nprobe": 1}
    title = "Norton's loss from a VideoCLIP checkpoint"
    yield Arm("norton", f"{title}: a new plan in each epoch, one list", new)
    yield Arm(
        "norton, released",
        f"{title}: the first plan in all epochs, one list (released)",
        {**new, "freeze_plan": True},
        against="norton",
    )


EXPERIMENT = Experiment(
    name="retrieval",
    question="How much do retrieved batches help VideoCLIP?",
    make_arms=arms,
    later=("96", "192", "late", "norton"),
    corpora=(HOWTO100M,),
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
