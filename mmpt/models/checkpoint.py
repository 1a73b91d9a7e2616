"""Loading of checkpoints: without running code from the file, strictly, and with a report.

fairseq writes a dict whose `model` entry holds the weights under `mmmodel.`; a bare state dict is
read too. The few differences that are harmless stand in `checkpoint_keys.py`; any other is an error
that lists the keys.
"""

from __future__ import annotations

import difflib
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmpt.errors import CheckpointError
from mmpt.models.checkpoint_keys import Use, may_be_ignored, may_be_kept, present_name, reason_for
from mmpt.utils.checkpoint_file import load_checkpoint, read_checkpoint
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

MOST_LISTED = 8
TRAINING_ENTRIES = ("model", "optimizer_history", "extra_state")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """The use of every tensor of a checkpoint and of the model."""

    source: str
    loaded: tuple[str, ...]
    """Names in the model that got their values from the file."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Name in the file to name in the model."""
    ignored: dict[str, str] = field(default_factory=dict)
    """Name in the file to the reason why the model does not take it."""
    kept: dict[str, str] = field(default_factory=dict)
    """Name in the model to the reason why it keeps its own value."""
    cast: tuple[str, ...] = ()
    """Conversions of float type, such as `float16 to float32`."""

    def summary(self) -> str:
        """Returns the report as one line."""
        parts = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        if self.cast:
            parts.append(f"cast {', '.join(self.cast)}")
        if self.renamed:
            old, new = next(iter(self.renamed.items()))
            parts.append(f"{len(self.renamed)} renamed (as {old} to {new})")
        for verb, names in (("ignored", self.ignored), ("kept the model's own", self.kept)):
            if names:
                reasons = "; ".join(sorted(set(names.values())))
                parts.append(f"{verb} {', '.join(sorted(names))} ({reasons})")
        return ", ".join(parts)

    def log(self) -> None:
        """Say what was done."""
        logger.info("%s", self.summary())


def check_checkpoint(path: str | Path) -> dict[str, Any]:
    """Returns a checkpoint's entries, without reading the numbers of its tensors.

    They are mapped, which takes little memory and time, but a flipped bit among them is not found.
    Files in torch's format of before 1.6 cannot be mapped and are read whole.

    Raises:
        CheckpointError: the file is missing, cut short, no checkpoint, or holds code.
    """
    path = Path(path)
    return read_checkpoint(path, mapped=zipfile.is_zipfile(path))


def check_training_checkpoint(path: str | Path) -> None:
    """Checks that fairseq can start from a checkpoint: it is sound, and has fairseq's own entries.

    Raises:
        CheckpointError: as `check_checkpoint`, or it holds weights alone.
    """
    entries = check_checkpoint(path)
    if missing := [name for name in TRAINING_ENTRIES if name not in entries]:
        raise CheckpointError(
            f"{path}: training starts from a checkpoint as fairseq saves it, but this one has no "
            f"{', '.join(missing)}. Weights alone can be scored, not trained on; take the whole "
            "file."
        )


def check_optimizer_state(path: str | Path, trained: Sequence[torch.Tensor], *, flat: bool) -> None:
    """Checks, as far as possible, that an optimizer's state is of the parameters trained now.

    Args:
        path: a checkpoint as fairseq saves it; one without such a state is let pass.
        trained: the parameters.
        flat: fairseq makes one of all of them, as it does in float16.
    Raises:
        CheckpointError: other numbers of parameters, or as `check_checkpoint`.
    """
    state = check_checkpoint(path).get("last_optimizer_state")
    if not state:
        return
    saved = sum(len(group["params"]) for group in state["param_groups"])
    now = 1 if flat else len(trained)
    what = "tensors"
    if saved == now == 1:  # how large they are tells more
        entries = [value for entry in state["state"].values() for value in entry.values()]
        sizes = [value.numel() for value in entries if isinstance(value, torch.Tensor)]
        saved, what = max(sizes, default=0), "numbers"
        now = sum(parameter.numel() for parameter in trained)
    if saved != now:
        raise CheckpointError(
            f"{path}: the optimizer's state must be of the {now} {what} that train now, but is of "
            f"{saved}, so the run cannot go on. Set `model.layernorm_only`, "
            "`loss.learnable_temperature` and the precision (`fairseq.common.fp16`) as they were, "
            "or start another run from these weights (`fairseq.checkpoint.restore_file`, "
            "`reset_optimizer: true`, and another `save_dir`)."
        )


def load_weights(model: nn.Module, checkpoint: str | Path | Mapping[str, Any]) -> LoadReport:
    """Loads a checkpoint file (or what was read from one) for inference, strictly, in the model's
    dtype and device.

    Raises:
        CheckpointError: unreadable, or keys or shapes differ from the model's by more than is
            harmless.
    """
    source = str(checkpoint) if isinstance(checkpoint, str | Path) else "checkpoint"
    entries = load_checkpoint(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    state, report = adapt_state(entries, model, source)
    model.load_state_dict(state)
    report.log()
    return report


def adapt_state(
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    source: str = "checkpoint",
    use: Use = Use.INFERENCE,
) -> tuple[dict[str, torch.Tensor], LoadReport]:
    """Fits a checkpoint's weights to a model; neither is changed.

    Args:
        checkpoint: a whole checkpoint or a state dict, with or without the `mmmodel.` prefix.
        model: whose state dict (without prefix) gives the names, shapes and dtypes, and the values
            that are kept.
        source: what to call the checkpoint in messages.
        use: what the weights are for.
    Returns:
        A state dict with exactly the keys, shapes and dtypes of the model's, and the report.
    Raises:
        CheckpointError: keys or shapes differ by more than is harmless; all of them are listed.
    """
    own = model.state_dict()
    found, renamed = _rename(_unwrap(checkpoint, source), source)
    _require_fit(found, own, source, use)
    common = [name for name in own if name in found]
    casts = {(found[n].dtype, own[n].dtype) for n in common if found[n].dtype != own[n].dtype}
    state = {n: found[n].to(own[n].dtype) if n in found else own[n] for n in own}
    return state, LoadReport(
        source=source,
        loaded=tuple(common),
        renamed={old: new for old, new in renamed.items() if new in own},
        ignored={n: reason_for(n) for n in found if n not in own},
        kept={n: reason_for(n) for n in own if n not in found},
        cast=tuple(sorted(f"{old} to {new}".replace("torch.", "") for old, new in casts)),
    )


def _require_fit(
    found: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], source: str, use: Use
) -> None:
    """Raises CheckpointError that lists all keys and shapes of a file that a model cannot take."""
    extra = [name for name in found if name not in own]
    absent = [name for name in own if name not in found]
    shapes = [(n, tuple(own[n].shape), tuple(found[n].shape)) for n in own if n in found]
    problems = [
        *_listing(
            "in the model only", [_with_hint(n, extra) for n in absent if not may_be_kept(n, use)]
        ),
        *_listing(
            "in the file only", [_with_hint(n, absent) for n in extra if not may_be_ignored(n, use)]
        ),
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


def _unwrap(checkpoint: Mapping[str, Any], source: str) -> Mapping[str, torch.Tensor]:
    state: Any = checkpoint
    for entry in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(entry), Mapping):
            state = state[entry]
    if not state:
        raise CheckpointError(f"{source}: a checkpoint must hold weights, but this one is empty.")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{source}: a checkpoint must hold weights, bare or as its `model` entry, but "
                f"`{name}` is a {type(value).__name__}."
            )
    return state


def _rename(
    state: Mapping[str, torch.Tensor], source: str
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    found: dict[str, torch.Tensor] = {}
    renamed: dict[str, str] = {}
    for old, value in state.items():
        new = present_name(old)
        if new in found:
            raise CheckpointError(
                f"{source}: every tensor must be there once, but `{new}` comes under two names."
            )
        found[new] = value
        if new != old:
            renamed[old] = new
    return found, renamed


def _with_hint(name: str, others: list[str]) -> str:
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
