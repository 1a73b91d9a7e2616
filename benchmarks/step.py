"""A training step of Norton's recipe: ours beside padded towers with eager attention and the dense
loss, in one run.

    python benchmarks/step.py                                                          # about 100
    seconds on 2 cores python benchmarks/step.py --models base --videos 64 --device cuda --dtype
    bfloat16 # the recipe's batch on a GPU

A step is forward, loss and backward with LayerNorm parameters trained, on batches of a generated
corpus whose lengths are drawn by the aligner with the ranges of how2_pretrain.yaml. Rounds are
interleaved in one process, for each size a fresh one (what large tensors leave in the allocator
quickens the plain side of the small size). Dropout is off: both sides must give the same loss,
which is checked. On a GPU the plain side is fp16 when ours is bf16, and the most memory that each
step holds is recorded too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import BertConfig

from loader import generate
from loss import NORTON, dense
from mmpt.batch import ClipBatch, Split
from mmpt.cli.app import choose_device
from mmpt.config.schema import DatasetConfig
from mmpt.datasets import MMDataset
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.models.freezing import freeze_all_but_layernorm
from mmpt.processors import (
    ShardedHow2VideoRetriMetaProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    VideoRetriOverlappedAligner,
)
from process_memory import apart
from results import Figure, at_least, record, run_script

MODELS = {
    "base": ({}, 6),
    "demo": (
        {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
        },
        2,
    ),
}
"""Changes to bert-base-uncased and the layers of the video tower."""
INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


class Taken(NamedTuple):
    """What a step gave and took."""

    loss: float
    seconds: float
    gigabytes: float | None  # None on a CPU


def batches(folder: Path, num_videos: int, count: int) -> list[dict[str, torch.Tensor]]:
    """Return `count` flattened batches of `num_videos` x 16 clips."""
    config = generate(folder, num_videos * count)
    config = DatasetConfig(**{**vars(config), "num_video_per_batch": num_videos})
    parts = (
        ShardedHow2VideoRetriMetaProcessor,
        ShardedVideoRetriVideoProcessor,
        ShardedVideoRetriTextProcessor,
    )
    meta, video, text = (part(config, Split.TRAIN) for part in parts)
    data = MMDataset(meta, video, text, VideoRetriOverlappedAligner(config, Split.TRAIN), seed=0)
    items: list[ClipBatch] = [
        data.item(number % len(data), epoch=number) for number in range(count)
    ]
    flat = [{name: item[name].flatten(0, 1) for name in INPUTS} for item in items]
    return [{**batch, "vfeats": batch["vfeats"].float()} for batch in flat]


def towers(
    size: str, *, packed: bool, device: torch.device, dtype: torch.dtype
) -> MMFusionSeparate:
    """Two towers with weights from one seed; the padded ones attend eagerly."""
    changes, video_layers = MODELS[size]
    config = BertConfig(**changes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    model = MMFusionSeparate(
        config, num_hidden_video_layers=video_layers, max_video_len=16, packed=packed
    )
    if not packed:
        for tower in (model.video_encoder.bert, model.text_encoder):
            tower.set_attn_implementation("eager")
    freeze_all_but_layernorm(model)
    return model.train().to(device, dtype)


def step(
    model: MMFusionSeparate, loss: Callable[..., torch.Tensor], batch: dict[str, torch.Tensor]
) -> Taken:
    """Run one step."""
    first = next(model.parameters())
    moved = {name: value.to(first.device) for name, value in batch.items()}
    moved["vfeats"] = moved["vfeats"].to(first.dtype)
    model.zero_grad(set_to_none=True)
    on_gpu = first.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(first.device)
        torch.cuda.reset_peak_memory_stats(first.device)
    begin = time.perf_counter()
    total = loss(model(**moved))
    total.backward()
    value = total.item()
    if on_gpu:
        torch.cuda.synchronize(first.device)
    took = time.perf_counter() - begin
    return Taken(
        value, took, torch.cuda.max_memory_allocated(first.device) / 1e9 if on_gpu else None
    )


def real_share(batch: dict[str, torch.Tensor], video_layers: int, text_layers: int) -> float:
    """Return the share of token-layers that are not padding."""
    real = video_layers * (batch["vmasks"].sum() + 2 * len(batch["vmasks"]))
    real = real + text_layers * (batch["cmasks"].sum() - len(batch["cmasks"]))
    slots = video_layers * (batch["vmasks"].shape[1] + 2) + text_layers * (
        batch["cmasks"].shape[1] - 1
    )
    return float(real / (slots * len(batch["vmasks"])))


def dense_float(output: dict[str, torch.Tensor]) -> torch.Tensor:
    """The dense loss in float32, on the device of the states."""
    widened = {
        name: value.float() if value.is_floating_point() else value
        for name, value in output.items()
    }
    with widened["pooled_video"].device:
        return dense(widened)


def compare(
    size: str, num_videos: int, rounds: int, device: torch.device, dtype: torch.dtype
) -> list[Figure]:
    """Measure a model of that size."""
    norton = MMContraLoss(NORTON)
    plain_dtype = (
        torch.float16 if device.type == "cuda" and dtype != torch.float32 else torch.float32
    )
    ours = towers(size, packed=True, device=device, dtype=dtype)
    plain = towers(size, packed=False, device=device, dtype=plain_dtype)
    sides: dict[str, tuple[MMFusionSeparate, Callable[..., torch.Tensor]]] = {
        "ours": (ours, lambda output: norton(**output).total),
        "plain": (plain, dense_float),
    }
    with tempfile.TemporaryDirectory() as folder:
        drawn = batches(Path(folder), num_videos, rounds + 1)
    taken: dict[str, list[Taken]] = {name: [] for name in sides}
    tolerance = 1e-4 if dtype == plain_dtype == torch.float32 else 2e-2
    for batch in drawn:
        for name, (model, loss) in sides.items():
            taken[name].append(step(model, loss, batch))
        values = [taken[name][-1].loss for name in sides]
        assert abs(values[0] - values[1]) < tolerance * abs(values[1]), values
    counted = {name: runs[1:] for name, runs in taken.items()}  # the first round warms up
    text_layers = ours.text_encoder.config.num_hidden_layers
    share = statistics.mean(real_share(batch, MODELS[size][1], text_layers) for batch in drawn)
    what = f"training step, {size} size, {num_videos} videos x 16 clips, {device.type}, {dtype}"
    note = f"losses equal to {tolerance:g}; {100 * share:.0f} % of the padded token-layers are real"
    figures = [
        Figure(what, "s", *([run.seconds for run in runs] for runs in counted.values()), note)
    ]
    if device.type == "cuda":
        peaks = [[run.gigabytes or 0.0 for run in runs] for runs in counted.values()]
        figures.append(
            Figure(
                f"{what}: memory",
                "GB",
                *peaks,
                note=f"plain in {plain_dtype}; weights of both included",
            )
        )
    return figures


def main() -> None:
    """Read the options, measure, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", choices=sorted(MODELS), nargs="+", default=["base", "demo"])
    parser.add_argument(
        "--videos", type=at_least(1), help="videos in a batch, of 16 clips each (base: 8, demo: 16)"
    )
    parser.add_argument("--rounds", type=at_least(1), default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="ours"
    )
    args = parser.parse_args()
    device, dtype = choose_device(args.device), getattr(torch, args.dtype)
    sizes = {size: args.videos or {"base": 8, "demo": 16}[size] for size in args.models}
    runs = [
        apart(compare, size, videos, args.rounds, device, dtype) for size, videos in sizes.items()
    ]
    record([figure for figures in runs for figure in figures])


if __name__ == "__main__":
    run_script(main)
