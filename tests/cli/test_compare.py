"""`mmpt compare`: the columns of its tables, its notes, and errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import compare


def row(task: str | None, run: str, recall: float, **more: Any) -> dict[str, Any]:
    values = {
        "checkpoint": f"runs/{run}/checkpoint_best.pt",
        "fingerprint": run,
        "settings": {"seed": 1},
        "metrics": {"RetrievalMetric": {"R1": recall, "MR": 8.0}},
        "chance": {"RetrievalMetric": {"R1": 0.001}},
        "data_fingerprint": "d" * 64,
        "num_items": 1000,
        "num_missing": 0,
        **more,
    }
    return values | ({"task": task} if task else {})


def write(folder: Path, *rows: dict[str, Any]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(rows))
    return str(folder)


def test_runs_are_shown_next_to_the_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", row("test_vtt_zs", "mine", 0.111))
    two = write(tmp_path / "two", row("test_vtt_zs", "yours", 0.122))
    assert compare.main([one, f"{two}/results.json", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "## vtt_zs: MSR-VTT, videos by their captions (1k-A), zero-shot"
    papers = "VideoCLIP (paper) | TempCLR (paper) | Norton (paper)"
    assert lines[2] == f"|  | chance | mine | yours | {papers} |"
    assert (
        lines[4]
        == "| clip, text to video, R@1 | 0.1 | 11.1 | 12.2 | 10.4 | 10.1 | 10.7 |"
    )
    assert not any("not comparable" in line for line in lines)


def test_each_benchmark_and_setting_has_its_own_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row("test_vtt_ft", "a", 0.3),
        row("test_vtt_zs", "b", 0.1),
        row("test_vtt_videoclip", "c", 0.29),
    ]
    rows += [row("test_mine_zs", "d", 0.5), row(None, "e", 0.6)]
    assert compare.main([write(tmp_path, *rows), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)
    found = [
        (group["benchmark"], group["setting"], list(group["runs"])) for group in groups
    ]
    assert found == [
        ("vtt_zs", "zero-shot", ["b"]),
        ("vtt_ft", "fine-tuned", ["a", "c"]),
        ("mine_zs", "zero-shot", ["d"]),
        ("not recorded", "", ["e"]),
    ]
    assert groups[1]["published"]["Norton"]["RetrievalMetric"]["R1"] == pytest.approx(
        0.312
    )
    assert groups[2]["published"] == {}
    assert "settings" not in groups[0]["runs"]["b"]
    assert groups[0]["runs"]["b"]["metrics"]["RetrievalMetric"]["R1"] == 0.1


def test_notes_report_other_data_and_missing_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row("test_vtt_zs", "a", 0.1),
        row("test_vtt_zs", "b", 0.2, data_fingerprint="e" * 64),
    ]
    rows.append(row("test_vtt_zs", "c", 0.3, num_items=990, num_missing=10))
    assert compare.main([write(tmp_path, *rows)]) == 0
    output = capsys.readouterr().out
    assert (
        "not comparable: the runs were scored on different data (a, c on dddddddddddd; b on "
        "eeeeeeeeeeee)." in output
    )
    assert "not comparable: c was scored on 990 of 1,000 test items" in output


def test_rows_of_the_same_checkpoint_get_different_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", row("test_vtt_zs", "same", 0.1))
    two = write(
        tmp_path / "two",
        row("test_vtt_zs", "same", 0.2),
        row("test_vtt_zs", "same", 0.3),
    )
    assert compare.main([one, two, one, "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)
    # A file that is named twice is read once.
    assert list(group["runs"]) == ["1. same", "2. same", "3. same"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results.json: no such file. Name results files"),
        ("[]", "holds no results"),
        ("{broken", "not valid JSON"),
        ('[{"other": 1}]', "not a results file"),
        (
            '[{"checkpoint": "a", "fingerprint": "a", "metrics": {"M": 3}}]',
            "not a results file",
        ),
    ],
)
def test_mistakes_end_with_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    message: str,
) -> None:
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    assert compare.main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
