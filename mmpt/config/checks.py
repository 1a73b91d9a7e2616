"""What must hold across several settings of a run; each check returns one sentence per mistake."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

from mmpt.config.fairseq_checks import check_fairseq
from mmpt.config.fields import limits_of
from mmpt.config.run import RunConfig

PROCESSOR_KEYS = ("dataset.meta_processor", "dataset.video_processor", "dataset.text_processor", "dataset.aligner")
COMMON_KEYS = ("dataset.bert_name", "dataset.max_video_len", "dataset.max_len", "model.model_cls")
FAIRSEQ_KEYS = (
    "fairseq.dataset.batch_size", "fairseq.optimization.lr", "fairseq.optimization.optimizer",
    "fairseq.checkpoint.save_dir",
)  # fmt: skip
TRAINING_KEYS = (*PROCESSOR_KEYS, *COMMON_KEYS, "dataset.train_path", "loss.loss_cls", *FAIRSEQ_KEYS)
RETRIEVAL_TASKS = ("RetriTask", "VideoRetriTask")
RETRIEVAL_DATASET_KEYS = (
    "num_video_per_batch", "clip_per_video", "vfeat_dir", "tfeat_dir", "sampled_min_len", "sampled_max_len"
)  # fmt: skip
PREDICT_KEYS = (*PROCESSOR_KEYS, *COMMON_KEYS, "metric", "predictor", "fairseq.common_eval.path", "eval.save_path")


def check_whole(config: RunConfig, values: dict[str, Any]) -> list[str]:
    """Return every mistake that no single key shows.

    Args:
        config: the parsed config; mistaken values are None in it and take part in no comparison.
        values: the YAML as read; a key that stands there is not called missing.
    """
    problems = [*_missing(config, values), *_check_lengths(config), *_check_batches(config)]
    if config.model.checkpoint_activations is True:
        problems.append(
            "`model.checkpoint_activations` must be `auto`, false or the number of clips per chunk "
            "(for example 64), but is true."
        )
    return [*problems, *_check_retrieval(config, values), *check_fairseq(config)]


def _missing(config: RunConfig, values: dict[str, Any]) -> Iterator[str]:
    required: tuple[str, ...]
    if not isinstance(values.get("dataset", {}), dict | None):
        return  # nobody knows whether this is to train or to evaluate
    if not config.is_test:
        required, kind = TRAINING_KEYS, "a training config needs it (evaluation configs say `dataset.split: test`)"
    else:
        required, kind = PREDICT_KEYS, "an evaluation config (`dataset.split: test`) needs it"
    for path in required:
        if _is_missing(values, path):
            yield f"`{path}` is missing; {kind}."


def _is_missing(values: Any, path: str) -> bool:
    """False also where a section is no mapping: that is a mistake of its own, and what it should hold is unknown."""
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
                f"`dataset.max_len` must be at least `max_video_len` + 3 ({bound}), but is {dataset.max_len}; "
                "it counts the video slots, [CLS], [SEP], the word pieces and a final [SEP]."
            )
    ranges = (("sampled_min_len", "sampled_max_len"), ("sampled_video_min_len", "sampled_video_max_len"))
    for low_name, high_name in ranges:
        low, high = getattr(dataset, low_name), getattr(dataset, high_name)
        if low is not None and high is not None and low > high:
            yield f"`dataset.{low_name}` must be at most `{high_name}` ({high}), but is {low}."


def _check_batches(config: RunConfig) -> Iterator[str]:
    dataset, retrieval = config.dataset, config.retrieval
    videos, candidates = dataset.num_video_per_batch, retrieval.num_cands
    if retrieval.retri_epoch is not None and videos is not None and candidates is not None and candidates < videos:
        yield f"`num_cands` must be at least `dataset.num_video_per_batch` ({videos}), but is {candidates}."
    sequence = config.loss.sequence_contrast if config.loss else None
    if sequence is not None and sequence.sequence_contrast_weight is not None:
        length, clips = sequence.threshold, dataset.clip_per_video
        if length is not None and clips is not None and clips % length:
            yield (
                f"`dataset.clip_per_video` must be a multiple of `loss.sequence_contrast.threshold` ({length}), "
                f"but is {clips}."
            )
    batch_size, subsampling = config.option("dataset", "batch_size"), dataset.subsampling
    if not config.resolved and batch_size is not None and subsampling is not None and batch_size < subsampling:
        yield (
            f"`fairseq.dataset.batch_size` must be at least `dataset.subsampling` ({subsampling}), by which it is "
            f"divided, but is {batch_size}."
        )


def _check_retrieval(config: RunConfig, values: dict[str, Any]) -> Iterator[str]:
    if config.is_test or config.task not in RETRIEVAL_TASKS:
        return
    needed = [f"dataset.{key}" for key in RETRIEVAL_DATASET_KEYS]
    if config.retrieval.retri_epoch is not None:
        needed.append("num_cands")
    for path in filter(partial(_is_missing, values), needed):
        yield f"`{path}` is missing; `task: {config.task}` needs it."
    if config.option("dataset", "batch_size", 1) != 1:
        yield (
            f"`fairseq.dataset.batch_size` must be 1 with `task: {config.task}`, whose items are whole batches, but is "
            f"{config.batch_size}; `dataset.num_video_per_batch` sets the size."
        )


def inert_keys(config: RunConfig, values: dict[str, Any], inert_top_level: tuple[str, ...]) -> list[str]:
    """Return the dotted names of settings that are accepted for old YAMLs but change nothing in this run."""
    names = [key for key in inert_top_level if values.get(key) is not None]
    for section_name in ("dataset", "model"):
        section = getattr(config, section_name)
        for field in dataclasses.fields(section):
            if limits_of(field).inert and getattr(section, field.name) is not None:
                names.append(f"{section_name}.{field.name}")
    if config.dataset.subsampling == 1:
        names.append("dataset.subsampling")
    if config.dataset.jsfusion_path is not None and config.dataset.full_test_path is None:
        names.append("dataset.jsfusion_path")
    if values.get("retri_epoch") is not None and (config.is_test or config.task in (None, "Task")):
        names.append("retri_epoch")
    if config.is_test and config.option("dataset", "valid_subset") is not None:
        names.append("fairseq.dataset.valid_subset")
    return names
