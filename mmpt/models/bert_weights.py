"""BERT by `dataset.bert_name`, a hub name or a folder: its config and weights, or a message that
helps.
"""

from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import BertConfig, BertModel

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


def read_bert_config(bert_name: str) -> BertConfig:
    """Returns the config of `bert_name`.

    Raises:
        ConfigError: the config of another kind of model, or its sizes do not fit each other.
        DataError: config.json is missing or damaged.
        CheckpointError: neither a folder nor to be had from the hub.
    """
    try:
        if Path(bert_name).is_dir():
            entries = read_folder_config(Path(bert_name))
        else:
            entries, _ = BertConfig.get_config_dict(bert_name)
    except OSError as err:
        raise _unreachable(bert_name, err) from err
    if (kind := entries.get("model_type", "bert")) != "bert":
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
        problem = f"the config.json of {bert_name} is not BERT's: {' '.join(str(err).split())}."
        raise ConfigError(KEY, [problem + " Download it again."]) from err
    return config


def read_bert_weights(bert_name: str, config: BertConfig, *, random_init: bool) -> BertModel | None:
    """Returns BERT with its published weights, or None for a folder without weights when
    `random_init` allows that.

    Raises:
        CheckpointError: no weights, damaged ones, not finite or of another shape, or no access to
            the hub.
    """
    folder = Path(bert_name)
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if folder.is_dir() and file is None:
        if not random_init:
            raise CheckpointError(
                f"`{KEY}`: the folder {folder} must hold weights "
                f"({' or '.join(WEIGHT_FILES[:2])}), but has none; put them there, or set "
                "`model.random_init: true` to start from random ones."
            )
        logger.warning(
            "%s holds no weights: both towers start from random ones (`model.random_init`)", folder
        )
        return None
    try:
        bert, info = BertModel.from_pretrained(bert_name, config=config, output_loading_info=True)
    except (RuntimeError, ValueError) as err:  # how transformers reports weights of another shape
        raise CheckpointError(
            f"`{KEY}`: the weights of {bert_name} do not fit its config.json: {err}"
        ) from err
    except Exception as err:  # damaged files: safetensors, torch and pickle each raise their own
        if file is None and isinstance(err, OSError):
            raise _unreachable(bert_name, err) from err
        damaged = f"{file or bert_name}: damaged ({first_line(err)}); download it again."
        raise CheckpointError(damaged) from err
    # The pooler is never used.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise CheckpointError(
            f"`{KEY}`: the weights of {bert_name} must be a whole BERT, but {len(missing)} tensors "
            f"are missing, among them `{missing[0]}`."
        )
    require_finite(bert.state_dict(), file or bert_name, "Download it again, or take another BERT.")
    return bert


def _unreachable(bert_name: str, err: OSError) -> CheckpointError:
    return CheckpointError(
        f"`{KEY}`: {bert_name} is no folder here and cannot be had from the hub "
        f"({first_line(err)}). On a machine with network run `huggingface-cli download "
        f"{bert_name} --local-dir <folder>` and set `{KEY}` to that folder, or point HF_HOME to a "
        "cache that holds it."
    )
