"""Reads everything that a training config names, shard by shard, and returns its statistics and
what is damaged.

A thread reads one shard at a time, mapped, and features in blocks of rows, so memory depends on
neither shards nor seconds of video.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.errors import ConfigError
from mmpt.prepare.check.shard_check import Damage, read_shard, recorded
from mmpt.prepare.check.statistics import SplitStatistics
from mmpt.processors.tokenizer import special_tokens
from mmpt.shards.layout import meta_path, read_shard_meta
from mmpt.shards.video_table import read_id_list
from mmpt.utils.io import read_text
from mmpt.utils.log import get_logger, progress
from mmpt.utils.tables import text_table

logger = get_logger(__name__)


@dataclass
class DatasetReport:
    """Statistics of every split, and what is damaged."""

    source: str
    splits: dict[str, SplitStatistics] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)

    def table(self) -> str:
        """Returns the statistics as an aligned table with a column per split."""
        columns = [statistics.rows() for statistics in self.splits.values()]
        rows = [[title, *(column[title] for column in columns)] for title in columns[0]]
        return text_table(["", *self.splits], rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        splits = {name: statistics.to_dict() for name, statistics in self.splits.items()}
        damage = [one._asdict() for one in self.damage]
        return {"source": self.source, "splits": splits, "damage": damage}


def check_dataset(
    config: RunConfig, *, max_shards: int | None = None, workers: int = 1
) -> DatasetReport:
    """Reads lists, meta files, features and captions of the training and validation split.

    Args:
        config: a training config with sharded features.
        max_shards: read only so many shards per split, spread evenly; None reads all.
        workers: shards read at once.
    Raises:
        ConfigError: not a training config of sharded features.
    """
    dataset = config.dataset
    if config.is_test or dataset.vfeat_dir is None or not (dataset.train_path or dataset.val_path):
        problem = (
            "must be a training config with `dataset.vfeat_dir` and `dataset.train_path`, but is "
            "not."
        )
        raise ConfigError(config.path, [problem])
    report = DatasetReport(config.path)
    damage = report.damage
    vocab_size = None
    if dataset.bert_name is not None:
        with recorded(damage):
            vocab_size = special_tokens(dataset.bert_name).vocab_size
    paths = {Split.TRAIN: dataset.train_path, Split.VALID: dataset.val_path}
    lists: dict[Split, list[str]] = {}
    for split, list_path in paths.items():
        if list_path is not None:
            lists[split] = []
            with recorded(damage):
                lists[split] = read_id_list(list_path)
    in_both = len(set.intersection(*map(set, lists.values()))) if len(lists) == 2 else 0
    for split, ids in lists.items():
        path = str(paths[split])
        lines = read_text(path).splitlines() if ids else []
        repeated = sum(bool(line.strip()) for line in lines) - len(ids)
        statistics = SplitStatistics(listed=len(ids), repeated=repeated, in_both=in_both)
        report.splits[split.shard_name] = statistics
        shards: dict[int, list[str]] = {}
        with recorded(damage):
            shards = read_shard_meta(dataset.vfeat_dir, split)
            meta = str(meta_path(dataset.vfeat_dir, split))
            packed = Counter(chain.from_iterable(shards.values()))
            damage += [Damage(meta, name, "is packed twice") for name, n in packed.items() if n > 1]
            statistics.shards = len(shards)
            statistics.not_packed = sum(name not in packed for name in ids)
            if statistics.not_packed > dataset.max_missing * len(ids):
                problem = (
                    f"{statistics.not_packed} of {len(ids)} listed videos are not packed; "
                    f"`dataset.max_missing` is {dataset.max_missing:.2%}"
                )
                damage.append(Damage(meta, "", problem))
        numbers = sorted(shards)
        if max_shards is not None and max_shards < len(numbers):
            numbers = [numbers[index * len(numbers) // max_shards] for index in range(max_shards)]
        read = partial(read_shard, dataset, split, shards, set(ids), vocab_size)
        what = f"{split.shard_name} shards read"
        with ThreadPoolExecutor(max_workers=workers) as pool:
            try:
                for done in progress(pool.map(read, numbers), len(numbers), what, logger):
                    statistics.merge(done.statistics)
                    damage += done.damage
            finally:
                pool.shutdown(cancel_futures=True)
        usable = statistics.videos - statistics.without_captions
        wanted = dataset.num_video_per_batch or 0
        if 0 < len(numbers) == len(shards) and usable < wanted:  # every shard was read
            problem = (
                f"`dataset.num_video_per_batch` is {wanted}, but only {usable} videos have "
                "features and captions"
            )
            damage.append(Damage(path, "", problem))
    return report
