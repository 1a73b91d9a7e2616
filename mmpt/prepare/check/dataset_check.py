"""Reads everything that a training config names, shard by shard, and returns its statistics and
what is damaged.

A thread reads one shard at a time, mapped and in blocks of rows, so memory depends on neither
shards nor videos.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, TypeVar

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

T = TypeVar("T")


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
    damage, bert_name = report.damage, dataset.bert_name
    vocab_size = None
    if bert_name is not None:
        vocab_size = _attempt(lambda: special_tokens(bert_name).vocab_size, None, damage)
    paths = {Split.TRAIN: dataset.train_path, Split.VALID: dataset.val_path}
    lists: dict[Split, list[str]] = {}
    for split, path in paths.items():
        if path is not None:
            lists[split] = _attempt(partial(read_id_list, path), [], damage)
    in_both = len(set.intersection(*map(set, lists.values()))) if len(lists) == 2 else 0
    for split, ids in lists.items():
        lines = read_text(str(paths[split])).splitlines() if ids else []
        repeated = sum(bool(line.strip()) for line in lines) - len(ids)
        statistics = SplitStatistics(listed=len(ids), repeated=repeated, in_both=in_both)
        report.splits[split.shard_name] = statistics
        shards = _read_meta(config, split, ids, statistics, damage)
        check = ShardCheck(
            vfeat_dir=dataset.vfeat_dir,
            tfeat_dir=dataset.tfeat_dir,
            split=split,
            shards=shards,
            listed=frozenset(ids),
            vocab_size=vocab_size,
        )
        _read_shards(check, _spread(sorted(shards), max_shards), workers, statistics, damage)
        _check_batch(config, statistics, str(paths[split]), damage)
    return report


def _attempt(read: Callable[[], T], default: T, damage: list[Damage]) -> T:
    """Returns what `read` returns; if it raises DataError, records that and returns `default`."""
    try:
        return read()
    except DataError as err:
        damage.append(Damage.from_error(err))
        return default


def _read_meta(
    config: RunConfig,
    split: Split,
    ids: Sequence[str],
    statistics: SplitStatistics,
    damage: list[Damage],
) -> dict[int, list[str]]:
    """Returns {shard: ids}, and compares it with the list."""
    folder = str(config.dataset.vfeat_dir)
    shards: dict[int, list[str]] = _attempt(lambda: read_shard_meta(folder, split), {}, damage)
    if not shards:
        return shards
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
