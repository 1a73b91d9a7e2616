"""An experiment: does Norton's loss help more than further training with the plain loss?

    python -m experiments.control [--seeds 0 1 2] [--jobs 2] [--plan]

All arms continue from the same VideoCLIP checkpoint, with the same number of updates, the same
trained parameters and the same way of choosing batches. The letters are from Table 7 in the
paper of Norton (arXiv 2401.16702):

- A: the plain loss, without the contrast of paragraphs and videos
- B: A with targets from optimal transport (for faulty negatives), which C to J have, too
- C: B and the contrast of paragraphs and videos, with the mean-pooled similarity
- D to G: C with a fine-grained similarity, by the maximum (D), or by log-sum-exp with alpha 0.1
  (E), 0.2 (F) or 1 (G)
- H to J: G with a prompt bucket of 10 % (H), 50 % (I) or 30 % (J, which is Norton)

Appendix A of the paper says that the fine-grained similarity is added to the mean-pooled one. The
weight of the sum is only in the released code. The last arm is G with the fine-grained similarity
alone, as in Eq. 5.

All these arms train all weights. Two more arms train A and J with the LayerNorms only. On corpora
other than `howto100m`, only A, C and J are run. `--corpora youcook2` needs your own copy of the
sentences of YouCook2 (youcook_corpus.py).
"""

import sys
from collections.abc import Iterator

from experiments.arms import (
    ALL_WEIGHTS,
    LAYERNORM,
    NO_BUCKET,
    NORTON_LOSS,
    PLAIN_LOSS,
    POOLED_LOSS,
    START,
    Arm,
    Experiment,
    Overrides,
)
from experiments.command import main
from experiments.corpora import HALF_ALIGNED, HOWTO100M, Corpus

LADDER: dict[str, tuple[str, Overrides]] = {
    "A": ("A: plain loss (control)", PLAIN_LOSS),
    "B": ("B: targets from transport", {"loss.sequence_contrast": None}),
    "C": ("C: B and paragraphs, mean pooling", POOLED_LOSS),
    # 0.02 is the smallest value that the loss accepts.
    "D": ("D: C and the maximum", {**NO_BUCKET, "loss.alpha_lse": 0.02}),
    "E": ("E: C and log-sum-exp, alpha 0.1", {**NO_BUCKET, "loss.alpha_lse": 0.1}),
    "F": ("F: C and log-sum-exp, alpha 0.2", {**NO_BUCKET, "loss.alpha_lse": 0.2}),
    "G": ("G: C and log-sum-exp, alpha 1", NO_BUCKET),
    "H": ("H: G and a bucket of 10 %", {"loss.sequence_contrast.prompt_ratio": 0.1}),
    "I": ("I: G and a bucket of 50 %", {"loss.sequence_contrast.prompt_ratio": 0.5}),
    "norton": ("J: G and a bucket of 30 % (Norton)", NORTON_LOSS),
    "G, Eq. 5": (
        "G without mean pooling (Eq. 5)",
        {**NO_BUCKET, "loss.fusion_weight": 0},
    ),
}
"""Name -> title and overrides of the loss."""
ELSEWHERE: tuple[str, ...] = ("A", "C", "norton")
"""Names of the arms on corpora other than `howto100m`."""
SHORT: tuple[str, ...] = ("A", "norton")
"""Names of the arms with curves, which are also trained with the LayerNorms only."""


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""
    yield START
    is_long = corpus.key == HOWTO100M.key
    for name in LADDER if is_long else ELSEWHERE:
        title, loss = LADDER[name]
        yield Arm(
            name,
            title,
            {**ALL_WEIGHTS, **loss},
            against="" if name == "A" else "A",
            with_curves=name in SHORT,
        )
    for name in SHORT:
        title, loss = LADDER[name]
        yield Arm(
            f"{name}, LayerNorm",
            f"{title}, LayerNorm only",
            {**LAYERNORM, **loss},
            against="" if name == "A" else "A, LayerNorm",
            with_curves=True,
        )


EXPERIMENT = Experiment(
    name="control",
    question="Does Norton's loss help more than further training with the plain loss?",
    make_arms=arms,
    # In the paper, E, F, H and I differ from G or J by at most 0.3 points.
    later=("E", "F", "H", "I", "G, Eq. 5"),
    corpora=(HOWTO100M, HALF_ALIGNED),
    num_seeds=5,
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
