"""The base class of losses, their registry, and functions that several losses share.

A loss maps a batch and the model's output to named terms. It raises an error if a term is not
finite.

Legend (all of losses/): B clips, L clips per sequence, S = B / L sequences, D hidden size, N rows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmpt.config.schema import LossConfig
from mmpt.errors import ConfigError, UserError
from mmpt.losses.gather import gather_batches
from mmpt.registry import Registry

LOG_SCALE = math.log(1 / 0.07)
"""Initial value of theta: tau = exp(-theta) = 0.07."""
MAX_LOG_SCALE = 4.6052
"""theta is clamped to [0, MAX_LOG_SCALE], so tau stays between 0.01 and 1."""


@dataclass(frozen=True)
class LossOutput:
    """The result of a loss."""

    terms: dict[str, Tensor]
    """Weighted scalars with gradient."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Scalars without gradient, for the log."""

    @property
    def total(self) -> Tensor:
        """The scalar to minimise: the sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


class NonFiniteLossError(UserError):
    """A term of the loss is NaN or infinite. Further training would destroy the weights.

    Args:
        message: which terms are not finite, and the likely cause.
        output: the result of the loss.
    """

    def __init__(self, message: str, output: LossOutput):
        super().__init__(message)
        self.output = output


class Loss(nn.Module):
    """A base class of losses.

    A subclass implements `compute(**batch)`. Its keyword arguments are entries of the batch and of
    the model's output.

    A loss computes in float32, or in float64 if its inputs are float64, also under autocast. Its
    only state is the optional `logit_scale`. Training and evaluation compute the same.

    Negatives are the other clips of the local batch, as in the release. With `gather_negatives`,
    training takes the clips of all processes. Evaluation keeps to the local batch, so that a
    validation loss does not depend on the number of processes.
    """

    Config: ClassVar[type[LossConfig]] = LossConfig
    """The keys under `loss` that the class reads. A subclass of `LossConfig` adds keys."""
    uses_negatives: ClassVar[bool] = False
    """True if the negatives are the other clips of the batch. All `inputs` then have a row per
    clip."""
    inputs: tuple[str, ...] = ()
    """Names of the model's outputs that `compute` reads. A model lists its own as `outputs`."""
    uses_temperature: bool = False
    """True if tau is part of the loss as configured."""
    sequence_length: int = 1
    """Number of clips in a sequence, which are neighbouring rows of a batch. 1 if there are no
    sequences."""

    compute: Callable[..., LossOutput]

    def __init__(self, config: LossConfig):
        """Checks the `loss` section of a YAML and keeps it.

        Raises:
            ConfigError: lists every mistake in the section.
        """
        super().__init__()
        assert isinstance(config, self.Config), "a loss takes its own Config"
        self.config = config
        assert self.inputs or not self.uses_negatives, (
            "a loss with negatives must name its inputs"
        )
        name = type(self).__name__
        problems = self.find_problems()
        if config.learnable_temperature and not self.uses_temperature:
            problems.append(
                "`loss.learnable_temperature` needs a loss with a temperature: the video-paragraph "
                "term, or `loss.clip_temperature: paper` in the Norton loss; "
                f"{name} as configured has none."
            )
        if config.gather_negatives and not self.uses_negatives:
            problems.append(
                f"`loss.gather_negatives` needs a loss with negatives; {name} has none."
            )
        if problems:
            raise ConfigError("loss", problems)
        if config.learnable_temperature:
            # A vector of one element, because fairseq cannot reduce a 0-d tensor.
            self.logit_scale = nn.Parameter(torch.tensor([LOG_SCALE]))

    def find_problems(self) -> list[str]:
        """Returns the mistakes in `config`, one sentence each. The base class finds none."""
        return []

    def scale(self, like: Tensor) -> Tensor:
        """Returns 1 / tau as a scalar of the dtype and device of `like`.

        It is a constant, or has a gradient if the temperature is learnable.
        """
        if self.config.learnable_temperature:
            theta = self.logit_scale[0].to(like.dtype)
        else:
            theta = like.new_full((), LOG_SCALE)
        return theta.clamp(0, MAX_LOG_SCALE).exp()

    def forward(self, *, is_dummy_step: bool = False, **batch: Any) -> LossOutput:
        """Returns the terms and metrics of a batch.

        Synchronises with the GPU once to check that the terms are finite, once more if token
        similarities are computed, and once more if negatives are gathered.

        Args:
            is_dummy_step: True if this process has no batch left and computes an arbitrary one,
                because the other processes wait for it. Its gradient is discarded, and its clips
                are not negatives of the other processes' clips.
            batch: entries of the batch and of the model's output. Entries that the loss does not
                read are ignored.
        Raises:
            NonFiniteLossError: a term is NaN or infinite.
            UserError: the batch does not fit the configuration.
        """
        if self.config.gather_negatives and self.training:
            batch = gather_batches(
                batch, self.inputs, self.sequence_length, is_dummy_step=is_dummy_step
            )
        tensors = [value for value in batch.values() if isinstance(value, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            output = self.compute(**batch)
        _require_finite(output, batch)
        return output


LOSSES: Registry[Loss] = Registry("loss", Loss, "mmpt.losses")


def upcast_dtype(tensor: Tensor) -> torch.dtype:
    """Returns the dtype that losses compute in: float64 for a float64 tensor, else float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def upcast(tensor: Tensor) -> Tensor:
    """Returns a half-precision tensor in float32. Tensors in float32 and float64 are unchanged."""
    return tensor.to(upcast_dtype(tensor))


def symmetric_cross_entropy(logits_NN: Tensor) -> Tensor:
    """Returns the cross-entropy over rows plus the cross-entropy over columns.

    The targets are the diagonal. Each cross-entropy is a mean, and their sum is not halved.
    """
    targets = torch.arange(len(logits_NN), device=logits_NN.device)
    row_loss = cross_entropy(logits_NN, targets)
    column_loss = cross_entropy(logits_NN.T, targets)
    return row_loss + column_loss


@torch.no_grad()
def match_accuracy(logits_NN: Tensor) -> Tensor:
    """Returns the share of rows and columns whose largest value lies on the diagonal."""
    own = torch.arange(len(logits_NN), device=logits_NN.device)
    row_hits = logits_NN.argmax(1) == own
    column_hits = logits_NN.argmax(0) == own
    hits = torch.cat([row_hits, column_hits])
    return hits.to(logits_NN.dtype).mean()


def _require_finite(output: LossOutput, batch: dict[str, Any]) -> None:
    """Raises NonFiniteLossError unless every term is finite.

    The host waits for the device once if all terms are finite.
    """
    values = torch.stack([term.detach() for term in output.terms.values()])
    if values.isfinite().all():
        return
    shapes = []
    bad_inputs = []
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            shapes.append(f"{key} {list(value.shape)}")
            if not value.isfinite().all():
                bad_inputs.append(key)
    if bad_inputs:
        names = ", ".join(bad_inputs)
        cause = (
            f"These inputs are already not finite: {names}; lower the learning rate, or the loss "
            "scale under fp16."
        )
    else:
        cause = (
            "The inputs are finite. Either a vector is zero, a clip has no real token, or all "
            "similarities in the batch are equal."
        )
    terms = [f"{name} is {term.item()}" for name, term in output.terms.items()]
    term_values = ", ".join(terms)
    input_shapes = ", ".join(shapes)
    message = f"loss: {term_values}, over a batch of {input_shapes}. {cause}"
    raise NonFiniteLossError(message, output)
