"""`memory`: what is accepted, and what is said about anything else."""

import pytest

from mmpt.config.memory import parse_memory
from mmpt.config.parse import parse


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("16GB", 16_000_000_000),
        ("16 gb", 16_000_000_000),
        ("1.5G", 1_500_000_000),
        ("900MB", 900_000_000),
        ("8GiB", 8 * 2**30),
        ("512 Mi", 512 * 2**20),
        ("1TB", 10**12),
        (16_000_000_000, 16_000_000_000),
        ("16000000000", 16_000_000_000),
        (2e9, 2_000_000_000),
        ("2e9", 2_000_000_000),
        (0.9, 0.9),
        (0.00001, 1e-5),
        ("0.9", 0.9),
        (1, 1.0),
    ],
)
def test_amounts_and_shares(value, expected):
    found = parse_memory(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value", ["16", 16, 0, "0", -1, "-1GB", "GB", "", "90%", "a lot", True, [1], 1.5, "1e30GB", "nan"]
)
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match=r"must be an amount .* such as 16GB, .* at most 1, but is "):
        parse_memory(value)


def test_the_key_is_read_named_and_written():
    config, problems = parse({"memory": "16GB"}, "x.yaml")
    assert (config.memory, problems) == (16_000_000_000, [])
    assert parse(config.to_dict(), "y.yaml")[0].memory == config.memory
    assert parse({"memory": None}, "x.yaml")[0].memory is None
    _, problems = parse({"memory": "lots"}, "x.yaml")
    assert len(problems) == 1
    assert problems[0].startswith("`memory` must be an amount of at least 1 MB such as 16GB, 900MB or 8GiB, ")
    assert problems[0].endswith(" but is 'lots'.")
    _, problems = parse({"model": {"memory": "16GB"}}, "x.yaml")
    assert problems == ["`model.memory` is not a known key; `memory` belongs at the top level."]
