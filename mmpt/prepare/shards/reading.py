"""Reads the features of videos, and finds the videos whose features cannot be packed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError
from mmpt.prepare.shard_jobs import ShardJob, Stamp, write_missing
from mmpt.prepare.shards.feature_arrays import FeatureError, Kind, Place, read_array
from mmpt.prepare.shards.feature_sources import check_id, find_places
from mmpt.shards.feature_info import (
    FILE,
    FeatureInfo,
    merge_feature_info,
    read_feature_info,
)
from mmpt.shards.feature_rows import finish_features
from mmpt.shards.writer import SHARD_SIZE
from mmpt.utils.artefact import fingerprint
from mmpt.utils.io import remove_leftovers, writing
from mmpt.utils.lock import exclusive

Places = Mapping[str, Place | None]
"""The place of each video's features. None: there are none."""

STAMPS = ".packing"  # folder of the stamps, inside the folder of the shards
FORMAT = 2  # increase it when other features count as unusable
DTYPE = np.dtype(np.float16)
NUM_MEASURED = 100  # files whose widths are compared


@dataclass(frozen=True)
class Source:
    """Where features come from, and what they are."""

    path: Path
    """A folder or file of one of the kinds in `feature_sources`."""
    key: str | None = None
    """Name of the array, if videos have several."""
    encoder: str | None = None
    """Name of the network, if there is no `features.json`."""
    fps: float | None = None
    """Rows per second, if there is no `features.json`. Default: 1."""
    l2_normalize: bool = False
    """Divide each row by its L2 norm."""

    @property
    def info_file(self) -> Path:
        """The `features.json` of the features, which may be missing."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder / FILE

    def describe(
        self, places: Mapping[str, Place], usual_width: int = FEATURE_DIM
    ) -> FeatureInfo:
        """Returns encoder, width and rate of the features, as `features.json` has them.

        The options give values that this file does not have. Without it, the width is measured on
        the first feature files.

        Args:
            usual_width: the width if it cannot be measured.
        Raises:
            DataError: `features.json` has another rate or encoder than was given.
        """
        info = read_feature_info(self.info_file.parent)
        if info is None:
            measured = islice(places.values(), NUM_MEASURED)
            width = _usual_width(measured, self.key, usual_width)
            return FeatureInfo(
                encoder=self.encoder,
                width=width,
                fps=self.fps or 1,
                normalised=self.l2_normalize or None,
            )
        added: dict[str, Any] = {"normalised": self.l2_normalize or info.normalised}
        for name in ("fps", "encoder"):
            value = getattr(self, name)
            found = getattr(info, name)
            if value is None:
                continue
            if found is None or name not in info.model_fields_set:
                added[name] = value
            elif value != found:
                raise DataError(
                    f"{self.info_file}: `{name}` must be {value}, as given by --{name}, but is "
                    f"{found}. Leave the option out, or correct the file."
                )
        return info.model_copy(update=added)

    def describe_for(self, target: Path, places: Mapping[str, Place]) -> FeatureInfo:
        """Returns the description of the features, like `describe`.

        Args:
            target: folder of the shards, which may have a `features.json` of its own.
        Raises:
            DataError: `features.json` there, or next to the features, has other values.
        """
        there = read_feature_info(target)
        info = self.describe(places, FEATURE_DIM if there is None else there.width)
        if there is not None and there.normalised and info.normalised is None:
            raise DataError(
                f"{target / FILE}: the rows there were divided by their L2 norm, but these may not "
                "be. Give `--l2-normalize` again, or another folder for the shards."
            )
        merge_feature_info(target, info)
        return info

    @property
    def identity(self) -> list[str]:
        """The options on which the rows depend, for fingerprints."""
        identity = [] if self.key is None else [self.key]
        return [*identity, "--l2-normalize"] if self.l2_normalize else identity


def _usual_width(places: Iterable[Place], key: str | None, default: int) -> int:
    """Returns the most frequent width of features, or `default` if it is at least as frequent."""
    widths: Counter[int] = Counter()
    for place in places:
        try:
            shape = read_array(place, key).shape
        except FeatureError:
            continue  # reported when it is packed
        if len(shape) == 2 and shape[0] > 0:
            widths[shape[1]] += 1
    for width, count in widths.most_common(1):
        if count > widths[default]:
            return width
    return default


def read_features(place: Place | None, width: int, source: Source) -> np.ndarray:
    """Returns the features of a video, float16 [rows, width]. The file may have any float dtype.

    Args:
        source: has the name of the array, and whether rows are divided by their L2 norm.
    Raises:
        FeatureError: the file is missing, unreadable or truncated, has another shape or dtype, has
            no rows, or has numbers that are not finite in float16.
    """
    if place is None:
        raise FeatureError("no such file")
    stored = read_array(place, source.key)
    what = f"{stored.dtype} of shape {list(stored.shape)}"
    if stored.ndim != 2:
        raise FeatureError(
            f"must hold floats of shape [seconds, width], or [rows, width] with --fps, but holds "
            f"{what}"
        )
    is_float = stored.dtype.kind == "f"
    has_rows = stored.shape[1:] == (width,) and len(stored) > 0
    if not (is_float and has_rows):
        is_given = stored.shape[1] != width and source.info_file.is_file()
        origin = f" (`width` in {source.info_file})" if is_given else ""
        raise FeatureError(
            f"must hold floats of shape [rows, {width}]{origin}, one row at least, but holds {what}"
        )
    features = finish_features(stored, l2_normalize=source.l2_normalize, dtype=DTYPE)
    if not np.isfinite(features).all():
        raise FeatureError("holds NaN, infinity or values beyond float16")
    return features


def read_each(
    places: Places, width: int, source: Source
) -> Iterator[tuple[str, np.ndarray | FeatureError]]:
    """Yields the features of each video, as `read_features`, or why they cannot be used."""
    for video_id, place in places.items():
        try:
            check_id(video_id)
            rows = read_features(place, width, source)
        except FeatureError as err:
            yield video_id, err
        else:
            yield video_id, rows


def groups(
    places: Mapping[str, Place], ids: Sequence[str], size: int
) -> Iterator[tuple[Places, list[tuple[Any, ...]]]]:
    """Yields the videos in groups: their places, and their ids with the states of their files.

    The states are part of the fingerprint of what is made from the files.

    Args:
        ids: unique video ids.
        size: videos per group. The last one may have fewer.
    """
    for begin in range(0, len(ids), size):
        chunk: dict[str, Place | None] = {}
        inputs: list[tuple[Any, ...]] = []
        for video_id in ids[begin : begin + size]:
            place = chunk[video_id] = places.get(video_id)
            state = (0, 0) if place is None else place.state()
            inputs.append((video_id, *state))
        yield chunk, inputs


def workers_for(places: Mapping[str, Place], workers: int) -> int:
    """Returns the number of processes that read features, which is at most `workers`."""
    if any(place.kind is Kind.MAPPING for place in places.values()):
        return 1  # only one process reads the file into memory
    return workers


def skipped_in(stamps: Sequence[Stamp]) -> dict[str, str]:
    """Returns why videos were left out, by id."""
    skipped: dict[str, str] = {}
    for stamp in stamps:
        skipped |= stamp["skipped"]
    return skipped


def find_unusable(
    source: Source, ids: Sequence[str], target: Path, *, workers: int = 1
) -> dict[str, str]:
    """Returns why features cannot be packed, by id.

    Features are read for this, but a rerun reads only the groups of files that have changed. The
    stamp of group k is `<target>/.packing/check_<k>.json`.

    Args:
        source: where they come from.
        ids: unique video ids.
        target: folder of the shards that will be packed.
        workers: number of processes.
    Raises:
        DataError: the features do not exist, or the target cannot be written or has shards of
            other features.
    """
    places = find_places(source.path, ids, source.key)
    stamps = target / STAMPS
    jobs = []
    with writing(target), exclusive(stamps / "lock", "packing features"):
        remove_leftovers(stamps, r"check_\d+\.json")
        width = source.describe_for(target, places).width
        for number, (chunk, inputs) in enumerate(groups(places, ids, SHARD_SIZE)):
            job = ShardJob(
                stamp=stamps / f"check_{number}.json",
                stems=(),
                fingerprint=fingerprint(FORMAT, width, inputs, *source.identity),
                write=partial(_check_each, chunk, width, source),
            )
            jobs.append(job)
        workers = workers_for(places, workers)
        found = write_missing(jobs, workers, "groups of features checked")
    return skipped_in(found)


def _check_each(places: Places, width: int, source: Source) -> Stamp:
    """Reads the features of each video. Returns why some of them cannot be packed."""
    skipped: dict[str, str] = {}
    try_again = False
    for video_id, rows in read_each(places, width, source):
        if isinstance(rows, FeatureError):
            skipped[video_id] = str(rows)
            try_again |= rows.is_temporary
    return {"try_again": try_again, "skipped": skipped}
