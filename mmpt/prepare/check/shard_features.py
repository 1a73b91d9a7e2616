"""Computes the statistics of the features of one shard.

Features are read in blocks of rows, so memory does not depend on the length of videos.

Legend: V videos of the shard, R feature rows of all of them.
"""

import numpy as np

from mmpt.prepare.check.measures import (
    RowMeasures,
    measure_rows,
    num_repeated,
    num_true,
)
from mmpt.prepare.check.shard_report import ShardReport
from mmpt.shards.shardedtensor import ShardedTensor

MIN_ROWS = 100
"""Smallest number of feature rows that are compared with each other. Fewer may be similar by
chance.
"""


def read_features(
    report: ShardReport, features: ShardedTensor, seconds_V: np.ndarray
) -> None:
    """Computes the statistics of feature rows, and reports damaged rows.

    Args:
        seconds_V: length of every video in seconds.
    """
    statistics = report.statistics
    rows_V = features.lengths()
    listed_seconds = seconds_V[report.listed_V]
    statistics.videos = num_true(report.listed_V)
    statistics.feature_rows = int(rows_V[report.listed_V].sum())
    statistics.seconds = float(listed_seconds.sum())
    statistics.tallies["seconds of a video"].add(listed_seconds)
    owners_R = report.owners(features)
    rows = measure_rows(features.data)
    _count_rows(report, rows, owners_R)
    # A single video may show a still picture, so it is not enough to compare rows.
    if len(rows_V) > 1 and len(owners_R) >= MIN_ROWS:
        _compare_rows(report, rows)
    _compare_videos(report, features, rows_V)
    # Numbers that are not finite.
    damaged_R = ~np.isfinite(rows.norms)
    damaged_rows = features.data[damaged_R]
    statistics.nan = num_true(np.isnan(damaged_rows))
    statistics.infinite = num_true(np.isinf(damaged_rows))
    report.add_damage(
        features, owners_R[damaged_R], "feature rows with NaN or infinity"
    )


def _count_rows(report: ShardReport, rows: RowMeasures, owners_R: np.ndarray) -> None:
    """Counts rows of zeros, rows that repeat the previous one, and norms other than 1.

    Args:
        owners_R: the video of each row.
    """
    statistics = report.statistics
    listed_R = report.listed_V[owners_R]
    zero_R = rows.norms == 0
    statistics.zero_rows = num_true(listed_R & zero_R)
    # A row is compared with the previous row of the same video only.
    still_R = rows.is_still.copy()
    is_same_video = owners_R[1:] == owners_R[:-1]
    still_R[1:] &= is_same_video
    statistics.still_rows = num_true(listed_R & still_R)
    measured_R = listed_R & _has_direction(rows)
    norms = rows.norms[measured_R]
    statistics.tallies["norm of a feature row"].add(norms)
    deviations = np.abs(norms - 1)
    statistics.uneven_rows = num_true(deviations > 0.01)


def _compare_rows(report: ShardReport, rows: RowMeasures) -> None:
    """Counts columns that are constant in the whole shard, and sums directions."""
    statistics = report.statistics
    statistics.columns = len(rows.is_constant)
    statistics.constant_columns = num_true(rows.is_constant)
    statistics.directed_rows = num_true(_has_direction(rows))
    statistics.direction = float(np.linalg.norm(rows.direction))


def _compare_videos(
    report: ShardReport, features: ShardedTensor, rows_V: np.ndarray
) -> None:
    """Counts videos with the features of another one. Length and middle row are compared."""
    keys = []
    compared_V = report.listed_V & (rows_V > 0)
    for video in np.flatnonzero(compared_V).tolist():
        num_rows = int(rows_V[video])
        middle_row = features[video][num_rows // 2]
        if middle_row.any():
            keys.append((num_rows, middle_row.tobytes()))
    report.statistics.features_alike = num_repeated(keys)


def _has_direction(rows: RowMeasures) -> np.ndarray:
    """Returns whether a feature row is neither zero nor damaged, bool [R]."""
    return np.isfinite(rows.norms) & (rows.norms > 0)
