"""The BERT tokenizer of a run, loaded once per process: a folder with config.json and vocab.txt, or a hub name.

A hub name is looked up in the local cache first, so that a machine without a connection neither waits nor fails when
the files are there.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mmpt.errors import DataError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


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
        _check_folder(folder)
        return AutoTokenizer.from_pretrained(bert_name, use_fast=use_fast, local_files_only=True)
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


def _check_folder(folder: Path) -> None:
    vocabulary = ("vocab.txt", "tokenizer.json")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in vocabulary):
        missing.append("vocab.txt")
    if missing:
        what = " and ".join(missing)
        raise DataError(f"{folder}: a BERT folder must hold config.json and vocab.txt, but lacks {what}.")
