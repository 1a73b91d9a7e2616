"""Helpers for the tests of extraction: small videos, a small network, and a separate process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmpt.media import Sampling
from tests.support.paths import ROOT
from tests.support.videos import Clip, regular_times, write_video

SECONDS = {"a": 2.5, "b": 1, "c": 4, "d": 0.2, "e": 3}
SMALL = Clip(width=96, height=64)


class Pooling(nn.Module):
    """A fast replacement of S3D. The features of a clip are 512 local means."""

    num_clips: list[int]

    def __init__(self):
        super().__init__()
        self.num_clips = []

    def forward(self, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        self.num_clips.append(len(clips))
        means = nn.functional.adaptive_avg_pool3d(clips - 0.4, (3, 8, 8)).flatten(1)
        return {"video_embedding": means[:, :512]}


class MeanColours:
    """A fast encoder. It has two rows per second, the mean colours of two frames of full size."""

    def sampling(self) -> Sampling:
        return Sampling(frame_rate=4, num_frames=2, size=None)

    def prepare(self, frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames).float().mean(dim=(1, 2))

    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1)


# Runs the command with `Pooling`, slowed down so that a test can interrupt it.
DRIVER = """
import resource, sys, time
sys.path.insert(0, "{root}")
import torch
torch.set_num_threads(1)
from mmpt.cli import extract
from tests.support.extract_jobs import Pooling
class Slow(Pooling):
    def forward(self, clips):
        time.sleep({delay})
        return super().forward(clips)
extract.open_network = lambda *_, **__: (Slow(), "pooling")
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
print("started", flush=True)
sys.exit(extract.main(sys.argv[1:]))
"""


def write_videos(folder: Path) -> None:
    for name, seconds in SECONDS.items():
        write_video(folder / f"{name}.mp4", regular_times(seconds), SMALL)


def process(
    raw: Path, out: Path, *more: str, delay: float = 0.0, limit_bytes: int = -1
) -> subprocess.Popen[str]:
    """Starts to extract features of the videos in `raw` to `out`, in a separate process.

    Args:
        more: further arguments of the command.
        delay: seconds by which each batch is slowed down.
        limit_bytes: largest size of the files that the process may write. Default: no limit.
    """
    code = DRIVER.format(root=ROOT, delay=delay, limit=limit_bytes)
    command = [
        sys.executable,
        "-c",
        code,
        f"--vdir={raw}",
        f"--fdir={out}",
        "--device=cpu",
        *more,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.rglob("*.npy")}


def summary(out: Path, name: str = "extract_summary.json") -> dict:
    return json.loads((out / name).read_text())
