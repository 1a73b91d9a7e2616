"""Reads all data that a training config names, and returns its statistics and its damage.

Each thread reads one shard at a time, so memory does not depend on the number of shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError
from mmpt.prepare.check.plausible import (
    ROW_NORMS,
    Finding,
    find_implausible,
    plausible_text,
)
from mmpt.prepare.check.shard_reader import read_shard
from mmpt.prepare.check.shard_report import Damage, collect_errors
from mmpt.prepare.check.statistics import SplitStatistics
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.feature_info import check_feature_info, read_feature_info
from mmpt.shards.shardedtensor import meta_path, read_shard_meta
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
    normalised: bool = True
    """Whether the features' rows should have an L2 norm of 1."""

    def table(self) -> str:
        """Returns the statistics as an aligned table with a column per split."""
        columns = [statistics.rows() for statistics in self.splits.values()]
        rows = []
        for name, first in columns[0].items():
            group, colon, detail = name.partition(": ")
            title = f"  {detail}" if colon else group
            values = [column[name].text for column in columns]
            plausible = plausible_text(name, first.unit)
            rows.append([title, *values, plausible])
        return text_table(["", *self.splits, "plausible"], rows)

    def findings(self) -> list[Finding]:
        """Returns the statistics that are outside their plausible ranges."""
        found = []
        for split, statistics in self.splits.items():
            for finding in find_implausible(split, statistics):
                if self.normalised or finding.figure not in ROW_NORMS:
                    found.append(finding)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        splits = {
            split: statistics.to_dict() for split, statistics in self.splits.items()
        }
        damage = [damage._asdict() for damage in self.damage]
        findings = [finding._asdict() for finding in self.findings()]
        return {
            "source": self.source,
            "splits": splits,
            "damage": damage,
            "findings": findings,
        }


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
        DataError: the features have another width or rate than the config says.
    """
    dataset = config.dataset
    paths = {}
    if dataset.train_path:
        paths[Split.TRAIN] = str(dataset.train_path)
    if dataset.val_path:
        paths[Split.VALID] = str(dataset.val_path)
    if config.is_test or dataset.vfeat_dir is None or not paths:
        problem = (
            "must be a training config with `dataset.vfeat_dir` and `dataset.train_path`, but is "
            "not."
        )
        raise ConfigError(config.path, [problem])
    check_feature_info(dataset)
    info = read_feature_info(str(dataset.vfeat_dir))
    normalised = info is None or info.normalised is not False
    report = DatasetReport(config.path, normalised=normalised)
    check = _Check(dataset, str(dataset.vfeat_dir), report, max_shards, workers)
    check.read_vocabulary()
    lists = check.read_lists(paths)
    for split, ids in lists.items():
        check.read_split(split, paths[split], ids)
    return report


@dataclass
class _Check:
    """Reads the shards of the splits. Adds statistics and damage to `report`."""

    dataset: DatasetConfig
    vfeat_dir: str
    report: DatasetReport
    max_shards: int | None
    """Number of shards to read per split; None: all."""
    workers: int
    """Number of shards that are read at the same time."""
    vocabulary: Sequence[str] | None = None
    """The word pieces by id; None: unknown."""

    def read_vocabulary(self) -> None:
        """Reads the word pieces of the tokenizer, if there is one."""
        if self.dataset.bert_name is None:
            return
        with collect_errors(self.report.damage):
            tokenizer = load_tokenizer(self.dataset.bert_name)
            ids = range(len(tokenizer))
            self.vocabulary = tokenizer.convert_ids_to_tokens(ids)

    def read_lists(self, paths: Mapping[Split, str]) -> dict[Split, list[str]]:
        """Returns the ids of the lists, and begins the statistics of the splits.

        Args:
            paths: paths of the lists.
        """
        lists: dict[Split, list[str]] = {}
        for split, path in paths.items():
            lists[split] = []
            statistics = SplitStatistics()
            self.report.splits[split.shard_name] = statistics
            with collect_errors(self.report.damage):
                ids = read_id_list(path)
                lines = [line for line in read_lines(path) if line.strip()]
                lists[split] = ids
                statistics.listed = len(ids)
                statistics.repeated = len(lines) - len(ids)
        # Ids that are in both lists.
        if len(lists) == 2:
            train_ids, val_ids = map(set, lists.values())
            num_in_both = len(train_ids & val_ids)
            for statistics in self.report.splits.values():
                statistics.in_both = num_in_both
        return lists

    def read_split(self, split: Split, list_path: str, ids: Sequence[str]) -> None:
        """Reads the meta file and the shards of a split.

        Args:
            list_path: path of the split's list.
            ids: the videos of the list.
        """
        statistics = self.report.splits[split.shard_name]
        shards: dict[int, list[str]] = {}
        with collect_errors(self.report.damage):
            shards = read_shard_meta(self.vfeat_dir, split)
            self._compare_ids(split, ids, shards)
        numbers = sorted(shards)
        if self.max_shards is not None and self.max_shards < len(numbers):
            numbers = _spread(numbers, self.max_shards)
        listed = set(ids)
        read = partial(read_shard, self.dataset, split, shards, listed, self.vocabulary)
        what = f"{split.shard_name} shards read"
        with ThreadPoolExecutor(max_workers=self.workers) as pool:
            try:
                results = pool.map(read, numbers)
                for result in progress(results, len(numbers), what, logger):
                    statistics.merge(result.statistics)
                    self.report.damage += result.damage
            finally:
                pool.shutdown(cancel_futures=True)
        # A batch needs enough videos. This can be checked only if every shard was read.
        is_complete = 0 < len(numbers) == len(shards)
        num_usable = statistics.videos - statistics.without_captions
        num_wanted = self.dataset.num_video_per_batch or 0
        if is_complete and num_usable < num_wanted:
            problem = (
                f"`dataset.num_video_per_batch` is {num_wanted}, but only {num_usable} videos have "
                "features and captions"
            )
            self.report.damage.append(Damage(list_path, "", problem))

    def _compare_ids(
        self, split: Split, ids: Sequence[str], shards: Mapping[int, Sequence[str]]
    ) -> None:
        """Compares the ids of the list with the ids of the shards."""
        damage = self.report.damage
        statistics = self.report.splits[split.shard_name]
        meta = str(meta_path(self.vfeat_dir, split))
        packed = Counter(chain.from_iterable(shards.values()))
        for name, count in packed.items():
            if count > 1:
                damage.append(Damage(meta, name, "is packed twice"))
        num_missing = sum(name not in packed for name in ids)
        statistics.shards = len(shards)
        statistics.not_packed = num_missing
        max_missing = self.dataset.max_missing
        if num_missing > max_missing * len(ids):
            problem = (
                f"{num_missing} of {len(ids)} listed videos are not packed; `dataset.max_missing` "
                f"is {max_missing:.2%}"
            )
            damage.append(Damage(meta, "", problem))


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """Returns some of the numbers, spread evenly.

    Args:
        count: number of numbers to return, at most `len(numbers)`.
    """
    some = []
    for index in range(count):
        position = index * len(numbers) // count
        some.append(numbers[position])
    return some
