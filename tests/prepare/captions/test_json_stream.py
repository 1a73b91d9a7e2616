"""The streaming reader gives what json gives, however the text is cut into blocks."""

import json
import random
import tracemalloc
from itertools import chain

import pytest

from mmpt.errors import DataError
from mmpt.prepare.captions import json_stream
from mmpt.prepare.captions.json_stream import stream_object

VALUE = {
    "v": {"text": ['a "quoted" } text', "\\ \u00e9 \ud83c\udf55", float("inf"), None, True], "n": [1, -2.5e-7, 12345]},
    "": {},
    "deep": [[[[{"x": []}]]]],
    "number": 123456,
    "text": "plain",
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_equals_json_at_every_block_size(size, indent):
    text = json.dumps(VALUE, indent=indent)
    blocks = [text[at : at + size] for at in range(0, len(text), size)]
    assert dict(stream_object(blocks, "x")) == json.loads(text)


def test_nan_is_read_as_python_writes_it():
    ((_, value),) = stream_object(['{"v": [Na', "N]}"], "x")
    assert value[0] != value[0]


@pytest.mark.parametrize("text", ["{}", " { } \n"])
def test_an_empty_object_has_no_entry(text):
    assert list(stream_object([text], "x")) == []


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_text_is_an_error_wherever_it_is_cut(seed):
    rng = random.Random(seed)
    text = json.dumps(VALUE)
    cut = text[: rng.randrange(len(text))]
    blocks = [cut[at : at + 5] for at in range(0, len(cut), 5)]
    with pytest.raises(DataError, match=r"^x: .* at character \d+, but"):
        list(stream_object(blocks, "x"))


@pytest.mark.parametrize(
    ("text", "where"),
    [('{"a": 1 "b": 2}', 8), ('{"a" 1}', 5), ("{1: 2}", 1), ('{"a": tru}', 6), ('{"a": [1}}', 8), ('{"a": 1}]', 8)],
)
def test_the_character_is_named(text, where):
    for size in (1, 4, 100):
        blocks = [text[at : at + size] for at in range(0, len(text), size)]
        with pytest.raises(DataError, match=rf"at character {where},"):
            list(stream_object(blocks, "x"))


def test_a_number_of_thousands_of_digits_is_an_error():
    with pytest.raises(DataError, match="x: no number may have thousands of digits at character 6"):
        list(stream_object([f'{{"a": {"9" * 5000}}}'], "x"))


def test_a_damaged_entry_does_not_bring_the_rest_into_memory(monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_ENTRY", 10_000)
    read = 0

    def blocks():
        nonlocal read
        yield '{"a": "no end'
        for _ in range(1000):
            read += 1
            yield "x" * 1000

    with pytest.raises(DataError, match="Unterminated string starting at at character 6"):
        list(stream_object(blocks(), "x"))
    assert read < 50


def test_memory_does_not_grow_with_the_number_of_entries():
    def peak(num_entries: int) -> int:
        entry = '"key": {"text": ["' + "x" * 1000 + '"]}'
        blocks = (("{" if number == 0 else ", ") + entry for number in range(num_entries))
        tracemalloc.start()
        count = sum(1 for _ in stream_object(chain(blocks, "}"), "x"))
        _, size = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == num_entries
        return size

    assert peak(4000) < 1.2 * peak(400)  # measured: 1.00
