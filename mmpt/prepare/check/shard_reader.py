"""Reads one shard: the statistics of its features and captions, and its damage.

The arrays of a shard are mapped, not loaded.
"""

from collections.abc import Container, Mapping, Sequence
from functools import partial

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.prepare.check.shard_captions import read_pieces, read_times, read_vocabulary
from mmpt.prepare.check.shard_features import read_features
from mmpt.prepare.check.shard_report import ShardReport, collect_errors
from mmpt.shards.shardedtensor import open_captions, open_features, open_shard
from mmpt.shards.video_table import check_shard


def read_shard(
    dataset: DatasetConfig,
    split: Split,
    shards: Mapping[int, Sequence[str]],
    listed: Container[str],
    vocabulary: Sequence[str] | None,
    shard: int,
) -> ShardReport:
    """Reads the features and captions of one shard.

    Args:
        dataset: the `dataset` section of the config.
        split: the split of the shard.
        shards: the video ids of all shards.
        listed: the ids of the split's list.
        vocabulary: the word pieces by id; None: unknown.
        shard: number of the shard to read.
    """
    vfeat_dir = str(dataset.vfeat_dir)
    tfeat_dir = dataset.tfeat_dir
    report = ShardReport(shards[shard], listed)
    check = partial(check_shard, width=dataset.feature_dim, fps=dataset.feature_fps)
    seconds_V = None
    with collect_errors(report.damage):
        counts = check(vfeat_dir, None, split, shard, shards)
        features = open_features(vfeat_dir, split, shard, dataset.feature_dim)
        seconds_V = counts.feature_rows / dataset.feature_fps
        read_features(report, features, seconds_V)
    if tfeat_dir is not None:
        with collect_errors(report.damage):
            times, pieces = open_captions(tfeat_dir, split, shard)
            if seconds_V is not None:
                check(vfeat_dir, tfeat_dir, split, shard, shards)
                read_pieces(report, pieces)
                if vocabulary is not None:
                    read_vocabulary(report, pieces, vocabulary)
                read_times(report, times, seconds_V)
    open_shard.cache_clear()  # otherwise, all shards would stay mapped
    return report
