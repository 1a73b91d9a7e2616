"""Mistakes in a user-defined encoder. Each gives one message, or a failed video."""

import re
import sys

import numpy as np
import pytest
import torch

from mmpt.media.clip_encoder import ClipEncoder
from mmpt.prepare.features.encoder_run import EncoderRun
from tests.support.extract_jobs import (
    SECONDS,
    contents,
    summary,
)
from tests.support.videos import Clip, regular_times, write_video

MODULE = """\
import numpy as np
import torch
from mmpt.media import Sampling


class Good:
    def sampling(self):
        return Sampling(frame_rate=2, num_frames=2, size=None)

    def prepare(self, frames):
        return torch.from_numpy(frames).float().mean(dim=(1, 2))

    def encode(self, inputs):
        return inputs.flatten(1)


class VarSize(Good):
    def prepare(self, frames):
        return torch.from_numpy(frames).float().mean(dim=(0, 1))


class TooManyRows(Good):
    width = 6

    def encode(self, inputs):
        return inputs.flatten(1).repeat(2, 1)


class WrongWidth(Good):
    width = 7


class OneDimension(Good):
    def encode(self, inputs):
        return inputs.mean(dim=(1, 2))


class Arrays(Good):
    def prepare(self, frames):
        return frames.mean(axis=(1, 2), dtype=np.float32)

    def encode(self, inputs):
        return inputs.flatten(1).numpy()


class Dicts(Good):
    def encode(self, inputs):
        return {"features": inputs}


class NothingPrepared(Good):
    def prepare(self, frames):
        return None


class Argument(Good):
    def __init__(self, size):
        pass


class Rate(Good):
    def sampling(self):
        return 4


class NoFrames(Good):
    def sampling(self):
        return Sampling(num_frames=0)


class Broken(Good):
    def sampling(self):
        return self.nothing


class PrepareSmall(Good):
    def prepare(self, frames):
        if frames.shape[1] < 50:
            raise ValueError("too small")
        return super().prepare(frames)


class EncodeSmall(Good):
    def prepare(self, frames):
        return torch.tensor([frames.shape[1], 1.0])

    def encode(self, inputs):
        if (inputs[:, 0] == 48).any():
            raise KeyError("small")
        return inputs


number = 3


def function():
    pass
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    files = {
        "own_classes": MODULE,
        "own_syntax": "import torch\n\nclass Encoder\n",
        "own_raises": "import torch\n\nraise ZeroDivisionError('no luck')\n",
        "own_missing": "\nimport a_missing_package\n",
        "own_exits": "raise SystemExit(0)\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield
    for name in files:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "VarSize",
            r"must return features of the shape \[1, 672\], .*returns \[1, 288\]",
        ),
        ("TooManyRows", r"shape \[1, 6\], one row for each clip, but returns \[2, 6\]"),
        ("WrongWidth", r"shape \[1, 7\], one row for each clip, but returns \[1, 6\]"),
        (
            "OneDimension",
            r"shape \[1, width\], one row for each clip, but returns \[1\]",
        ),
        ("Dicts", "`encode` must return a tensor or an array, but returns dict"),
        (
            "NothingPrepared",
            "`prepare` must return a tensor or an array, but returns NoneType",
        ),
        ("Argument", r"called without arguments, but raises TypeError: .*'size'"),
        ("Rate", "`sampling` must return a `mmpt.media.Sampling`, but returns int"),
        ("NoFrames", "number of frames at least 1, but is Sampling"),
        ("Broken", r"`sampling` raises AttributeError: .*own_classes.py, line 73\)"),
        ("number", "must be a class, but .*own_classes.py has no class number"),
        ("function", "has no class function"),
        ("Nothing", "has no class Nothing"),
    ],
)
def test_mistakes_in_a_class_give_one_message(
    videos, run_extract, tmp_path, capsys, name, message
):
    encoder = f"own_classes.{name}"
    assert run_extract(videos, tmp_path / "out", "--encoder", encoder) == 2
    errors = capsys.readouterr().err
    assert errors.count("error:") == 1
    assert f"`--encoder {encoder}`" in errors
    assert re.search(message, errors)
    assert contents(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("own_nowhere", "ModuleNotFoundError: No module named 'own_nowhere'. Correct"),
        ("own_syntax", "SyntaxError: expected ':' (own_syntax.py, line 3)"),
        ("own_raises", "ZeroDivisionError: no luck (TMP/own_raises.py, line 3)"),
        ("own_missing", "'a_missing_package' (TMP/own_missing.py, line 2)"),
        ("own_exits", "SystemExit: 0 (TMP/own_exits.py, line 1)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_reported(
    videos, run_extract, tmp_path, capsys, module, message
):
    assert run_extract(videos, tmp_path / "out", "--encoder", f"{module}.Encoder") == 2
    errors = capsys.readouterr().err
    assert f"`--encoder {module}.Encoder` cannot be imported: " in errors
    assert message.replace("TMP", str(tmp_path)) in errors


def test_numpy_arrays_are_used_like_tensors(videos, run_extract, tmp_path):
    for name in ("Good", "Arrays"):
        options = ["--encoder", f"own_classes.{name}", "--half-precision", "0"]
        assert run_extract(videos, tmp_path / name, *options) == 0
    wanted = contents(tmp_path / "Good")
    found = contents(tmp_path / "Arrays")
    assert len(found) == len(SECONDS)
    for name in wanted:
        first, second = (np.load(tmp_path / kind / name) for kind in ("Good", "Arrays"))
        np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("PrepareSmall", "`prepare` raises ValueError: too small ("),
        ("EncodeSmall", "`encode` raises KeyError: 'small' ("),
    ],
)
def test_only_a_video_for_which_the_encoder_raises_fails(
    videos, run_extract, tmp_path, name, reason
):
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in videos.glob("[ab].mp4"):
        (raw / path.name).symlink_to(path)
    write_video(raw / "long.mp4", regular_times(4), Clip(width=64, height=48))
    encoder = ["--encoder", f"own_classes.{name}"]
    assert run_extract(raw, tmp_path / "out", *encoder) == 0
    found = summary(tmp_path / "out")
    assert (found["written"], list(found["failed"])) == (2, ["long"])
    assert reason in found["failed"]["long"]
    assert f"{tmp_path}/own_classes.py, line " in found["failed"]["long"]
    # Another encoder still gets all clips of the video.
    both = [*encoder, "--encoder", "own_classes.Good"]
    assert run_extract(raw, tmp_path / "both", *both) == 0
    assert summary(tmp_path / f"both/own_classes.{name}")["written"] == 2
    good = summary(tmp_path / "both/own_classes.Good")
    assert (good["written"], good["failed"]) == (3, {})
    assert len(np.load(tmp_path / "both/own_classes.Good/long.npy")) == 4


class Picky:
    """Raises an exception for a batch with a negative clip. A row is the clip."""

    def sampling(self):
        from mmpt.media import Sampling

        return Sampling(size=None)

    def prepare(self, frames):
        return torch.zeros(2)

    def encode(self, inputs):
        if (inputs < 0).any():
            raise ValueError("negative")
        return inputs


def test_only_the_video_that_causes_the_error_of_a_batch_fails(tmp_path):
    from mmpt.media.video_list import VideoJob
    from mmpt.prepare.features.encoder_run import VideoRows

    encoder = ClipEncoder(Picky(), torch.device("cpu"))
    encoder.batch_size = 4  # as on a GPU
    jobs = [VideoJob(name, tmp_path / name, tmp_path / f"{name}.npy") for name in "abc"]
    run = EncoderRun(jobs, encoder, l2_normalize=False, dtype="float32")
    rows = [VideoRows(job) for job in jobs]
    for step in range(3):
        for number, video in enumerate(rows):
            value = -1.0 if (step, number) == (1, 1) else 10.0 * number + step
            run.add(video, torch.full((2,), value))
        run.encode_batches()
    for video in rows:
        run.end(video, [])
    run.encode_batches(at_end=True)
    assert sorted(run.report.written) == ["a", "c"]
    assert list(run.report.failed) == ["b"]
    assert np.load(tmp_path / "c.npy")[:, 0].tolist() == [20, 21, 22]
    assert run.report.num_done == 3
