"""The embedding pass of the refresh, beside one padded video at a time with eager attention, in one
run.

    python benchmarks/embed.py    # demo size; half a minute on 2 cores
    python benchmarks/embed.py --model base --videos 32 --rounds 3    # BERT-base; a few minutes
    # on a GPU:
    python benchmarks/embed.py --model base --videos 4096 --device cuda --dtype float16 --workers 8

Ours is the task's own pass: drawing of clips, loader, towers on real tokens, float16 rows in a file
that survives a kill. The plain side draws the same clips in the same process and runs padded towers
on them. Rounds are interleaved, each embeds all videos of a generated corpus, and the vectors must
agree.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from loader import C, generate
from mmpt.cli.app import choose_device
from mmpt.config import ModelConfig, RetrievalConfig, RunConfig
from mmpt.tasks import VideoRetriTask
from mmpt.utils.distributed import World
from results import Figure, Options, in_turns, record, run_script
from step import DTYPES, INPUTS, MODELS, towers


def task_of(folder: Path, num_videos: int, workers: int) -> VideoRetriTask:
    """Generate a corpus and return the task that embeds it."""
    options = {"checkpoint": {"save_dir": f"{folder}/run"}, "dataset": {"num_workers": workers}}
    config = RunConfig(
        dataset=generate(folder, num_videos),
        model=ModelConfig(),
        retrieval=RetrievalConfig(),
        fairseq=options,
    )
    return VideoRetriTask(config)


def ours(task: VideoRetriTask, model: nn.Module, epoch: int) -> np.ndarray:
    """Return the vectors float16 [N, D] of the task's pass."""
    vectors = task.embed_videos(model, epoch, World())
    assert vectors is not None
    return vectors


@torch.no_grad()
def plain(task: VideoRetriTask, model: nn.Module, epoch: int) -> np.ndarray:
    """Return the same vectors, video by video, float32."""
    first, data, rows = next(model.parameters()), task.embedding_dataset, []
    model.eval()
    for number in range(len(data)):
        item = data.item(number, epoch)
        batch = {name: item[name].to(first.device) for name in INPUTS}
        output = model(**{**batch, "vfeats": batch["vfeats"].to(first.dtype)})
        both = output["pooled_video"].float() + output["pooled_text"].float()
        rows.append((both / 2).mean(dim=0).cpu())
    return torch.stack(rows).numpy()


def main() -> None:
    """Read the options, measure in turns, compare, record."""
    parser = Options(__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), default="demo")
    parser.number("--videos", 256)
    parser.number("--rounds", 5)
    parser.number("--workers", 0, "loader processes of our side", least=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    args = parser.parse_args()
    device, dtype = choose_device(args.device), getattr(torch, args.dtype)
    packed, padded = (
        towers(args.model, packed=packed, device=device, dtype=dtype) for packed in (True, False)
    )
    off: list[float] = []

    def check(found: np.ndarray, wanted: np.ndarray) -> None:
        off.append(float(np.abs(found - wanted).max() / np.abs(wanted).max()))
        assert off[-1] < (1e-3 if dtype == torch.float32 else 2e-2), off

    with tempfile.TemporaryDirectory() as folder:
        task = task_of(Path(folder), args.videos, args.workers)
        seconds = in_turns(
            args.rounds,
            lambda epoch: ours(task, packed, epoch),
            lambda epoch: plain(task, padded, epoch),
            check=check,
        )
    rates = ([args.videos / each for each in side] for side in seconds)
    size = f"{args.videos:,} videos x {C} clips"
    what = f"embedding pass, {args.model}, {size}, {args.dtype}, {args.device}"
    note = f"vectors equal to {max(off):.0e} of the largest (float16 rows)"
    record([Figure(what, "videos/s", *rates, note=f"{note}; plain: padded, a video at a time")])


if __name__ == "__main__":
    run_script(main)
