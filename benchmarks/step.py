"""A training step of Norton's recipe: ours beside padded towers with eager attention and the dense loss, in one run.

    python benchmarks/step.py                       # BERT-base, 8 videos x 16 clips; about 3 minutes on 2 cores
    python benchmarks/step.py --model demo --videos 16

A step is forward, loss and backward with LayerNorm parameters trained, on batches of a generated corpus whose lengths
are drawn by the aligner with the ranges of how2_pretrain.yaml. Rounds are interleaved in one process. Dropout is off:
both sides must give the same loss, which is checked.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from loader import generate
from loss import NORTON, dense
from transformers import BertConfig

from mmpt.batch import ClipBatch, Split
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

MODELS = {
    "base": ({}, 6),
    "demo": ({"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}, 2),
}
"""Changes to bert-base-uncased and the layers of the video tower."""
INPUTS = ("caps", "cmasks", "vfeats", "vmasks")


def batches(folder: Path, num_videos: int, count: int) -> list[dict[str, torch.Tensor]]:
    """Return `count` flattened batches of `num_videos` x 16 clips."""
    config = generate(folder, num_videos * count)
    config = DatasetConfig(**{**vars(config), "num_video_per_batch": num_videos})
    parts = (ShardedHow2VideoRetriMetaProcessor, ShardedVideoRetriVideoProcessor, ShardedVideoRetriTextProcessor)
    meta, video, text = (part(config, Split.TRAIN) for part in parts)
    data = MMDataset(meta, video, text, VideoRetriOverlappedAligner(config, Split.TRAIN), seed=0)
    items: list[ClipBatch] = [data.item(number % len(data), epoch=number) for number in range(count)]
    flat = [{name: item[name].flatten(0, 1) for name in INPUTS} for item in items]
    return [{**batch, "vfeats": batch["vfeats"].float()} for batch in flat]


def towers(size: str, *, packed: bool) -> MMFusionSeparate:
    """Two towers with weights from one seed; the padded ones attend eagerly."""
    changes, video_layers = MODELS[size]
    config = BertConfig(**changes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    model = MMFusionSeparate(config, num_hidden_video_layers=video_layers, max_video_len=16, packed=packed)
    if not packed:
        for tower in (model.video_encoder.bert, model.text_encoder):
            tower.set_attn_implementation("eager")
    freeze_all_but_layernorm(model)
    return model.train()


def step(model: MMFusionSeparate, loss: Callable, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Run one step; return the loss and the seconds."""
    model.zero_grad(set_to_none=True)
    begin = time.perf_counter()
    total = loss(model(**batch))
    total.backward()
    return total.item(), time.perf_counter() - begin


def real_share(batch: dict[str, torch.Tensor], video_layers: int, text_layers: int) -> float:
    """Return the share of token-layers that are not padding."""
    real = video_layers * (batch["vmasks"].sum() + 2 * len(batch["vmasks"]))
    real = real + text_layers * (batch["cmasks"].sum() - len(batch["cmasks"]))
    slots = video_layers * (batch["vmasks"].shape[1] + 2) + text_layers * (batch["cmasks"].shape[1] - 1)
    return float(real / (slots * len(batch["vmasks"])))


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="base")
    parser.add_argument("--videos", type=int, default=8, help="videos in a batch, of 16 clips each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    norton = MMContraLoss(NORTON)
    sides = {
        "ours": (towers(args.model, packed=True), lambda output: norton(**output).total),
        "plain": (towers(args.model, packed=False), dense),
    }
    with tempfile.TemporaryDirectory() as folder:
        drawn = batches(Path(folder), args.videos, args.rounds + 1)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number, batch in enumerate(drawn):  # the first round warms up
        values = {}
        for name, (model, loss) in sides.items():
            values[name], took = step(model, loss, batch)
            if number:
                seconds[name].append(took)
        assert abs(values["ours"] - values["plain"]) < 1e-4 * abs(values["plain"]), values
    text_layers = sides["ours"][0].text_encoder.config.num_hidden_layers
    share = statistics.mean(real_share(batch, MODELS[args.model][1], text_layers) for batch in drawn)
    print(f"{args.model}: {args.videos} videos x 16 clips, {args.threads} threads, {args.rounds} rounds, equal losses")
    for name, took_s in seconds.items():
        print(f"  {name:5s} {statistics.median(took_s):7.3f} s (from {min(took_s):.3f} to {max(took_s):.3f})")
    ratio = statistics.median(p / o for p, o in zip(seconds["plain"], seconds["ours"], strict=True))
    print(f"  ours is {ratio:.2f} times as fast; {100 * share:.0f} % of the padded token-layers are real")


if __name__ == "__main__":
    main()
