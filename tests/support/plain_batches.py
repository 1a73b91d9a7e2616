"""A training set of short videos, and a plain loop that makes the digests of its batches."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt.batch import ShardKey, Split
from mmpt.datasets import MMDataset
from mmpt.processors import VideoRetriOverlappedAligner
from mmpt.processors.how2 import NO_INDEX
from mmpt.utils.rng import item_rng
from tests.support.shard_data import MANY, make_data, make_video

SEED = 1
NUM_VIDEOS = 20  # of the corpus
V = 4  # videos of a batch
C = 16  # clips of a video
EPOCHS = 2


def make_dataset(folder: Path, kind: type[MMDataset] = MMDataset) -> MMDataset:
    """Returns a training set of short videos, whose shards are written to `folder`."""
    sizes = {"num_video_per_batch": V, "clip_per_video": C}
    lengths = {"max_video_len": 4, "max_len": 16}
    config = make_data(folder, num_videos=NUM_VIDEOS, **sizes, **lengths)
    settings = config.model_dump(exclude_unset=True)
    config = VideoRetriOverlappedAligner.Config(**settings)
    parts = [part_cls(config, Split.TRAIN) for part_cls in MANY]
    aligner = VideoRetriOverlappedAligner(config, Split.TRAIN)
    return kind(*parts, aligner, seed=SEED)


def plan_of(epoch: int, num_batches: int) -> list[list[int]]:
    """Returns batches of V random videos."""
    rng = random.Random(epoch)
    return [rng.sample(range(NUM_VIDEOS), V) for _ in range(num_batches)]


def digest(batch: dict[str, Any]) -> int:
    """Returns a hash of the names, types and values of a batch."""
    total = hashlib.blake2b(digest_size=8)
    for name, value in sorted(batch.items()):
        total.update(name.encode())
        if isinstance(value, torch.Tensor):
            total.update(f"{value.dtype}{tuple(value.shape)}".encode())
            total.update(value.contiguous().numpy())
        else:
            total.update(repr(value).encode())
    return int.from_bytes(total.digest(), "little")


def plain_digests(
    aligner: VideoRetriOverlappedAligner, num_batches: int
) -> Iterator[int]:
    """Yields the digests of all batches of all epochs in the order of fairseq.

    The videos are in memory. Only the aligner is the one that the loaders use.
    """
    videos = [make_video(number) for number in range(NUM_VIDEOS)]
    for epoch in range(1, EPOCHS + 1):
        plan = plan_of(epoch, num_batches)
        order = np.arange(num_batches)
        np.random.RandomState(SEED + epoch).shuffle(order)
        for index in order.tolist():
            names, features, captions = zip(
                *(videos[i] for i in plan[index]), strict=True
            )
            keys = [ShardKey(name, NO_INDEX, 0, 0) for name in names]
            rng = item_rng(SEED, epoch, index)
            batch: dict[str, Any] = dict(aligner(keys, features, captions, rng))
            batch["video_id"] = [(name,) for name in names]
            batch["idx"] = torch.tensor([index])
            yield digest(batch)
