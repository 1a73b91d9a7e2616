"""Turns captions into word-piece ids with transformers' batched tokenizer.

Shapes: N captions, L kept word pieces of one (32).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.writer import MAX_CAPTION_IDS, PADDING

MAX_LETTERS = 96  # characters of a caption that are tokenised


class CaptionTokenizer:
    """A tokenizer of captions that does what the released preparation did.

    It takes the first 96 characters, adds no special tokens and keeps the first 32 word pieces.
    """

    def __init__(self, bert_name: str, use_fast: bool = True):
        """Loads the tokenizer. Raises what `load_tokenizer` raises."""
        self._tokenizer = load_tokenizer(bert_name, use_fast)
        self._backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if self._backend is not None:  # tokenizer.json may switch them on
            self._backend.no_truncation()
            self._backend.no_padding()

    def __call__(self, texts: Sequence[Any]) -> np.ndarray:
        """Returns the word-piece ids of every text, int32 [N, 32], padded with -1.

        Args:
            texts: one that is not a string has no ids.
        """
        rows_NL = np.full((len(texts), MAX_CAPTION_IDS), PADDING, dtype=np.int32)
        if texts:
            encoded = self._tokenizer(
                [_head(text) for text in texts],
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            for row_L, ids in zip(rows_NL, encoded["input_ids"], strict=True):
                kept = ids[:MAX_CAPTION_IDS]
                row_L[: len(kept)] = kept
        return rows_NL

    @property
    def fingerprint(self) -> str:
        """Hash of everything the ids depend on: the vocabulary and how texts are cut."""
        if self._backend is not None:
            definition = self._backend.to_str()
        else:
            parts = [type(self._tokenizer).__name__, self._tokenizer.get_vocab()]
            definition = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(f"{MAX_LETTERS} {definition}".encode()).hexdigest()


def _head(text: Any) -> str:
    """Returns the characters that are tokenised. The tokenizer refuses half a surrogate pair."""
    if not isinstance(text, str):
        return ""
    return text[:MAX_LETTERS].encode("utf-8", "replace").decode()
