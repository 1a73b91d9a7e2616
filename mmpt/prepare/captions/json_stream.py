"""Reads a JSON object of millions of entries one entry at a time: json's own scanner over a sliding window of text.

Chosen over ijson, the library for this: Python writes NaN for a missing caption and the captions of HowTo100M have
some, which ijson's parsers refuse; and json's scanner is faster (84 MB of captions in 1.0 s; ijson's C parser 1.8 s).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any

from mmpt.errors import DataError

MAX_ENTRY = 1 << 26  # characters of one entry; a broken file must not be taken into memory whole
MAX_TOKEN = 16  # an error this near to the end of the window may be a token cut in two
WHITESPACE = re.compile(r"[ \t\n\r]*")


def stream_object(blocks: Iterable[str], name: str) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of the JSON object whose text comes in `blocks`; what is held is one entry and one block.

    Args:
        name: what to call the text in messages.
    Raises:
        DataError: not a JSON object, broken, or cut off; names the character.
    """
    window = _Window(blocks, name)
    window.take("{", "must be a JSON object of videos")
    if window.peek() != "}":
        while True:
            if window.peek() != '"':
                raise window.error("a video id in quotes is expected")
            key = window.value()
            window.take(":", "`:` is expected behind a video id")
            yield key, window.value()
            if window.peek() != ",":
                break
            window.take(",", "")
    window.take("}", "`,` or `}` is expected behind a video")
    if window.peek():
        raise window.error("nothing may follow the object")


class _Window:
    """The part of the text that is being looked at."""

    def __init__(self, blocks: Iterable[str], name: str):
        self._blocks = iter(blocks)
        self._name = name
        self._text = ""
        self._at = 0  # in the window
        self._passed = 0  # characters dropped from the window
        self._decode = JSONDecoder().raw_decode

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        while True:
            match = WHITESPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or not self._grow():
                return self._text[self._at : self._at + 1]

    def take(self, wanted: str, complaint: str) -> None:
        """Step over the character `wanted`."""
        if self.peek() != wanted:
            raise self.error(complaint)
        self._at += 1

    def value(self) -> Any:
        """Return the next JSON value."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except JSONDecodeError as err:
                if not (self._may_be_cut(err) and self._grow()):
                    raise self.error(err.msg, err.pos) from None
            except RecursionError:
                raise self.error("lists are nested too deeply") from None
            except ValueError:
                raise self.error("no number may have thousands of digits") from None
            else:
                if end < len(self._text) or isinstance(value, str | list | dict) or not self._grow():
                    self._at = end
                    return value

    def error(self, complaint: str, at: int | None = None) -> DataError:
        """Return what is wrong at `at` (a place in the window), or here."""
        place = self._passed + (self._at if at is None else at)
        found = repr(self._text[self._at : self._at + 20]) if at is None else "the text is broken or cut off"
        return DataError(
            f"{self._name}: {complaint} at character {place}, but {'it reads ' if at is None else ''}"
            f"{found}. Make or download the file again."
        )

    def _may_be_cut(self, err: JSONDecodeError) -> bool:
        near = err.pos + MAX_TOKEN >= len(self._text) or err.msg.startswith("Unterminated string")
        return near and len(self._text) - self._at < MAX_ENTRY

    def _grow(self) -> bool:
        """Drop what is done and at least double the rest (long entries are not scanned often); False at the end."""
        rest = self._text[self._at :]
        wanted, parts, length = 2 * len(rest), [rest], len(rest)
        for block in self._blocks:
            parts.append(block)
            length += len(block)
            if block and length >= wanted:
                break
        if length == len(rest):
            return False
        self._passed += self._at
        self._text, self._at = "".join(parts), 0
        return True
