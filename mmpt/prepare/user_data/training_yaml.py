"""Writes the YAML of a training run on the user's own data."""

from pathlib import Path
from typing import Any

from mmpt.batch import FEATURE_DIM
from mmpt.config import RunConfig
from mmpt.config.yaml_files import to_yaml
from mmpt.errors import DataError
from mmpt.shards.feature_info import FeatureInfo
from mmpt.utils.io import atomic_write
from mmpt.utils.log import get_logger

MARK = "# Made by mmpt prepare"
"""First words of the YAMLs that are written here. Any other file is not overwritten."""
VIDEO_LAYERS = 6
"""Layers of the video tower in the recipes."""
logger = get_logger("prepare")


def check_replaceable(path: Path) -> None:
    """Raises DataError if `path` is a file that was not written here."""
    if path.exists() and not path.read_text("utf-8-sig", "replace").startswith(MARK):
        raise DataError(
            f"{path}: exists, and was not made by this command. Give another file with `--yaml`."
        )


def training_values(
    recipe: RunConfig,
    dataset: dict[str, Any],
    settings: dict[str, dict[str, Any]],
    info: FeatureInfo,
    *,
    save_dir: str,
    from_bert: bool,
) -> dict[str, Any]:
    """Returns the keys of the YAML.

    Args:
        recipe: the config that the YAML includes.
        dataset: the keys of `dataset` that name BERT, lists and shards.
        settings: the settings of `videos.fitting_settings`.
        info: describes the features.
        save_dir: folder of the training run.
        from_bert: start from BERT, whatever the recipe starts from.
    """
    checkpoint: dict[str, Any] = {"save_dir": save_dir}
    if from_bert:
        checkpoint["restore_file"] = None
    values: dict[str, Any] = {
        "includes": recipe.path,
        "dataset": dataset | settings["dataset"],
        "fairseq": {
            "common": settings["common"],
            "optimization": settings["optimization"],
            "checkpoint": checkpoint,
        },
        "task_type": "local_single",
        "eval": {"save_path": save_dir},
        **settings["retrieval"],
    }
    model_keys = _model_keys(dataset["bert_name"])
    if info.fps != 1:
        values["dataset"]["feature_fps"] = info.fps
    if info.width != FEATURE_DIM:
        model_keys["input_dim"] = info.width
    if info.width != FEATURE_DIM or info.encoder not in (None, "s3d"):
        # The checkpoint's first layer takes S3D features, so it must be trained.
        model_keys["layernorm_only"] = False
        # All parameters need the learning rate of VideoCLIP, as in how2_pretrain_clip.yaml.
        values["fairseq"]["optimization"]["lr"] = [5e-5]
    if model_keys:
        values["model"] = model_keys
    return values


def write_training(path: Path, content: str, values: dict[str, Any]) -> None:
    """Writes the YAML.

    Args:
        content: the data, such as "8 training and 2 validation videos".
        values: the keys, from `training_values`.
    """
    save_dir = values["eval"]["save_path"]
    header = f"""\
{MARK}: {content}.
# Running it again overwrites this file. Put changes into a YAML that `includes` it.
#
# Run:   mmpt train {path} --jobtype local_single
# Makes: {save_dir}/checkpoint_best.pt

"""
    with atomic_write(path) as file:
        file.write(header + to_yaml(values))


def _model_keys(bert_name: str) -> dict[str, Any]:
    """Returns the keys of `model` that a BERT with few layers or without weights needs."""
    folder = Path(bert_name)
    if not folder.is_dir():
        return {}
    # Deferred: takes seconds, and mistakes in the arguments are found before.
    from mmpt.models.bert import WEIGHT_FILES, read_bert_config

    keys: dict[str, Any] = {}
    num_layers = read_bert_config(bert_name).num_hidden_layers
    if num_layers < VIDEO_LAYERS:
        keys["num_hidden_video_layers"] = num_layers
    has_weights = any((folder / name).is_file() for name in WEIGHT_FILES)
    if not has_weights:
        logger.warning("%s holds no weights: the YAML says `random_init: true`", folder)
        keys["random_init"] = True
    return keys
