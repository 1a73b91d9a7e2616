"""Where a model is from: its checkpoint, the settings of its training, and its model card."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.config import RetrievalConfig, RunConfig, load_config
from mmpt.errors import ConfigError, DataError
from mmpt.shards.feature_info import FeatureInfo, read_feature_info
from mmpt.utils.hub_names import is_hub_name
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

KEYS = ("task", "dataset", "model", "loss", *RetrievalConfig.model_fields)
"""Keys of a training YAML that are published."""
FAIRSEQ_GROUPS = ("dataset", "optimization")
"""Groups of fairseq's options that are published. The others describe the machine."""
FREE_NAME = re.compile(r"[^./~\\][^/\\]*(/[^/\\]+)?")
"""A name from `mmpt pack --encoder` that is no path, such as `CLIP ViT-B/32`."""
OF_FOLDER = "sha256 "
"""Beginning of the revision of an `hf:` encoder that is a folder."""
EXTRACTED = re.compile(r"s3d|(hf|timm):.+|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
"""Names of encoders that `mmpt extract` takes. `mmpt pack` records any other names."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model is from."""

    checkpoint: Path | None = None
    """The checkpoint. None: the model was not loaded from one."""
    training: dict[str, Any] | None = None
    """Settings of the training, without folders. None: unknown."""
    encoder: str | None = None
    """Name of the network that extracted the features, as in `features.json`. It may contain a
    folder of this machine; see `published_encoder`. None: unknown."""
    encoder_revision: str | None = None
    """Revision of this network, as in `features.json`. None: unknown."""
    normalised: bool | None = None
    """Whether the features were divided by their L2 norm. None: unknown."""
    card: str | None = None
    """The model card of the saved folder. None: there is none."""


def find_origin(config: RunConfig, checkpoint: Path) -> Origin:
    """Returns the origin of a model that is loaded from a checkpoint.

    Args:
        config: the YAML that the model is built from. If it is for an evaluation, the settings of
            the training are read from the `config.yaml` next to the checkpoint.
    """
    training = config
    yaml = checkpoint.parent / "config.yaml"
    if config.is_test and yaml.is_file():
        try:
            training = load_config(yaml, import_fairseq=False)
        except ConfigError as err:
            logger.warning("the settings of the training are not known: %s", err)
    if training.is_test:
        return Origin(checkpoint=checkpoint)
    settings = published_settings(training)
    info = _find_features(training)
    if info is None:
        return Origin(checkpoint=checkpoint, training=settings)
    return Origin(
        checkpoint=checkpoint,
        training=settings,
        encoder=info.encoder,
        encoder_revision=info.revision,
        normalised=info.normalised,
    )


def published_settings(config: RunConfig) -> dict[str, Any]:
    """Returns the settings of a training that a model card shows.

    They contain no folders of this machine: only the last part of each path is kept.
    """
    settings = config.to_dict()
    published = _select(settings, KEYS)
    published["fairseq"] = _select(settings["fairseq"], FAIRSEQ_GROUPS)
    return _without_folders(published)


def published_encoder(encoder: str | None, revision: str | None) -> str | None:
    """Returns the name of an encoder without the folders of this machine.

    A model in a folder keeps the last part of its path. Names on the Hugging Face Hub are kept.

    Args:
        encoder: as in `features.json`, for example `hf:/data/models/clip`.
        revision: as in `features.json`. It shows that `hf:models/clip` is a folder.
    """
    if encoder is None:
        return None
    kind, colon, model = encoder.rpartition(":")
    # The revision of an encoder of timm is a hash, too, although its name is no folder.
    is_folder = kind == "hf" and (revision or "").startswith(OF_FOLDER)
    is_name = is_hub_name(model) if kind else FREE_NAME.fullmatch(model)
    if is_name and not is_folder:
        return encoder
    return f"{kind}{colon}{_without_folders(model)}"


def extract_command(
    encoder: str | None, *, fps: float, normalised: bool | None
) -> str | None:
    """Returns the command that makes features with an encoder. None: there is no such command.

    Args:
        fps: rows per second of video.
        normalised: whether rows are divided by their L2 norm. None: unknown.
    """
    if encoder is None or not EXTRACTED.fullmatch(encoder):
        return None
    command = (
        f"mmpt extract --vdir VIDEOS --fdir FEATURES --encoder {shlex.quote(encoder)}"
    )
    if fps != 1 and encoder.startswith(("hf:", "timm:")):
        command += f" --fps {fps:g}"
    if normalised is False:
        command += " --l2_normalize 0"
    return command


def find_mismatch(origin: Origin, info: FeatureInfo) -> str | None:
    """Returns how features differ from the features of the training. None: no known difference."""
    trained = published_encoder(origin.encoder, origin.encoder_revision)
    found = published_encoder(info.encoder, info.revision)
    revision = info.revision or ""
    is_same = revision.startswith(OF_FOLDER) and revision == origin.encoder_revision
    has_other_encoder = _differ(trained, found) and not is_same
    if not has_other_encoder and not _differ(origin.normalised, info.normalised):
        return None
    return (
        f"the features are from {_describe(found, info.normalised)} (features.json), but the "
        f"model was trained with features from {_describe(trained, origin.normalised)}"
    )


def _differ(one: object, other: object) -> bool:
    """Returns True if both values are known and differ."""
    return None not in (one, other) and one != other


def _describe(encoder: str | None, normalised: bool | None) -> str:
    """Returns the name of an encoder, and whether its features are normalised, for messages."""
    name = encoder or "an unknown encoder"
    if normalised is None:
        return name
    return f"{name}, {'normalised' if normalised else 'not normalised'}"


def _select(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Returns the entries with these names, in this order. Missing ones are left out."""
    return {name: values[name] for name in names if name in values}


def _without_folders(value: Any) -> Any:
    """Returns a copy of plain values in which paths are replaced by their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    if isinstance(value, str):
        *_, last = re.split(r"[/\\]", value.rstrip("/\\"))
        return last
    return value


def _find_features(config: RunConfig) -> FeatureInfo | None:
    """Returns `features.json` of a training's features, or None if it is missing or damaged."""
    folder = config.dataset.vfeat_dir
    if folder is None:
        return None
    try:
        return read_feature_info(folder)
    except DataError:
        return None
