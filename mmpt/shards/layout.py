"""The layout of shards: paths, the meta file that maps videos to rows, and checks of a shard.

Our meta file is JSON, {"format": 1, "shards": [[id, ...], ...]}: entry k lists the videos of shard
k in row order. The released `{train|val}_meta.pkl` ({k: [id, ...]}) is read where there is no JSON.
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

NUM_SAMPLED = 4096  # captions per shard whose ids are looked at when a run starts


def video_stem(vfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the stem of a feature shard."""
    return f"{vfeat_dir}/{split.shard_name}_{shard}"


def times_stem(tfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the stem of the captions' times; `tfeat_dir` is a prefix ending in a dot."""
    return f"{tfeat_dir}{split.shard_name}_{shard}.startends"


def ids_stem(tfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the stem of the captions' word-piece ids."""
    return f"{tfeat_dir}{split.shard_name}_{shard}.caps_ids"


def write_shard_meta(vfeat_dir: str | Path, split: Split, shards: Sequence[Sequence[str]]) -> Path:
    """Writes `<vfeat_dir>/{train|val}_meta.json`; `shards[k]` lists the ids of shard k in row
    order.
    """
    path = Path(vfeat_dir) / f"{split.shard_name}_meta.json"
    write_json(path, {"format": 1, "shards": [list(ids) for ids in shards]})
    return path


def meta_path(vfeat_dir: str | Path, split: Split) -> Path:
    """Returns the split's meta file: ours, or else the released pickle.

    Raises:
        DataError: neither is there.
    """
    names = [f"{split.shard_name}_meta.{suffix}" for suffix in ("json", "pkl")]
    for name in names:
        if (path := Path(vfeat_dir) / name).is_file():
            return path
    raise DataError(
        f"{vfeat_dir}: neither {' nor '.join(names)} is there. `dataset.vfeat_dir` must be a "
        "folder of packed features: run `mmpt pack`, or correct the path."
    )


def read_shard_meta(vfeat_dir: str | Path, split: Split) -> dict[int, list[str]]:
    """Returns {shard: ids in row order} from the split's meta file.

    Raises:
        DataError: there is none, or it is of another layout.
    """
    path = meta_path(vfeat_dir, split)
    remedy = "It must list the video ids of every shard. Pack the features again."
    if path.suffix == ".json":
        return dict(enumerate(read_json_as(path, _Meta, remedy).shards))
    return validate(dict[int, list[str]], load_plain_pickle(path), path, remedy)


class _Meta(BaseModel):
    format: Literal[1]
    shards: list[list[str]]


class ShardCounts(NamedTuple):
    """Rows of every video of a shard, int64 [videos]."""

    seconds: np.ndarray
    captions: np.ndarray | None  # None where no captions are read
    reversed_times: int = 0  # captions that end before they start
    outside_times: int = 0  # captions that start before their video or end after it


def check_shard(
    vfeat_dir: str,
    tfeat_dir: str | None,
    split: Split,
    shard: int,
    shards: Mapping[int, Sequence[str]],
    vocab_size: int | None = None,
) -> ShardCounts:
    """Opens the tensors of one shard and check that they fit each other; no features are read.

    With `vocab_size`, the ids of the first `NUM_SAMPLED` captions are read too: captions of another
    BERT are found at once, while reading every id of HowTo100M would delay a start by minutes. A
    single damaged id further back is found when it is drawn, or by `mmpt check`.

    Raises:
        DataError: a file is missing or damaged, features are not [seconds, 512] floats, row counts
            differ, or a word-piece id is not below `vocab_size`.
    """
    tensors = [open_features(vfeat_dir, split, shard)]
    if tfeat_dir is not None:
        tensors += open_captions(tfeat_dir, split, shard)
    for tensor in tensors:
        if len(tensor) != len(shards[shard]):
            raise DataError(
                f"{tensor.name}: must have one row per video of {meta_path(vfeat_dir, split)}, "
                f"{len(shards[shard])}, but has {len(tensor)}. Features, captions and meta file "
                "must come from the same packing: make them again."
            )
    seconds = tensors[0].lengths()
    if tfeat_dir is None:
        return ShardCounts(seconds, None)
    _, times, ids = tensors
    if not np.array_equal(times.starts, ids.starts):
        row = int(np.flatnonzero(times.lengths() != ids.lengths())[0])
        raise DataError(
            f"{ids.name}: video {shards[shard][row]} (row {row}) must have one row per time, "
            f"{times.lengths()[row]}, but has {ids.lengths()[row]}. Tokenise this shard again."
        )
    sample = ids.data[:NUM_SAMPLED]
    if vocab_size is not None and sample.max(initial=0) >= vocab_size:
        caption = int((sample >= vocab_size).any(axis=1).argmax())
        row = int(np.searchsorted(ids.starts, caption, side="right")) - 1
        raise DataError(
            f"{ids.name}: video {shards[shard][row]} (row {row}) must have word-piece ids below "
            f"{vocab_size}, the vocabulary of `dataset.bert_name`, but has "
            f"{sample[caption].max()}. Tokenise the captions with the same BERT, or correct "
            "`dataset.bert_name`."
        )
    starts, ends = times.data[:, 0], times.data[:, 1]
    ends_of_video = np.repeat(seconds, times.lengths())
    outside = (starts < 0) | (np.maximum(starts, ends) > ends_of_video)
    return ShardCounts(seconds, times.lengths(), int((ends < starts).sum()), int(outside.sum()))


def open_features(vfeat_dir: str, split: Split, shard: int) -> ShardedTensor:
    """Returns the mapped feature shard; DataError unless it holds floats of width 512."""
    features = open_shard(video_stem(vfeat_dir, split, shard))
    remedy = "Extract them with S3D, or correct `dataset.vfeat_dir`."
    _check_kind(features, "f", f"floats of shape [seconds, {FEATURE_DIM}]", FEATURE_DIM, remedy)
    return features


def open_captions(tfeat_dir: str, split: Split, shard: int) -> tuple[ShardedTensor, ShardedTensor]:
    """Returns the mapped times (float [captions, 2], seconds) and ids (int [captions, width], -1
    padded) of a shard.
    """
    first_file = f"{times_stem(tfeat_dir, split, shard)}_data.npy"
    if not str(tfeat_dir).endswith(".") and not Path(first_file).exists():
        raise DataError(
            f"{first_file}: no such file. `dataset.tfeat_dir` is the beginning of file names and "
            f"must end in `.`, but is `{tfeat_dir}`."
        )
    times = open_shard(times_stem(tfeat_dir, split, shard))
    ids = open_shard(ids_stem(tfeat_dir, split, shard))
    remedy = "Tokenise this shard again, or correct `dataset.tfeat_dir`."
    _check_kind(times, "f", "floats of shape [captions, 2]", 2, remedy)
    _check_kind(ids, "i", "signed integers of shape [captions, width]", None, remedy)
    return times, ids


def _check_kind(
    tensor: ShardedTensor, kind: str, wanted: str, width: int | None, remedy: str
) -> None:
    """Raises DataError unless a tensor holds rows of this kind of number and width."""
    data = tensor.data
    if data.dtype.kind != kind or data.ndim != 2 or width not in (None, data.shape[1]):
        raise DataError(
            f"{tensor.name}_data.npy: must hold {wanted}, but holds {data.dtype} of shape "
            f"{list(data.shape)}. {remedy}"
        )
