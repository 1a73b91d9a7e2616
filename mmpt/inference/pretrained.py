"""Loads and saves trained models.

A model is loaded from a YAML, a run's folder, a checkpoint, a saved folder or the Hugging Face
Hub. A saved folder holds `model.safetensors`, the tokenizer's files, a model card and a
`config.json`. This is BERT's config with an additional section `mmpt`, so the folder can also be
used as `bert_name`. The section holds a fingerprint of the weights.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mmpt.config import DatasetConfig, ModelConfig, RunConfig, load_config
from mmpt.config.sections import config_of
from mmpt.config.yaml_files import YAML_SUFFIXES
from mmpt.errors import CheckpointError, ConfigError, HubError
from mmpt.inference import hub
from mmpt.inference.model_card import CARD_NAME, read_card, write_card
from mmpt.inference.origin import (
    Origin,
    find_origin,
    origin_of_saved,
    saved_values,
)
from mmpt.models.bert import read_bert_config
from mmpt.models.checkpoint import adapt_state, load_weights
from mmpt.models.mmfusion import MODELS, MMFusionSeparate
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.utils.artefact import weights_fingerprint
from mmpt.utils.hub_names import is_hub_name
from mmpt.utils.io import atomic_write, read_json, write_json

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
FILES = ("*.json", "*.txt", WEIGHTS_NAME, CARD_NAME)
"""Patterns of the files of a saved folder. Other files are not downloaded."""
SECTION = "mmpt"
FORMAT = 1
FILE_SUFFIXES = (*YAML_SUFFIXES, ".pt", ".safetensors")
DATASET_KEYS = {"feature_fps", "max_video_len", "max_len", "use_fast"}
"""Keys of `dataset:` that a saved model needs; `bert_name` is the folder itself."""
MODEL_KEYS = {
    *("model_cls", "mm_encoder_cls", "video_encoder_cls", "text_encoder_cls"),
    *("input_dim", "num_hidden_video_layers", "packed", "compile"),
}
"""Shared keys of `model:` that a saved model needs. Folders of older versions may have other keys,
which are ignored."""

AGAIN = "copy or download the whole folder again."

Pretrained = tuple[MMFusionSeparate, DatasetConfig, ModelConfig, Origin]
"""A model with its weights, in eval mode on the CPU, the configuration it was built with, and where
it is from."""


def read_pretrained(
    source: str | Path,
    checkpoint: str,
    revision: str | None = None,
    bert_name: str | None = None,
) -> Pretrained:
    """Returns the model that `source` names, as described in `MMPTModel.from_pretrained`.

    Args:
        revision: branch, tag or commit on the Hugging Face Hub. `source` is then a name there.
        bert_name: replaces `dataset.bert_name` of a YAML. A saved folder does not need it.
    Raises:
        ConfigError: there is a mistake in the YAML.
        CheckpointError: the source is missing or damaged, or holds weights of another model.
        HubError: it cannot be downloaded.
    """
    path = Path(source)
    if revision is not None:
        return _from_saved(_download(str(source), revision), trusted=False)
    if path.is_file() and path.suffix in YAML_SUFFIXES:
        config = load_config(path, import_fairseq=False)
        return _build(config, _find_checkpoint(config, checkpoint), bert_name)
    if path.is_file() and path.suffix == ".safetensors":
        return _from_saved(path.parent)
    if path.is_file():
        return _from_checkpoint(path, bert_name)
    if (path / CONFIG_NAME).is_file():
        return _from_saved(path)
    if (path / "config.yaml").is_file():
        return _from_checkpoint(path / checkpoint, bert_name)
    if path.is_dir():
        raise CheckpointError(
            f"{path}: must hold {CONFIG_NAME} and {WEIGHTS_NAME} (from save_pretrained) or a run's "
            "config.yaml and checkpoints, but holds neither."
        )
    is_repository = "/" in str(source) and is_hub_name(str(source))
    if is_repository and path.suffix not in FILE_SUFFIXES:
        return _from_saved(_download(str(source), None), trusted=False)
    raise CheckpointError(
        f"{source}: must be a YAML, a folder, a checkpoint or a hub name `owner/model`, but there "
        "is no such file."
    )


def _find_checkpoint(config: RunConfig, checkpoint: str) -> Path:
    """Returns the path of a checkpoint.

    A file name is looked up in `eval.save_path`, then in the folders of the checkpoints that the
    YAML names, then in `save_dir` if the YAML is for a training run.

    Args:
        checkpoint: a file name, or a path, which is returned unchanged.
    Raises:
        CheckpointError: the file is in none of these folders.
    """
    if Path(checkpoint).name != checkpoint:
        return Path(checkpoint)
    folders: list[str | Path] = []
    if config.eval.save_path:
        folders.append(config.eval.save_path)
    for path in reversed(config.checkpoint_paths):
        folders.append(Path(path).parent)
    if not config.is_test and config.save_dir:
        folders.append(config.save_dir)
    tried = []
    for folder in folders:
        file = Path(folder) / checkpoint
        if file.is_file():
            return file
        if str(file) not in tried:
            tried.append(str(file))
    looked_for = ", ".join(tried) or "nowhere, as the YAML names no folder"
    raise CheckpointError(
        f"{config.path}: the checkpoint {checkpoint} must be in `eval.save_path`, but is not "
        f"(looked for {looked_for}). Train or download it, or give its path as `checkpoint`."
    )


def _from_checkpoint(path: Path, bert_name: str | None) -> Pretrained:
    yaml = path.parent / "config.yaml"
    if not yaml.is_file():
        raise CheckpointError(
            f"{path}: needs the YAML it was trained with, but there is no config.yaml next to it. "
            "Give the YAML as the source and this file as `checkpoint`."
        )
    return _build(load_config(yaml, import_fairseq=False), path, bert_name)


def _build(config: RunConfig, checkpoint: Path, bert_name: str | None) -> Pretrained:
    """Builds the model of a YAML with the weights of a checkpoint.

    Args:
        bert_name: replaces that of the YAML, if it is given.
    Raises:
        CheckpointError: the folder of BERT is missing, or the weights do not fit.
    """
    dataset = config.dataset
    if bert_name is not None:
        dataset = dataset.model_copy(update={"bert_name": bert_name})
    _check_bert(config.path, dataset.bert_name or "")
    name = config.model.model_cls or ""
    model_cls = MODELS.get(name, "model.model_cls")
    fusion = model_cls.from_config(dataset, config.model, pretrained=False)
    load_weights(fusion, checkpoint)
    origin = find_origin(config, checkpoint)
    return fusion.eval(), dataset, config.model, origin


def _check_bert(yaml: str | Path | None, bert_name: str) -> None:
    """Raises CheckpointError if `dataset.bert_name` is a path, and there is no such folder."""
    if not bert_name or is_hub_name(bert_name) or Path(bert_name).is_dir():
        return
    remedy = "Correct it"
    if not Path(bert_name).is_absolute():
        remedy = (
            f"It is relative, and the current folder is {Path.cwd()}. Run the command in the "
            "folder in which the training run was started"
        )
    raise CheckpointError(
        f"{yaml}: `dataset.bert_name` must be a folder or a name on the Hugging Face Hub, but "
        f"there is no folder {bert_name}. {remedy}, or give `--model` a folder that "
        "`save_pretrained` or `mmpt push --dryrun` wrote, which contains BERT's files."
    )


def _from_saved(folder: Path, *, trusted: bool = True) -> Pretrained:
    """Builds the model of a saved folder, in the dtype that it was saved in.

    Args:
        trusted: the config may name any class, which is imported. Otherwise only the classes of
            this package are allowed, and the encoder is only used if it is safe to load.
    Raises:
        CheckpointError: the folder is damaged or incomplete, of another format, or not trusted.
    """
    # Build the model.
    section, dataset, shared = _read_section(folder)
    name = shared.model_cls or ""
    if not trusted and name not in MODELS:
        raise CheckpointError(
            f"{folder}: this downloaded model runs code of its own (`{name}`); if you trust it, "
            "copy it to a folder and load that."
        )
    model_cls = MODELS.get(name, "model.model_cls")
    config_cls = config_of("model", model_cls)
    own_values = _select(section["model"], _own_keys(config_cls))
    model = config_cls(**dict(shared), **own_values)
    fusion = model_cls.from_config(dataset, model, pretrained=False)

    # Load the weights in their own dtype.
    path = folder / WEIGHTS_NAME
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{path}: missing, damaged or cut short ({err}); {AGAIN}"
        ) from err
    dtype = next(value.dtype for value in state.values() if value.is_floating_point())
    fusion = fusion.to(dtype)
    state = adapt_state(state, fusion, str(path))
    fusion.load_state_dict(state)
    if weights_fingerprint(fusion, trainable_only=False) != section.get("weights"):
        raise CheckpointError(
            f"{path}: must be the file that {CONFIG_NAME} was written with, but its content "
            f"differs; {AGAIN}"
        )
    card = read_card(folder / CARD_NAME)
    origin = origin_of_saved(section, card, is_downloaded=not trusted)
    return fusion.eval(), dataset, model, origin


def _read_section(folder: Path) -> tuple[dict[str, Any], DatasetConfig, ModelConfig]:
    """Reads the section of a saved folder's config.

    Returns:
        The whole section, and the configuration in it. The latter has only the shared keys of the
        model, because the others depend on its class.
    Raises:
        CheckpointError: the config is missing or damaged, or of another format.
    """
    path = folder / CONFIG_NAME
    try:
        section = read_json(path)[SECTION]
        if section["format"] != FORMAT:
            raise ValueError(f"it is of format {section['format']}, not {FORMAT}")
        dataset_values = _select(section["dataset"], DATASET_KEYS)
        model_values = _select(section["model"], MODEL_KEYS)
        dataset = DatasetConfig(**dataset_values, bert_name=str(folder))
        model = ModelConfig(**model_values)
    except (TypeError, KeyError, AttributeError, ValueError) as err:
        reason = f"{type(err).__name__}: {err}"
        raise CheckpointError(
            f"{path}: must have a section `{SECTION}` as this version's save_pretrained writes it "
            f"({reason}); save the model again, or {AGAIN}"
        ) from err
    return section, dataset, model


def _select(values: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    """Returns the entries of `values` whose key is one of `keys`."""
    return {key: values[key] for key in values.keys() & keys}


def _own_keys(config_cls: type[ModelConfig]) -> set[str]:
    """Returns the keys that a model's class declares in addition to the shared ones."""
    return config_cls.model_fields.keys() - ModelConfig.model_fields.keys()


def _download(repo_id: str, revision: str | None) -> Path:
    """Downloads a saved folder from the Hugging Face Hub, and returns its local path.

    Raises:
        HubError: the repository cannot be read, or does not hold a saved folder.
    """
    # Download the config first, so that other repositories are refused before their weights are
    # downloaded.
    folder = hub.download(repo_id, revision, [CONFIG_NAME])
    config = folder / CONFIG_NAME
    values = read_json(config) if config.is_file() else None
    if not isinstance(values, dict) or SECTION not in values:
        raise HubError(
            f"{repo_id}: must be a repository with a model that `save_pretrained` or `mmpt push` "
            f"wrote, but has no {CONFIG_NAME} with a section `{SECTION}`. Correct the name."
        )
    # The folder's name is the commit.
    folder = hub.download(repo_id, folder.name, FILES)
    if not (folder / WEIGHTS_NAME).is_file():
        raise HubError(
            f"{repo_id}: must have the file {WEIGHTS_NAME}, but has none. Weights in other formats "
            "are not read, because they may contain code. Upload the model again (`mmpt push`)."
        )
    return folder


def write_pretrained(
    folder: str | Path,
    fusion: MMFusionSeparate,
    dataset: DatasetConfig,
    model: ModelConfig,
    origin: Origin,
    *,
    card: str,
    overwrite_card: bool,
) -> None:
    """Writes a folder that `read_pretrained` can load.

    An old config is removed first, and the new one is written last. A folder with a config is
    therefore complete.

    Args:
        folder: created if it is missing.
        fusion: the model.
        dataset, model: the configuration it was built with.
        origin: where it is from.
        card: the model card.
        overwrite_card: replace a card that a user has changed.
    Raises:
        ConfigError: `folder` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            "save_pretrained", [f"{folder} must be a folder, but is a file."]
        )
    assert dataset.bert_name
    config = read_bert_config(dataset.bert_name).to_dict()
    config.pop(SECTION, None)  # present if the model was loaded from a saved folder
    model_keys = MODEL_KEYS | _own_keys(type(model))
    config[SECTION] = {
        "format": FORMAT,
        "dataset": dataset.model_dump(include=DATASET_KEYS, exclude_none=True),
        "model": model.model_dump(include=model_keys, exclude_none=True),
        "weights": weights_fingerprint(fusion, trainable_only=False),
        **saved_values(origin),
    }
    tokenizer = load_tokenizer(dataset.bert_name, dataset.use_fast)
    state = {}
    for name, value in fusion.state_dict().items():
        state[name] = value.detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    write_card(folder, card, overwrite=overwrite_card)
    with atomic_write(folder / WEIGHTS_NAME, "wb") as file:
        file.write(save(state, metadata={"format": "pt"}))
    write_json(folder / CONFIG_NAME, config)
