"""Packs the feature files of a list of videos into shards.

Each process packs one shard at a time. Memory holds one video per process. The note of shard k of
split s is `<target>/.packing/<s>_<k>.json`.

The meta file names the content of all shards. It is removed before the first shard is written, and
written again when all shards are complete, so that an interrupted run never leaves a meta file with
wrong shards. Only one run at a time packs into a folder. Others wait for it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from mmpt.batch import FEATURE_DIM, Split
from mmpt.errors import DataError
from mmpt.prepare.shard_jobs import Note, ShardJob, write_missing
from mmpt.shards.feature_info import (
    FeatureInfo,
    read_feature_info,
    write_feature_info,
)
from mmpt.shards.shardedtensor import video_stem, write_shard_meta
from mmpt.shards.writer import SHARD_SIZE, row_stream
from mmpt.utils.artefact import fingerprint
from mmpt.utils.io import (
    NPY_ERRORS,
    load_npy,
    remove_leftovers,
    write_json,
    writing,
)
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

NOTES = ".packing"  # folder of the notes, inside the target folder
FORMAT = 1  # increase it when the content of shards changes
DTYPE = np.dtype(np.float16)
NUM_NAMED = 5  # ids listed in a message
NUM_MEASURED = 100  # files whose widths are compared


class FeatureError(Exception):
    """The features of a video cannot be used.

    Args:
        reason: why they cannot.
        is_temporary: a later attempt may succeed with the same file.
    """

    def __init__(self, reason: str, is_temporary: bool = False):
        super().__init__(reason)
        self.is_temporary = is_temporary


def feature_path(folder: Path, video_id: str) -> Path:
    """Returns the path of a video's features. An id may contain slashes and dots.

    Raises:
        FeatureError: the path is outside of the folder.
    """
    id_path = PurePosixPath(video_id)
    leads_out = id_path.is_absolute() or ".." in id_path.parts
    if leads_out or "\0" in video_id:
        raise FeatureError("the id leads out of the feature folder")
    return folder / f"{video_id}.npy"


def describe_features(folder: Path, ids: Sequence[str]) -> FeatureInfo:
    """Returns what the features of a folder are.

    Without `features.json`, the width is the most frequent one of the first files.
    """
    info = read_feature_info(folder)
    if info is not None:
        return info
    widths: Counter[int] = Counter()
    for video_id in ids[:NUM_MEASURED]:
        try:
            path = feature_path(folder, video_id)
            shape = load_npy(path, "", mmap_mode="r").shape
        except (FeatureError, DataError):
            continue  # reported when it is packed
        if len(shape) == 2 and shape[0] > 0:
            widths[shape[1]] += 1
    width = FEATURE_DIM
    for most_frequent, count in widths.most_common(1):
        if count > widths[FEATURE_DIM]:
            width = most_frequent
    return FeatureInfo(width=width)


def read_features(folder: Path, video_id: str, width: int) -> np.ndarray:
    """Returns the features of a video, float16 [rows, width]. The file may have any float dtype.

    Raises:
        FeatureError: the file is missing, unreadable or truncated, has another shape or dtype, has
            no rows, or has numbers that are not finite in float16.
    """
    path = feature_path(folder, video_id)
    try:
        stored = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FeatureError("no such file") from None
    except OSError as err:
        raise FeatureError(
            f"cannot be read ({err.strerror})", is_temporary=True
        ) from None
    except NPY_ERRORS as err:
        # Without NumPy's advice to allow pickled code.
        reason, _, _ = str(err).partition(". ")
        raise FeatureError(f"not a complete .npy file ({reason})") from None
    if not isinstance(stored, np.ndarray):
        raise FeatureError("not a .npy file, but several arrays")
    is_float = stored.dtype.kind == "f"
    has_rows = stored.shape[1:] == (width,) and len(stored) > 0
    if not (is_float and has_rows):
        raise FeatureError(
            f"must hold floats of shape [rows, {width}], one row at least, but holds "
            f"{stored.dtype} of shape {list(stored.shape)}"
        )
    with np.errstate(over="ignore"):  # overflow gives infinity, which is checked below
        features = stored.astype(DTYPE, copy=False)
    if not np.isfinite(features).all():
        raise FeatureError("holds NaN, infinity or values beyond float16")
    return features


def pack_features(
    features: str | Path,
    target: str | Path,
    split: Split,
    ids: Sequence[str],
    *,
    shard_size: int = SHARD_SIZE,
    workers: int = 1,
    max_missing: float = 1.0,
) -> None:
    """Packs `<features>/<id>.npy` of every id into `<target>/{train|val}_<k>`, as float16.

    Finished shards are kept. Videos that cannot be packed are listed in
    `<target>/{train|val}_not_packed.json` as {id: reason}.

    Args:
        features: folder of the feature files.
        target: folder of the shards.
        split: the split that the ids belong to.
        ids: unique video ids in list order.
        shard_size: videos per shard.
        workers: number of shards that are packed at the same time.
        max_missing: largest share of videos that may be left out.
    Raises:
        DataError: the folder does not exist, no video or too few videos can be packed, or the
            target cannot be written or has shards of other features.
    """
    features = Path(features)
    target = Path(target)
    if not features.is_dir():
        raise DataError(
            f"{features}: must be a folder of `<id>.npy` features, but is none. Extract them first."
        )
    name = split.shard_name
    notes_folder = target / NOTES
    with writing(target), exclusive(notes_folder / "lock", "packing features"):
        # Remove temporary files of killed runs.
        for folder in (target, notes_folder):
            remove_leftovers(folder, rf"({name}_\w+|features)\.(npy|json)")
        # Write the shards whose inputs have changed. The meta file is removed first.
        info = describe_features(features, ids)
        write_feature_info(target, info)
        jobs = _make_jobs(features, target, split, ids, shard_size, info.width)
        meta = target / f"{name}_meta.json"
        what = f"{name} shards packed"
        notes = write_missing(jobs, workers, what, stale=meta)
        # List the videos that are not in a shard.
        skipped: dict[str, str] = {}
        for note in notes:
            skipped |= note["skipped"]
        write_json(target / f"{name}_not_packed.json", skipped)
        if skipped:
            _check_missing(skipped, len(ids), f"{name} videos", features, max_missing)
        # Everything is complete, so the meta file can be written again.
        _remove_surplus(target, split, len(jobs))
        write_shard_meta(target, split, [note["ids"] for note in notes])
    _log_result(name, notes, len(ids), info.fps)


def _log_result(name: str, notes: Sequence[Note], num_listed: int, fps: float) -> None:
    """Logs how much of a split was packed."""
    num_packed = 0
    num_rows = 0
    for note in notes:
        num_packed += len(note["ids"])
        num_rows += note["seconds"]
    hours = num_rows / fps / 3600
    what = "%s: %d of %d videos, %.1f hours, in %d shards"
    logger.info(what, name, num_packed, num_listed, hours, len(notes))


def _make_jobs(
    features: Path,
    target: Path,
    split: Split,
    ids: Sequence[str],
    shard_size: int,
    width: int,
) -> list[ShardJob]:
    """Returns the jobs of all shards of a split.

    A shard is packed again if its ids, or the size or modification time of a feature file change.
    """
    name = split.shard_name
    num_shards = math.ceil(len(ids) / shard_size)
    jobs = []
    what = f"{name} shards looked up"
    for number in progress(range(num_shards), num_shards, what, logger):
        begin = number * shard_size
        chunk = ids[begin : begin + shard_size]
        inputs = []
        for video_id in chunk:
            size, modified_ns = _file_state(features, video_id)
            inputs.append((video_id, size, modified_ns))
        stem = video_stem(target, split, number)
        job = ShardJob(
            note=target / NOTES / f"{name}_{number}.json",
            stems=(stem,),
            fingerprint=fingerprint(FORMAT, width, DTYPE.str, inputs),
            write=partial(write_shard, stem, features, chunk, width),
        )
        jobs.append(job)
    return jobs


def _file_state(features: Path, video_id: str) -> tuple[int, int]:
    """Returns size and modification time of a feature file; zeros if it does not exist."""
    try:
        status = feature_path(features, video_id).stat()
    except (OSError, FeatureError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def write_shard(stem: str, features: Path, ids: Sequence[str], width: int) -> Note:
    """Writes one shard. Returns the ids that were packed, and why the others were not."""
    packed: list[str] = []
    skipped: dict[str, str] = {}
    try_again = False
    with row_stream(stem, width, DTYPE) as stream:
        for video_id in ids:
            try:
                rows = read_features(features, video_id, width)
            except FeatureError as err:
                skipped[video_id] = str(err)
                try_again |= err.is_temporary
                continue
            stream.append(rows)
            packed.append(video_id)
    return {
        "seconds": stream.starts[-1],
        "try_again": try_again,
        "skipped": skipped,
        "ids": packed,
    }


def _remove_surplus(target: Path, split: Split, num_shards: int) -> None:
    """Removes shards with higher numbers, which earlier runs with other settings have left."""
    for path in (target / NOTES).glob(f"{split.shard_name}_*.json"):
        _, _, number = path.stem.rpartition("_")
        if not number.isdigit() or int(number) < num_shards:
            continue
        path.unlink()
        stem = video_stem(target, split, int(number))
        for part in ("data", "starts"):
            shard_file = Path(f"{stem}_{part}.npy")
            shard_file.unlink(missing_ok=True)


def _check_missing(
    skipped: dict[str, str],
    num_listed: int,
    videos: str,
    features: Path,
    max_missing: float,
) -> None:
    """Logs how many videos were left out. Raises DataError if they are too many."""
    num_skipped = len(skipped)
    share = num_skipped / num_listed
    reasons = [f"{video_id}: {reason}" for video_id, reason in skipped.items()]
    first_reasons = "; ".join(reasons[:NUM_NAMED])
    what = (
        f"{features}: {num_skipped} of {num_listed} listed {videos} ({share:.2%}) have no usable "
        f"features ({first_reasons})"
    )
    if num_skipped == num_listed or share > max_missing:
        raise DataError(
            f"{what}, but at least one must, and at most {max_missing:.2%} may be left out. "
            "Extract them, correct the paths, or raise `--max-missing`."
        )
    logger.warning("%s; they are left out and listed in *_not_packed.json", what)
