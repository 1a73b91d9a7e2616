"""Checks over several settings of a run. Each check yields a sentence per mistake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmpt.config.fairseq_checks import check_fairseq
from mmpt.config.run import RunConfig
from mmpt.config.section import INERT

COMMON_KEYS = (
    "dataset.meta_processor",
    "dataset.video_processor",
    "dataset.text_processor",
    "dataset.aligner",
    "dataset.bert_name",
    "dataset.max_video_len",
    "dataset.max_len",
    "model.model_cls",
)
TRAINING_KEYS = (
    *COMMON_KEYS,
    "dataset.train_path",
    "loss.loss_cls",
    "fairseq.dataset.batch_size",
    "fairseq.optimization.lr",
    "fairseq.optimization.optimizer",
    "fairseq.checkpoint.save_dir",
)
TEST_KEYS = (
    *COMMON_KEYS,
    "metric",
    "predictor",
    "fairseq.common_eval.path",
    "eval.save_path",
)
RETRIEVAL_TASKS = ("RetriTask", "VideoRetriTask")
RETRIEVAL_KEYS = (
    "dataset.num_video_per_batch",
    "dataset.clip_per_video",
    "dataset.vfeat_dir",
    "dataset.tfeat_dir",
    "dataset.sampled_min_len",
    "dataset.sampled_max_len",
)


def check_whole(config: RunConfig, values: dict[str, Any]) -> list[str]:
    """Returns all mistakes that no single key shows.

    Args:
        config: the config, in which mistaken values have their defaults.
        values: the YAML as read. A mistaken key in it is not missing.
    """
    problems = [*_missing(config, values), *_check_lengths(config), *_check_batches(config)]
    return [*problems, *_check_retrieval(config, values), *check_fairseq(config)]


def _missing(config: RunConfig, values: dict[str, Any]) -> Iterator[str]:
    if not isinstance(values.get("dataset", {}), dict | None):
        return  # this may be a training or an evaluation config
    reason = "a training config needs it (evaluation configs say `dataset.split: test`)"
    if config.is_test:
        reason = "an evaluation config (`dataset.split: test`) needs it"
    for path in TEST_KEYS if config.is_test else TRAINING_KEYS:
        if _is_missing(values, path):
            yield f"`{path}` is missing; {reason}."


def _is_missing(values: Any, path: str) -> bool:
    """True if a key is absent or null. A section that is no mapping is a mistake of its own."""
    for key in path.split("."):
        if values is None or not isinstance(values, dict):
            return values is None
        values = values.get(key)
    return values is None


def _check_lengths(config: RunConfig) -> Iterator[str]:
    dataset = config.dataset
    if dataset.max_len is not None and dataset.max_video_len is not None:
        bound = dataset.max_video_len + 3
        if dataset.max_len < bound:
            yield (
                f"`dataset.max_len` must be at least `max_video_len` + 3 ({bound}), but is "
                f"{dataset.max_len}; it counts the video slots, [CLS], [SEP], the word pieces and "
                "a final [SEP]."
            )
    ranges = (
        ("sampled_min_len", "sampled_max_len"),
        ("sampled_video_min_len", "sampled_video_max_len"),
    )
    for low_name, high_name in ranges:
        low, high = getattr(dataset, low_name), getattr(dataset, high_name)
        if low is not None and high is not None and low > high:
            yield f"`dataset.{low_name}` must be at most `{high_name}` ({high}), but is {low}."


def _check_batches(config: RunConfig) -> Iterator[str]:
    dataset, retrieval = config.dataset, config.retrieval
    if retrieval.retri_epoch and retrieval.num_cands and dataset.num_video_per_batch:
        videos, found = dataset.num_video_per_batch, retrieval.num_cands
        if found < videos:
            bound = f"`dataset.num_video_per_batch` ({videos})"
            yield f"`num_cands` must be at least {bound}, but is {found}."
    sequence = config.loss.sequence_contrast if config.loss else None
    if sequence is not None and sequence.sequence_contrast_weight is not None:
        length, clips = sequence.threshold, dataset.clip_per_video
        if length and clips and clips % length:
            yield (
                "`dataset.clip_per_video` must be a multiple of `loss.sequence_contrast.threshold` "
                f"({length}), but is {clips}."
            )
    batch_size, subsampling = config.option("dataset", "batch_size"), dataset.subsampling
    if batch_size and subsampling and batch_size < subsampling:
        yield (
            f"`fairseq.dataset.batch_size` must be at least `dataset.subsampling` ({subsampling}), "
            f"by which it is divided, but is {batch_size}."
        )


def _check_retrieval(config: RunConfig, values: dict[str, Any]) -> Iterator[str]:
    if config.is_test or config.task not in RETRIEVAL_TASKS:
        return
    candidates = () if config.retrieval.retri_epoch is None else ("num_cands",)
    for path in (*RETRIEVAL_KEYS, *candidates):
        if _is_missing(values, path):
            yield f"`{path}` is missing; `task: {config.task}` needs it."
    batch_size = config.option("dataset", "batch_size", 1)
    if batch_size != 1:
        yield (
            f"`fairseq.dataset.batch_size` must be 1 with `task: {config.task}`, whose items are "
            f"whole batches, but is {batch_size}; `dataset.num_video_per_batch` sets the size."
        )


def inert_keys(config: RunConfig) -> list[str]:
    """Returns the names of settings that have no effect in this run. Old YAMLs have many."""
    names = []
    for prefix, section in (("", config), ("dataset.", config.dataset), ("model.", config.model)):
        for name, field in type(section).model_fields.items():
            if INERT in field.metadata and getattr(section, name) is not None:
                names.append(f"{prefix}{name}")
    if config.dataset.subsampling == 1:
        names.append("dataset.subsampling")
    if config.dataset.jsfusion_path is not None and config.dataset.full_test_path is None:
        names.append("dataset.jsfusion_path")
    if config.retrieval.retri_epoch and (config.is_test or config.task in (None, "Task")):
        names.append("retri_epoch")
    if config.is_test and config.option("dataset", "valid_subset") is not None:
        names.append("fairseq.dataset.valid_subset")
    return names
