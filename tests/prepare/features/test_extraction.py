"""Tests of extraction: the numbers, broken videos, memory, and the command line."""

import os
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from mmpt.cli import extract
from mmpt.cli.main import Command
from mmpt.media.clip_encoder import ClipEncoder
from mmpt.media.encoders import S3DEncoder
from mmpt.media.video_list import find_videos
from mmpt.media.video_reader import VideoFile
from mmpt.prepare.features import extraction
from mmpt.prepare.features.encoder_run import EncoderRun, ExtractionReport
from mmpt.prepare.features.extraction import Extraction
from tests.support.extract_jobs import SECONDS, SMALL, Pooling, contents, summary
from tests.support.paths import ROOT
from tests.support.videos import regular_times, truncate, write_audio, write_video


def extracted(
    source: Path,
    out: Path,
    network: Pooling,
    batch_size: int = 1,
    dtype: str = "fp32",
    l2_normalize: bool = True,
) -> ExtractionReport:
    encoder = ClipEncoder(S3DEncoder(network), torch.device("cpu"), dtype)
    encoder.batch_size = batch_size
    videos = find_videos([source], out)
    run = EncoderRun(videos.jobs, encoder, l2_normalize=l2_normalize)
    Extraction([run], num_threads=2).run()
    return run.report


def assert_equals_simple_version(out: Path, videos: Path) -> None:
    """Compares feature files with a simple version of the specification.

    It reads all frames, pads them to seconds, encodes each second, normalises and casts.
    """
    network = Pooling()
    for name, seconds in SECONDS.items():
        video = VideoFile(videos / f"{name}.mp4")
        frames = [frame.copy() for frame in video.frames()]
        while len(frames) % 30:
            frames.append(np.zeros((224, 224, 3), np.uint8))
        rows = []
        for begin in range(0, len(frames), 30):
            clip = torch.from_numpy(np.stack(frames[begin : begin + 30]))
            pixels = clip.permute(3, 0, 1, 2) / 255
            row = network(pixels[None])["video_embedding"][0].numpy()
            norm = np.sqrt((row**2).sum())
            rows.append(row / np.maximum(norm, 1e-12))
        wanted = np.stack(rows).astype(np.float16)
        features = np.load(out / f"{name}.npy")
        assert features.dtype == np.float16
        assert features.shape == (int(np.ceil(seconds)), 512)
        # Measured 0. A norm that is summed in another order can change the last bit of a float16,
        # whose values are up to 0.1.
        np.testing.assert_allclose(features, wanted, atol=7e-5, rtol=0)


# ---- numbers


@pytest.mark.slow
def test_features_equal_a_simple_version(videos, run_extract, tmp_path):
    assert run_extract(videos, tmp_path, "--num_decoding_thread", "3") == 0
    assert_equals_simple_version(tmp_path, videos)


@pytest.mark.slow
def test_batches_contain_several_videos_and_are_always_full(videos, tmp_path):
    """A GPU has batches, too. The features of a clip do not depend on its batch."""
    network = Pooling()
    report = extracted(videos, tmp_path, network, batch_size=4)
    assert network.num_clips == [4, 4, 4]  # 3 + 1 + 4 + 1 + 3 clips
    assert sorted(report.written) == sorted(SECONDS)
    assert_equals_simple_version(tmp_path, videos)


def test_flags_may_have_hyphens_and_features_may_be_float32_without_norm(
    videos, run_extract, tmp_path
):
    flags = [
        "--half-precision=0",
        "--l2-normalize=0",
        "--batch-size=2",
        "--num-decoding-thread=1",
    ]
    assert (
        run_extract(videos / "b.mp4", tmp_path, "--type=s3d", "--hflip=1", *flags) == 0
    )
    features = np.load(tmp_path / "b.npy")
    mirrored = VideoFile(videos / "b.mp4", hflip=True)
    pixels = torch.from_numpy(next(mirrored.clips()))
    clips = pixels.permute(3, 0, 1, 2)[None].float() / 255
    wanted = Pooling()(clips)["video_embedding"]
    assert features.dtype == np.float32
    # Measured 0.
    np.testing.assert_allclose(features, wanted, atol=1e-6)


@pytest.mark.slow
def test_s3d_runs_with_random_weights(videos, tmp_path):
    """It runs in bfloat16, on one second of video."""
    paths = ["--vdir", str(videos / "d.mp4"), "--fdir", str(tmp_path)]
    assert (
        extract.main([*paths, "--random-weights", "--dtype=bf16", "--device=cpu"]) == 0
    )
    features = np.load(tmp_path / "d.npy").astype(np.float64)
    assert features.shape == (1, 512)
    assert abs(np.linalg.norm(features) - 1) < 1e-3  # measured 2e-5


def test_a_video_that_is_lost_without_a_reason_raises_an_assertion_error():
    encoder = ClipEncoder(S3DEncoder(Pooling()), torch.device("cpu"))
    run = EncoderRun([], encoder)
    run.report.num_videos = 1
    with pytest.raises(AssertionError, match="a reason why it has none"):
        Extraction([run]).run()


# ---- unusable videos


def test_broken_videos_are_reported_and_the_others_extracted(
    videos, run_extract, tmp_path, caplog
):
    folder = tmp_path / "raw"
    folder.mkdir()
    write_audio(folder / "sound.mp4", 1)
    (folder / "empty.webm").touch()
    (folder / "text.mkv").write_text("text")
    whole = write_video(tmp_path / "whole.mkv", regular_times(3), SMALL)
    truncate(whole, folder / "part.mkv", 0.6)
    for name in (
        "good.mp4",
        "two\nlines.mp4",
        "tail .mp4",
        os.fsdecode(b"caf\xe9.mp4"),
    ):
        (folder / name).write_bytes((videos / "b.mp4").read_bytes())
    (folder / "captions.vtt").touch()
    out = tmp_path / "out"
    assert run_extract(folder, out) == 0
    assert sorted(contents(out)) == ["good.npy", "part.npy"]
    found = summary(out)
    assert sorted(found["failed"]) == ["empty", "sound", "text"]
    assert "audio only" in found["failed"]["sound"]
    assert "the file declares" in found["damaged"]["part"][0]
    assert found["videos"] == 5
    assert found["written"] == 2
    assert found["present"] == 0
    assert found["finished"] is True
    misnamed = {Path(name).stem for name in found["misnamed"]}
    assert misnamed == {"two\nlines", "tail ", os.fsdecode(b"caf\xe9")}
    assert "begins or ends with a space; left out" in caplog.text


@pytest.mark.slow
def test_only_jumps_of_the_clock_are_reported(run_extract, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    starts = {
        "again": [10, 10, 10],
        "gap": [10, 15],
        "overlap": [10, 11.5],
        "late": [36_000],
    }
    for name, parts in starts.items():
        path = folder / f"{name}.ts"
        content = b""
        for start in parts:
            times = [Fraction(start) + time for time in regular_times(2)]
            content += write_video(path, times, SMALL).read_bytes()
        path.write_bytes(content)
    assert run_extract(folder, tmp_path / "out") == 0
    for name, seconds in {"again": 6, "gap": 7, "overlap": 4, "late": 2}.items():
        features = np.load(tmp_path / "out" / f"{name}.npy")
        assert len(features) == seconds, name
    damaged = summary(tmp_path / "out")["damaged"]
    assert list(damaged) == ["again"]
    assert "its clock jumps 2 times (at 2.0, 4.0 s)" in damaged["again"][0]


def test_a_run_without_any_readable_video_is_an_error(run_extract, tmp_path, capsys):
    (tmp_path / "empty.mp4").touch()
    assert run_extract(tmp_path, tmp_path / "out") == 2
    assert (
        "none of the 1 videos could be read: the file is empty"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("value", "dtype", "remedy"),
    [
        (float("nan"), "bf16", "try `--dtype fp32`"),
        (float("nan"), "fp32", "check the encoder and its weights"),
        # float16 ends at 65,504.
        (1e5, "fp32", "try `--half_precision 0`"),
    ],
)
def test_features_that_are_not_finite_are_not_written(
    videos, tmp_path, value, dtype, remedy
):
    class Broken(Pooling):
        def forward(self, clips):
            output = super().forward(clips)["video_embedding"]
            return {"video_embedding": torch.full_like(output, value)}

    report = extracted(
        videos / "b.mp4", tmp_path, Broken(), dtype=dtype, l2_normalize=False
    )
    assert report.failed["b"] == f"its features are not finite; {remedy}"
    assert contents(tmp_path) == {}


# ---- memory


@pytest.fixture
def made_up_video(tmp_path, monkeypatch):
    """Returns a function that sets the clips of the only video in `tmp_path`."""
    (tmp_path / "v.mp4").touch()

    def replace(clips):
        def clips_of_each(self):
            return ((0, clip) for clip in clips)

        members = {"notes": [], "failed": {}, "clips_of_each": clips_of_each}
        fake = type("Fake", (), members)
        monkeypatch.setattr(extraction, "VideoFile", lambda *_, **__: fake())

    return replace


def test_decoding_waits_for_the_network(tmp_path, made_up_video):
    """The number of decoded clips in memory does not depend on the length of the video."""
    network, most = Pooling(), []

    def clips():
        for number in range(300):
            most.append(number + 1 - len(network.num_clips))
            yield np.zeros((30, 8, 8, 3), np.uint8)

    made_up_video(clips())
    assert extracted(tmp_path, tmp_path, network).seconds == 300
    # 2 clips in the queue, 1 in the network, 1 taken from the queue, and 1 in the decoder.
    assert max(most) <= 5


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path, made_up_video):
    """With an array for each row, the heap would grow by 18 MB per second of video."""
    sizes = []

    def clips():
        for _ in range(90):
            sizes.append(psutil.Process().memory_info().rss / 1e6)
            yield np.zeros((30, 224, 224, 3), np.uint8)

    made_up_video(clips())
    extracted(tmp_path, tmp_path, Pooling())
    assert sizes[89] - sizes[10] < 150  # measured -1 to 40


# ---- the command line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "tpu9"], "--device tpu9: not a device of this machine"),
        (["--device", "cuda:77"], "--device cuda:77: not a device of this machine"),
        (["--vdir", ","], "`--vdir` is empty"),
        (["--vdir", "/nowhere"], "/nowhere: no such folder"),
        (["--weights", "/nowhere/s3d.pth"], "mmpt download s3d"),
        *(
            ([f"--shard={shard}"], "I/N")
            for shard in ("1", "2/2", "-1/2", "a/b", "0/0")
        ),
    ],
)
def test_mistakes_give_one_message_and_exit_code_2(
    videos, tmp_path, capsys, flags, message
):
    out = tmp_path / "f"
    assert extract.main(["--vdir", str(videos), "--fdir", str(out), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error:") == 1
    assert not out.exists()


def test_the_shell_script_runs_the_command(videos, tmp_path):
    """The Python interpreter is replaced by a script that prints its arguments."""
    echo = tmp_path / "python"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    env = os.environ | {
        "RAW": str(videos),
        "FEATURES": str(tmp_path),
        "PYTHON": str(echo),
    }
    command = ["sh", "scripts/video_feature_extractor/how2/s3d.sh", "--random-weights"]
    printed = subprocess.check_output(command, cwd=ROOT, env=env, text=True)
    path, *arguments = printed.split("\n")[:-1]
    assert path == "scripts/video_feature_extractor/extract.py"
    seen = []
    parse = Command(
        lambda options: seen.append(options),
        options=extract.Options,
        interrupt_message="",
    )
    assert parse(arguments) == 0
    (options,) = seen
    assert options.vdir == str(videos)
    assert options.type == "s3d"
    assert options.half_precision == 1
    assert options.random_weights
