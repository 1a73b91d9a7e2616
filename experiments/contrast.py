"""An experiment: how should paragraphs and videos be contrasted?

    python -m experiments.contrast [--seeds 0 1 2] [--jobs 2] [--plan]

All arms except the control use the mean-pooled similarity alone (model C in Table 7 of the paper of
Norton, arXiv 2401.16702). It is the best similarity on this corpus. The arms change:

- the weight of the contrast in the loss, which is 0.1 in the paper
- the prompt bucket. Its value is a quantile of the similarities of true pairs, the 30 % quantile in
  the paper. On this corpus, 70 % of the captions fit no clip.
- the weight of the transport in the targets of the clip-caption loss, beta, which is 0.3 in the
  paper. Without it (0), the targets are as in the plain loss.

All weights are trained.
"""

import sys
from collections.abc import Iterator

from experiments.arms import (
    ALL_WEIGHTS,
    PLAIN_LOSS,
    POOLED_LOSS,
    Arm,
    Experiment,
    Overrides,
)
from experiments.command import main
from experiments.corpora import HOWTO100M, Corpus

WEIGHT = "loss.sequence_contrast.sequence_contrast_weight"
RATIO = "loss.sequence_contrast.prompt_ratio"
CHANGES: dict[str, Overrides] = {
    "weight 0.1 (C)": {},
    "weight 0.3": {WEIGHT: 0.3},
    "weight 1": {WEIGHT: 1.0},
    "weight 3": {WEIGHT: 3.0},
    "bucket of 30 %": {RATIO: 0.3},
    "bucket of 70 %": {RATIO: 0.7},
    "weight 1, beta 0": {WEIGHT: 1.0, "loss.beta": 0.0},
}
"""Title -> what is changed."""


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""
    yield Arm("plain", "plain loss (control)", {**ALL_WEIGHTS, **PLAIN_LOSS})
    first = next(iter(CHANGES))
    for title, change in CHANGES.items():
        overrides = {**ALL_WEIGHTS, **POOLED_LOSS, **change}
        against = "plain" if title == first else first
        yield Arm(title, title, overrides, against=against)


EXPERIMENT = Experiment(
    name="contrast",
    question="How should paragraphs and videos be contrasted?",
    make_arms=arms,
    corpora=(HOWTO100M,),
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
