"""What every loss is: an `nn.Module` from the batch and the model's output to named terms, checked
to be finite.

Legend (all of losses/): B clips, L clips per sequence, S = B / L sequences, D hidden size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmpt.config.schema import LossConfig
from mmpt.errors import ConfigError
from mmpt.losses.gather import join_batches
from mmpt.registry import Registry

LOG_SCALE = math.log(1 / 0.07)
"""theta: tau = exp(-theta) = 0.07."""
MAX_LOG_SCALE = 4.6052
"""theta is clamped to [0, this]: tau between 0.01 and 1."""


class NonFiniteLossError(ArithmeticError):
    """A term of the loss is nan or infinite; training on would destroy the weights."""


@dataclass(frozen=True)
class LossOutput:
    """What a loss returns."""

    terms: dict[str, Tensor]
    """Scalars with gradient, already weighted."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Scalars without gradient, for the log."""

    @property
    def total(self) -> Tensor:
        """The scalar to minimise: the sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


class Loss(nn.Module):
    """Base of losses. A subclass gives `compute(**batch)`, keyword arguments from the batch and the
    model's output.

    It computes in float32 (or float64, if that comes in) whatever the inputs or autocast are, holds
    no state but the optional `logit_scale`, and does the same in training and evaluation. Negatives
    are the local batch, as released, unless `gather_negatives` joins the batches of all processes
    in training (in evaluation they stay local, so that a validation loss does not depend on the
    number of processes).
    """

    contrasts: ClassVar[bool] = False
    """True for losses whose negatives are the other clips of the batch: what they need has a row
    per clip.
    """
    needs: tuple[str, ...] = ()
    """What `compute` reads of the model's output; a model says what it gives under `gives`."""
    uses_temperature: bool = False
    """Whether tau is in some term of the loss as configured."""
    rows_together: int = 1
    """How many neighbouring rows of a batch belong together: those of a sequence, where there are
    any."""
    is_idle: bool = False
    """Whether this process has no batch left for this step and runs one only to keep step with
    others, whose negatives it does not join and whose gradient is thrown away. Set by the task."""

    compute: Callable[..., LossOutput]

    def __init__(self, config: LossConfig):
        """Keep what `config`, the `loss` section, says and check it.

        Raises:
            ConfigError: naming every mistake in the section.
        """
        super().__init__()
        self.config = config
        assert self.needs or not self.contrasts, "what a loss contrasts must be named"
        problems = self.find_problems()
        if config.learnable_temperature and not self.uses_temperature:
            problems.append(
                "`loss.learnable_temperature` needs a loss with a temperature: the video-paragraph "
                "term, or `loss.clip_temperature: paper` in the Norton loss; "
                f"{type(self).__name__} as configured has none."
            )
        if config.gather_negatives and not self.contrasts:
            problems.append(
                f"`loss.gather_negatives` needs a loss with negatives; {type(self).__name__} has "
                "none."
            )
        if problems:
            raise ConfigError("loss", problems)
        if config.learnable_temperature:
            # One axis: fairseq reduces no bare scalar.
            self.logit_scale = nn.Parameter(torch.tensor([LOG_SCALE]))

    def find_problems(self) -> list[str]:
        """Returns the mistakes in `config`, one sentence each; a loss without checks has none."""
        return []

    def scale(self, like: Tensor) -> Tensor:
        """Return 1 / tau as a scalar of `like`'s type: a constant, or with gradient when it is
        learnable.
        """
        learnable = self.config.learnable_temperature
        theta = self.logit_scale[0].to(like.dtype) if learnable else like.new_full((), LOG_SCALE)
        return theta.clamp(0, MAX_LOG_SCALE).exp()

    def forward(self, **batch: Any) -> LossOutput:
        """Return the terms and metrics of a batch; keys that the loss does not read are ignored.

        A GPU is waited for once, to see that the terms are finite; once more where tokens are
        contrasted, for their numbers; and once where batches are joined.

        Raises:
            NonFiniteLossError: a term is nan or infinite.
            UserError: the batch does not fit the configuration.
        """
        if self.config.gather_negatives and self.training:
            batch = join_batches(batch, self.needs, self.rows_together, lends=not self.is_idle)
        device = next(value.device for value in batch.values() if isinstance(value, Tensor))
        with torch.autocast(device.type, enabled=False):
            output = self.compute(**batch)
        _require_finite(output, batch)
        return output


LOSSES: Registry[Loss] = Registry("loss", Loss, "mmpt.losses")


def symmetric_cross_entropy(logits_NN: Tensor) -> Tensor:
    """Return CE over rows plus CE over columns, each a mean, with the diagonal as targets. Not
    halved.
    """
    targets = torch.arange(len(logits_NN), device=logits_NN.device)
    return cross_entropy(logits_NN, targets) + cross_entropy(logits_NN.T, targets)


@torch.no_grad()
def match_accuracy(logits_NN: Tensor) -> Tensor:
    """Return the share of rows and columns whose own counterpart (the diagonal) scores highest,
    mean of the two.
    """
    own = torch.arange(len(logits_NN), device=logits_NN.device)
    rows, columns = logits_NN.argmax(1) == own, logits_NN.argmax(0) == own
    return torch.cat([rows, columns]).to(logits_NN.dtype).mean()


def _require_finite(output: LossOutput, batch: dict[str, Any]) -> None:
    """Raise NonFiniteLossError unless every term is finite; one host synchronisation when all is
    well.
    """
    values = torch.stack([term.detach() for term in output.terms.values()])
    if bool(torch.isfinite(values).all()):
        return
    terms = [f"{name} is {term.item()}" for name, term in output.terms.items()]
    shapes, bad_inputs = [], []
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            shapes.append(f"{key} {list(value.shape)}")
            if not bool(torch.isfinite(value).all()):
                bad_inputs.append(key)
    cause = (
        "The inputs are finite, so there is a zero vector, a clip without a real token, or no "
        "contrast at all."
    )
    if bad_inputs:
        cause = (
            f"Not finite already: {', '.join(bad_inputs)}; lower the learning rate, or the loss "
            "scale under fp16."
        )
    raise NonFiniteLossError(
        f"loss: {', '.join(terms)}, over a batch of {', '.join(shapes)}. {cause}"
    )
