"""The embedding pass of the refresh, beside one padded video at a time with eager attention, in one
run.

    python benchmarks/embed.py                                                    # demo size; half
    a minute on 2 cores python benchmarks/embed.py --model base --videos 32 --rounds 3
    # BERT-base; a few minutes python benchmarks/embed.py --model base --videos 4096 --device cuda
    --dtype float16 --workers 8

Ours is the task's own pass: drawing of clips, loader, towers on real tokens, float16 rows in a file
that survives a kill. The plain side draws the same clips in the same process and runs padded towers
on them. Rounds are interleaved, each embeds all videos of a generated corpus, and the vectors must
agree.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from loader import C, generate
from mmpt.cli.app import choose_device
from mmpt.config import ModelConfig, RetrievalConfig, RunConfig
from mmpt.tasks import VideoRetriTask
from mmpt.utils.distributed import World
from results import Figure, at_least, record, run_script
from step import INPUTS, MODELS, towers


def task_of(folder: Path, num_videos: int, workers: int) -> VideoRetriTask:
    """Generate a corpus and return the task that embeds it."""
    options = {"checkpoint": {"save_dir": f"{folder}/run"}, "dataset": {"num_workers": workers}}
    names = (
        "ShardedHow2VideoRetriMetaProcessor",
        "ShardedVideoRetriVideoProcessor",
        "ShardedVideoRetriTextProcessor",
    )
    dataset = generate(folder, num_videos).replace(
        aligner="VideoRetriOverlappedAligner",
        **dict(zip(("meta_processor", "video_processor", "text_processor"), names, strict=True)),
    )
    return VideoRetriTask(
        RunConfig(
            dataset=dataset, model=ModelConfig(), retrieval=RetrievalConfig(), fairseq=options
        )
    )


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
        rows.append(
            ((output["pooled_video"].float() + output["pooled_text"].float()) / 2).mean(dim=0).cpu()
        )
    return torch.stack(rows).numpy()


def main() -> None:
    """Read the options, measure in turns, compare, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=sorted(MODELS), default="demo")
    parser.add_argument("--videos", type=at_least(1), default=256)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument(
        "--workers", type=at_least(0), default=0, help="loader processes of our side"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    args = parser.parse_args()
    device, dtype = choose_device(args.device), getattr(torch, args.dtype)
    sides = [
        (run, towers(args.model, packed=run is ours, device=device, dtype=dtype))
        for run in (ours, plain)
    ]
    rates: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as folder:
        task = task_of(Path(folder), args.videos, args.workers)
        for epoch in range(args.rounds + 1):  # the first round warms up
            found = []
            for which, (run, model) in enumerate(sides):
                begin = time.perf_counter()
                found.append(run(task, model, epoch))
                if epoch:
                    rates[which].append(args.videos / (time.perf_counter() - begin))
            worst = float(np.abs(found[0] - found[1]).max() / np.abs(found[1]).max())
            assert worst < (1e-3 if dtype == torch.float32 else 2e-2), worst
    what = (
        f"embedding pass, {args.model}, {args.videos:,} videos "
        f"x {C} clips, {args.dtype}, {args.device}"
    )
    note = (
        f"vectors equal to {worst:.0e} of the largest (float16 "
        "rows); plain: padded, a video at a time"
    )
    record([Figure(what, "videos/s", *rates, note=note)])


if __name__ == "__main__":
    run_script(main)
