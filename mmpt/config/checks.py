"""Checks over several settings of a run. Each check yields a sentence per mistake."""

from collections.abc import Iterator
from typing import Any

from mmpt.config.run import RunConfig
from mmpt.config.schema import INERT
from mmpt.config.yaml_files import value_at

COMMON_KEYS = (
    "dataset.meta_processor dataset.video_processor dataset.text_processor dataset.aligner "
    "dataset.bert_name dataset.max_video_len dataset.max_len model.model_cls "
)
TRAINING_KEYS = COMMON_KEYS + (
    "dataset.train_path loss.loss_cls fairseq.dataset.batch_size fairseq.optimization.lr "
    "fairseq.optimization.optimizer fairseq.checkpoint.save_dir"
)
TEST_KEYS = COMMON_KEYS + "metric predictor fairseq.common_eval.path eval.save_path"
RETRIEVAL_TASKS = ("RetriTask", "VideoRetriTask")
RETRIEVAL_KEYS = (
    "dataset.num_video_per_batch dataset.clip_per_video dataset.vfeat_dir dataset.tfeat_dir "
    "dataset.sampled_min_len dataset.sampled_max_len"
)
DECAY_ONLY = ("total_num_update", "end_learning_rate", "power")
"""Options that only `lr_scheduler: polynomial_decay` has."""


def check_whole(config: RunConfig, values: dict[str, Any]) -> Iterator[str]:
    """Yields a sentence for each mistake that concerns several keys, or a missing key.

    Args:
        config: the config, in which invalid values are replaced by their defaults.
        values: the YAML as read. It still has the invalid values, so that their keys are not
            reported as missing.
    """
    if value_at(values, "dataset.feature_dim") is not None:
        yield "`dataset.feature_dim` is derived from `model.input_dim`; set that key instead."
    if isinstance(values.get("dataset", {}), dict | None):
        # Otherwise, it is not known whether this is a training or an evaluation config.
        yield from _missing(config, values)
    yield from _check_sizes(config)
    yield from _check_precision(config)
    yield from _check_schedule(config)
    yield from _check_slurm(config)
    if not config.is_test:
        yield from _check_training(config)


def _missing(config: RunConfig, values: dict[str, Any]) -> Iterator[str]:
    reason = "a training config needs it (evaluation configs say `dataset.split: test`)"
    needed = dict.fromkeys(TRAINING_KEYS.split(), reason)
    if config.is_test:
        reason = "an evaluation config (`dataset.split: test`) needs it"
        needed = dict.fromkeys(TEST_KEYS.split(), reason)
    elif config.task in RETRIEVAL_TASKS:
        needed |= dict.fromkeys(
            RETRIEVAL_KEYS.split(), f"`task: {config.task}` needs it"
        )
        if config.retrieval.retri_epoch is not None:
            needed["num_cands"] = "`retri_epoch` needs it"
    for path, reason in needed.items():
        found: Any = values
        for key in path.split("."):
            if not isinstance(found, dict):
                # The section is missing, or is itself a mistake.
                break
            found = found.get(key)
        if found is None:
            yield f"`{path}` is missing; {reason}."


def _check_sizes(config: RunConfig) -> Iterator[str]:
    dataset = config.dataset
    batch_size = config.option("dataset", "batch_size")
    if dataset.max_video_len is not None:
        slots = dataset.max_video_len + 3
        yield from _at_least(
            "dataset.max_len", dataset.max_len, "`max_video_len` + 3", slots
        )
    if config.retrieval.retri_epoch:
        videos = dataset.num_video_per_batch
        num_cands = config.retrieval.num_cands
        yield from _at_least(
            "num_cands", num_cands, "`dataset.num_video_per_batch`", videos
        )
    for kind in ("sampled", "sampled_video"):
        # Some aligners do not have these keys.
        low = getattr(dataset, f"{kind}_min_len", None)
        high = getattr(dataset, f"{kind}_max_len", None)
        yield from _at_least(f"dataset.{kind}_max_len", high, f"`{kind}_min_len`", low)
    divisor = dataset.subsampling
    key = "fairseq.dataset.batch_size"
    yield from _at_least(key, batch_size, "`dataset.subsampling`", divisor)
    yield from _check_sequences(config)


def _at_least(key: str, value: Any, bound_name: str, bound: Any) -> Iterator[str]:
    """Yields a mistake if both numbers are set and `value` is below `bound`."""
    if value is not None and bound is not None and value < bound:
        yield f"`{key}` must be at least {bound_name} ({bound}), but is {value}."


def _check_sequences(config: RunConfig) -> Iterator[str]:
    # Only some losses have this section.
    sequence = getattr(config.loss, "sequence_contrast", None)
    if config.loss is None or sequence is None:
        return
    has_weight = sequence.sequence_contrast_weight is not None
    has_term = has_weight or config.loss.loss_cls == "SequenceContrastLoss"
    length, clips = sequence.threshold, config.dataset.clip_per_video
    if has_term and length and clips and clips % length:
        yield (
            "`dataset.clip_per_video` must be a multiple of `loss.sequence_contrast.threshold` "
            f"({length}), but is {clips}."
        )


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
    # An option may be in several groups. fairseq takes the value of the last one.
    options: list[tuple[str, str, Any]] = []
    taken: dict[str, Any] = {}
    for group, values in config.fairseq.items():
        for name, value in values.items():
            options.append((f"fairseq.{group}.{name}", name, value))
            taken[name] = value
    if taken.get("lr_scheduler") != "polynomial_decay":
        for path, name, _ in options:
            if name in DECAY_ONLY:
                yield f"`{path}` needs `lr_scheduler: polynomial_decay`; set that, or leave it out."
        return
    total = taken.get("total_num_update") or taken.get("max_update", 0)
    if total <= 0:
        yield (
            "`fairseq.optimization.total_num_update` is missing; `lr_scheduler: polynomial_decay` "
            "needs it."
        )
        return
    for path, name, value in options:
        if name == "warmup_updates" and value > total:
            yield f"`{path}` must be at most `total_num_update` ({total:.0f}), but is {value}."


def _check_slurm(config: RunConfig) -> Iterator[str]:
    signal_s, limit_s = config.slurm.signal, config.slurm.time
    if signal_s >= limit_s:
        yield f"`slurm.signal` must be below `slurm.time` ({limit_s} s), but is {signal_s}."


def _check_training(config: RunConfig) -> Iterator[str]:
    if "common_eval" in config.fairseq:
        place = "evaluation configs (`dataset.split: test`)"
        yield f"`fairseq.common_eval` belongs to {place}; leave it out of training."
    for key, only in (("train_subset", "train"), ("valid_subset", "valid")):
        subset = config.option("dataset", key, only)
        if subset != only:
            path = f"fairseq.dataset.{key}"
            yield f"`{path}` must be `{only}` in training, but is `{subset}`; leave it out."
    batch_size = config.option("dataset", "batch_size", 1)
    if config.task in RETRIEVAL_TASKS and batch_size != 1:
        yield (
            f"`fairseq.dataset.batch_size` must be 1 with `task: {config.task}`, whose items are "
            f"whole batches, but is {batch_size}; `dataset.num_video_per_batch` sets the size."
        )


def inert_keys(config: RunConfig) -> list[str]:
    """Returns the names of settings that have no effect in this run. Old YAMLs have many."""
    names = []
    sections = {"": config, "dataset.": config.dataset, "model.": config.model}
    for prefix, section in sections.items():
        for name, field in type(section).model_fields.items():
            is_inert = INERT in field.metadata
            if is_inert and getattr(section, name) is not None:
                names.append(prefix + name)
    if config.retrieval.retri_epoch and (
        config.is_test or config.task in (None, "Task")
    ):
        names.append("retri_epoch")
    return names
