"""Checks over several options of fairseq. Each check yields a sentence per mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmpt.config.run import RunConfig

DECAY_ONLY = ("total_num_update", "end_learning_rate", "power")
"""Options that only `lr_scheduler: polynomial_decay` has."""


def check_fairseq(config: RunConfig) -> list[str]:
    """Returns all mistakes among fairseq's options that no single option shows."""
    checks = (_check_precision, _check_schedule, _check_use)
    return [problem for check in checks for problem in check(config)]


def _values(config: RunConfig, name: str) -> Iterator[tuple[str, Any]]:
    """Yields the name and the value of an option in every group that sets it."""
    for group, options in config.fairseq.items():
        if options.get(name) is not None:
            yield f"fairseq.{group}.{name}", options[name]


def _value(config: RunConfig, name: str, default: Any) -> Any:
    return next((value for _, value in _values(config, name)), default)


def _check_precision(config: RunConfig) -> Iterator[str]:
    common = config.fairseq.get("common", {})
    fp16 = [name for name in ("fp16", "memory_efficient_fp16") if common.get(name)]
    bf16 = [name for name in ("bf16", "memory_efficient_bf16") if common.get(name)]
    if fp16 and bf16:
        both = f"`fairseq.common.{fp16[0]}` and `fairseq.common.{bf16[0]}`"
        yield f"{both} cannot both be true; choose one."
    if common.get("amp"):
        yield (
            "`fairseq.common.amp` must be false: it would compute the loss in half precision; set "
            "`fairseq.common.fp16` or `fairseq.common.bf16`, which keep the loss in float32."
        )


def _check_schedule(config: RunConfig) -> Iterator[str]:
    if _value(config, "lr_scheduler", "fixed") != "polynomial_decay":
        for name in DECAY_ONLY:
            for path, _ in _values(config, name):
                yield f"`{path}` needs `lr_scheduler: polynomial_decay`; set that, or leave it out."
        return
    total = _value(config, "total_num_update", None) or _value(config, "max_update", 0)
    if total <= 0:
        yield (
            "`fairseq.optimization.total_num_update` is missing; `lr_scheduler: polynomial_decay` "
            "needs it."
        )
        return
    for path, warmup in _values(config, "warmup_updates"):
        if warmup > total:
            yield f"`{path}` must be at most `total_num_update` ({total:.0f}), but is {warmup}."


def _check_use(config: RunConfig) -> Iterator[str]:
    if config.is_test:
        return
    if "common_eval" in config.fairseq:
        place = "evaluation configs (`dataset.split: test`)"
        yield f"`fairseq.common_eval` belongs to {place}; leave it out of training."
    for key, only in (("train_subset", "train"), ("valid_subset", "valid")):
        subset = config.option("dataset", key, only)
        if subset != only:
            path = f"fairseq.dataset.{key}"
            yield f"`{path}` must be `{only}` in training, but is `{subset}`; leave it out."
