"""Which parameters should the post-training train, how fast and how long?

    python -m experiments.trained [--seeds 0 1 2] [--jobs 2] [--plan]

Norton trains the parameters of LayerNorms only. In BERT-base these are 59,904 numbers, in the
demo's towers 1,920. The arms train LayerNorms, the last layer of each tower, or all weights, with
three learning rates each, and with twice the updates. Norton and the plain loss are compared in
each.
"""

import sys
from collections.abc import Iterator

from experiments.arms import NORTON_LOSS, PLAIN_LOSS, START, Arm, Experiment, Overrides
from experiments.command import main
from experiments.corpora import DEMO, Corpus

LAST_LAYERS = "experiments.last_layers.LastLayersFusion"
PARTS: dict[str, tuple[Overrides, tuple[float, ...]]] = {
    "LayerNorm": ({}, (3e-4, 1e-3, 1e-2)),
    "last layers": (
        {"model.layernorm_only": False, "model.model_cls": LAST_LAYERS},
        (1e-4, 3e-4, 1e-3),
    ),
    "all weights": ({"model.layernorm_only": False}, (1e-4, 3e-4, 1e-3)),
}
"""Parameters -> overrides and learning rates. The second rate is also trained twice as long."""
LONG: Overrides = {"fairseq.optimization.max_epoch": 12}


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""
    yield START
    for part, (overrides, rates) in PARTS.items():
        variants: list[tuple[str, Overrides]] = []
        for rate in rates:
            variants.append((f"{part}, rate {rate:g}", {"fairseq.optimization.lr": [rate]}))
        middle = {"fairseq.optimization.lr": [rates[1]]}
        variants.append((f"{part}, rate {rates[1]:g}, 12 epochs", {**middle, **LONG}))
        for name, schedule in variants:
            plain = {**overrides, **schedule, **PLAIN_LOSS}
            norton = {**overrides, **schedule, **NORTON_LOSS}
            yield Arm(f"{name}, plain", f"{name}, plain loss", plain)
            yield Arm(f"{name}, norton", f"{name}, Norton", norton, against=f"{name}, plain")


EXPERIMENT = Experiment(
    name="trained",
    question="Which parameters should the post-training train, how fast and how long?",
    make_arms=arms,
    corpora=(DEMO,),
    num_seeds=3,
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
