"""Loading of checkpoints: without running code from the file, strictly, finite weights only, and
with a report.

fairseq writes a dict whose `model` entry holds the weights under `mmmodel.`; a bare state dict is
read too. `harmless` names the few differences that are; any other is an error that lists the keys.
"""

import difflib
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmpt.errors import CheckpointError
from mmpt.utils.checkpoint_file import load_checkpoint, require_finite
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

MOST_LISTED = 8
TRAINING_ENTRIES = ("model", "optimizer_history", "extra_state")
WRAPPER_PREFIX = "mmmodel."
DIVERGED = (
    "The training that wrote this file has diverged, or the file is damaged: take an earlier "
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
"""Old names of tensors (regular expressions) to present ones, applied in this order."""


class Use(Enum):
    """The use of a checkpoint, which decides how far its keys may differ from the model's."""

    INFERENCE = "inference"
    START = "start"
    """A training starts from its weights, with a fresh optimizer."""
    RESUME = "resume"
    """An interrupted training continues."""


def check_checkpoint(path: str | Path) -> None:
    """Checks that a checkpoint's weights can be read and are finite.

    They are mapped, which takes little memory, but a flipped bit among them is not found.

    Raises:
        CheckpointError: the file is missing, cut short, no checkpoint, or holds code, NaN or
            infinity.
    """
    _stored_weights(load_checkpoint(path, mapped=True), str(path))


def check_training_checkpoint(path: str | Path, *, optimizer: bool = False) -> None:
    """Checks that fairseq can start from a checkpoint: it is sound, and has fairseq's own entries.

    Args:
        optimizer: its optimizer's state will be used, too.
    Raises:
        CheckpointError: as `check_checkpoint`, or it holds weights alone.
    """
    entries = load_checkpoint(path, mapped=True)
    if missing := [name for name in TRAINING_ENTRIES if name not in entries]:
        raise CheckpointError(
            f"{path}: training starts from a checkpoint as fairseq saves it, but this one has no "
            f"{', '.join(missing)}. Weights alone can be scored, not trained on; take the whole "
            "file."
        )
    _stored_weights(entries, str(path))
    # A learnable temperature is the loss's.
    require_finite(entries.get("criterion") or {}, path, DIVERGED, what="the loss's weights")
    if optimizer and (state := entries.get("last_optimizer_state")):
        remedy = f"Take an earlier checkpoint, or {FRESH_OPTIMIZER}"
        for values in state["state"].values():
            require_finite(values, path, remedy, what="the optimizer's state")


def check_optimizer_state(path: str | Path, trained: Sequence[Tensor], *, flat: bool) -> None:
    """Checks, as far as possible, that an optimizer's state is of the parameters trained now.

    Args:
        path: a checkpoint as fairseq saves it; one without such a state is let pass.
        trained: the parameters.
        flat: fairseq makes one of all of them, as it does in float16.
    Raises:
        CheckpointError: other numbers of parameters, or the file cannot be read.
    """
    state = load_checkpoint(path, mapped=True).get("last_optimizer_state")
    if not state:
        return
    saved = sum(len(group["params"]) for group in state["param_groups"])
    now = 1 if flat else len(trained)
    what = "tensors"
    if saved == now == 1:  # how large they are tells more
        entries = [value for entry in state["state"].values() for value in entry.values()]
        sizes = [value.numel() for value in entries if isinstance(value, Tensor)]
        saved, what = max(sizes, default=0), "numbers"
        now = sum(parameter.numel() for parameter in trained)
    if saved != now:
        raise CheckpointError(
            f"{path}: the optimizer's state must be of the {now} {what} that train now, but is of "
            f"{saved}, so the run cannot go on. Set `model.layernorm_only`, "
            "`loss.learnable_temperature` and the precision (`fairseq.common.fp16`) as they were, "
            f"or {FRESH_OPTIMIZER}"
        )


def load_weights(model: nn.Module, checkpoint: str | Path | Mapping[str, Any]) -> None:
    """Loads a checkpoint file (or what was read from one) for inference, strictly, in the model's
    dtype and device.

    Raises:
        CheckpointError: unreadable, not finite, or keys or shapes differ from the model's by more
            than is harmless.
    """
    source = "checkpoint"
    if isinstance(checkpoint, str | Path):
        source, checkpoint = str(checkpoint), load_checkpoint(checkpoint)
    model.load_state_dict(adapt_state(checkpoint, model, source))


def harmless(name: str, use: Use, *, in_file: bool) -> str | None:
    """Returns why it is harmless that a key is on one side only, or None if it is not.

    A training may start with a fresh step classifier, which learns; scored as it is, it would make
    random numbers.

    Args:
        in_file: the file has it and the model does not, else the other way round.
    """
    if name.split(".")[-1] == "position_ids":
        return "a constant that newer transformers do not store"
    if name.startswith("video_encoder.classifier.") and (
        use is Use.START or (in_file and use is Use.INFERENCE)
    ):
        return "the step classifier, which only COIN models have"
    return None


def adapt_state(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    source: str = "checkpoint",
    use: Use = Use.INFERENCE,
) -> dict[str, Tensor]:
    """Fits a checkpoint's weights to a model; neither is changed.

    Logs how many tensors are loaded, and all that are renamed, cast, ignored or kept.

    Args:
        checkpoint: a whole checkpoint or a state dict, with or without the `mmmodel.` prefix.
        model: whose state dict (without prefix) gives the names, shapes and dtypes, and the values
            that are kept.
        source: what to call the checkpoint in messages.
        use: what the weights are for.
    Returns:
        A state dict with exactly the keys, shapes and dtypes of the model's.
    Raises:
        CheckpointError: NaN or infinity, or keys or shapes differ by more than is harmless; all of
            them are listed.
    """
    own = model.state_dict()
    found, renamed = _tensors(checkpoint, source)
    ignored = {n: harmless(n, use, in_file=True) for n in found if n not in own}
    kept = {n: harmless(n, use, in_file=False) for n in own if n not in found}
    common = [name for name in own if name in found]
    shapes = [(name, tuple(own[name].shape), tuple(found[name].shape)) for name in common]
    problems = [
        *_listing("in the model only", [_with_hint(n, ignored) for n in kept if not kept[n]]),
        *_listing("in the file only", [_with_hint(n, kept) for n in ignored if not ignored[n]]),
        *_listing(
            "of another shape",
            [f"`{n}` must be {ours}, but is {its}" for n, ours, its in shapes if ours != its],
        ),
    ]
    if problems:
        raise CheckpointError(
            "\n".join([f"{source}: the weights do not fit the model.", *problems])
            + "\nCompare `model.model_cls`, `model.num_hidden_video_layers` and "
            "`dataset.bert_name` with those of the YAML that the checkpoint was made by."
        )
    said = [f"{source}: {len(common)} tensors loaded"]
    casts = {
        f"{found[n].dtype} to {own[n].dtype}" for n in common if found[n].dtype != own[n].dtype
    }
    if casts:
        said.append(f"cast {', '.join(sorted(casts))}".replace("torch.", ""))
    if renamed:
        old, new = next(iter(renamed.items()))
        said.append(f"{len(renamed)} renamed (as {old} to {new})")
    for verb, names in (("ignored", ignored), ("kept the model's own", kept)):
        if names:
            reasons = "; ".join(sorted({str(reason) for reason in names.values()}))
            said.append(f"{verb} {', '.join(sorted(names))} ({reasons})")
    logger.info("%s", ", ".join(said))
    return {n: found[n].to(own[n].dtype) if n in found else own[n] for n in own}


def _tensors(
    checkpoint: Mapping[str, Any], source: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns a checkpoint's tensors by their present names, and old names to present ones."""
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
    """Returns a checkpoint's weights by the names that it gives them.

    Every way to load or to check towers comes through here.

    Raises:
        CheckpointError: there are none, or something else among them, or NaN or infinity.
    """
    state: Any = checkpoint
    for entry in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(entry), Mapping):
            state = state[entry]
    if not state:
        raise CheckpointError(f"{source}: a checkpoint must hold weights, but this one is empty.")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{source}: a checkpoint must hold weights, bare or as its `model` entry, but "
                f"`{name}` is a {type(value).__name__}."
            )
    require_finite(state, source, DIVERGED)
    return cast("Mapping[str, Tensor]", state)


def _with_hint(name: str, others: Collection[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1, cutoff=0.8)
    return f"`{name}` (near `{near[0]}`)" if near else f"`{name}`"


def _listing(what: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"    and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
    return [f"  {len(lines)} {what}:", *(f"    {line}" for line in lines[:MOST_LISTED]), *more]


def weights_fingerprint(module: nn.Module, trainable_only: bool = True) -> str:
    """Returns a SHA-256 over names, dtypes, shapes and bytes of the parameters, the same on every
    device.

    Args:
        trainable_only: leave out frozen parameters, which cannot tell two moments of one run apart.
    """
    digest = hashlib.sha256()
    parameters = [
        (n, p) for n, p in module.named_parameters() if p.requires_grad or not trainable_only
    ]
    assert parameters, "a fingerprint of no weights would fit every model"
    for name, parameter in parameters:
        values = parameter.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
