"""An experiment: which parameters should be trained, how fast and how long?

    python -m experiments.trained [--seeds 0 1 2] [--jobs 2] [--plan]

Norton trains the parameters of LayerNorms only. In BERT-base these are 59,904 numbers, in the
demo's towers 1,920. The arms train LayerNorms, the last layer of each tower, or all weights, with
several learning rates, and with twice the updates. Each is run with Norton's loss and with the
plain loss.
"""

import sys
from collections.abc import Iterator

from experiments.arms import START, Arm, Experiment, Overrides, plain_and_norton
from experiments.command import main
from experiments.corpora import HOWTO100M, Corpus

LAST_LAYERS = "experiments.last_layers.LastLayersFusion"
PARTS: dict[str, Overrides] = {
    "LayerNorm": {},
    "last layers": {"model.layernorm_only": False, "model.model_cls": LAST_LAYERS},
    "all weights": {"model.layernorm_only": False},
}
SCHEDULES: dict[str, list[tuple[float, int]]] = {
    "LayerNorm": [(1e-3, 6), (1e-2, 6), (1e-3, 12)],
    "last layers": [(1e-3, 6)],
    "all weights": [(1e-4, 6), (3e-4, 6), (3e-4, 12)],
}
"""Trained parameters -> learning rates and numbers of epochs."""


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""
    yield START
    for part, schedules in SCHEDULES.items():
        for rate, num_epochs in schedules:
            name = f"{part}, rate {rate:g}, {num_epochs} epochs"
            overrides: Overrides = {**PARTS[part], "fairseq.optimization.lr": [rate]}
            if num_epochs != 6:  # the number of the YAML
                overrides = {**overrides, "fairseq.optimization.max_epoch": num_epochs}
            yield from plain_and_norton(name, overrides)


EXPERIMENT = Experiment(
    name="trained",
    question="Which parameters should the post-training train, how fast and how long?",
    make_arms=arms,
    later=(
        "LayerNorm, rate 0.01",
        "LayerNorm, rate 0.001, 12",
        "all weights, rate 0.0001",
        "all weights, rate 0.0003, 12",
    ),
    corpora=(HOWTO100M,),
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
