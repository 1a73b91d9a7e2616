"""Tests that the streaming JSON reader gives the same values as json, for any block size."""

import json
import random
import tracemalloc
from itertools import chain

import pytest

from mmpt.errors import DataError
from mmpt.prepare.captions.json_object import iter_object

VALUE = {
    "v": {
        "text": ['a "quoted" } text', "\\ \u00e9 \U0001f355", None, True],
        "n": [1, -2.5e-7],
    },
    "": {},
    "deep": [[[[{"x": []}]]]],
    "number": float("inf"),
    "text": "plain",
}


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"ensure_ascii": False}])
def test_values_equal_json_for_every_block_size(size, style):
    text = json.dumps(VALUE, **style)
    assert dict(iter_object(cut(text, size), "x")) == json.loads(text)
    assert list(iter_object(cut(" { } \n", size), "x")) == []


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_a_lone_surrogate_becomes_a_question_mark(size):
    texts = [
        "\ud83d half",
        "\udf55 other half",
        "whole \U0001f355",
        r"\ud83d no half",
        "\\\ud83d",
    ]
    text = json.dumps({"v": texts})
    replaced = [one.encode("utf-8", "replace").decode() for one in texts]
    assert dict(iter_object(cut(text, size), "x")) == {"v": replaced}


@pytest.mark.parametrize("seed", range(30))
def test_a_text_that_ends_early_is_an_error(seed):
    rng = random.Random(seed)
    text = json.dumps(VALUE)
    text = text[: rng.randrange(len(text))]
    message = r"^x: must be a JSON object of videos, but (is broken|holds)"
    with pytest.raises(DataError, match=message):
        list(iter_object(cut(text, 5), "x"))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "must be a JSON object of videos, but holds something else"),
        ('{"a": tru}', "before the first entry: .* at index 9"),
        ('{"a": [1}}', r"in the value of 'a' \(entry 1\): "),
        (
            '{"a": 1, "b": {"c": "\\q"}}',
            r"in the value of 'b' \(entry 2\): .* at index 22",
        ),
        ('{"a": 1, }', r"after 'a' \(entry 1\): "),
        ('{"a": 1} {}', r"after 'a' \(entry 1\): more text follows the object"),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_the_error_names_the_position(text, where, size):
    with pytest.raises(DataError, match=where):
        list(iter_object(cut(text, size), "x"))


@pytest.mark.parametrize(
    "error", [DataError("x: byte 7 is wrong"), KeyboardInterrupt()]
)
def test_an_exception_of_the_source_is_raised_unchanged(error):
    def blocks():
        yield '{"a": 1, "b": "x'
        raise error

    with pytest.raises(type(error)) as caught:
        list(iter_object(blocks(), "x"))
    assert caught.value is error


def test_memory_does_not_grow_with_the_number_of_entries():
    def peak(num_entries: int) -> int:
        entry = '"key": {"text": ["' + "x" * 1000 + '"]}'
        blocks = (
            ("{" if number == 0 else ", ") + entry for number in range(num_entries)
        )
        tracemalloc.start()
        count = sum(1 for _ in iter_object(chain(blocks, "}"), "x"))
        _, size = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == num_entries
        return size

    assert peak(4000) < 1.2 * peak(400)  # measured: 1.00
