"""What must hold for fairseq's options beyond their types and bounds; each check returns one sentence per mistake."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from mmpt.config.run import RunConfig

SAFE_DDP_BACKENDS = ("no_c10d", "legacy_ddp")
DECAY_ONLY = ("total_num_update", "end_learning_rate", "power")
"""Options that only `lr_scheduler: polynomial_decay` has."""


def check_fairseq(config: RunConfig) -> list[str]:
    """Return every mistake among fairseq's options that no single option shows."""
    checks = (_check_precision, _check_backend, _check_optimizer, _check_schedule, _check_unsupported)
    return [problem for check in checks for problem in check(config)]


def _values(config: RunConfig, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of an option in every group that sets it."""
    for group, options in config.fairseq.items():
        if options.get(name) is not None:
            yield f"fairseq.{group}.{name}", options[name]


def _value(config: RunConfig, name: str, default: Any) -> Any:
    return next((value for _, value in _values(config, name)), default)


def _check_precision(config: RunConfig) -> Iterator[str]:
    half, brain = (
        [f"`fairseq.common.{name}`" for name in (kind, f"memory_efficient_{kind}") if config.option("common", name)]
        for kind in ("fp16", "bf16")
    )
    if half and brain:
        yield f"{half[0]} and {brain[0]} cannot both be true; choose one."
    if config.option("common", "amp"):
        yield (
            "`fairseq.common.amp` must be false: it would run the products of the loss in half precision; "
            "set `fairseq.common.fp16` or `fairseq.common.bf16` instead, with which the loss stays in float32."
        )


def _check_backend(config: RunConfig) -> Iterator[str]:
    for path, backend in _values(config, "ddp_backend"):
        if backend not in SAFE_DDP_BACKENDS:
            yield (
                f"`{path}` must be `no_c10d` or `legacy_ddp`, but is `{backend}`: other back ends "
                "wait for a gradient of every parameter, and BERT's poolers get none."
            )


def _check_optimizer(config: RunConfig) -> Iterator[str]:
    for path, rates in _values(config, "lr"):
        if len(rates) != 1:
            yield f"`{path}` must hold one number (`lr_scheduler` varies it), but holds {len(rates)}."
    for path, steps in _values(config, "update_freq"):
        if not steps:
            yield f"`{path}` must hold at least one number, the batches of an update, but is empty."
    for path, betas in _values(config, "adam_betas"):
        if not _are_betas(betas):
            yield f"`{path}` must be two numbers of at least 0 and below 1, such as (0.9, 0.98), but is {betas}."


def _are_betas(value: Any) -> bool:
    try:
        betas = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return False
    return (
        isinstance(betas, tuple | list)
        and len(betas) == 2
        and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas)
    )


def _check_schedule(config: RunConfig) -> Iterator[str]:
    if _value(config, "lr_scheduler", "fixed") != "polynomial_decay":
        for path, _ in (pair for name in DECAY_ONLY for pair in _values(config, name)):
            yield f"`{path}` needs `lr_scheduler: polynomial_decay`; set that, or leave it out."
        return
    total = _value(config, "total_num_update", None) or _value(config, "max_update", 0)
    if total <= 0:
        yield "`fairseq.optimization.total_num_update` is missing; `lr_scheduler: polynomial_decay` needs it."
        return
    for path, warmup in _values(config, "warmup_updates"):
        if warmup > total:
            yield f"`{path}` must be at most `total_num_update` ({total:.0f}), but is {warmup}."


def _check_unsupported(config: RunConfig) -> Iterator[str]:
    if config.option("ema", "store_ema"):
        yield "`fairseq.ema.store_ema` must be false: averaged weights are not supported; leave it out."
    if config.is_test:
        return
    if "common_eval" in config.fairseq:
        yield "`fairseq.common_eval` belongs to evaluation configs (`dataset.split: test`); leave it out of training."
    if config.option("checkpoint", "finetune_from_model") is not None:
        yield (
            "`fairseq.checkpoint.finetune_from_model` is not supported: name the weights in "
            "`fairseq.checkpoint.restore_file`, with `reset_optimizer: true` to start from them afresh."
        )
    for key, only in (("train_subset", "train"), ("valid_subset", "valid")):
        subset = config.option("dataset", key, only)
        if subset != only:
            yield f"`fairseq.dataset.{key}` must be `{only}` in training, but is `{subset}`; leave it out."
