"""Reads the config and the weights of BERT, which `dataset.bert_name` names.

The name is a folder or a model on the Hugging Face hub.
"""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import BertConfig, BertModel

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.errors import CheckpointError, ConfigError
from mmpt.processors.tokenizer import first_line, read_folder_config
from mmpt.utils.checkpoint_file import require_finite
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

KEY = "dataset.bert_name"
WEIGHT_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
"""Names of weight files in a folder, in the order in which they are looked for."""


def read_bert_config(bert_name: str) -> BertConfig:
    """Returns the config of `bert_name`.

    Raises:
        ConfigError: it is the config of another kind of model, or its sizes are inconsistent.
        DataError: config.json is missing or damaged.
        CheckpointError: `bert_name` is not a folder, and the hub does not provide it.
    """
    try:
        if Path(bert_name).is_dir():
            entries = read_folder_config(Path(bert_name))
        else:
            entries, _ = BertConfig.get_config_dict(bert_name)
    except OSError as err:
        raise _unreachable_error(bert_name, err) from err
    kind = entries.get("model_type", "bert")
    if kind != "bert":
        problem = f"the towers are made of BERT, but {bert_name} is a `{kind}` model."
        raise ConfigError(KEY, [problem])
    try:
        config = BertConfig.from_dict(entries)
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads` "
                f"({config.num_attention_heads}), but is {config.hidden_size}"
            )
    except (StrictDataclassError, ValueError, TypeError, ZeroDivisionError) as err:
        reason = " ".join(str(err).split())
        problem = f"the config.json of {bert_name} is not BERT's: {reason}. Download it again."
        raise ConfigError(KEY, [problem]) from err
    return config


def find_size_problems(
    bert: BertConfig, dataset: DatasetConfig, model: ModelConfig
) -> list[str]:
    """Returns a sentence for each setting of a YAML that exceeds the size of BERT."""
    assert dataset.max_video_len is not None, "checked by the config"
    # (setting, its value, the limit, what the limit counts)
    num_layers = model.num_hidden_video_layers or 0
    num_positions = bert.max_position_embeddings
    limits = [
        ("model.num_hidden_video_layers", num_layers, bert.num_hidden_layers, "layers"),
        (
            "dataset.max_video_len + 2",
            dataset.max_video_len + 2,
            num_positions,
            "positions",
        ),
    ]
    if dataset.max_len is not None:
        setting = "dataset.max_len - dataset.max_video_len - 1"
        limits.append((setting, dataset.max_text_len - 1, num_positions, "positions"))
    problems = []
    for setting, value, most, kind in limits:
        if value > most:
            problems.append(
                f"`{setting}` must be at most the {most} {kind} of {dataset.bert_name}, but is "
                f"{value}."
            )
    return problems


def read_bert_weights(
    bert_name: str, config: BertConfig, *, random_init: bool
) -> BertModel | None:
    """Returns BERT with its published weights.

    Args:
        config: BERT's config, as `read_bert_config` returns it.
        random_init: return None for a folder that holds no weights.
    Raises:
        CheckpointError: the weights are missing, damaged, not finite or of another shape, or the
            hub does not provide them.
    """
    folder = Path(bert_name)
    files = [folder / name for name in WEIGHT_FILES]
    file = next(filter(Path.is_file, files), None)
    if folder.is_dir() and file is None:
        if not random_init:
            raise CheckpointError(
                f"`{KEY}`: the folder {folder} must hold weights "
                f"({' or '.join(WEIGHT_FILES[:2])}), but has none; put them there, or set "
                "`model.random_init: true` to start from random ones."
            )
        logger.warning(
            "%s holds no weights: both towers start from random ones (`model.random_init`)",
            folder,
        )
        return None
    try:
        bert, info = BertModel.from_pretrained(
            bert_name, config=config, output_loading_info=True
        )
    except (RuntimeError, ValueError) as err:
        # transformers' errors for weights of another shape.
        raise CheckpointError(
            f"`{KEY}`: the weights of {bert_name} do not fit its config.json: {err}"
        ) from err
    except Exception as err:
        # Damaged files: safetensors, torch and pickle have different errors.
        if file is None and isinstance(err, OSError):
            raise _unreachable_error(bert_name, err) from err
        message = (
            f"{file or bert_name}: damaged ({first_line(err)}); download it again."
        )
        raise CheckpointError(message) from err

    # The pooler may be missing, because it is never used.
    missing = sorted(
        key for key in info["missing_keys"] if not key.startswith("pooler.")
    )
    if missing:
        raise CheckpointError(
            f"`{KEY}`: the weights of {bert_name} must be a whole BERT, but {len(missing)} tensors "
            f"are missing, among them `{missing[0]}`."
        )
    require_finite(
        bert.state_dict(), file or bert_name, "Download it again, or use another BERT."
    )
    return bert


def _unreachable_error(bert_name: str, err: OSError) -> CheckpointError:
    return CheckpointError(
        f"`{KEY}`: {bert_name} is not a folder, and it cannot be downloaded from the Hugging Face "
        f"hub ({first_line(err)}). On a machine with network run `huggingface-cli download "
        f"{bert_name} --local-dir <folder>` and set `{KEY}` to that folder, or point HF_HOME to a "
        "cache that holds it."
    )
