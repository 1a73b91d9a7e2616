"""The origin of each setting, against lines that were counted by hand."""

from pathlib import Path

import pytest

from mmpt.config.origins import find_origins, key_lines, leaves

BASE = """\
dataset: &shared
  bert_name: base
  max_len: 48
loss:
  loss_cls: A
  beta: 0.3
retrieval:
  num_cands: 8
slurm: {time: 60}
"""
TOP = """\
includes: base.yaml

dataset:
  max_len:
    40
loss: null
slurm:
  sbatch: {gres.x: gpu}
  time: null
"""


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("top.yaml").write_text(TOP)
    return "top.yaml"


def origin(key: tuple[str, ...], top: str, *overrides: str) -> str:
    value: object = 1
    for name in reversed(key):
        value = {name: value}
    assert isinstance(value, dict)
    (found,) = find_origins(top, overrides, value).values()
    return found


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("dataset max_len", "top.yaml:4"),
        ("dataset bert_name", "base.yaml:2 (included)"),
        ("dataset use_fast", "default"),
        ("num_cands", "base.yaml:8 (included)"),
        ("loss beta", "default"),  # null replaces the included section
        ("slurm time", "default"),  # null stands for the default
        ("slurm sbatch gres.x", "top.yaml:8"),
        ("recall", "default"),
    ],
)
def test_files_and_defaults(top: str, key: str, expected: str) -> None:
    assert origin(tuple(key.split()), top) == expected


def test_overrides_hide_files_and_the_last_override_wins(top: str) -> None:
    overrides = ("dataset.max_len=1", "retrieval.num_cands=2", "dataset.max_len=3")
    assert origin(("dataset", "max_len"), top, *overrides) == "override"
    assert origin(("num_cands",), top, *overrides) == "override"
    overrides = ("dataset.max_len=1", "dataset.max_len=null")
    assert origin(("dataset", "max_len"), top, *overrides) == "default"


def test_settings_of_the_released_script_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "align.yaml"
    path.write_text(
        "dataset: {split: test, anno_path: a, max_len: 96}\neval: {save_path: x}\n"
    )
    key = ("dataset", "aligner")
    assert origin(key, str(path)) == "as in the released script"
    assert origin(("dataset", "max_len"), str(path)) == f"{path}:1"


def test_merged_mappings_have_the_line_where_they_are_written() -> None:
    text = "a: &name\n  x: 1\n  y: 2\nb:\n  <<: *name\n  y: 3\n"
    lines = key_lines(text)
    assert lines["b", "x"] == ("value", 2)
    assert lines["b", "y"] == ("value", 6)
    assert lines["b",] == ("mapping", 4)


def test_an_empty_file_has_no_keys() -> None:
    assert key_lines("") == {}


def test_leaves_of_nested_mappings() -> None:
    assert leaves({"a": {"b": [1], "c": {}}, "d": None}) == {
        ("a", "b"): [1],
        ("a", "c"): {},
        ("d",): None,
    }
