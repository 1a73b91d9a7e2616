"""Training runs are read as they were logged. A damaged folder gives one clear error."""

import re
from pathlib import Path

import pytest

from mmpt.errors import ConfigError, DataError
from mmpt.reporting.training_runs import read_training_runs
from tests.support.sample_trainings import SECONDS_PER_EPOCH, loss, write_run


def contents(folder: Path) -> dict[Path, bytes]:
    """Returns the content of each file in a folder."""
    files = filter(Path.is_file, folder.rglob("*"))
    return {path: path.read_bytes() for path in files}


def test_a_training_run_is_read_as_it_was_logged(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    before = contents(folder)
    (training,) = read_training_runs([folder])
    assert contents(folder) == before
    assert training.name == "a"
    assert training.settings["dataset"] == {"max_len": 48}
    updates = range(2, 31, 2)
    assert training.curve("train", "loss") == {
        update: loss(update) for update in updates
    }
    assert training.curve("valid", "loss") == {10: 6, 20: 5, 30: 6}
    assert training.curve("valid", "clips_per_s") == {}
    assert [line.coverage for line in training.hardness] == pytest.approx(
        [0.61, 0.62, 0.63]
    )


def test_the_time_of_an_epoch_excludes_interruptions(tmp_path: Path) -> None:
    log = write_run(tmp_path) / "metrics.jsonl"
    # The second half was logged a day later.
    later = re.sub(
        r'("epoch": 3.*"time": )(\d+)',
        lambda found: found[1] + str(int(found[2]) + 86_400),
        log.read_text(),
    )
    # The line after this one then covers four updates.
    lines = later.splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"update": 14,' not in line))
    (training,) = read_training_runs([tmp_path])
    expected = dict.fromkeys((1, 2, 3), SECONDS_PER_EPOCH)
    assert training.seconds_by_epoch() == pytest.approx(expected)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    log = write_run(tmp_path) / "metrics.jsonl"
    (before,) = read_training_runs([tmp_path])
    for part in (
        '{"split": "train", "epoch": 4, "upda',
        '{"split": "train", "epoch": 4, "update": 32, "time": 1.0}',
        "\u00e9".encode()[:1],
    ):
        whole = log.read_bytes()
        log.write_bytes(whole + (part if isinstance(part, bytes) else part.encode()))
        (training,) = read_training_runs([tmp_path])
        assert training.lines == before.lines
        log.write_bytes(whole)


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    log = write_run(tmp_path) / "metrics.jsonl"
    line = '{"split": "train", "epoch": 4, "update": 32, "time": 1.0, "loss": null, "x": 2}\n'
    log.write_text(log.read_text() + line)
    (training,) = read_training_runs([tmp_path])
    assert training.lines[-1].metrics == {"x": 2}
    assert 32 not in training.curve("train", "loss")


def test_names_are_unique_and_a_folder_is_read_once(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one/run"), write_run(tmp_path / "two/run")
    trainings = read_training_runs([one, two, one / ".." / "run"])
    assert [training.name for training in trainings] == [str(one), str(two)]


def test_a_training_run_without_settings_is_read(tmp_path: Path) -> None:
    (write_run(tmp_path) / "config.yaml").unlink()
    (training,) = read_training_runs([tmp_path])
    assert training.settings == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("broken", "line 3: must be a JSON object, but is 'broken'"),
        ("", "line 3: must be a JSON object, but is ''"),
        ("[1]", "line 3: its content must"),
        ('{"split": "train", "epoch": 1, "time": 1}', "line 3: `update` must be given"),
        (
            '{"split": "test", "epoch": 1, "update": 4, "time": 1}',
            "line 3: `split` must be `train` or `valid`",
        ),
        (
            '{"split": "train", "epoch": 1, "update": 4, "time": 1, "loss": "low"}',
            "line 3: `loss` must be a number, but is 'low'",
        ),
        ("\u00e9".encode("latin-1"), "line 3: must be a JSON object"),
    ],
)
def test_damaged_lines_are_an_error(
    tmp_path: Path, line: str | bytes, message: str
) -> None:
    log = write_run(tmp_path) / "metrics.jsonl"
    lines = log.read_bytes().splitlines()
    lines[2] = line if isinstance(line, bytes) else line.encode()
    log.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError, match=re.escape(f"{log}, {message}")):
        read_training_runs([tmp_path])


def test_other_folders_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="not the folder of a training run, since it has"
    ):
        read_training_runs([tmp_path])
    with pytest.raises(DataError, match="not the folder of a training run"):
        read_training_runs([tmp_path / "missing"])
    write_run(tmp_path)
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_training_runs([tmp_path])


def test_a_training_run_without_metrics_is_an_error(tmp_path: Path) -> None:
    log = write_run(tmp_path) / "metrics.jsonl"
    for content in ("", '{"split": "tra'):
        log.write_text(content)
        with pytest.raises(DataError, match="holds no metrics"):
            read_training_runs([tmp_path])
    log.unlink()
    with pytest.raises(DataError, match="holds no metrics"):
        read_training_runs([tmp_path])
