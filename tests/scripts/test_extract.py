"""Extraction as a user runs it: right numbers, nothing lost or torn when videos, disks or processes fail."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from video_feature_extractor import extract

from mmpt.errors import DataError
from mmpt.processors import extraction, feature_files
from mmpt.processors.clip_encoder import ClipEncoder
from mmpt.processors.extraction import Extraction
from mmpt.processors.feature_files import Claim
from mmpt.processors.video_list import find_videos
from mmpt.processors.video_reader import VideoFile
from tests.jobs import ROOT
from tests.media import Clip, regular_times, truncate, write_audio, write_video

SECONDS = {"a": 2.5, "b": 1, "c": 4, "d": 0.2, "e": 3}
SMALL = Clip(width=96, height=64)


class Pooling(nn.Module):
    """Stands in for S3D: 512 means of each clip, so fast that a run takes a moment."""

    num_clips: list[int]

    def __init__(self):
        super().__init__()
        self.num_clips = []

    def forward(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        self.num_clips.append(len(clips))
        means = nn.functional.adaptive_avg_pool3d(clips - 0.4, (3, 8, 8)).flatten(1)
        return {"video_embedding": means[:, :512]}


# The command in a process of its own with `Pooling`, slowed down so that it can be caught at work.
DRIVER = """
import sys, time
sys.path[:0] = ["{root}", "{root}/scripts", "{root}/tests/scripts"]
import torch
torch.set_num_threads(1)
from video_feature_extractor import extract
from test_extract import Pooling
class Slow(Pooling):
    def forward(self, clips):
        time.sleep({delay})
        return super().forward(clips)
extract._network = lambda args: (Slow(), "pooling")
print("started", flush=True)
sys.exit(extract.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for name, seconds in SECONDS.items():
        write_video(folder / f"{name}.mp4", regular_times(seconds), SMALL)
    return folder


@pytest.fixture
def run(monkeypatch):
    """Run the command in this process with `Pooling`."""
    monkeypatch.setattr(extract, "_network", lambda args: (Pooling(), "pooling"))
    return lambda raw, out, *more: extract.main(["--vdir", str(raw), "--fdir", str(out), "--device", "cpu", *more])


def process(raw: Path, out: Path, delay: float = 0.0, limit_bytes: int = 0) -> subprocess.Popen[str]:
    code = DRIVER.format(root=ROOT, delay=delay)
    if limit_bytes:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n{code}"
    command = [sys.executable, "-c", code, "--vdir", str(raw), "--fdir", str(out), "--device", "cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.rglob("*.npy")}


def summary(out: Path, name: str = "extract_summary.json") -> dict:
    return json.loads((out / name).read_text())


def one_at_a_time(path: Path) -> np.ndarray:
    """The plain way, from the specification: all frames, padded, normalised, cast."""
    frames = np.stack([frame.copy() for frame in VideoFile(path).frames()]).astype(np.float32) / 255
    frames = np.concatenate([frames, np.zeros((-len(frames) % 30, 224, 224, 3), np.float32)])
    clips = torch.from_numpy(frames.reshape(-1, 30, 224, 224, 3).transpose(0, 4, 1, 2, 3).copy())
    rows = torch.cat([Pooling()(clip[None])["video_embedding"] for clip in clips]).numpy()
    return (rows / np.maximum(np.sqrt((rows**2).sum(1, keepdims=True)), 1e-12)).astype(np.float16)


# ---- numbers


def test_features_are_those_of_the_plain_way(raw, run, tmp_path):
    assert run(raw, tmp_path, "--num_decoding_thread", "3") == 0
    for name, seconds in SECONDS.items():
        features = np.load(tmp_path / f"{name}.npy")
        assert features.dtype == np.float16
        assert features.shape == (int(np.ceil(seconds)), 512)
        # Measured 0; a norm summed in another order can move the last bit of a float16 (values up to 0.1).
        np.testing.assert_allclose(features, one_at_a_time(raw / f"{name}.mp4"), atol=7e-5, rtol=0)
    assert not (tmp_path / ".partial").exists()


def test_both_spellings_and_float32_without_norm(raw, run, tmp_path):
    flags = ["--half-precision", "0", "--l2-normalize", "0", "--batch-size", "2", "--num-decoding-thread", "1"]
    assert run(raw / "b.mp4", tmp_path, "--type=s3d", "--hflip=1", *flags) == 0
    features = np.load(tmp_path / "b.npy")
    clips = torch.from_numpy(next(VideoFile(raw / "b.mp4", hflip=True).clips())).permute(3, 0, 1, 2)[None].float() / 255
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, Pooling()(clips)["video_embedding"], atol=1e-6)  # measured 0


def test_batches_cross_videos_and_are_always_full(raw, tmp_path):
    """As on a GPU; a clip's features do not depend on the batch that it came in."""
    videos = find_videos([raw], tmp_path)
    network = Pooling()
    encoder = ClipEncoder(network, torch.device("cpu"))
    encoder.batch_size = 4
    report = Extraction(videos.jobs, encoder, num_threads=2).run()
    assert network.num_clips == [4, 4, 4]  # 3 + 1 + 4 + 1 + 3 clips
    assert sorted(report.written) == sorted(SECONDS)
    for name in SECONDS:
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), one_at_a_time(raw / f"{name}.mp4"), atol=7e-5)


def test_the_real_network_runs(raw, tmp_path):
    """S3D with random weights, in bfloat16, on a second of video."""
    arguments = ["--vdir", str(raw / "d.mp4"), "--fdir", str(tmp_path), "--random-weights", "--dtype", "bf16"]
    assert extract.main([*arguments, "--device", "cpu"]) == 0
    features = np.load(tmp_path / "d.npy").astype(np.float64)
    assert features.shape == (1, 512)
    assert abs(np.linalg.norm(features) - 1) < 1e-3  # measured 2e-5


# ---- what can go wrong with videos


def test_bad_videos_are_named_and_the_rest_is_done(raw, run, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    write_audio(folder / "sound.mp4", 1)
    (folder / "empty.webm").touch()
    (folder / "text.mkv").write_text("text")
    whole = write_video(tmp_path / "whole.mkv", regular_times(3), SMALL)
    truncate(whole, folder / "part.mkv", 0.6)
    (folder / "good.mp4").write_bytes((raw / "b.mp4").read_bytes())
    (folder / "captions.vtt").touch()
    out = tmp_path / "out"
    assert run(folder, out) == 0
    assert sorted(contents(out)) == ["good.npy", "part.npy"]
    found = summary(out)
    assert sorted(found["failed"]) == ["empty", "sound", "text"]
    assert "audio only" in found["failed"]["sound"]
    assert "announced" in found["damaged"]["part"][0]
    assert (found["videos"], found["written"], found["present"], found["finished"]) == (5, 2, 0, True)


def test_nothing_readable_is_an_error(run, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    assert run(tmp_path, tmp_path / "out") == 2
    assert "none of the 1 videos could be read: the file is empty" in capsys.readouterr().err


def test_not_finite_features_are_not_written(raw, tmp_path):
    class Broken(Pooling):
        def forward(self, clips):
            return {"video_embedding": super().forward(clips)["video_embedding"] * float("nan")}

    report = Extraction(find_videos([raw / "b.mp4"], tmp_path).jobs, ClipEncoder(Broken(), torch.device("cpu"))).run()
    assert "not finite" in report.failed["b"]
    assert contents(tmp_path) == {}


# ---- reruns, parts and other processes


def test_rerun_skips_what_is_whole_and_mends_what_is_not(raw, run, tmp_path):
    run(raw, tmp_path)
    before = contents(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    (tmp_path / "c.npy").write_bytes(before["c.npy"][:-7])
    np.save(tmp_path / "e.npy", np.zeros((3, 100), np.float16))
    assert run(raw, tmp_path) == 0
    assert contents(tmp_path) == before
    assert {path.stem for path, at in times.items() if path.stat().st_mtime_ns != at} == {"c", "e"}
    assert (summary(tmp_path)["written"], summary(tmp_path)["present"]) == (2, 3)


def test_parts_make_the_whole(raw, run, tmp_path):
    run(raw, tmp_path / "whole")
    for part in range(4):  # parts of 2 videos; the last is empty
        assert run(raw, tmp_path / "parts", "--shard", f"{part}/4") == 0
        assert summary(tmp_path / "parts", f"extract_summary_{part}_of_4.json")["videos"] == [2, 2, 1, 0][part]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_features_of_other_settings_are_not_mixed(raw, run, tmp_path, capsys):
    assert run(raw, tmp_path, "--limit", "1") == 0
    assert run(raw, tmp_path, "--l2_normalize", "0") == 2
    assert "l2_normalize 1 (now 0)" in capsys.readouterr().err


def test_two_processes_share_a_folder(raw, tmp_path):
    first, second = (process(raw, tmp_path, delay=0.05) for _ in range(2))
    assert (first.wait(60), second.wait(60)) == (0, 0)
    logs = first.communicate()[1] + second.communicate()[1]
    written = [
        int(line.split(" videos written")[0].split()[-1]) for line in logs.splitlines() if "videos written" in line
    ]
    assert sum(written) == len(SECONDS), logs
    assert len(contents(tmp_path)) == len(SECONDS)
    assert not (tmp_path / ".partial").exists()


def test_killed_and_rerun_gives_the_same_bytes(raw, run, tmp_path):
    run(raw, tmp_path / "whole")
    rng = random.Random(0)
    for _ in range(2):
        child = process(raw, tmp_path / "out", delay=0.03)
        assert child.stdout.readline() == "started\n"
        time.sleep(rng.uniform(0.1, 0.35))
        child.kill()
        child.communicate()
        for path in (tmp_path / "out").glob("*.npy"):
            assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    assert run(raw, tmp_path / "out") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_interrupted_ends_with_130_and_goes_on(raw, run, tmp_path):
    child = process(raw, tmp_path, delay=0.3)
    child.stdout.readline()
    while not list(tmp_path.glob("*.npy")):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=30)[1]
    assert child.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert summary(tmp_path)["finished"] is False
    assert not list((tmp_path / ".partial").glob("*"))
    done = len(list(tmp_path.glob("*.npy")))
    assert 0 < done < len(SECONDS)
    assert run(raw, tmp_path) == 0
    assert (summary(tmp_path)["present"], summary(tmp_path)["written"]) == (done, len(SECONDS) - done)


def test_a_video_that_another_process_has_is_left_to_it(raw, run, tmp_path):
    claim = Claim.take(tmp_path / "c.npy")
    assert run(raw, tmp_path) == 0
    assert summary(tmp_path)["with_another_process"] == ["c"]
    claim.release()
    assert run(raw, tmp_path) == 0
    assert summary(tmp_path)["with_another_process"] == []
    assert "c.npy" in contents(tmp_path)


def test_file_systems_without_locks(raw, run, tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert run(raw, tmp_path) == 0
    assert len(list(tmp_path.glob("*.npy"))) == len(SECONDS)


# ---- disks


def test_a_write_that_breaks_off_leaves_nothing(raw, tmp_path):
    """The system refuses to let any file grow over 700 bytes: the features' header fits, their rows do not."""
    child = process(raw, tmp_path, limit_bytes=700)
    errors = child.communicate(timeout=60)[1]
    assert child.returncode == 2
    assert errors.count("error:") == 1
    assert "cannot be written (File too large)" in errors
    assert contents(tmp_path) == {}


def test_full_disk_says_what_to_do(raw, run, tmp_path, capsys, monkeypatch):
    def save(file, features):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_files.np, "save", save)
    assert run(raw, tmp_path) == 2
    assert "Make room and run the same command again" in capsys.readouterr().err
    assert contents(tmp_path) == {}
    assert not [thread for thread in threading.enumerate()[1:] if "tqdm" not in thread.name]  # other tests' bars


def test_target_that_is_a_file(raw, run, tmp_path, capsys):
    (tmp_path / "out").touch()
    assert run(raw, tmp_path / "out") == 2
    assert "cannot be written" in capsys.readouterr().err


# ---- memory


def test_decoding_waits_for_the_network(tmp_path, monkeypatch):
    """Clips in flight stay within the queue, a batch and one per thread, however long the video is."""
    counts = {"decoded": 0, "encoded": 0, "most": 0}

    class Endless:
        notes: list[str] = []  # noqa: RUF012

        def __init__(self, path, **_):
            pass

        def clips(self):
            for _ in range(300):
                counts["decoded"] += 1
                counts["most"] = max(counts["most"], counts["decoded"] - counts["encoded"])
                yield np.zeros((30, 8, 8, 3), np.uint8)

    class Counting(Pooling):
        def forward(self, clips):
            counts["encoded"] += len(clips)
            return super().forward(clips)

    monkeypatch.setattr(extraction, "VideoFile", Endless)
    (tmp_path / "v.mp4").touch()
    report = Extraction(find_videos([tmp_path], tmp_path).jobs, ClipEncoder(Counting(), torch.device("cpu"))).run()
    assert report.seconds == 300
    assert counts["most"] <= 5  # 2 in the queue, 1 with the network, 1 taken, 1 at the decoder


# ---- the command line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--type", "2d"], "`--type` must be s3d"),
        (["--batch_size", "0"], "`--batch_size` must be at least 1, but is 0"),
        (["--device", "tpu9"], "`--device` must be"),
        (["--device", "cuda:77"], "GPUs here"),
        (["--vdir", ","], "`--vdir` is empty"),
        (["--vdir", "/nowhere"], "/nowhere: no such folder"),
        (["--weights", "/nowhere/s3d.pth"], "python scripts/download.py s3d"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(raw, tmp_path, capsys, flags, message):
    assert extract.main(["--vdir", str(raw), "--fdir", str(tmp_path / "f"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("shard", ["1", "2/2", "-1/2", "a/b", "0/0"])
def test_bad_parts(shard, capsys):
    with pytest.raises(SystemExit) as stop:
        extract.main(["--vdir", "x", "--fdir", "y", f"--shard={shard}"])
    assert stop.value.code == 2
    assert "I/N" in capsys.readouterr().err


def test_shell_example_runs_the_command(raw, tmp_path):
    """With an interpreter that prints what it is asked to run."""
    echo = tmp_path / "python"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    for script in ("s3d.sh", "s3d_slurm.sh"):
        env = os.environ | {"RAW": str(raw), "FEATURES": str(tmp_path), "PYTHON": str(echo)}
        env |= {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
        command = ["sh", f"scripts/video_feature_extractor/how2/{script}", "--random-weights"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        path, *arguments = done.stdout.split("\n")[:-1]
        args = extract._parser().parse_args(arguments)
        assert (ROOT / path).samefile(extract.__file__)
        assert (args.vdir, args.type, args.half_precision, args.random_weights) == (str(raw), "s3d", 1, True)
        assert args.shard == ((3, 8) if "slurm" in script else (0, 1))


def test_claims_of_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / ".partial").touch()
    with pytest.raises(DataError, match="cannot be written"):
        Claim.take(tmp_path / "a.npy")
