"""Loads the BERT tokenizer of a run once per process, from a folder or the Hugging Face hub."""

import codecs
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field

from mmpt.errors import DataError, first_line
from mmpt.utils.hub_probe import load_from_hub
from mmpt.utils.io import read_lines
from mmpt.utils.validation import read_json_as


class _BertConfig(BaseModel, extra="allow"):
    """A config.json; transformers checks the other entries."""

    vocab_size: Annotated[int, Field(strict=True, ge=1)] = 30522


class SpecialTokens(NamedTuple):
    """The ids of BERT's special tokens, and the size of its vocabulary."""

    cls: int
    sep: int
    pad: int
    vocab_size: int


@lru_cache(maxsize=8)
def load_tokenizer(bert_name: str, use_fast: bool = True) -> Any:
    """Returns transformers' tokenizer for `bert_name`.

    Args:
        bert_name: a folder with config.json and vocab.txt (or tokenizer.json), or a name on the
            Hugging Face hub.
        use_fast: passed on to transformers.
    Raises:
        DataError: the folder lacks a file or holds a damaged one, or the hub cannot be reached and
            nothing is cached.
    """
    # Imported here because it takes seconds, and the tools for shards do not need it.
    from transformers import AutoTokenizer

    folder = Path(bert_name)
    if folder.is_dir():
        return _load_folder(folder, use_fast)
    load = partial(AutoTokenizer.from_pretrained, use_fast=use_fast)
    try:
        # A cache that lacks a file may also raise ValueError.
        return load_from_hub(bert_name, load, absent=(OSError, ValueError))
    except (OSError, ValueError) as err:
        raise DataError(
            f"`dataset.bert_name` is `{bert_name}`, which is neither a folder here nor in the "
            f"local cache, and the Hugging Face hub did not return it ({first_line(err)}). Check "
            "the name, run once with a connection, or name a folder with config.json and vocab.txt."
        ) from err


def _load_folder(folder: Path, use_fast: bool) -> Any:
    """Returns the tokenizer of a folder whose files fit each other; DataError if they do not."""
    from transformers import AutoTokenizer  # deferred, as above

    size = read_folder_config(folder).get("vocab_size")
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise DataError(
            f"{folder}: a BERT folder must hold vocab.txt, but does not. Download it again."
        )
    path = folder / "vocab.txt"
    more: dict[str, Any] = {}
    words = read_lines(path) if path.is_file() else []
    if words and path.read_bytes().startswith(codecs.BOM_UTF8):
        # transformers would take the byte order mark for a part of the first word piece.
        more["vocab"] = {word: number for number, word in enumerate(words)}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, use_fast=use_fast, local_files_only=True, **more
        )
    except Exception as err:  # the tokenizers library raises nothing more specific
        raise DataError(
            f"{folder}: holds no tokenizer that can be read: {first_line(err)}. Download it again."
        ) from err
    if path.is_file():
        names = ("cls_token", "sep_token", "pad_token", "unk_token")
        special = [getattr(tokenizer, name) for name in names]
        # transformers would add missing ones as new ids.
        if missing := [token for token in special if token not in words]:
            raise DataError(
                f"{path}: must hold the word piece {' and '.join(missing)}, but does not. Download "
                "it again."
            )
    if size is not None and size < len(tokenizer):
        raise DataError(
            f"{folder}/config.json: `vocab_size` must be at least the {len(tokenizer)} word pieces "
            f"of the vocabulary next to it, but is {size}. The two files belong to different "
            "models: download both again."
        )
    return tokenizer


def special_tokens(bert_name: str, use_fast: bool = True) -> SpecialTokens:
    """Returns the special ids of `bert_name` and the size of its vocabulary.

    Raises:
        DataError: as `load_tokenizer`, or a special token is missing.
    """
    tokenizer = load_tokenizer(bert_name, use_fast)
    ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    if None in ids:
        raise DataError(
            f"`dataset.bert_name` is `{bert_name}`, whose vocabulary must hold [CLS], [SEP] and "
            "[PAD], but lacks one. Name another BERT."
        )
    return SpecialTokens(*ids, vocab_size=len(tokenizer))


def read_folder_config(folder: Path) -> dict[str, Any]:
    """Returns the entries of a BERT folder's config.json.

    Raises:
        DataError: not a JSON mapping, or `vocab_size` is not a positive whole number.
    """
    config = read_json_as(folder / "config.json", _BertConfig, "Download it again.")
    return config.model_dump(exclude_unset=True)
