"""Captions to word-piece ids: a word is tokenised the first time it is seen, and looked up from then on.

BERT's tokenizer cuts at spaces before anything else, so a caption's ids are those of its words, one after another. The
speech of a corpus repeats few words: a look-up costs a tenth of the tokenizer's time. A tokenizer that is not of that
kind gets whole captions instead.

Shapes: N captions, K word pieces of all of them, L kept pieces of one (32).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmpt.processors.shard_writer import MAX_CAPTION_IDS, PADDING
from mmpt.processors.tokenizer import load_tokenizer

MAX_LETTERS = 96  # characters of a caption that are tokenised
MAX_WORDS = 1 << 17  # words kept, 40 MB; then the table begins anew
END = "\0"  # stands between captions: a character that BERT drops
END_ID = -2


class CaptionTokenizer:
    """Tokenises captions as the released preparation does: the first 96 characters, no special tokens, 32 pieces."""

    def __init__(self, bert_name: str, use_fast: bool = True):
        """Load the tokenizer; errors as in `load_tokenizer`."""
        self._tokenizer = load_tokenizer(bert_name, use_fast)
        self._backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_truncation()  # a file may switch them on
            self._backend.no_padding()
        self._by_word = self._backend is not None and _cuts_at_spaces(json.loads(self._backend.to_str()))
        self._known = _Words(self._encode)

    def __call__(self, texts: Sequence[Any]) -> np.ndarray:
        """Return the word-piece ids of every text, int32 [N, 32], padded with -1; one that is no string has none."""
        heads = [text[:MAX_LETTERS] if isinstance(text, str) else "" for text in texts]
        if self._by_word:
            return _to_rows(self._look_up(heads), len(heads))
        return _to_rows(chain.from_iterable((*ids, END_ID) for ids in self._encode(heads)), len(heads))

    @property
    def fingerprint(self) -> str:
        """Hash of what the ids depend on: the vocabulary and how texts are cut."""
        if self._backend is not None:
            definition = self._backend.to_str()
        else:
            definition = json.dumps([type(self._tokenizer).__name__, self._tokenizer.get_vocab()], sort_keys=True)
        return hashlib.sha256(f"{MAX_LETTERS} {definition}".encode()).hexdigest()

    def _look_up(self, heads: list[str]) -> Iterable[int]:
        """Return the ids of all texts, each followed by END_ID; the words are those between spaces only."""
        text = "".join([f"{head} {END} " for head in heads])
        if text.count(END) > len(heads):
            text = "".join([f"{head.replace(END, '')} {END} " for head in heads])
        if len(self._known) > MAX_WORDS:
            self._known.clear()
        self._known[END] = (END_ID,)
        return chain.from_iterable(map(self._known.__getitem__, text.split(" ")))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._backend is None:
            return self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        try:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # half a surrogate pair, which JSON can write and UTF-8 cannot
            whole = [text.encode("utf-8", "replace").decode() for text in texts]
            encodings = self._backend.encode_batch_fast(whole, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


class _Words(dict[str, tuple[int, ...]]):
    """Word -> ids, which are found when they are asked for first; tuples, which the garbage collector passes by."""

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]):
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self[word] = tuple(self._encode([word])[0])
        return ids


def _to_rows(ids: Iterable[int], num_rows: int) -> np.ndarray:
    """Return rows of 32 from ids in which END_ID closes every row."""
    id_K = np.fromiter(ids, dtype=np.int32)
    end_N = np.flatnonzero(id_K == END_ID)
    assert len(end_N) == num_rows
    begin_N = np.concatenate([[0], end_N[:-1] + 1]) if num_rows else end_N
    column_L = np.arange(MAX_CAPTION_IDS)
    real_NL = column_L < (end_N - begin_N)[:, None]
    rows_NL = np.full((num_rows, MAX_CAPTION_IDS), PADDING, dtype=np.int32)
    rows_NL[real_NL] = id_K[(begin_N[:, None] + column_L)[real_NL]]
    return rows_NL


def _cuts_at_spaces(definition: dict[str, Any]) -> bool:
    """True for BERT's own cutting, which works word by word, without special tokens that hold a space."""
    parts = [definition.get(part) or {} for part in ("normalizer", "pre_tokenizer", "model")]
    added = definition.get("added_tokens") or []
    return (
        [part.get("type") for part in parts] == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        and parts[0]["clean_text"]
        and not any(" " in token["content"] or token["single_word"] for token in added)
    )
