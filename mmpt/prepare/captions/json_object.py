"""Reads a JSON object with millions of entries, one entry at a time, with json-stream."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import json_stream
from json_stream.base import StreamingJSONObject

from mmpt.errors import DataError

ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL
)
"""An escape sequence, or two that form a surrogate pair. Group 1 is a lone surrogate."""
# As long as a surrogate, so that positions in messages stay correct.
QUESTION_MARK = r"\u003f"


def iter_object(blocks: Iterable[str], name: str) -> Iterator[tuple[str, Any]]:
    """Yields the (key, value) pairs of a JSON object.

    Memory holds one value and one block. NaN and infinities are allowed, because Python writes them
    (ijson rejects them). A lone surrogate becomes `?`, as in `str.encode(errors="replace")`.

    Args:
        blocks: the text of the object, cut anywhere.
        name: name of the file, for messages.
    Raises:
        DataError: the text is not a JSON object, or it is broken or cut off. The message names the
            last entry before the error.
    """
    failures: list[BaseException] = []

    def source() -> Iterator[str]:
        # json-stream turns an exception of its source into another one with the same message. The
        # original is kept here, so that it can be raised.
        try:
            yield from _replace_lone_surrogates(blocks)
        except BaseException as err:
            failures.append(err)
            raise

    place = "before the first entry"
    try:
        documents = json_stream.load_many(source())
        entries = next(documents, None)
        if not isinstance(entries, StreamingJSONObject):
            raise DataError(
                f"{name}: must be a JSON object of videos, but holds something else."
            )
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


def _replace_lone_surrogates(blocks: Iterable[str]) -> Iterator[str]:
    """Yields the text with `?` instead of lone surrogates, which json-stream rejects.

    A block may end within an escape sequence. Therefore the text is cut after its last comma or
    space, which no escape sequence contains, and the rest is kept for the next block.
    """
    rest = ""
    for block in chain(blocks, [""]):
        text = rest + block
        is_last = not block
        cut = len(text) if is_last else max(text.rfind(","), text.rfind(" ")) + 1
        if cut:
            yield ESCAPE.sub(
                lambda match: QUESTION_MARK if match[1] else match[0], text[:cut]
            )
        rest = text[cut:]
