"""The log of metrics: valid JSON Lines, with one line per update even if a run was killed."""

import json
from pathlib import Path

import pytest

from mmpt.utils.metrics_log import (
    METRICS_LOG,
    MetricsLog,
    known_metrics,
    read_metrics,
)


def updates(folder: Path) -> list[int]:
    return [row["update"] for row in read_metrics(folder)]


def write_run(folder: Path, first: int, last: int) -> None:
    """Writes the log of a run that continues after update `first`."""
    log = MetricsLog(folder, first)
    for update in range(first + 1, last + 1):
        log.append("train", 1, update, {"loss": 1 / update})


def test_every_line_is_strict_json_with_header_and_metrics(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    log.append("train", 1, 10, {"loss": 0.5, "gnorm": float("nan"), "time": 9.0})
    log.append("valid", 2, 20, {"loss": float("inf")})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    lines = (tmp_path / METRICS_LOG).read_text().splitlines()
    train, valid = (json.loads(line, parse_constant=refuse) for line in lines)
    assert train.pop("time") > 1e9  # the time of writing, not the metric of this name
    assert train == {
        "split": "train",
        "epoch": 1,
        "update": 10,
        "loss": 0.5,
        "gnorm": None,
    }
    assert valid["loss"] is None


def test_rates_are_left_out_until_fairseq_knows_them() -> None:
    stats = {"loss": "8.4", "clips_per_s": 0, "data_wait": 0.0, "best_loss": None}
    assert known_metrics(stats) == {"loss": 8.4}
    stats |= {"clips_per_s": 61.5}
    assert known_metrics(stats) == {"loss": 8.4, "clips_per_s": 61.5, "data_wait": 0}


@pytest.mark.parametrize("checkpoint", [0, 4, 6, 9])
def test_a_continued_run_replaces_the_lines_of_repeated_updates(
    tmp_path: Path, checkpoint: int
) -> None:
    write_run(tmp_path, 0, 6)
    write_run(tmp_path, checkpoint, 8)
    assert updates(tmp_path) == [
        *range(1, min(checkpoint, 6) + 1),
        *range(checkpoint + 1, 9),
    ]


@pytest.mark.parametrize("is_due", [False, True])
def test_a_validation_that_is_due_is_recorded_once(
    tmp_path: Path, is_due: bool
) -> None:
    """The run was saved after update 4. If its validation is due, it was saved before that."""
    write_run(tmp_path, 0, 4)
    MetricsLog(tmp_path, 4).append("valid", 1, 4, {"loss": 1})
    write_run(tmp_path, 4, 6)
    MetricsLog(tmp_path, 4, is_valid_due=is_due)
    splits = [(row["split"], row["update"]) for row in read_metrics(tmp_path)]
    assert splits[:4] == [("train", update) for update in (1, 2, 3, 4)]
    assert splits[4:] == ([] if is_due else [("valid", 4)])


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_a_truncated_line_is_ignored(tmp_path: Path, cut: int) -> None:
    write_run(tmp_path, 0, 3)
    path = tmp_path / METRICS_LOG
    path.write_bytes(path.read_bytes()[:-cut])
    left = [1, 2, 3] if cut == 1 else [1, 2]  # a line without its newline is complete
    assert updates(tmp_path) == left
    write_run(tmp_path, 2, 4)
    assert updates(tmp_path) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[1]\n3\nnull\n", b'{"update": "x"}\n{"loss": 1}\n']
)
def test_other_files_are_read_as_an_empty_log(tmp_path: Path, content: bytes) -> None:
    (tmp_path / METRICS_LOG).write_bytes(content)
    assert read_metrics(tmp_path) == []
