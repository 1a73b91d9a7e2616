"""Captions to word-piece ids: a word is tokenised the first time it is seen, and looked up from then on.

BERT's tokenizer cuts at spaces before anything else, so a caption's ids are those of its words, one after another. The
speech of a corpus repeats few words: a look-up costs a tenth of the tokenizer's time. A tokenizer that is not of that
kind gets whole captions instead.

Shapes: N captions, W words of all of them, K word pieces of all of them, L kept pieces of one (32).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.writer import MAX_CAPTION_IDS, PADDING

MAX_LETTERS = 96  # characters of a caption that are tokenised
MAX_WORDS = 1 << 17  # words kept, 15 MB; then the table begins anew
END = "\0"  # stands between captions: a character that BERT drops, so it has no pieces
END_WORD = 0


class CaptionTokenizer:
    """Tokenises captions as the released preparation does: the first 96 characters, no special tokens, 32 pieces."""

    def __init__(self, bert_name: str, use_fast: bool = True):
        """Load the tokenizer; errors as in `load_tokenizer`."""
        self._tokenizer = load_tokenizer(bert_name, use_fast)
        self._backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_truncation()  # a file may switch them on
            self._backend.no_padding()
        by_word = self._backend is not None and _cuts_at_spaces(json.loads(self._backend.to_str()))
        self._known = _Words(self._encode_word) if by_word else None

    def __call__(self, texts: Sequence[Any]) -> np.ndarray:
        """Return the word-piece ids of every text, int32 [N, 32], padded with -1; one that is no string has none."""
        heads = [text[:MAX_LETTERS] if isinstance(text, str) else "" for text in texts]
        if self._known is not None:
            if len(self._known) > MAX_WORDS:
                self._known = _Words(self._encode_word)
            return _to_rows(*_look_up(self._known, heads))
        ids = self._encode(heads)
        length_N = np.array([len(one) for one in ids], dtype=np.int64)
        return _to_rows(np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=length_N.sum()), length_N)

    @property
    def fingerprint(self) -> str:
        """Hash of what the ids depend on: the vocabulary and how texts are cut."""
        if self._backend is not None:
            definition = self._backend.to_str()
        else:
            definition = json.dumps([type(self._tokenizer).__name__, self._tokenizer.get_vocab()], sort_keys=True)
        return hashlib.sha256(f"{MAX_LETTERS} {definition}".encode()).hexdigest()

    def _encode_word(self, word: str) -> list[int]:
        """Return the ids of one word; a batch of few words would first have to wake the tokenizer's threads."""
        assert self._backend is not None
        try:
            return self._backend.encode(word, add_special_tokens=False).ids
        except TypeError:
            return self._encode([word])[0]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._backend is None:
            return self._tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        try:
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # half a surrogate pair, which JSON can write and UTF-8 cannot
            whole = [text.encode("utf-8", "replace").decode() for text in texts]
            encodings = self._backend.encode_batch_fast(whole, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


class _Words:
    """A number for every word seen so far, and its word pieces; END is word 0 and has none."""

    def __init__(self, encode: Callable[[str], list[int]]):
        self._encode = encode
        self._numbers = _Numbers()
        self._begins, self._lengths, self._pieces = _Growing(), _Growing(), _Growing()
        self.numbers([END])

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, words: list[str]) -> np.ndarray:
        """Return the number of each word, int64 [W]; new ones are tokenised."""
        number_W = np.fromiter(map(self._numbers.__getitem__, words), dtype=np.int64, count=len(words))
        new, self._numbers.new = self._numbers.new, []
        if new:
            ids = [self._encode(word) for word in new]
            lengths = np.array([len(one) for one in ids], dtype=np.int32)
            self._begins.extend(len(self._pieces) + np.cumsum(lengths) - lengths)
            self._lengths.extend(lengths)
            self._pieces.extend(np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=lengths.sum()))
        return number_W

    def pieces(self, word_W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pieces of words, one after another, int32 [K], and where each word's end, int64 [W]."""
        length_W = self._lengths.values.take(word_W)
        end_W = np.cumsum(length_W, dtype=np.int64)
        shift_W = self._begins.values.take(word_W) - end_W + length_W  # from places in the result to places here
        return self._pieces.values.take(np.repeat(shift_W, length_W) + np.arange(end_W[-1])), end_W


class _Numbers(dict[str, int]):
    """Word -> its number; one that is asked for first gets the next, and joins `new`."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        self.new.append(word)
        return number


class _Growing:
    """An int32 array that grows at its end."""

    def __init__(self) -> None:
        self._room = np.empty(1 << 12, dtype=np.int32)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def extend(self, values: np.ndarray) -> None:
        """Append values, int [n]."""
        end = self._size + len(values)
        if end > len(self._room):
            self._room = np.concatenate([self._room, np.empty(end, dtype=np.int32)])
        self._room[self._size : end] = values
        self._size = end

    @property
    def values(self) -> np.ndarray:
        """What is in it, int32."""
        return self._room[: self._size]


def _look_up(words: _Words, heads: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all texts, int32 [K], and how many each has, int64 [N]; words are those between spaces."""
    text = "".join([f"{head} {END} " for head in heads])
    if text.count(END) > len(heads):
        text = "".join([f"{head.replace(END, '')} {END} " for head in heads])
    word_W = words.numbers(text.split(" "))
    id_K, end_W = words.pieces(word_W)
    return id_K, np.diff(end_W[word_W == END_WORD], prepend=0)


def _to_rows(id_K: np.ndarray, length_N: np.ndarray) -> np.ndarray:
    """Return rows of 32, int32 [N, 32], of captions that lie one behind another and have `length_N` ids each."""
    rows_NL = np.full((len(length_N), MAX_CAPTION_IDS), PADDING, dtype=np.int32)
    if (length_N > MAX_CAPTION_IDS).any():
        begin_N = np.cumsum(length_N) - length_N
        id_K = id_K[np.arange(len(id_K)) - np.repeat(begin_N, length_N) < MAX_CAPTION_IDS]
    rows_NL[np.arange(MAX_CAPTION_IDS) < length_N[:, None]] = id_K
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
