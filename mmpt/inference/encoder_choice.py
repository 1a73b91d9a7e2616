"""Decides which encoder turns frames into the features that a model takes, and opens it.

A user may name any encoder. Otherwise it is the encoder of the training run, in the revision that
the model records. A model that was downloaded is not trusted: it may only name S3D, a commit of a
model on the Hugging Face Hub, and a model of timm's own list. Its names are never used as paths.
"""

from __future__ import annotations

import logging
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.errors import DataError, HubError
from mmpt.inference import hub
from mmpt.inference.origin import (
    EXTRACTED,
    OF_FOLDER,
    S3D_NAME,
    Origin,
    is_s3d,
    published_encoder,
)
from mmpt.media.hub_model import PROCESSOR_FILES
from mmpt.utils.hub_names import is_hub_name
from mmpt.utils.io import read_json

if TYPE_CHECKING:
    # They need PyAV, which is not installed where only features are used.
    from mmpt.media.encoders import Encoder, NamedEncoder

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMM_NAME = re.compile(r"\w[\w.-]*")
"""A name of timm's own list. Other names contain a folder, or a repository of someone."""
FILES = (
    *("config.json", *PROCESSOR_FILES),
    *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
)
"""Patterns of the files of an encoder on the Hub."""
YOUR_COPY = (
    "Give the path of your copy: `encoder='hf:FOLDER'`, or `--encoder hf:FOLDER`"
)
OTHER_WEIGHTS = "pytorch_model*"
"""Pattern of weights in torch's format. They are only read for a model that is trusted."""
OTHER_SOURCES = {
    *("architecture", "backbone", "model_args", "transformers_weights"),
    *("quantization_config", "attn_implementation"),
}
"""Keys with which a config.json may name other files, models or code."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The encoder that turns frames into features."""

    encoder: str | Encoder
    """A value of `mmpt extract --encoder`, or an object with the methods of `Encoder`."""
    revision: str | None = None
    """The revision that its weights must have. None: any."""
    is_trusted: bool = True
    """Its name may be a path, and its files may have any format."""
    note: str = ""
    """Text to log when it is used, if any."""
    level: int = logging.INFO
    """The level of the note."""


def choose_encoder(origin: Origin, chosen: str | Encoder | None) -> Choice:
    """Returns the encoder for the frames of a model.

    Args:
        origin: where the model is from.
        chosen: the encoder that the user has named, if any.
    Raises:
        DataError: the encoder of the training run must not be loaded unless the user names it. The
            message is the reason, without the model.
    """
    if chosen is not None:
        return Choice(encoder=chosen)
    name = origin.encoder
    if name is None:
        is_doubtful = origin.is_unnamed or origin.is_downloaded
        return Choice(
            encoder=S3D_NAME,
            note="frames are encoded with S3D, because the model does not record the encoder that "
            "it was trained with. If it was another one, scores are meaningless; name it with "
            "`encoder` or `--encoder`.",
            level=logging.WARNING if is_doubtful else logging.INFO,
        )
    if is_s3d(name):
        return Choice(encoder=S3D_NAME)
    reason = _refusal_reason(name, origin)
    if reason is not None:
        raise DataError(reason)
    return Choice(
        encoder=name,
        revision=origin.encoder_revision,
        is_trusted=not origin.is_downloaded,
        note=f"frames are encoded with {name}",
    )


def _refusal_reason(name: str, origin: Origin) -> str | None:
    """Returns why the encoder that a model records is not loaded. None: it may be loaded."""
    revision = origin.encoder_revision
    kind, _, source = name.partition(":")
    naming = f"if you name it: {_naming(name)}"
    if kind not in ("hf", "timm"):
        if EXTRACTED.fullmatch(name):
            return f"{name} is a class, whose code is only run {naming}"
        return f"{name!r} is not the name of an encoder that `mmpt extract` runs"
    if revision is None:
        return f"the revision of {name} is not recorded, so it is only loaded {naming}"
    if kind == "timm":
        if origin.is_downloaded and not TIMM_NAME.fullmatch(source):
            return f"the model was downloaded, and {name} is only loaded {naming}"
    elif revision.startswith(OF_FOLDER):
        if origin.is_downloaded:
            return f"{source} is a folder of its author. {YOUR_COPY}"
    elif not (COMMIT.fullmatch(revision) and is_hub_name(source)):
        return (
            f"{name} ({revision}) is neither a commit of a model on the Hugging Face Hub nor a "
            f"folder, so it is only loaded {naming}"
        )
    return None


def _naming(name: str) -> str:
    """Returns how a user names an encoder."""
    return f"`encoder={name!r}`, or `--encoder {shlex.quote(name)}`"


def find_difference(origin: Origin, name: str, revision: str | None) -> str | None:
    """Returns how an encoder may differ from the encoder of the training run. None: it does not.

    The revisions identify the weights. If one of them is unknown, the names are compared.

    Args:
        name, revision: the encoder that makes features of frames.
    """
    trained, wanted = origin.encoder, origin.encoder_revision
    if trained is None:
        return None
    names = (published_encoder(name, revision), published_encoder(trained, wanted))
    if None not in (revision, wanted):
        is_same = revision == wanted
    elif name == S3D_NAME:
        is_same = is_s3d(trained)  # few features of S3D have a revision
    else:
        is_same = names[0] == names[1] and wanted is not None
    if is_same:
        return None
    text = (
        f"frames are encoded with {name} ({revision or 'unknown revision'}), but the model was "
        f"trained with features of {trained} ({wanted or 'unknown revision'}). Scores are "
        "meaningless if they differ."
    )
    if name == trained and (revision or "").startswith(OF_FOLDER):
        source = name.partition(":")[2]
        if wanted is not None and COMMIT.fullmatch(wanted):
            text += f" The local folder {source} shadows the Hub model of that name."
    return text


def open_choice(choice: Choice, fps: float) -> NamedEncoder:
    """Opens an encoder other than S3D.

    Args:
        fps: rows per second, for the encoders that take any rate.
    Raises:
        UserError: it cannot be loaded, or has another revision than it must have.
    """
    # Deferred: it needs PyAV.
    from mmpt.media.encoders import HuggingFaceEncoder, NamedEncoder, open_encoder

    encoder, revision = choice.encoder, choice.revision
    if not isinstance(encoder, str):
        cls = type(encoder)
        return NamedEncoder(f"{cls.__module__}.{cls.__qualname__}", None, encoder)
    kind, _, source = encoder.partition(":")
    if kind == "hf" and revision is not None:
        if COMMIT.fullmatch(revision):
            try:
                folder = _download(source, revision, is_trusted=choice.is_trusted)
            except HubError as err:
                raise DataError(f"{err} {YOUR_COPY}") from err
            network = HuggingFaceEncoder(
                str(folder), fps, safetensors_only=not choice.is_trusted
            )
            return NamedEncoder(encoder, revision, network)
        if not Path(source).is_dir():
            raise DataError(f"the folder {source} does not exist here. {YOUR_COPY}")
    named = open_encoder(encoder, fps if kind in ("hf", "timm") else None)
    if revision not in (None, named.revision):
        raise DataError(
            f"the weights of {encoder} must be of revision {revision}, but are of "
            f"{named.revision or 'an unknown one'}. To use them anyway, name it: "
            f"{_naming(encoder)}"
        )
    return named


def _download(name: str, commit: str, *, is_trusted: bool) -> Path:
    """Downloads an encoder from the Hub, and returns its folder.

    A folder of this name in the current folder is not used.

    Raises:
        HubError: it cannot be downloaded.
        DataError: its config names other files or models, and the encoder is not trusted.
    """
    folder = hub.download(name, commit, FILES)
    if is_trusted:
        if not any(folder.glob("*.safetensors")):
            folder = hub.download(name, commit, (*FILES, OTHER_WEIGHTS))
        return folder
    path = folder / "config.json"
    named = OTHER_SOURCES & set(_used_keys(read_json(path))) if path.is_file() else ()
    if named:
        raise DataError(
            f"the config of hf:{name} has {', '.join(sorted(named))}, so it may load other files, "
            f"and is only loaded if you name it: {_naming(f'hf:{name}')}"
        )
    return folder


def _used_keys(config: Any) -> list[str]:
    """Returns the keys of a config and of the configs in it whose values are set."""
    keys = []
    if isinstance(config, dict):
        for key, value in config.items():
            if value:
                keys += [key, *_used_keys(value)]
    return keys
