"""Reads a JSON object of millions of entries with json-stream, one entry at a time."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import json_stream
from json_stream.base import StreamingJSONObject

from mmpt.errors import DataError

ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
"""An escape sequence or a surrogate pair of two. Group 1 is half a pair without its other half."""
QUESTION_MARK = r"\u003f"  # as long as the half, so that positions in messages stay correct


def iter_object(blocks: Iterable[str], name: str) -> Iterator[tuple[str, Any]]:
    """Yields the (key, value) pairs of the JSON object whose text comes in `blocks`.

    Memory holds one value and one block. NaN and infinities are read, which Python writes and ijson
    refuses. Half a surrogate pair becomes `?`, as in `str.encode(errors="replace")`.

    Args:
        blocks: the text, cut anywhere.
        name: the file, for messages.
    Raises:
        DataError: not a JSON object, broken or cut off. Names the entry in front of the fault.
    """
    failures: list[BaseException] = []

    def source() -> Iterator[str]:
        try:
            yield from _without_half_pairs(blocks)
        except BaseException as err:  # json-stream only passes on its message
            failures.append(err)
            raise

    place = "before the first entry"
    try:
        documents = json_stream.load_many(source())
        entries = next(documents, None)
        if not isinstance(entries, StreamingJSONObject):
            raise DataError(f"{name}: must be a JSON object of videos, but holds something else.")
        for number, (key, value) in enumerate(entries.items(), start=1):
            place = f"in the value of {key!r} (entry {number})"
            yield key, json_stream.to_standard_types(value)
            place = f"after {key!r} (entry {number})"
        for _ in documents:
            raise ValueError("more text follows the object")
    except DataError:
        raise
    except (ValueError, OSError) as err:
        if failures:
            raise failures[0] from None
        raise DataError(
            f"{name}: must be a JSON object of videos, but is broken {place}: {err}. "
            "Make or download the file again."
        ) from None


def _without_half_pairs(blocks: Iterable[str]) -> Iterator[str]:
    """Yields the text with `?` for every half of a surrogate pair, which json-stream refuses."""
    rest = ""
    for block in chain(blocks, [""]):
        text = rest + block
        # No escape sequence holds a comma or a space, so a cut after one leaves all of them whole.
        cut = max(text.rfind(","), text.rfind(" ")) + 1 if block else len(text)
        if cut:
            yield ESCAPE.sub(lambda found: QUESTION_MARK if found[1] else found[0], text[:cut])
        rest = text[cut:]
