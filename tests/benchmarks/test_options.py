"""A wrong option of a benchmark gives one message and exit code 2, and no file is written."""

import runpy
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

WRONG = {
    "candidates.py --videos 10": "must be at most --videos (10), but are 64 and 192",
    "candidates.py --videos 5000 --cands 10000": "at most --videos (5000), but are 64 and 10000",
    "embed.py --workers -1": "--workers: must be at least 0, but is -1",
    "embed.py --device gpu": "--device gpu: not a device of this machine",
    "extract.py --seconds nan": "--seconds: must be at least 0.1, but is nan",
    "full_size.py --videos 2943": "at least 40 batches of 64 videos to measure, but leave 39",
    "full_size.py --videos 3000 --items 45": "leave 39",
    "full_video.py --sample 1000": "--sample must be at most --videos (436), but is 1000",
    "full_video.py --memory 31": "--memory: must be at least 32",
    "learning.py --seeds 0 -1": "--seeds: must be at least 0, but is -1",
    "gpu_day --minutes 0": "--minutes must be above 0, but is 0",
    "loader.py --videos 63": "--videos: must be at least 64",
    "loss.py --clips 0 --large 0": "leave nothing to measure",
    "loss.py --clips 7": "must be a multiple of",
    "memory.py --chunk 0": "--chunk: must be at least 1",
    "moment_index.py --clips 999": "--clips: must be at least 1000, but is 999",
    "pretokenize.py --memory 0": "--memory: must be at least 1",
    "shard.py --folder /not/there": "/not/there",
    "sinkhorn.py --clips many": "--clips: invalid number value: 'many'",
    "whole_job.py --val-videos 0": "--val-videos: must be at least 1",
    "step.py --device cuda:99": "--device cuda:99: not a device of this machine",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_option_is_refused(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script, *options = command.split()
    out = tmp_path / "results.jsonl"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [script, *options, "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
    captured = capsys.readouterr()
    assert end.value.code == 2
    assert WRONG[command] in captured.err.splitlines()[-1]
    assert not captured.out
    assert not out.exists()
    # The folders of full_size.py and learning.py.
    assert not list(tmp_path.glob("*mmpt*"))
