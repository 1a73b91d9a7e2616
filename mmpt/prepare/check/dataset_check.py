"""Reads all data that a training config names, and returns its statistics and its damage.

Each thread reads one shard at a time, so memory does not depend on the number of shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError
from mmpt.prepare.check.plausible import Finding, find_implausible, plausible_text
from mmpt.prepare.check.shard_reader import Damage, ShardReader, collect_errors
from mmpt.prepare.check.statistics import SplitStatistics
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards import layout
from mmpt.shards.video_table import read_id_list
from mmpt.utils.io import read_lines
from mmpt.utils.log import get_logger, progress
from mmpt.utils.tables import text_table

logger = get_logger(__name__)


@dataclass
class DatasetReport:
    """The statistics of every split, and the damage."""

    source: str
    """Path of the training config."""
    splits: dict[str, SplitStatistics] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)

    def table(self) -> str:
        """Returns the statistics as an aligned table with a column per split."""
        columns = [statistics.rows() for statistics in self.splits.values()]
        rows = []
        for name in columns[0]:
            head, colon, tail = name.partition(": ")
            statistics = [column[name] for column in columns]
            plausible = plausible_text(name, statistics[0].unit)
            title = f"  {tail}" if colon else head
            rows.append([title, *(one.text for one in statistics), plausible])
        return text_table(["", *self.splits, "plausible"], rows)

    def findings(self) -> list[Finding]:
        """Returns the statistics that are outside their plausible ranges."""
        found = [find_implausible(name, one) for name, one in self.splits.items()]
        return list(chain.from_iterable(found))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        splits = {name: statistics.to_dict() for name, statistics in self.splits.items()}
        damage = [one._asdict() for one in self.damage]
        findings = [one._asdict() for one in self.findings()]
        return {"source": self.source, "splits": splits, "damage": damage, "findings": findings}


def check_dataset(
    config: RunConfig, *, max_shards: int | None = None, workers: int = 1
) -> DatasetReport:
    """Reads lists, meta files, features and captions of the training and the validation split.

    Args:
        config: a training config with sharded features.
        max_shards: number of shards to read per split, spread evenly; None: all.
        workers: number of shards that are read at the same time.
    Raises:
        ConfigError: this is not a training config with sharded features.
    """
    dataset = config.dataset
    all_paths = {Split.TRAIN: dataset.train_path, Split.VALID: dataset.val_path}
    paths = {split: str(path) for split, path in all_paths.items() if path}
    if config.is_test or dataset.vfeat_dir is None or not paths:
        problem = (
            "must be a training config with `dataset.vfeat_dir` and `dataset.train_path`, but is "
            "not."
        )
        raise ConfigError(config.path, [problem])
    report = DatasetReport(config.path)
    vocabulary = None
    if dataset.bert_name is not None:
        with collect_errors(report.damage):
            tokenizer = load_tokenizer(dataset.bert_name)
            vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    lists: dict[Split, list[str]] = {split: [] for split in paths}
    for split, path in paths.items():
        with collect_errors(report.damage):
            lists[split] = read_id_list(path)
    in_both: set[str] = set()
    if len(lists) == 2:
        in_both = set(lists[Split.TRAIN]) & set(lists[Split.VALID])
    for split, ids in lists.items():
        statistics = SplitStatistics(listed=len(ids), in_both=len(in_both))
        report.splits[split.shard_name] = statistics
        if ids:
            lines = read_lines(paths[split])
            statistics.repeated = sum(bool(line.strip()) for line in lines) - len(ids)
        _check_split(dataset, split, paths[split], ids, vocabulary, report, max_shards, workers)
    return report


def _check_split(
    dataset: DatasetConfig,
    split: Split,
    list_path: str,
    ids: Sequence[str],
    vocabulary: Sequence[str] | None,
    report: DatasetReport,
    max_shards: int | None,
    workers: int,
) -> None:
    """Reads the meta file and the shards of a split. Adds statistics and damage to `report`.

    Args:
        ids: the videos of the split's list.
        vocabulary: the word pieces by id; None: unknown.
    """
    statistics = report.splits[split.shard_name]
    shards: dict[int, list[str]] = {}
    with collect_errors(report.damage):
        shards = layout.read_shard_meta(str(dataset.vfeat_dir), split)
        report.damage += _compare_ids(dataset, split, ids, shards, statistics)
    numbers = sorted(shards)
    if max_shards is not None and max_shards < len(numbers):
        numbers = [numbers[index * len(numbers) // max_shards] for index in range(max_shards)]
    read = partial(ShardReader, dataset, split, shards, set(ids), vocabulary)
    what = f"{split.shard_name} shards read"
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for reader in progress(pool.map(read, numbers), len(numbers), what, logger):
                statistics.merge(reader.statistics)
                report.damage += reader.damage
        finally:
            pool.shutdown(cancel_futures=True)
    num_usable = statistics.videos - statistics.without_captions
    num_wanted = dataset.num_video_per_batch or 0
    is_complete = 0 < len(numbers) == len(shards)  # every shard was read
    if is_complete and num_usable < num_wanted:
        problem = (
            f"`dataset.num_video_per_batch` is {num_wanted}, but only {num_usable} videos have "
            "features and captions"
        )
        report.damage.append(Damage(list_path, "", problem))


def _compare_ids(
    dataset: DatasetConfig,
    split: Split,
    ids: Sequence[str],
    shards: Mapping[int, Sequence[str]],
    statistics: SplitStatistics,
) -> Iterator[Damage]:
    """Compares the ids of the list with the ids of the shards."""
    meta = str(layout.meta_path(str(dataset.vfeat_dir), split))
    packed = Counter(chain.from_iterable(shards.values()))
    for name, count in packed.items():
        if count > 1:
            yield Damage(meta, name, "is packed twice")
    statistics.shards = len(shards)
    statistics.not_packed = sum(name not in packed for name in ids)
    if statistics.not_packed > dataset.max_missing * len(ids):
        problem = (
            f"{statistics.not_packed} of {len(ids)} listed videos are not packed; "
            f"`dataset.max_missing` is {dataset.max_missing:.2%}"
        )
        yield Damage(meta, "", problem)
