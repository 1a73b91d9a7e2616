"""The word-piece vocabulary of the demo corpus: special tokens where bert-base has them, pieces of
the corpus's words.

Rare-looking words are kept in two pieces on purpose (stem + ending, or long words cut in the
middle), so that the demo exercises sub-words; single letters make sure that any other text can be
spelled.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

# Ids of bert-base-uncased.
SPECIAL = {
    0: "[PAD]",
    100: "[UNK]",
    101: "[CLS]",
    102: "[SEP]",
    103: "[MASK]",
}
LONGEST_WHOLE_WORD = 8  # letters


def make_vocabulary(sentences: Iterable[str]) -> list[str]:
    """Return the pieces in id order: special and unused, punctuation, digits, letters, then words
    by alphabet.
    """
    words = sorted(
        {word for sentence in sentences for word in re.findall(r"[a-z]+", sentence.lower())}
    )
    whole, endings = set(), set()
    for word in words:
        stem, ending = _split(word, set(words))
        whole.add(stem)
        endings |= {f"##{ending}"} if ending else set()
    special = [SPECIAL.get(place, f"[unused{place - 1}]") for place in range(104)]
    single = [*string.punctuation, *string.digits, *string.ascii_lowercase]
    continued = [f"##{letter}" for letter in (*string.ascii_lowercase, *string.digits)]
    known = {*special, *single, *continued}
    return [*special, *single, *continued, *sorted(whole - known), *sorted(endings - known)]


def _split(word: str, words: set[str]) -> tuple[str, str]:
    """Return (stem, ending): at an ending whose stem is a word too, else in the middle of a long
    word, else whole.
    """
    cuts = [-4, -3] if word.endswith("ing") else [-2] if word.endswith("ly") else []
    for cut in cuts:
        if word[:cut] in words:
            return word[:cut], word[cut:]
    if len(word) > LONGEST_WHOLE_WORD:
        return word[: len(word) // 2], word[len(word) // 2 :]
    return word, ""
