"""YAML files: includes, interpolations, overrides, and files that are written and read back."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmpt.config.yaml_files import parse_overrides, read_yaml, write_yaml
from mmpt.errors import ConfigError

TRAINING = "projects/retri/norton/how2_pretrain.yaml"


def read(*overrides):
    """Returns the training YAML with overrides."""
    values, problems = parse_overrides(overrides)
    assert problems == []
    return read_yaml(TRAINING, values)


def problem_of(*overrides):
    with pytest.raises(ConfigError) as caught:
        read(*overrides)
    (problem,) = caught.value.problems
    return problem


def test_interpolations_see_includes_and_overrides():
    values = read(
        "eval.save_path=${fairseq.checkpoint.save_dir}/eval",
        "fairseq.checkpoint.save_dir=runs/y",
        "num_cands=${dataset.num_video_per_batch}",
    )
    assert (values["eval"]["save_path"], values["num_cands"]) == ("runs/y/eval", 64)


def test_an_interpolation_of_a_missing_key_is_a_mistake():
    problem = (
        "`num_cands` cannot be resolved: Interpolation key 'dataset.clips' not found."
    )
    assert problem_of("num_cands=${dataset.clips}") == problem


def test_a_list_cannot_replace_a_section():
    problem = (
        "includes and overrides do not fit each other: Cannot merge DictConfig with "
    )
    assert problem_of("fairseq=[1]") == problem + "ListConfig."


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("dataset.max_len", "must have the form `section.key=value`"),
        ("=3", "must have the form"),
        ("dataset..max_len=3", "must have the form"),
        ("includes=x.yaml", "comes too late: `includes` is read from files only."),
        ("num_cands=[1", "is not YAML: "),
    ],
)
def test_broken_overrides(override, problem):
    _, (found,) = parse_overrides([override])
    assert f"override `{override}` {problem}" in found


def test_the_including_file_has_priority(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("includes: b.yaml\nx: {k: 1}\nz: [3]\nn:\n")
    (tmp_path / "b.yaml").write_text("x: {k: 0, m: 2}\nz: [1, 2]\nn: 4\n")
    assert read_yaml("a.yaml") == {"x": {"k": 1, "m": 2}, "z": [3], "n": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "a.yaml: 1 mistake\n  - no such file; paths are relative"),
        (
            "includes: c.yaml",
            "a.yaml: 1 mistake\n  - `includes` names `c.yaml`: no such file",
        ),
        (
            "includes: b.yaml",
            "the file includes itself: a.yaml -> b.yaml -> a.yaml.",
        ),
        (
            "includes: /",
            "1 mistake\n  - `includes` names `/`: cannot be read: Is a directory.",
        ),
        ("includes: [b.yaml]", "`includes` must be one path, but is ['b.yaml']."),
        (
            "x: &x {y: *x}",
            "1 mistake\n  - not valid YAML: an anchor (`&`) holds itself",
        ),
        ("- 1\n- 2\n", "must hold a mapping of keys, but holds a list."),
        ("x: [1\n", "not valid YAML"),
        ("x: 1\nx: 2\n", "duplicate key"),
    ],
)
def test_invalid_files_are_reported(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.yaml").write_text("includes: a.yaml")
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml("a.yaml")
    assert message in str(caught.value)


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Text that YAML readers take for numbers, and text with interpolations and escapes.
NUMBERS = st.from_regex(r"[-+]?[0-9_]*\.?[0-9_]*([eE][-+]?[0-9]+)?", fullmatch=True)
SPECIAL = st.text(st.sampled_from("${}\\'\"x:#~ -"), max_size=8)
NAMES = st.text(st.sampled_from("abc_"), min_size=1, max_size=4)
PLAIN = (
    ANY_TEXT
    | NUMBERS
    | SPECIAL
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(NAMES, PLAIN, max_size=3)


@pytest.mark.slow
@given(st.dictionaries(NAMES, VALUES, max_size=4))
@example({"a": "1e5"})
@example({"a": "0._E0"})
@example({"a": "null"})
@example({"a": "${b}", "b": "\\${x}"})
@example({"a": "x\x85y\u2028z"})
def test_a_written_file_is_read_back(values):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "written.yaml"
        write_yaml(path, values)
        assert read_yaml(path) == values
