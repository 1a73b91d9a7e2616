"""Finds features that the user has already, and reports the ones that cannot be used."""

from collections.abc import Collection
from pathlib import Path

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError
from mmpt.media.video_list import id_problem
from mmpt.prepare.shards.feature_arrays import MAX_LISTED
from mmpt.prepare.shards.feature_sources import NO_FILES, list_ids
from mmpt.prepare.shards.reading import Source, find_unusable
from mmpt.prepare.user_data.captions import Report, caption_files
from mmpt.prepare.user_data.videos import possible_ids
from mmpt.shards.feature_info import FeatureInfo
from mmpt.utils.log import get_logger

logger = get_logger("prepare")


def find_ids(source: Source, captions: Path, report: Report) -> list[str]:
    """Returns the ids of all features.

    Args:
        source: where the features are.
        captions: folder of the caption files. If the name of a feature file has several readings,
            such as `tea.v2` and `tea` in a tar, the one that a caption file has is used.
        report: gets the ids that a list cannot have, with reasons.
    Raises:
        DataError: the features cannot be read.
    """
    known = possible_ids(caption_files(captions))
    ids = []
    misnamed = {}
    for video_id in dict.fromkeys(list_ids(source.path, source.key, known)):
        problem = id_problem(video_id)
        if problem:
            misnamed[video_id] = f"the id {problem}"
        else:
            ids.append(video_id)
    report["videos_misnamed"] = misnamed
    return ids


def report_unusable(
    source: Source,
    ids: Collection[str],
    with_captions: Collection[str],
    target: Path,
    report: Report,
    workers: int,
) -> None:
    """Reports the videos with captions whose features cannot be packed.

    Args:
        ids: ids of all features.
        with_captions: ids of the videos that have captions.
        target: folder of the shards that will be packed.
        report: gets the videos, with reasons.
        workers: number of processes.
    Raises:
        DataError: no video has captions and features that can be used.
    """
    if not with_captions:
        first = ", ".join(f"`{video_id}`" for video_id in list(ids)[:MAX_LISTED])
        content = f"{len(ids)} others (first: {first})" if ids else NO_FILES
        raise DataError(
            f"{source.path}: must have features of videos with captions, but has {content}. A "
            "caption file must have the name of its video's features. Correct `--features` or "
            "`--captions`, or give `--key` if an entry of an HDF5 file is a group of videos."
        )
    unusable = find_unusable(source, list(with_captions), target, workers=workers)
    report["videos_without_features"] = unusable
    if len(unusable) == len(with_captions):
        first_id, reason = next(iter(unusable.items()))
        raise DataError(
            f"{source.path}: at least 2 videos with captions must have usable features, but none "
            f"of {len(unusable)} has ({first_id}: {reason}). Correct the feature files, or "
            "`--features`."
        )


def warn_of_unknown_encoder(info: FeatureInfo) -> None:
    """Logs a warning if features may be features of S3D or of another network."""
    if info.encoder is None and info.width == FEATURE_DIM:
        logger.warning(
            "features with %d numbers in a row are treated as features of S3D. If another network "
            "made them, name it with `--encoder`, so that the first layer is trained.",
            FEATURE_DIM,
        )
