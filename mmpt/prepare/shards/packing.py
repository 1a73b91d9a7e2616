"""Packs the feature files of a list of videos into shards.

Each process packs one shard at a time. Memory holds one video per process. The stamp of shard k of
split s is `<target>/.packing/<s>_<k>.json`.

The meta file names the content of all shards. It is removed before the first shard is written, and
written again when all shards are complete, so that an interrupted run never leaves a meta file with
wrong shards. `features.json` is written then, too, so that a failed run does not restrict the next
one. Only one run at a time packs into a folder. Other runs wait for it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.prepare.shard_jobs import ShardJob, Stamp, write_missing
from mmpt.prepare.shards.feature_arrays import MAX_LISTED, FeatureError, Kind, Place
from mmpt.prepare.shards.feature_sources import NO_FILES, find_places, list_ids
from mmpt.prepare.shards.reading import (
    DTYPE,
    STAMPS,
    Places,
    Source,
    groups,
    read_each,
    skipped_in,
    workers_for,
)
from mmpt.shards.feature_info import (
    FeatureInfo,
    read_feature_info,
    write_feature_info,
)
from mmpt.shards.shardedtensor import video_stem, write_shard_meta
from mmpt.shards.writer import SHARD_SIZE, row_stream
from mmpt.utils.artefact import fingerprint
from mmpt.utils.io import remove_leftovers, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

FORMAT = 2  # increase it when the content of shards changes


def pack_features(
    features: str | Path | Source,
    target: str | Path,
    split: Split,
    ids: Sequence[str],
    *,
    shard_size: int = SHARD_SIZE,
    workers: int = 1,
    max_missing: float = 1.0,
) -> None:
    """Packs the features of every id into `<target>/{train|val}_<k>`, as float16.

    Finished shards are kept. Videos that cannot be packed are listed in
    `<target>/{train|val}_not_packed.json` as {id: reason}.

    Args:
        features: where they come from: usually a folder with `<id>.npy`.
        target: folder of the shards.
        split: the split that the ids belong to.
        ids: unique video ids in list order.
        shard_size: videos per shard.
        workers: number of shards that are packed at the same time.
        max_missing: largest share of videos that may be left out.
    Raises:
        DataError: the features do not exist, no video or too few videos can be packed, or the
            target cannot be written or has shards of other features.
    """
    source = features if isinstance(features, Source) else Source(Path(features))
    target = Path(target)
    places = find_places(source.path, ids, source.key)
    name = split.shard_name
    videos = f"{name} videos"
    if not places:  # raises the error before the target is changed
        _check_ids(source, places, ids, videos)
    stamps_folder = target / STAMPS
    with writing(target), exclusive(stamps_folder / "lock", "packing features"):
        # Remove temporary files of killed runs.
        for folder in (target, stamps_folder):
            remove_leftovers(folder, rf"({name}_\w+|features)\.(npy|json)")
        # Write the shards whose inputs have changed. The meta file is removed first.
        info = source.describe_for(target, places)
        width = info.width
        _remove_other_meta(target, split, info)
        jobs = _make_jobs(places, target, split, ids, shard_size, width, source)
        meta = target / f"{name}_meta.json"
        workers = workers_for(places, workers)
        stamps = write_missing(jobs, workers, f"{name} shards packed", stale=meta)
        # List the videos that are not in a shard.
        skipped = skipped_in(stamps)
        write_json(target / f"{name}_not_packed.json", skipped)
        if len(skipped) == len(ids):
            _check_ids(source, places, ids, videos)
        if skipped:
            _check_missing(skipped, len(ids), videos, source.path, max_missing)
        # Everything is complete, so the meta file can be written again.
        _remove_surplus(target, split, len(jobs))
        write_feature_info(target, info)
        write_shard_meta(target, split, [stamp["ids"] for stamp in stamps])
    _log_result(name, stamps, len(ids), info.fps)


def _log_result(
    name: str, stamps: Sequence[Stamp], num_listed: int, fps: float
) -> None:
    """Logs how much of a split was packed."""
    num_packed = 0
    num_rows = 0
    for stamp in stamps:
        num_packed += len(stamp["ids"])
        num_rows += stamp["seconds"]
    hours = num_rows / fps / 3600
    what = "%s: %d of %d videos, %.1f hours, in %d shards"
    logger.info(what, name, num_packed, num_listed, hours, len(stamps))


def _make_jobs(
    places: Mapping[str, Place],
    target: Path,
    split: Split,
    ids: Sequence[str],
    shard_size: int,
    width: int,
    source: Source,
) -> list[ShardJob]:
    """Returns the jobs of all shards of a split.

    A shard is packed again if its ids, the options of the source, or the size or modification time
    of a feature file change.
    """
    name = split.shard_name
    num_shards = math.ceil(len(ids) / shard_size)
    jobs = []
    what = f"{name} shards looked up"
    found = progress(groups(places, ids, shard_size), num_shards, what, logger)
    for number, (chunk, inputs) in enumerate(found):
        stem = video_stem(target, split, number)
        job = ShardJob(
            stamp=target / STAMPS / f"{name}_{number}.json",
            stems=(stem,),
            fingerprint=fingerprint(FORMAT, width, DTYPE.str, inputs, *source.identity),
            write=partial(write_shard, stem, chunk, width=width, source=source),
        )
        jobs.append(job)
    return jobs


def write_shard(stem: str, places: Places, *, width: int, source: Source) -> Stamp:
    """Writes one shard. Returns the ids that were packed, and why the others were not.

    Args:
        stem: path stem of the shard.
        places: the place of each video's features.
        width: width of the features.
        source: has the name of the array, and whether rows are divided by their L2 norm.
    """
    packed: list[str] = []
    skipped: dict[str, str] = {}
    try_again = False
    with row_stream(stem, width, DTYPE) as stream:
        for video_id, rows in read_each(places, width, source):
            if isinstance(rows, FeatureError):
                skipped[video_id] = str(rows)
                try_again |= rows.is_temporary
                continue
            stream.append(rows)
            packed.append(video_id)
    return {
        "seconds": stream.starts[-1],
        "try_again": try_again,
        "skipped": skipped,
        "ids": packed,
    }


def _remove_other_meta(target: Path, split: Split, info: FeatureInfo) -> None:
    """Removes the meta file of the other split if only one of the two splits is L2-normalised.

    A training run then cannot read both.
    """
    there = read_feature_info(target)
    if there is None or there.normalised == info.normalised:
        return
    for other in {Split.TRAIN, Split.VALID} - {split}:
        path = target / f"{other.shard_name}_meta.json"
        if path.exists():
            path.unlink()
            logger.warning(
                "the %s shards differ in L2 normalisation; pack them again",
                other.shard_name,
            )


def _remove_surplus(target: Path, split: Split, num_shards: int) -> None:
    """Removes shards with higher numbers, which earlier runs with other settings have left."""
    for path in (target / STAMPS).glob(f"{split.shard_name}_*.json"):
        _, _, number = path.stem.rpartition("_")
        if not number.isdigit() or int(number) < num_shards:
            continue
        path.unlink()
        stem = video_stem(target, split, int(number))
        for part in ("data", "starts"):
            shard_file = Path(f"{stem}_{part}.npy")
            shard_file.unlink(missing_ok=True)


def _check_ids(
    source: Source, places: Mapping[str, Place], ids: Sequence[str], videos: str
) -> None:
    """Raises DataError if the source has none of the listed videos."""
    there = list(list_ids(source.path, source.key, set(ids)))
    # In HDF5 and LMDB files all ids have a place, also those that are not there.
    kinds = {place.kind for place in places.values()}
    if not (kinds <= {Kind.HDF5, Kind.LMDB} and set(there).isdisjoint(ids)):
        return
    num_there = "1 entry" if len(there) == 1 else f"{len(there)} entries"
    first_ids = ", ".join(f"`{video_id}`" for video_id in there[:2])
    content = f"{num_there}, first {first_ids}" if there else NO_FILES
    is_hdf5 = Kind.HDF5 in kinds and source.key is None
    remedy = ", or give --key if an entry is a group of them" if is_hdf5 else ""
    raise DataError(
        f"{source.path}: must have features of at least one of the {len(ids)} listed {videos} "
        f"(first `{ids[0]}`), but has {content}. Correct the list or the path{remedy}."
    )


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
    first_reasons = "; ".join(reasons[:MAX_LISTED])
    what = (
        f"{features}: {num_skipped} of {num_listed} listed {videos} ({share:.2%}) have no usable "
        f"features ({first_reasons})"
    )
    if num_skipped == num_listed:
        raise DataError(
            f"{what}, but at least one must. Correct the feature files, or the paths."
        )
    if share > max_missing:
        raise DataError(
            f"{what}, but at most {max_missing:.2%} may be left out. Extract them, correct the "
            "paths, or raise `--max-missing`."
        )
    logger.warning("%s; they are left out and listed in *_not_packed.json", what)
