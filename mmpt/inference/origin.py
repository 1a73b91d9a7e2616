"""Where a model is from: its checkpoint, the settings of its training run, and its model card."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmpt.batch import FEATURE_DIM
from mmpt.config import DatasetConfig, RetrievalConfig, RunConfig, load_config
from mmpt.errors import CheckpointError, ConfigError, DataError
from mmpt.shards.feature_info import FeatureInfo, find_feature_info
from mmpt.utils.hub_names import is_hub_name
from mmpt.utils.io import read_json
from mmpt.utils.log import get_logger
from mmpt.utils.run_loggers import RUN_METADATA
from mmpt.utils.validation import validate

logger = get_logger(__name__)

KEYS = ("task", "dataset", "model", "loss", *RetrievalConfig.model_fields)
"""Keys of a training YAML that are published."""
FAIRSEQ_GROUPS = ("dataset", "optimization")
"""Groups of fairseq's options that are published. The others describe the machine."""
S3D_NAME = "s3d"
PREFIX = re.compile(r"hf:|timm:((hf[-_]hub|local-dir):)?|")
"""Beginning of the name of an encoder, before its name on a hub or its path."""
FREE_NAME = re.compile(r"(?![A-Za-z]:[/\\])[^./~\\][^/\\]*(/[^/\\]+)?")
"""A name from `mmpt pack --encoder` that is not a path, such as `CLIP ViT-B/32`."""
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
    """Settings of the training run, without folders. None: unknown."""
    encoder: str | None = None
    """Name of the network that extracted the features, as in `features.json`. It may contain a
    folder of this machine; see `published_encoder`. None: unknown."""
    encoder_revision: str | None = None
    """Revision of this network, as in `features.json`. None: unknown."""
    normalised: bool | None = None
    """Whether the features were divided by their L2 norm. None: unknown."""
    is_unnamed: bool = False
    """The features have a `features.json`, but it does not name their encoder."""
    is_downloaded: bool = False
    """The model is from the Hugging Face Hub. The encoder that it names is not trusted."""
    card: str | None = None
    """The model card of the saved folder. None: there is none."""


def find_origin(config: RunConfig, checkpoint: Path) -> Origin:
    """Returns the origin of a model that is loaded from a checkpoint.

    Args:
        config: the YAML that the model is built from. If it is for an evaluation, the settings of
            the training run are read from the `config.yaml` next to the checkpoint.
    Raises:
        CheckpointError: the checkpoint was trained on features of another rate.
    """
    info = _read_trained_features(checkpoint.parent)
    if difference := _other_rate(checkpoint, info, config.dataset):
        raise CheckpointError(
            f"{difference}. Correct `dataset.feature_fps`, or use another checkpoint."
        )
    training = config
    yaml = checkpoint.parent / "config.yaml"
    if config.is_test and yaml.is_file():
        try:
            training = load_config(yaml, import_fairseq=False)
        except ConfigError as err:
            logger.warning("the settings of the training run are not known: %s", err)
    settings = None
    if not training.is_test:
        settings = published_settings(training)
        info = info or find_feature_info(training.dataset)
    origin = Origin(checkpoint=checkpoint, training=settings)
    return origin if info is None else _trained_on(info, origin)


def _trained_on(info: FeatureInfo, origin: Origin) -> Origin:
    """Returns an origin with what is known about the features of the training run."""
    return replace(
        origin,
        encoder=info.encoder,
        encoder_revision=info.revision,
        normalised=info.normalised,
        is_unnamed=info.encoder is None,
    )


def origin_of_saved(
    section: dict[str, Any], card: str | None, *, is_downloaded: bool
) -> Origin:
    """Returns the origin of a saved folder.

    Args:
        section: has the values of `saved_values`. Values of other types are ignored.
        card: the model card.
        is_downloaded: see `Origin`.
    """
    encoder = section.get("encoder")
    revision = section.get("encoder_revision")
    normalised = section.get("normalised")
    revision = revision if isinstance(revision, str) else None
    # Folders are left out again: the section may be from someone else.
    name = published_encoder(encoder, revision) if isinstance(encoder, str) else None
    return Origin(
        training=section.get("training"),
        encoder=name,
        encoder_revision=revision,
        normalised=normalised if isinstance(normalised, bool) else None,
        is_downloaded=is_downloaded,
        card=card,
    )


def saved_values(origin: Origin) -> dict[str, Any]:
    """Returns the known values that a saved folder records, without folders of this machine."""
    values = {
        "training": origin.training,
        "encoder": published_encoder(origin.encoder, origin.encoder_revision),
        "encoder_revision": origin.encoder_revision,
        "normalised": origin.normalised,
    }
    return {key: value for key, value in values.items() if value is not None}


def published_settings(config: RunConfig) -> dict[str, Any]:
    """Returns the settings of a training run that a model card shows.

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
    match = PREFIX.match(encoder)
    assert match is not None  # it also matches nothing
    prefix, model = match[0], encoder[match.end() :]
    # The revision of a timm encoder is also a hash, although its name is not a folder.
    is_folder = prefix == "hf:" and (revision or "").startswith(OF_FOLDER)
    is_name = is_hub_name(model) if prefix else FREE_NAME.fullmatch(model)
    if is_name and not is_folder and prefix != "timm:local-dir:":
        return encoder
    return f"{prefix}{_without_folders(model)}"


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
    """Returns how features differ from what a training run had. None: no known difference."""
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


def find_other_features(checkpoint: Path, dataset: DatasetConfig) -> str | None:
    """Returns how the features of a data set differ from those that a checkpoint was trained on.

    A checkpoint that records no features may be a released one, which was trained on S3D's. Returns
    None if there is no known difference, or if the widths of the features differ, which is reported
    when the weights are loaded.
    """
    trained = _read_trained_features(checkpoint.parent)
    found = find_feature_info(dataset)
    if found is None:
        return None
    if trained is not None:
        if trained.width != found.width:
            return None
        return find_mismatch(_trained_on(trained, Origin()), found)
    encoder = published_encoder(found.encoder, found.revision)
    if encoder is None or is_s3d(encoder) or found.width != FEATURE_DIM:
        return None
    return (
        f"the features are from {encoder} (features.json), but the checkpoint does not record the "
        "features that it was trained on. The released checkpoints take features from S3D only"
    )


def find_other_rate(checkpoint: Path, dataset: DatasetConfig) -> str | None:
    """Returns how `dataset.feature_fps` differs from the rate that a checkpoint was trained on.

    None: the rates are equal, or the checkpoint records no features.
    """
    trained = _read_trained_features(checkpoint.parent)
    return _other_rate(checkpoint, trained, dataset)


def _other_rate(
    checkpoint: Path, trained: FeatureInfo | None, dataset: DatasetConfig
) -> str | None:
    """The same as `find_other_rate`, for features that have been read."""
    if trained is None or trained.fps == dataset.feature_fps:
        return None
    return (
        f"{checkpoint}: was trained on features with {trained.fps:g} rows per second, but "
        f"`dataset.feature_fps` is {dataset.feature_fps:g}"
    )


def is_s3d(name: str) -> bool:
    """Returns whether a recorded name is a name of S3D, such as `s3d` or `S3D HowTo100M`."""
    if EXTRACTED.fullmatch(name):
        return name == S3D_NAME  # others are classes whose names start like this
    return name.lower().startswith(S3D_NAME)


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


def _read_trained_features(folder: Path) -> FeatureInfo | None:
    """Returns what a training run has recorded in its folder about its features. None: nothing."""
    path = folder / RUN_METADATA
    if not path.is_file():
        return None
    try:
        facts = validate(dict[str, Any], read_json(path), path, "")
        found: FeatureInfo | None = validate(
            FeatureInfo | None, facts.get("features"), path, ""
        )
    except DataError as err:
        logger.warning("the features of the training run are not known: %s", err)
        return None
    return found
