"""Packs the feature files of a list of videos into shards; what is finished is known by a
fingerprint of its inputs.

A thread packs one shard at a time and holds one video: reading, casting and writing release the
interpreter, so threads are as fast as the disk. A shard's note is removed before the shard is
touched and written after it; the meta file is written when all shards stand. One process at a time
packs into a folder; others wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from mmpt.batch import FEATURE_DIM, Split
from mmpt.errors import DataError
from mmpt.prepare.shards.packing_state import (
    DTYPE,
    NOTES,
    Shard,
    meta_shards,
    remove_partial,
    remove_surplus,
)
from mmpt.shards.feature_reader import FeatureError, read_features
from mmpt.shards.layout import write_shard_meta
from mmpt.shards.row_stream import row_stream
from mmpt.shards.writer import SHARD_SIZE
from mmpt.utils.io import write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

NUM_NAMED = 5  # ids shown in a message


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What became of one split."""

    split: Split
    num_listed: int
    num_seconds: int
    num_shards: int
    num_written: int  # shards written now; the others were finished before
    skipped: dict[str, str]  # id -> why it has no row

    @property
    def num_packed(self) -> int:
        """Videos that got a row."""
        return self.num_listed - len(self.skipped)


def pack_features(
    features: str | Path,
    target: str | Path,
    split: Split,
    ids: Sequence[str],
    *,
    shard_size: int = SHARD_SIZE,
    workers: int = 1,
    max_missing: float = 1.0,
) -> PackReport:
    """Pack `<features>/<id>.npy` of every id into `<target>/{train|val}_<k>`, float16; finished
    shards are kept.

    Videos that cannot be packed are listed in `<target>/{train|val}_not_packed.json` as {id:
    reason}.

    Args:
        ids: unique, in list order; chunks of `shard_size` make a shard each.
        workers: shards packed at once.
        max_missing: largest share of videos that may be left out.
    Raises:
        DataError: no such folder, no video or too few of them can be packed, or the target cannot
            be written.
    """
    features, target = Path(features), Path(target)
    assert len(set(ids)) == len(ids), "ids repeat"
    _check_folders(features, target)
    shards = [
        Shard(
            features=features,
            target=target,
            split=split,
            number=number,
            ids=tuple(ids[begin : begin + shard_size]),
        )
        for number, begin in enumerate(range(0, len(ids), shard_size))
    ]
    with writing(target), exclusive(target / NOTES / "lock", "packing features"):
        return _pack_alone(shards, ids, workers, max_missing)


def _pack_alone(
    shards: Sequence[Shard], ids: Sequence[str], workers: int, max_missing: float
) -> PackReport:
    """Pack the shards of a split, and write its meta file last; the lock is held."""
    features, target, split = shards[0].features, shards[0].target, shards[0].split
    remove_partial(target, split)
    notes, num_written = _pack_all(shards, workers)
    report = _report(split, ids, notes, num_written)
    write_json(target / f"{split.shard_name}_not_packed.json", report.skipped)
    _check_missing(report, features, max_missing)
    remove_surplus(target, split, len(shards))
    packed = [note["ids"] for note in notes]
    if packed != meta_shards(target, split):
        write_shard_meta(target, split, packed)
    return report


def _check_folders(features: Path, target: Path) -> None:
    if not features.is_dir():
        raise DataError(
            f"{features}: must be a folder of `<id>.npy` features, but is none. Extract them first."
        )
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)


# ---- one shard


class _StoppedError(Exception):
    """Another shard failed, or the user pressed Ctrl-C."""


def _write_or_stop(shard: Shard, mark: str, stop: Event) -> dict[str, Any] | None:
    """Write the shard and return its note, or None when `stop` was set meanwhile; a failure sets
    it.
    """
    try:
        return _write(shard, mark, stop)
    except _StoppedError:
        return None
    except BaseException:
        stop.set()
        raise


def _write(shard: Shard, mark: str, stop: Event) -> dict[str, Any]:
    """Write the shard and then its note, which is returned."""
    if stop.is_set():
        raise _StoppedError
    shard.artefact.begin()
    packed: list[str] = []
    skipped: dict[str, str] = {}
    try_again = False
    with row_stream(shard.stem, FEATURE_DIM, DTYPE) as stream:
        for video_id in shard.ids:
            if stop.is_set():
                raise _StoppedError
            try:
                features = read_features(shard.features, video_id)
            except FeatureError as err:
                skipped[video_id] = str(err)
                try_again |= err.passing
                continue
            stream.append(features)
            packed.append(video_id)
    details = {
        "seconds": stream.num_rows,
        "try_again": try_again,
        "skipped": skipped,
        "ids": packed,
    }
    return shard.artefact.finish(mark, **details)


# ---- all shards of a split


def _pack_all(shards: Sequence[Shard], workers: int) -> tuple[list[dict[str, Any]], int]:
    """Return the notes of all shards, and how many had to be written; the meta file goes before the
    first is.
    """
    notes: dict[int, dict[str, Any]] = {}
    marks: dict[int, str] = {}
    for shard in progress(
        shards, len(shards), f"{shards[0].split.shard_name} shards looked up", logger
    ):
        mark = shard.fingerprint()
        note = shard.artefact.finished(mark)
        if note is not None and not note["try_again"]:
            notes[shard.number] = note
        else:
            marks[shard.number] = mark
    if marks:
        Path(shards[0].target / f"{shards[0].split.shard_name}_meta.json").unlink(missing_ok=True)
        notes |= _write_all([shards[number] for number in marks], marks, workers)
    return [notes[shard.number] for shard in shards], len(marks)


def _write_all(
    shards: Sequence[Shard], marks: dict[int, str], workers: int
) -> dict[int, dict[str, Any]]:
    """Write shards in threads; the first failure, or Ctrl-C, stops the others before it is
    raised.
    """
    stop = Event()
    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(shards)))) as pool:
        futures = {
            pool.submit(_write_or_stop, shard, marks[shard.number], stop): shard.number
            for shard in shards
        }
        try:
            return dict(
                progress(
                    _as_done(futures),
                    len(shards),
                    f"{shards[0].split.shard_name} shards packed",
                    logger,
                )
            )
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _as_done(
    futures: dict[Future[dict[str, Any] | None], int],
) -> Iterator[tuple[int, dict[str, Any]]]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in done:
            if (note := future.result()) is not None:
                yield futures[future], note


def _report(
    split: Split, ids: Sequence[str], notes: Sequence[dict[str, Any]], num_written: int
) -> PackReport:
    skipped = {video_id: reason for note in notes for video_id, reason in note["skipped"].items()}
    num_seconds = sum(note["seconds"] for note in notes)
    return PackReport(
        split=split,
        num_listed=len(ids),
        num_seconds=num_seconds,
        num_shards=len(notes),
        num_written=num_written,
        skipped=skipped,
    )


def _check_missing(report: PackReport, features: Path, max_missing: float) -> None:
    if not report.skipped:
        return
    share = len(report.skipped) / report.num_listed
    first = "; ".join(
        f"{name}: {reason}" for name, reason in list(report.skipped.items())[:NUM_NAMED]
    )
    what = (
        f"{features}: {len(report.skipped)} of {report.num_listed} listed "
        f"{report.split.shard_name} videos ({share:.2%}) have no usable features ({first})"
    )
    if report.num_packed == 0 or share > max_missing:
        bound = (
            "at least one must"
            if report.num_packed == 0
            else f"at most {max_missing:.2%} may be left out"
        )
        raise DataError(
            f"{what}, but {bound}. Extract them, correct the paths, or raise `--max-missing`."
        )
    logger.warning(
        "%s; they are left out and listed in %s_not_packed.json", what, report.split.shard_name
    )
