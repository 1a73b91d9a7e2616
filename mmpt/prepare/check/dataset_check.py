"""Reads everything that a training config names, shard by shard, and returns its statistics and
what is damaged.

A thread reads one shard at a time, mapped and in blocks of rows, so memory depends on neither
shards nor videos.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.errors import ConfigError, DataError
from mmpt.prepare.check.shard_check import Damage, ShardCheck
from mmpt.prepare.check.split_statistics import SplitStatistics, render_statistics
from mmpt.processors.tokenizer import special_tokens
from mmpt.shards.layout import meta_path, read_shard_meta
from mmpt.shards.video_table import read_id_list
from mmpt.utils.io import read_text
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


@dataclass
class DatasetReport:
    """Statistics of every split, and what is damaged."""

    source: str
    splits: dict[str, SplitStatistics] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)

    def table(self) -> str:
        """Returns the statistics as an aligned table."""
        return render_statistics(self.splits)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        splits = {name: statistics.to_dict() for name, statistics in self.splits.items()}
        return {
            "source": self.source,
            "splits": splits,
            "damage": [one._asdict() for one in self.damage],
        }


class _Lists(NamedTuple):
    ids: list[str]
    repeated: int


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
    vocab_size = _vocab_size(config, report.damage)
    paths = {Split.TRAIN: dataset.train_path, Split.VALID: dataset.val_path}
    lists = {
        split: _read_list(path, report.damage) for split, path in paths.items() if path is not None
    }
    both = set.intersection(*(set(one.ids) for one in lists.values())) if len(lists) == 2 else set()
    for split, listed in lists.items():
        statistics = SplitStatistics(
            listed=len(listed.ids), repeated=listed.repeated, in_both=len(both)
        )
        report.splits[split.shard_name] = statistics
        shards = _read_meta(config, split, listed.ids, statistics, report.damage)
        check = ShardCheck(
            vfeat_dir=dataset.vfeat_dir,
            tfeat_dir=dataset.tfeat_dir,
            split=split,
            shards=shards,
            listed=frozenset(listed.ids),
            vocab_size=vocab_size,
        )
        _read_shards(check, _spread(sorted(shards), max_shards), workers, statistics, report.damage)
        _check_batch(config, statistics, str(paths[split]), report.damage)
    return report


def _vocab_size(config: RunConfig, damage: list[Damage]) -> int | None:
    if config.dataset.bert_name is None:
        return None
    try:
        return special_tokens(config.dataset.bert_name).vocab_size
    except DataError as err:
        damage.append(Damage.from_error(err))
        return None


def _read_list(path: str, damage: list[Damage]) -> _Lists:
    try:
        ids = read_id_list(path)
    except DataError as err:
        damage.append(Damage.from_error(err))
        return _Lists([], 0)
    num_lines = sum(bool(line.strip()) for line in read_text(path).splitlines())
    return _Lists(ids, num_lines - len(ids))


def _read_meta(
    config: RunConfig,
    split: Split,
    ids: Sequence[str],
    statistics: SplitStatistics,
    damage: list[Damage],
) -> dict[int, list[str]]:
    """Returns {shard: ids} and compare it with the list."""
    folder = str(config.dataset.vfeat_dir)
    try:
        shards = read_shard_meta(folder, split)
    except DataError as err:
        damage.append(Damage.from_error(err))
        return {}
    path = str(meta_path(folder, split))
    packed = Counter(chain.from_iterable(shards.values()))
    damage += [Damage(path, name, "is packed twice") for name, n in packed.items() if n > 1]
    statistics.shards = len(shards)
    statistics.not_packed = sum(name not in packed for name in ids)
    bound = config.dataset.max_missing
    if statistics.not_packed > bound * len(ids):
        what = (
            f"{statistics.not_packed} of {len(ids)} listed videos are not packed; "
            f"`dataset.max_missing` is {bound:.2%}"
        )
        damage.append(Damage(path, "", what))
    return shards


def _spread(numbers: Sequence[int], at_most: int | None) -> list[int]:
    """Returns `at_most` of the numbers, evenly spread."""
    if at_most is None or at_most >= len(numbers):
        return list(numbers)
    return [numbers[index * len(numbers) // at_most] for index in range(at_most)]


def _read_shards(
    check: ShardCheck,
    numbers: Sequence[int],
    workers: int,
    statistics: SplitStatistics,
    damage: list[Damage],
) -> None:
    what = f"{check.split.shard_name} shards read"
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            for part, found in progress(pool.map(check, numbers), len(numbers), what, logger):
                statistics.merge(part)
                damage.extend(found)
        finally:
            pool.shutdown(cancel_futures=True)


def _check_batch(
    config: RunConfig, statistics: SplitStatistics, path: str, damage: list[Damage]
) -> None:
    """A batch of videos must find as many; only said when every shard was read."""
    wanted = config.dataset.num_video_per_batch
    usable = statistics.videos - statistics.without_captions
    if (
        wanted is not None
        and statistics.shards_read == statistics.shards
        and statistics.shards
        and usable < wanted
    ):
        what = (
            f"`dataset.num_video_per_batch` is {wanted}, but only {usable} videos have features "
            "and captions"
        )
        damage.append(Damage(path, "", what))
