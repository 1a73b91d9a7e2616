"""coerce: one YAML value to one type; mistakes_in: the same bounds for sections that are made in code."""

from typing import Any

import pytest

from mmpt.config import LossConfig, SequenceContrastConfig
from mmpt.config.fields import Limits, coerce, mistakes_in


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, int, 3),
        (3.0, int, 3),
        ("3", int, 3),
        ("1e3", int, 1000),
        (3, float, 3),
        ("1e-05", float, 1e-05),
        (True, bool, True),
        (False, bool | None, False),
        ("x", str | None, "x"),
        ([1, "2"], list[int], [1, 2]),
        (0.5, list[float], [0.5]),
        ("a", str | list[str], "a"),
        (["a"], str | list[str], ["a"]),
        ({"a": [1]}, dict[str, Any], {"a": [1]}),
        ("auto", int | str, "auto"),
        ("12", int | str, 12),
    ],
)
def test_accepted(value, annotation, expected):
    result = coerce(value, annotation)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (3.5, int, "must be a whole number, but is 3.5 (a number)"),
        (True, int, "must be a whole number, but is True (true/false)"),
        ("x", float, "must be a number, but is 'x' (text)"),
        (float("nan"), float, "must be a number, but is nan (a number)"),
        (1, bool, "must be true or false, but is 1 (a number)"),
        ("true", bool, "must be true or false, but is 'true' (text)"),
        (3, str, "must be text, but is 3 (a number)"),
        (["a", 1], list[str], "must be a list, each text, but is ['a', 1] (a list)"),
        ([1], dict[str, Any], "must be a mapping, but is [1] (a list)"),
    ],
)
def test_refused(value, annotation, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole message is compared
        coerce(value, annotation)
    assert str(caught.value) == message


@pytest.mark.parametrize(("value", "fits"), [(0, False), (1e-9, True), (1, True), (1.001, False)])
def test_bounds(value, fits):
    limits = Limits(above=0, at_most=1)
    if fits:
        assert coerce(value, float, limits) == value
    else:
        with pytest.raises(ValueError, match=r"must be a number above 0 and at most 1, but is"):
            coerce(value, float, limits)


def test_a_section_made_in_code_has_the_bounds_of_a_yaml():
    assert mistakes_in(LossConfig(beta=0.3, sequence_contrast=SequenceContrastConfig(threshold=8)), "loss") == []
    wrong = LossConfig(
        beta=2, alpha_lse=float("nan"), transport_mass="papper", sequence_contrast=SequenceContrastConfig(scale=0.0)
    )
    assert mistakes_in(wrong, "loss") == [
        "`loss.sequence_contrast.scale` must be a number above 0, but is 0.0 (a number).",
        "`loss.beta` must be a number of at least 0 and at most 1, but is 2 (a number).",
        "`loss.alpha_lse` must be a number above 0, but is nan (a number).",
        "`loss.transport_mass` must be `released` or `paper`, but is 'papper' (text).",
    ]
