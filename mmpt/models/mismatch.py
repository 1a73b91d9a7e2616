"""Compares the tensors of a checkpoint with the tensors of a model, and lists the differences."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from torch import Tensor, nn

from mmpt.errors import CheckpointError

MAX_LISTED = 8
"""Largest number of keys that a message lists for one kind of problem."""
FIRST_LAYER = "video_encoder.videomlp.linear1"
"""The layer that takes the features. Its weight is [D, width of the features]."""


def check_fit(
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    only_in_model: Mapping[str, str | None],
    only_in_file: Mapping[str, str | None],
    source: str,
) -> None:
    """Raises CheckpointError, with all keys, if a checkpoint does not fit the model.

    Args:
        own: the state dict of the model.
        found: the tensors of the checkpoint.
        only_in_model, only_in_file: keys of one side, each with the reason why it is harmless, or
            None.
        source: name of the checkpoint, for messages.
    """
    misshapen = []
    for name, value in own.items():
        if name not in found:
            continue
        wanted = tuple(value.shape)
        shape = tuple(found[name].shape)
        if shape != wanted:
            misshapen.append(f"`{name}` must be {wanted}, but is {shape}")
    problems = [
        *_listing("in the model only", _unexplained(only_in_model, only_in_file)),
        *_listing("in the file only", _unexplained(only_in_file, only_in_model)),
        *_listing("of another shape", misshapen),
    ]
    if problems:
        lines = [
            f"{source}: the weights do not fit the model.",
            *problems,
            "Compare `model.model_cls`, `model.num_hidden_video_layers` and `dataset.bert_name` "
            "with the YAML that produced the checkpoint.",
        ]
        raise CheckpointError("\n".join(lines))


def replace_first_layer(
    model: nn.Module,
    own: Mapping[str, Tensor],
    found: dict[str, Tensor],
    source: str,
    *,
    is_start: bool,
) -> dict[str, str]:
    """Removes the first layer from `found` if it takes features of another width than the model.

    Args:
        own: the state dict of the model.
        found: the tensors of the checkpoint.
        source: name of the checkpoint, for messages.
        is_start: a new training run starts from the weights.
    Returns:
        The removed keys, each with the reason; none if the widths are equal.
    Raises:
        CheckpointError: the weights are not the start of a training run, or that run would not
            change the layer.
    """
    # The layer is removed only if the two weights differ in the width of the features alone. A new
    # training run may then start with a random first layer, but only if it trains this layer.
    name = f"{FIRST_LAYER}.weight"
    if name not in own or name not in found:
        return {}
    wanted = tuple(own[name].shape)
    shape = tuple(found[name].shape)
    if wanted == shape or wanted[0] != shape[0]:
        return {}
    found_width = shape[-1]
    what = f"features of width {found_width}, but `model.input_dim` is {wanted[-1]}"
    if not is_start:
        raise CheckpointError(
            f"{source}: takes {what}. Set `model.input_dim: {found_width}`, or use a checkpoint "
            "for your features. (A new training run may start from this one, with "
            "`reset_optimizer: true`.)"
        )
    if not model.get_parameter(name).requires_grad:
        raise CheckpointError(
            f"{source}: takes {what}, so `{FIRST_LAYER}` starts from random weights. It must be "
            "trained, but `model.layernorm_only` is true. Set it to false."
        )
    reason = f"initialised again, because the file takes {what}"
    removed = {}
    for name in (f"{FIRST_LAYER}.weight", f"{FIRST_LAYER}.bias"):
        removed[name] = reason
        found.pop(name, None)
    return removed


def _unexplained(
    reasons: Mapping[str, str | None], others: Collection[str]
) -> list[str]:
    """Returns the keys without a reason, each with the most similar key of the other side."""
    lines = []
    for name, reason in reasons.items():
        if reason is not None:
            continue
        line = f"`{name}`"
        for similar in get_close_matches(name, others, n=1, cutoff=0.8):
            line += f" (similar to `{similar}`)"
        lines.append(line)
    return lines


def _listing(kind: str, lines: list[str]) -> list[str]:
    """Returns the lines of a message about one kind of problem; none without problems."""
    if not lines:
        return []
    listing = [f"  {len(lines)} {kind}:"]
    for line in lines[:MAX_LISTED]:
        listing.append(f"    {line}")
    num_more = len(lines) - MAX_LISTED
    if num_more > 0:
        listing.append(f"    and {num_more} more")
    return listing
