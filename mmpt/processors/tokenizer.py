"""The BERT tokenizer of a run, loaded once per process: a folder with config.json and vocab.txt, or a hub name.

A hub name is looked up in the local cache first, so that a machine without a connection neither waits nor fails when
the files are there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.errors import DataError
from mmpt.utils.io import read_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size",
)  # fmt: skip
"""Sizes in BERT's config.json."""


class SpecialTokens(NamedTuple):
    """What an aligner needs to know of a tokenizer."""

    cls: int
    sep: int
    pad: int
    vocab_size: int


@lru_cache(maxsize=8)
def load_tokenizer(bert_name: str, use_fast: bool = True) -> Any:
    """Return transformers' tokenizer for `bert_name`.

    Args:
        bert_name: a folder with config.json and vocab.txt (or tokenizer.json), or a name on the Hugging Face hub.
    Raises:
        DataError: no such folder contents, or the hub cannot be reached and nothing is cached.
    """
    from transformers import AutoTokenizer  # deferred: takes seconds, and shard tools do not need it

    folder = Path(bert_name)
    if folder.is_dir():
        config = _check_folder(folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(bert_name, use_fast=use_fast, local_files_only=True)
        except Exception as err:  # the tokenizers library raises nothing more specific
            reason = (str(err).splitlines() or [type(err).__name__])[0]
            raise DataError(f"{folder}: holds no tokenizer that can be read: {reason}. Download it again.") from err
        _check_vocabulary(folder, config, tokenizer)
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(bert_name, use_fast=use_fast, local_files_only=True)
    except (OSError, ValueError):
        logger.info("tokenizer %s is not in the local cache; asking the Hugging Face hub", bert_name)
    try:
        return AutoTokenizer.from_pretrained(bert_name, use_fast=use_fast)
    except (OSError, ValueError) as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise DataError(
            f"`dataset.bert_name` is `{bert_name}`, which is neither a folder here nor in the local cache, and the "
            f"Hugging Face hub did not give it ({reason}). Check the name, run once with a connection, or give a "
            "folder holding config.json and vocab.txt."
        ) from err


def special_tokens(bert_name: str, use_fast: bool = True) -> SpecialTokens:
    """Return the special ids of `bert_name` and the size of its vocabulary."""
    tokenizer = load_tokenizer(bert_name, use_fast)
    ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    if None in ids:
        raise DataError(f"`dataset.bert_name` is `{bert_name}`, whose vocabulary lacks [CLS], [SEP] or [PAD].")
    return SpecialTokens(*ids, vocab_size=len(tokenizer))


def read_folder_config(folder: Path) -> dict[str, Any]:
    """Return the entries of a BERT folder's config.json.

    Raises:
        DataError: no JSON mapping, or a size that is no positive whole number, or heads that do not divide the width.
    """
    path = folder / "config.json"
    entries = read_json(path)
    if not isinstance(entries, dict):
        raise DataError(f"{path}: must hold a mapping, but holds a {type(entries).__name__}. Download it again.")
    for key in SIZES:
        value = entries.get(key, 1)
        if type(value) is not int or value < 1:
            raise DataError(f"{path}: `{key}` must be a whole number of at least 1, but is {value!r}.")
    width, heads = entries.get("hidden_size", 768), entries.get("num_attention_heads", 12)  # BERT's own defaults
    if width % heads:
        raise DataError(f"{path}: `hidden_size` must be a multiple of `num_attention_heads` ({heads}), but is {width}.")
    return entries


def _check_vocabulary(folder: Path, config: dict[str, Any], tokenizer: Any) -> None:
    """Refuse a vocabulary without special tokens (transformers would add new ones) or beyond config.json."""
    path = folder / "vocab.txt"
    if path.is_file():
        words = set(path.read_text(encoding="utf-8").splitlines())
        special = (tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token, tokenizer.unk_token)
        if missing := [token for token in special if token not in words]:
            raise DataError(
                f"{path}: must hold the word piece {' and '.join(missing)}, but does not. Download it again."
            )
    size = config.get("vocab_size")
    if size is not None and size < len(tokenizer):
        raise DataError(
            f"{folder}/config.json: `vocab_size` must be at least the {len(tokenizer)} word pieces of the vocabulary "
            f"beside it, but is {size}. The two files belong to different models: download both again."
        )


def _check_folder(folder: Path) -> dict[str, Any]:
    """Return the entries of config.json; DataError when it or the vocabulary is missing or damaged."""
    vocabulary = ("vocab.txt", "tokenizer.json")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in vocabulary):
        missing.append("vocab.txt")
    if missing:
        what = " and ".join(missing)
        raise DataError(f"{folder}: a BERT folder must hold config.json and vocab.txt, but lacks {what}.")
    return read_folder_config(folder)
