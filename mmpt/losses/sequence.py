"""Norton's video-paragraph contrast: sequences of clips against sequences of captions.

A sequence is L consecutive clips of a batch. Optimal transport with a prompt bucket aligns the
clips of a sequence with the captions of another one, and the aligned similarities add up to the
similarity of the two sequences.

Legend: B clips, L clips per sequence (`threshold`), S = B / L sequences, D hidden size. G is the
fused similarity matrix [B, B] (rows captions, columns clips), rho the value of the bucket.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.linalg import vector_norm

from mmpt.batch import ModelOutput
from mmpt.config.schema import (
    Count,
    LossConfig,
    NotNegative,
    Positive,
    Released,
    SequenceContrastConfig,
)
from mmpt.errors import UserError
from mmpt.losses.base import (
    LOSSES,
    Loss,
    LossOutput,
    match_accuracy,
    symmetric_cross_entropy,
    upcast,
)
from mmpt.losses.sinkhorn import bucket_transport, transport
from mmpt.losses.tokenscore import MIN_ALPHA, token_similarity

STATES = tuple(ModelOutput.__annotations__)
"""Names of the model's outputs that the video-paragraph term reads: the states of both towers."""


class SequenceConfig(LossConfig):
    """The keys of the video-paragraph term, and of the transport and the similarities in it.

    Keys with the values `released` and `paper` choose between the published code and the paper.
    """

    sequence_contrast: SequenceContrastConfig | None = None
    """Video-paragraph term. Default: none."""
    sinkhorn_iterations: Count | None = None
    """Iterations of the transport. Default: no transport, which is VideoCLIP's loss."""
    alpha_lse: Positive | None = None
    """alpha of the log-sum-exp score. Default: no fine-grained similarity. Then `fusion_weight`
    must be null, too."""
    fusion_weight: NotNegative | None = None
    """w: weight of the mean-pooled similarity, which is added to the fine-grained one."""
    masked_outer_sum: Released = "released"
    """Outer sums of the log-sum-exp score: `released` has masked positions, `paper` does not."""
    log_mean_exp: bool = False
    """Take the logarithm of the mean of the exponentials instead of their sum. The sum grows with
    the number of tokens. `masked_outer_sum` then has no effect."""
    similarity_norm: Released = "released"
    """Min-max normalisation of similarities in a batch: `released` does it, `paper` does not."""
    transport_mass: Released = "released"
    """Mass of a block's transport: `released` scales it to L, `paper` does not."""


def pooled_similarity(text_BD: Tensor, video_BD: Tensor) -> Tensor:
    """Returns the cosines of pooled states, float [B, B]. A zero vector gives NaN."""
    text_norms_B1 = vector_norm(text_BD, dim=1, keepdim=True)
    video_norms_B1 = vector_norm(video_BD, dim=1, keepdim=True)
    return (text_BD / text_norms_B1) @ (video_BD / video_norms_B1).T


def min_max_normalise(matrix: Tensor) -> Tensor:
    """Maps the entries of a matrix linearly to [0, 1]. A constant matrix gives NaN.

    The gradient also flows through the minimum and the maximum. The denominator has no epsilon:
    if all similarities of a batch are equal, something is wrong, and the loss reports the NaN.

    Source: released Norton code (not in the paper).
    """
    low = matrix.min()
    spread = matrix.max() - low
    return (matrix - low) / spread


def fused_similarity(config: SequenceConfig, batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the similarity of all captions and clips, G, float32 or float64 [B, B].

    G = (w M + (W1 + W2) / 2) / (w + 1) combines the cosine M of pooled states with the
    fine-grained similarities W1 and W2. With `similarity_norm: released` each of the three is
    first mapped to [0, 1] over the whole batch; with `paper` they are used unchanged. Without
    `alpha_lse` and `fusion_weight` (w), G is M.

    Args:
        batch: the tensors named in `STATES`, as in `ModelOutput`.
    Source: Norton (arXiv 2401.16702), Eq. 5; G = M is model C of its Table 7. The fusion weight is
        in the released code only.
    """
    pooled_text_BD = upcast(batch["pooled_text"])
    pooled_video_BD = upcast(batch["pooled_video"])
    pooled = pooled_similarity(pooled_text_BD, pooled_video_BD)
    if config.similarity_norm == "released":
        pooled = min_max_normalise(pooled)
    weight = config.fusion_weight
    if config.alpha_lse is None or weight is None:
        return pooled

    text_to_video, video_to_text = token_similarity(
        batch["text_outputs"],
        batch["text_mask_outputs"],
        batch["video_outputs"],
        batch["video_mask_outputs"],
        alpha=config.alpha_lse,
        masked_outer_sum=config.masked_outer_sum == "released",
        log_mean_exp=config.log_mean_exp,
    )
    if config.similarity_norm == "released":
        text_to_video = min_max_normalise(text_to_video)
        video_to_text = min_max_normalise(video_to_text)
    fine_grained = (text_to_video + video_to_text) / 2
    return (weight * pooled + fine_grained) / (weight + 1)


def bucket_value(similarity_BB: Tensor, ratio: float) -> Tensor:
    """Returns the value of the prompt bucket, rho, a scalar without gradient.

    It is the k-th smallest similarity of a caption with its own clip, k = max(1, int(ratio * B)),
    which is the bottom `ratio` quantile. (A comment in the released YAML calls it the top one.)

    Source: Norton, alignable prompt bucket.
    """
    diagonal_B = similarity_BB.detach().diagonal()
    k = max(1, int(ratio * len(diagonal_B)))
    return diagonal_B.kthvalue(k).values


def sequence_blocks(similarity_BB: Tensor, length: int) -> Tensor:
    """Returns a view [S, S, L, L] of a matrix [B, B].

    Block (i, j) compares the captions of sequence i with the clips of sequence j.
    """
    num_sequences = len(similarity_BB) // length
    blocks = similarity_BB.view(num_sequences, length, num_sequences, length)
    return blocks.transpose(1, 2)


def block_transport(config: SequenceConfig, fused_BB: Tensor) -> Tensor:
    """Returns the transport plan of every block of G, float [S, S, L, L], without gradient.

    With `prompt_ratio` each block gets a prompt bucket of value rho; without, the transport is
    plain. With `transport_mass: released` each plan is rescaled to a total mass of L. With `paper`
    it keeps its own mass: one per row, minus the mass in the bucket.

    Source: Norton, Eq. 4 and the alignable prompt bucket.
    """
    sequence = config.sequence_contrast
    assert sequence is not None
    assert sequence.threshold is not None
    assert sequence.scale is not None
    assert config.sinkhorn_iterations is not None
    blocks = sequence_blocks(fused_BB.detach(), sequence.threshold)
    if sequence.prompt_ratio is None:
        plan = transport(blocks, config.sinkhorn_iterations, sequence.scale)
    else:
        rho = bucket_value(fused_BB, sequence.prompt_ratio)
        plan = bucket_transport(blocks, rho, config.sinkhorn_iterations, sequence.scale)
    if config.transport_mass == "released":
        mass = plan.sum((-2, -1), keepdim=True)
        plan = plan * (sequence.threshold / mass)
    return plan


def paragraph_logits(config: SequenceConfig, scale: Tensor, fused_BB: Tensor) -> Tensor:
    """Returns the similarity of all pairs of sequences, X, float [S, S]; rows are captions.

    An entry is scale * (sum of plan * G over a block). The gradient flows through G and `scale`,
    not through the plan.

    Args:
        scale: float scalar, 1 / tau.
        fused_BB: float [B, B], G. B must be a multiple of L.
    Raises:
        UserError: B is not a multiple of L.
    """
    assert config.sequence_contrast is not None
    assert config.sequence_contrast.threshold is not None
    length = config.sequence_contrast.threshold
    num_clips = len(fused_BB)
    if num_clips % length:
        raise UserError(
            "a batch (`dataset.num_video_per_batch` * `dataset.clip_per_video` clips) must be a "
            f"multiple of `loss.sequence_contrast.threshold` ({length}) clips, but has "
            f"{num_clips}; change one of the three."
        )
    plan = block_transport(config, fused_BB)
    aligned = plan * sequence_blocks(fused_BB, length)
    return scale * aligned.sum((-2, -1))


@LOSSES.register
class SequenceContrastLoss(Loss):
    """The video-paragraph term alone, with weight 1.

    Sequences of the same video are negatives of each other.
    """

    Config = SequenceConfig
    config: SequenceConfig
    uses_negatives = True
    inputs = STATES
    uses_temperature = True
    has_sequence_term = True

    @property
    def sequence_length(self) -> int:  # type: ignore[override]  # read only
        """Number of clips in a sequence, or 1 without the video-paragraph term."""
        sequence = self.config.sequence_contrast
        if sequence is None or sequence.threshold is None or not self.has_sequence_term:
            return 1
        return sequence.threshold

    def find_problems(self) -> list[str]:
        """Returns the mistakes in `config`, one sentence each.

        The schema has checked the bounds of single keys. Here the keys are checked together.
        """
        config = self.config
        sequence = config.sequence_contrast
        if sequence is None:
            return ["`loss.sequence_contrast` must be a section, but is null."]
        required = {
            "sinkhorn_iterations": config.sinkhorn_iterations,
            "sequence_contrast.threshold": sequence.threshold,
            "sequence_contrast.scale": sequence.scale,
        }
        problems = []
        for key, value in required.items():
            if value is None:
                problems.append(
                    f"`loss.{key}` must be a number for sequence contrast, but is null."
                )
        if (config.alpha_lse is None) != (config.fusion_weight is None):
            problems.append(
                "`loss.alpha_lse` and `loss.fusion_weight` must both be numbers, or both be null "
                f"for the mean-pooled similarity alone, but are {config.alpha_lse} and "
                f"{config.fusion_weight}."
            )
        if config.alpha_lse is not None and config.alpha_lse < MIN_ALPHA:
            problems.append(
                f"`loss.alpha_lse` must be at least {MIN_ALPHA}, but is {config.alpha_lse}."
            )
        return problems

    def sequence_logits(self, batch: Mapping[str, Tensor], scale: Tensor) -> Tensor:
        """Returns the similarity of all pairs of sequences, X, float [S, S]."""
        fused_BB = fused_similarity(self.config, batch)
        return paragraph_logits(self.config, scale, fused_BB)

    def compute(self, **batch: Any) -> LossOutput:
        """Returns the term `video_paragraph` and the metrics `accuracy` and `temperature`.

        The accuracy is the share of sequences that score highest with their own counterpart.

        Args:
            batch: the tensors named in `STATES`.
        """
        scale = self.scale(upcast(batch["pooled_video"]))
        logits = self.sequence_logits(batch, scale)
        return LossOutput(
            terms={"video_paragraph": symmetric_cross_entropy(logits)},
            metrics={
                "accuracy": match_accuracy(logits),
                "temperature": 1 / scale.detach(),
            },
        )
