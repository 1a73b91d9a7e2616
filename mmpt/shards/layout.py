"""The layout of shards on disk: paths, the meta file that maps videos to rows, and checks.

The meta file is JSON, {"format": 1, "shards": [[id, ...], ...]}: entry k lists the videos of shard
k in row order. The released `{train|val}_meta.pkl` ({k: [id, ...]}) is read if there is no JSON
file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel

from mmpt.batch import FEATURE_DIM, Split
from mmpt.errors import DataError
from mmpt.shards.shardedtensor import ShardedTensor, open_shard
from mmpt.utils.io import load_plain_pickle, write_json
from mmpt.utils.validation import read_json_as, validate


def video_stem(vfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the path stem of a feature shard."""
    return f"{vfeat_dir}/{split.shard_name}_{shard}"


def times_stem(tfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the path stem of the caption times of a shard.

    Args:
        tfeat_dir: path prefix of the caption files, ending in a dot.
    """
    return f"{tfeat_dir}{split.shard_name}_{shard}.startends"


def ids_stem(tfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the path stem of the word-piece ids of a shard.

    Args:
        tfeat_dir: path prefix of the caption files, ending in a dot.
    """
    return f"{tfeat_dir}{split.shard_name}_{shard}.caps_ids"


def write_shard_meta(
    vfeat_dir: str | Path, split: Split, shards: Sequence[Sequence[str]]
) -> Path:
    """Writes `<vfeat_dir>/{train|val}_meta.json` and returns its path.

    Args:
        shards: the video ids of every shard, in row order.
    """
    name = f"{split.shard_name}_meta.json"
    path = Path(vfeat_dir) / name
    lists = [list(ids) for ids in shards]
    write_json(path, {"format": 1, "shards": lists})
    return path


def meta_path(vfeat_dir: str | Path, split: Split) -> Path:
    """Returns the path of the meta file of a split: the JSON file, or else the released pickle.

    Raises:
        DataError: neither exists.
    """
    stem = f"{split.shard_name}_meta"
    for suffix in ("json", "pkl"):
        path = Path(vfeat_dir) / f"{stem}.{suffix}"
        if path.is_file():
            return path
    raise DataError(
        f"{vfeat_dir}: neither {stem}.json nor {stem}.pkl is there. `dataset.vfeat_dir` must be a "
        "folder of packed features: run `mmpt pack`, or correct the path."
    )


def read_shard_meta(vfeat_dir: str | Path, split: Split) -> dict[int, list[str]]:
    """Returns {shard: video ids in row order}, from the meta file of a split.

    Raises:
        DataError: there is no meta file, or it has another layout.
    """
    path = meta_path(vfeat_dir, split)
    remedy = "It must list the video ids of every shard. Pack the features again."
    if path.suffix == ".json":
        meta = read_json_as(path, _Meta, remedy)
        return dict(enumerate(meta.shards))
    content = load_plain_pickle(path)
    return validate(dict[int, list[str]], content, path, remedy)


class _Meta(BaseModel):
    """The content of a JSON meta file."""

    format: Literal[1]
    shards: list[list[str]]


class ShardCounts(NamedTuple):
    """The number of feature rows and captions of every video of a shard."""

    seconds: np.ndarray
    """Feature rows, int64 [videos]."""
    captions: np.ndarray | None
    """Captions, int64 [videos]; None if captions are not read."""
    reversed_times: int = 0
    """Captions that end before they start."""
    outside_times: int = 0
    """Captions that start before their video or end after it."""


def check_shard(
    vfeat_dir: str,
    tfeat_dir: str | None,
    split: Split,
    shard: int,
    shards: Mapping[int, Sequence[str]],
    vocab_size: int | None = None,
    num_sampled: int = 4096,
) -> ShardCounts:
    """Opens the tensors of one shard and checks that they fit each other.

    No features are read. Word-piece ids are checked for the first captions only. This finds
    captions that were tokenised for another BERT, while reading all ids of HowTo100M would delay a
    start by minutes. A single damaged id after them is found when it is drawn, or by `mmpt check`.

    Args:
        vfeat_dir: folder of the feature shards.
        tfeat_dir: path prefix of the caption files; None if captions are not read.
        shard: number of the shard.
        shards: the video ids of all shards.
        vocab_size: word-piece ids must be below it; None: ids are not checked.
        num_sampled: number of captions whose ids are checked.
    Raises:
        DataError: a file is missing or damaged, features are not [seconds, 512] floats, row counts
            differ, or a word-piece id is not below `vocab_size`.
    """
    # All tensors of the shard must have one row per video.
    tensors = [open_features(vfeat_dir, split, shard)]
    if tfeat_dir is not None:
        tensors += open_captions(tfeat_dir, split, shard)
    video_ids = shards[shard]
    num_videos = len(video_ids)
    for tensor in tensors:
        if len(tensor) != num_videos:
            raise DataError(
                f"{tensor.name}: must have one row per video of {meta_path(vfeat_dir, split)}, "
                f"{num_videos}, but has {len(tensor)}. Features, captions and meta file "
                "must come from the same packing: make them again."
            )
    seconds = tensors[0].lengths()
    if tfeat_dir is None:
        return ShardCounts(seconds, None)
    # Times and ids must belong to the same captions.
    _, times, ids = tensors
    _check_caption_counts(times, ids, video_ids)
    if vocab_size is not None:
        _check_vocabulary(ids, video_ids, vocab_size, num_sampled)
    # Times that are reversed or outside of their video are counted, because clips are clamped.
    num_captions = times.lengths()
    video_ends = np.repeat(seconds, num_captions)
    starts = times.data[:, 0]
    ends = times.data[:, 1]
    is_reversed = ends < starts
    latest = np.maximum(starts, ends)
    is_outside = (starts < 0) | (latest > video_ends)
    return ShardCounts(
        seconds=seconds,
        captions=num_captions,
        reversed_times=int(is_reversed.sum()),
        outside_times=int(is_outside.sum()),
    )


def _check_caption_counts(
    times: ShardedTensor, ids: ShardedTensor, video_ids: Sequence[str]
) -> None:
    """Raises DataError if a video does not have as many captions as times."""
    num_times = times.lengths()
    num_ids = ids.lengths()
    differs = num_times != num_ids
    if not differs.any():
        return
    row = int(differs.argmax())
    raise DataError(
        f"{ids.name}: video {video_ids[row]} (row {row}) must have one row per time, "
        f"{num_times[row]}, but has {num_ids[row]}. Tokenise this shard again."
    )


def _check_vocabulary(
    ids: ShardedTensor, video_ids: Sequence[str], vocab_size: int, num_sampled: int
) -> None:
    """Raises DataError if one of the first captions has an id that is not in the vocabulary."""
    sample = ids.data[:num_sampled]
    if sample.max(initial=0) < vocab_size:
        return
    # Find the first such caption, and the video that it belongs to.
    is_unknown = sample >= vocab_size
    caption = int(is_unknown.any(axis=1).argmax())
    next_row = np.searchsorted(ids.starts, caption, side="right")
    row = int(next_row) - 1
    largest = sample[caption].max()
    raise DataError(
        f"{ids.name}: video {video_ids[row]} (row {row}) must have word-piece ids below "
        f"{vocab_size}, the vocabulary of `dataset.bert_name`, but has {largest}. Tokenise the "
        "captions with the same BERT, or correct `dataset.bert_name`."
    )


def open_features(vfeat_dir: str, split: Split, shard: int) -> ShardedTensor:
    """Returns the mapped features of a shard, float [seconds, 512] per video.

    Raises:
        DataError: a file is missing or damaged, or has another dtype or width.
    """
    features = open_shard(video_stem(vfeat_dir, split, shard))
    wanted = f"floats of shape [seconds, {FEATURE_DIM}]"
    remedy = "Extract them with S3D, or correct `dataset.vfeat_dir`."
    _check_rows(features, "f", wanted, FEATURE_DIM, remedy)
    return features


def open_captions(
    tfeat_dir: str, split: Split, shard: int
) -> tuple[ShardedTensor, ShardedTensor]:
    """Returns the mapped caption times and word-piece ids of a shard.

    Returns:
        Start and end in seconds, float [captions, 2] per video, and ids, int [captions, width],
        padded with -1.
    Raises:
        DataError: a file is missing or damaged, or has another dtype or width.
    """
    stem = times_stem(tfeat_dir, split, shard)
    first_file = Path(f"{stem}_data.npy")
    if not tfeat_dir.endswith(".") and not first_file.exists():
        raise DataError(
            f"{first_file}: no such file. `dataset.tfeat_dir` is the beginning of file names and "
            f"must end in `.`, but is `{tfeat_dir}`."
        )
    times = open_shard(stem)
    ids = open_shard(ids_stem(tfeat_dir, split, shard))
    remedy = "Tokenise this shard again, or correct `dataset.tfeat_dir`."
    _check_rows(times, "f", "floats of shape [captions, 2]", 2, remedy)
    _check_rows(ids, "i", "signed integers of shape [captions, width]", None, remedy)
    return times, ids


def _check_rows(
    tensor: ShardedTensor, kind: str, wanted: str, width: int | None, remedy: str
) -> None:
    """Raises DataError unless the rows of a tensor have a kind of dtype and a width.

    Args:
        kind: the `kind` of the NumPy dtype.
        wanted: describes the rows, for the message.
        width: length of a row; None: any.
    """
    data = tensor.data
    is_table = data.dtype.kind == kind and data.ndim == 2
    if not is_table or width not in (None, data.shape[1]):
        raise DataError(
            f"{tensor.name}_data.npy: must hold {wanted}, but holds {data.dtype} of shape "
            f"{list(data.shape)}. {remedy}"
        )
