"""Loads weights from checkpoints, strictly.

No code from the file is run, weights must be finite, and keys must match the model's. The few
differences that are allowed (`why_harmless`) are logged. Any other difference raises an error that
lists the keys.

A checkpoint of fairseq is a dict whose entry `model` holds the weights, with the prefix
`mmmodel.`. A bare state dict is accepted too.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from mmpt.errors import CheckpointError
from mmpt.models.mismatch import check_fit, replace_first_layer
from mmpt.utils.checkpoint_file import load_checkpoint, require_finite
from mmpt.utils.log import ON_SCREEN, get_logger

logger = get_logger(__name__)

TRAINING_ENTRIES = ("model", "optimizer_history", "extra_state")
"""Entries of a checkpoint that fairseq needs to start a training run from it."""
WRAPPER_PREFIX = "mmmodel."
DIVERGED = (
    "The training that wrote this file has diverged, or the file is damaged: use an earlier "
    "checkpoint, or copy or download this one again."
)
FRESH_OPTIMIZER = (
    "start another run from these weights (`fairseq.checkpoint.restore_file`, "
    "`reset_optimizer: true`, and another `save_dir`)."
)
RENAMED = (
    (rf"^{re.escape(WRAPPER_PREFIX)}", ""),
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),  # BERT converted from TensorFlow
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
)
"""Regular expressions for old names of tensors, and their replacements. All are applied, in this
order."""


class Use(Enum):
    """The purpose of loading a checkpoint. It decides which differences in the keys are allowed."""

    INFERENCE = "inference"
    """The model is evaluated."""
    START = "start"
    """A new training run starts from the weights, with a new optimizer."""
    RESUME = "resume"
    """An interrupted training continues."""


def check_checkpoint(path: str | Path) -> None:
    """Checks that the weights of a checkpoint can be read and are finite.

    The file is memory-mapped. That takes little memory, but checksums are not verified, so a
    flipped bit in the weights is not found.

    Raises:
        CheckpointError: the file is missing, truncated or not a checkpoint, or it holds code, NaN
            or infinity.
    """
    _stored_weights(load_checkpoint(path, mapped=True), str(path))


def check_training_checkpoint(path: str | Path, *, optimizer: bool = False) -> None:
    """Checks that fairseq can start a training run from a checkpoint.

    Its weights must be readable and finite, and it must have fairseq's own entries.

    Args:
        optimizer: also check the state of the optimizer.
    Raises:
        CheckpointError: as for `check_checkpoint`; the file holds only weights; or the loss's
            weights or the optimizer's state are not finite.
    """
    entries = load_checkpoint(path, mapped=True)
    missing = ", ".join(name for name in TRAINING_ENTRIES if name not in entries)
    if missing:
        raise CheckpointError(
            f"{path}: training starts from a checkpoint as fairseq saves it, but this one has no "
            f"{missing}. A file of weights alone can only be evaluated; use the whole checkpoint."
        )
    _stored_weights(entries, str(path))
    # The loss has weights if its temperature is learnable.
    require_finite(
        entries.get("criterion") or {}, path, DIVERGED, what="the loss's weights"
    )
    state = entries.get("last_optimizer_state")
    if optimizer and state:
        remedy = f"Use an earlier checkpoint, or {FRESH_OPTIMIZER}"
        for values in state["state"].values():
            require_finite(values, path, remedy, what="the optimizer's state")


def check_optimizer_state(
    path: str | Path, trained: Sequence[Tensor], *, flat: bool
) -> None:
    """Checks that a saved optimizer state fits the parameters that are trained now.

    The state holds no names, so only the number of tensors is compared. If the state is for a
    single tensor, the number of its values is compared.

    Args:
        path: a checkpoint of fairseq. One without an optimizer state passes.
        trained: the parameters that are trained now.
        flat: whether fairseq concatenates all parameters to one tensor, as it does in float16.
    Raises:
        CheckpointError: the numbers differ, or the file cannot be read.
    """
    state = load_checkpoint(path, mapped=True).get("last_optimizer_state")
    if not state:
        return
    unit = "tensors"
    num_saved = sum(len(group["params"]) for group in state["param_groups"])
    num_now = 1 if flat else len(trained)
    if num_saved == num_now == 1:
        # The largest tensors of the state (Adam's moments) have an entry for each value of the
        # parameter. The others, such as the step count, are scalars.
        unit = "numbers"
        num_saved = 0
        for entry in state["state"].values():
            for value in entry.values():
                if isinstance(value, Tensor):
                    num_saved = max(num_saved, value.numel())
        num_now = sum(parameter.numel() for parameter in trained)
    if num_saved != num_now:
        raise CheckpointError(
            f"{path}: the saved optimizer state is for {num_saved} {unit}, but {num_now} are "
            "trained now, so the run cannot continue. Set `model.layernorm_only`, "
            "`loss.learnable_temperature` and the precision (`fairseq.common.fp16`) as they "
            f"were, or {FRESH_OPTIMIZER}"
        )


def load_weights(model: nn.Module, checkpoint: str | Path | Mapping[str, Any]) -> None:
    """Loads weights into a model for inference, and converts them to its dtype and device.

    Args:
        model: changed in place.
        checkpoint: a file, or the content of one.
    Raises:
        CheckpointError: the file cannot be read, the weights are not finite, or keys or shapes
            differ from the model's in a way that is not harmless.
    """
    source = "checkpoint"
    if isinstance(checkpoint, str | Path):
        source, checkpoint = str(checkpoint), load_checkpoint(checkpoint)
    model.load_state_dict(adapt_state(checkpoint, model, source))


def why_harmless(name: str, use: Use, *, in_file: bool) -> str | None:
    """Returns why a key may be present on one side only, or None if it may not.

    A training run may start with a newly initialised step classifier, which it then trains. An
    evaluation may not, because its scores would be random.

    Args:
        name: the key.
        use: the purpose of the weights.
        in_file: True: only the file has the key. False: only the model has it.
    """
    if name.split(".")[-1] == "position_ids":
        return "a constant that newer transformers do not store"
    may_differ = use is Use.START or (in_file and use is Use.INFERENCE)
    if may_differ and name.startswith("video_encoder.classifier."):
        return "the step classifier, which only COIN models have"
    return None


def adapt_state(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    source: str = "checkpoint",
    use: Use = Use.INFERENCE,
) -> dict[str, Tensor]:
    """Returns a checkpoint's weights as a state dict that fits the model exactly.

    Logs the number of tensors, and which ones are renamed, cast or ignored, or keep the model's
    own values: at DEBUG for inference, at INFO for training. Neither the checkpoint nor the model
    is changed.

    Training may start from a checkpoint for features of another width. The layer that takes the
    features then keeps the model's own values.

    Args:
        checkpoint: a whole checkpoint or a state dict, with or without the `mmmodel.` prefix.
        model: the keys, shapes and dtypes of its state dict (without prefix) are required. Where
            an allowed key is missing in the checkpoint, the model's own value is returned.
        source: name of the checkpoint, for messages.
        use: the purpose of the weights.
    Returns:
        A state dict with exactly the keys, shapes and dtypes of the model's.
    Raises:
        CheckpointError: weights are not finite; keys or shapes differ in a way that is not harmless
            (the message lists all of them); or the first layer would be random and frozen.
    """
    own = model.state_dict()
    found, renamed = _current_tensors(checkpoint, source)
    is_start = use is Use.START
    replaced = replace_first_layer(model, own, found, source, is_start=is_start)
    only_in_file = [name for name in found if name not in own]
    only_in_model = [name for name in own if name not in found]
    ignored = {name: why_harmless(name, use, in_file=True) for name in only_in_file}
    kept = {name: why_harmless(name, use, in_file=False) for name in only_in_model}
    kept |= replaced
    check_fit(own, found, kept, ignored, source)

    # Take the tensors of the file in the dtypes of the model.
    state = {}
    casts = set()
    for name, value in own.items():
        if name in found:
            stored = found[name]
            value = stored.to(value.dtype)
            if stored.dtype != value.dtype:
                casts.add(f"{stored.dtype} to {value.dtype}".replace("torch.", ""))
        state[name] = value

    report = [f"{source}: {len(own) - len(kept)} tensors loaded"]
    if casts:
        report.append("cast " + ", ".join(sorted(casts)))
    if renamed:
        old, new = next(iter(renamed.items()))
        report.append(f"{len(renamed)} renamed (as {old} to {new})")
    for verb, reasons in (("ignored", ignored), ("kept the model's own", kept)):
        if reasons:
            names = ", ".join(sorted(reasons))
            distinct = sorted(set(map(str, reasons.values())))
            report.append(f"{verb} {names} ({'; '.join(distinct)})")
    # Everyone should see that a layer starts from random weights.
    where = ON_SCREEN if replaced else None
    level = logging.DEBUG if use is Use.INFERENCE else logging.INFO
    logger.log(level, "%s", ", ".join(report), extra=where)
    return state


def _current_tensors(
    checkpoint: Mapping[str, Any], source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns a checkpoint's tensors by their current names.

    Returns:
        The tensors, and the current name of each renamed one by its old name.
    """
    found: dict[str, Tensor] = {}
    renamed: dict[str, str] = {}
    for old, value in _stored_weights(checkpoint, source).items():
        new = old
        for pattern, replacement in RENAMED:
            new = re.sub(pattern, replacement, new)
        found[new] = value
        if new != old:
            renamed[old] = new
    return found, renamed


def _stored_weights(checkpoint: Mapping[str, Any], source: str) -> Mapping[str, Tensor]:
    """Returns a checkpoint's weights under the names in the file.

    All functions that load or check the weights of towers call this one.

    Raises:
        CheckpointError: there are no weights, an entry is not a tensor, or weights are not finite.
    """
    state: Any = checkpoint
    for entry in ("state_dict", "model"):
        inner = state.get(entry)
        if isinstance(inner, Mapping):
            state = inner
    if not state:
        raise CheckpointError(
            f"{source}: a checkpoint must hold weights, but this one is empty."
        )
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{source}: a checkpoint must hold weights, bare or as its `model` entry, but "
                f"`{name}` is a {type(value).__name__}."
            )
    require_finite(state, source, DIVERGED)
    return cast("Mapping[str, Tensor]", state)
