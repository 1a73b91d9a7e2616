"""Packs features and tokenised captions into shards. The meta file is written last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from mmpt.batch import FEATURE_DIM, Captions, Split
from mmpt.errors import DataError
from mmpt.shards.layout import ids_stem, times_stem, video_stem, write_shard_meta
from mmpt.shards.shardedtensor import ShardedTensor

SHARD_SIZE = 4096  # videos per shard in the released files
MAX_CAPTION_IDS = 32  # word pieces kept of a caption
PADDING = -1


def write_feature_shard(
    vfeat_dir: str | Path,
    split: Split,
    shard: int,
    ids: Sequence[str],
    features: Sequence[np.ndarray],
) -> None:
    """Writes the features of one shard.

    Args:
        ids: video ids, for messages.
        features: per video float [seconds, 512]; the dtype is kept (float16 in the released files).
    Raises:
        DataError: an array is of another kind or shape.
    """
    for name, feature in zip(ids, features, strict=True):
        if feature.ndim != 2 or feature.shape[1] != FEATURE_DIM or feature.dtype.kind != "f":
            raise DataError(
                f"video {name}: features must be floats of shape [seconds, {FEATURE_DIM}], but are "
                f"{feature.dtype} of shape {list(feature.shape)}. Extract them again."
            )
    ShardedTensor.from_list(features).save(video_stem(vfeat_dir, split, shard))


def write_caption_shard(
    tfeat_dir: str | Path, split: Split, shard: int, captions: Sequence[Captions]
) -> None:
    """Writes the captions of one shard: times float32 [n, 2] and ids int32 [n, 32], cut to 32 and
    padded with -1.

    Args:
        tfeat_dir: path prefix ending in a dot.
        captions: per video, in the row order of the feature shard.
    """
    times, ids = zip(*(_caption_rows(caption) for caption in captions), strict=True)
    ShardedTensor.from_list(times).save(times_stem(tfeat_dir, split, shard))
    ShardedTensor.from_list(ids).save(ids_stem(tfeat_dir, split, shard))


def write_shards(
    vfeat_dir: str | Path,
    tfeat_dir: str | Path,
    split: Split,
    videos: Iterable[tuple[str, np.ndarray, Captions]],
    shard_size: int = SHARD_SIZE,
) -> list[list[str]]:
    """Writes everything a split needs, holding one shard in memory at a time.

    Args:
        videos: (id, float [seconds, 512], captions) in list order.
        shard_size: videos per shard.
    Returns:
        The ids of every shard, as in the meta file.
    """
    shards: list[list[str]] = []
    rest = iter(videos)
    while chunk := list(islice(rest, shard_size)):
        ids, features, captions = zip(*chunk, strict=True)
        write_feature_shard(vfeat_dir, split, len(shards), ids, features)
        write_caption_shard(tfeat_dir, split, len(shards), captions)
        shards.append(list(ids))
    write_shard_meta(vfeat_dir, split, shards)
    return shards


def _caption_rows(captions: Captions) -> tuple[np.ndarray, np.ndarray]:
    num_captions = len(captions["cap"])
    times = np.array([captions["start"], captions["end"]], dtype=np.float32).T.reshape(
        num_captions, 2
    )
    ids = np.full((num_captions, MAX_CAPTION_IDS), PADDING, dtype=np.int32)
    for row, cap in zip(ids, captions["cap"], strict=True):
        cap = cap[:MAX_CAPTION_IDS]
        row[: len(cap)] = cap
    return times, ids
