"""Small shards of generated videos, for tests of processors and data sets."""

import random
from pathlib import Path

import numpy as np

from mmpt import processors
from mmpt.batch import Captions, Split
from mmpt.processors import OverlappedAligner
from mmpt.shards.writer import write_shards
from tests.support.tiny_bert import tiny_bert

VOCAB_SIZE = 383
ONE = (
    processors.ShardedHow2MetaProcessor,
    processors.ShardedVideoProcessor,
    processors.ShardedTextProcessor,
)
"""Parts of a data set of single videos. An aligner follows them."""
MANY = (
    processors.ShardedHow2VideoRetriMetaProcessor,
    processors.ShardedVideoRetriVideoProcessor,
    processors.ShardedVideoRetriTextProcessor,
)
"""Parts of a data set of batches of videos."""


def make_video(number: int, seconds: int = 0) -> tuple[str, np.ndarray, Captions]:
    """Returns id, features and captions of generated video `number`.

    In second t, feature 0 is t, and feature 1 is `number`.
    """
    rng = random.Random(number)
    seconds = seconds or rng.randint(12, 40)
    features = (
        np.random.default_rng(number).standard_normal((seconds, 512)).astype(np.float16)
    )
    features[:, 0], features[:, 1] = np.arange(seconds), number
    times = sorted(rng.uniform(0, seconds - 2) for _ in range(rng.randint(4, 9)))
    ends = [time + rng.uniform(0.5, 4.0) for time in times]
    texts = []
    for _ in times:
        num_pieces = rng.randint(0, 9)
        texts.append([rng.randint(104, VOCAB_SIZE - 1) for _ in range(num_pieces)])
    captions = Captions(start=times, end=ends, cap=texts)
    return f"video{number:04d}", features, captions


def make_data(
    folder: Path, num_videos: int = 20, shard_size: int = 8, **changes: object
) -> OverlappedAligner.Config:
    """Writes shards and lists of both splits, and returns a config that reads them.

    A batch has 4 videos with 3 clips of 6 seconds and 18 text slots.
    """
    for split, first in ((Split.TRAIN, 0), (Split.VALID, 1000)):
        videos = [make_video(first + number) for number in range(num_videos)]
        write_shards(
            folder / "feat", folder / "feat" / "cap.tiny.", split, videos, shard_size
        )
        (folder / f"{split.value}.lst").write_text(
            "".join(f"{name}\n" for name, _, _ in videos)
        )
    config = OverlappedAligner.Config(
        bert_name=tiny_bert(folder / "bert"),
        train_path=str(folder / "train.lst"),
        val_path=str(folder / "valid.lst"),
        vfeat_dir=str(folder / "feat"),
        tfeat_dir=f"{folder}/feat/cap.tiny.",
        max_video_len=6,
        max_len=24,
        clip_per_video=3,
        num_video_per_batch=4,
        sampled_min_len=4,
        sampled_max_len=16,
        sampled_video_min_len=2,
        sampled_video_max_len=6,
    )
    return config.replace(**changes)
