"""A plain mapping to a `RunConfig`: every key is known, every value has its type and bounds; mistakes are collected."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, TypeVar

from mmpt.config.fairseq_options import MANAGED, OPTIONS, limits_of_option
from mmpt.config.fields import Limits, coerce, limits_of
from mmpt.config.run import FairseqOptions, RunConfig
from mmpt.config.schema import (
    DatasetConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    RetrievalConfig,
    SequenceContrastConfig,
)
from mmpt.registry import did_you_mean

Section = TypeVar("Section")

SECTIONS: dict[str, Any] = {"dataset": DatasetConfig, "model": ModelConfig, "loss": LossConfig, "eval": EvalConfig}
REMOVED = {
    "memory": (
        "its work is done by `model.checkpoint_activations` (`auto`, false or clips per chunk) and "
        "`clips_per_forward` (`auto` or a number of clips); leave `memory` out"
    ),
    "model.tf32": (
        "float32 is computed in float32; to let torch multiply in TF32, leave the key out and set "
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 in the environment"
    ),
}
"""Keys of earlier versions, and what to use instead."""


def _clips(value: Any) -> int | str:
    """Return a number of clips, or `auto`."""
    return coerce(value, int | str, Limits(at_least=1, one_of=("auto",)))


SCALARS: dict[str, Any] = {
    "task": str,
    "task_type": str,
    "metric": list[str],
    "predictor": str,
    "resolved": bool,
    "clips_per_forward": _clips,
}
"""Type of a key's value, or a function that reads it."""
RETRIEVAL = [field.name for field in dataclasses.fields(RetrievalConfig)]
INERT_TOP_LEVEL = ("slurm_config", "run_task", "project_dir", "base_dir", "task_group", "task_list")
"""Keys of job files and of cluster launchers; a single run does not read them."""
TOP_LEVEL = [*SECTIONS, "fairseq", *SCALARS, *RETRIEVAL, *INERT_TOP_LEVEL]


def parse(values: dict[str, Any], path: str) -> tuple[RunConfig, list[str]]:
    """Return the config and every mistake found in it; a wrong value is replaced by its default meanwhile.

    Args:
        values: the YAML with includes and overrides merged.
        path: the YAML file, kept in the config.
    """
    problems: list[str] = []
    arguments: dict[str, Any] = {"path": path}
    retrieval: dict[str, Any] = {}
    for key, value in values.items():
        if key in RETRIEVAL:
            retrieval[key] = value
        elif key not in TOP_LEVEL:
            problems.append(_unknown(key, "", TOP_LEVEL))
        elif value is None or key in INERT_TOP_LEVEL:
            continue
        elif key == "fairseq":
            arguments[key] = _parse_fairseq(value, problems)
        elif key in SECTIONS:
            arguments[key] = _parse_section(SECTIONS[key], value, key, problems)
        else:
            arguments[key] = _checked(value, SCALARS[key], key, problems)
    if retrieval.get("vectorpool_cls") == "DistributedVideoVectorPool" and retrieval.get("centroids") is None:
        retrieval["centroids"] = 4096  # the release's default for this pool
    arguments["retrieval"] = _parse_section(RetrievalConfig, retrieval, "", problems)
    arguments["metric"] = tuple(arguments.get("metric") or ())
    return RunConfig(**{key: value for key, value in arguments.items() if value is not None}), problems


def _parse_section(section: type[Section], values: Any, path: str, problems: list[str]) -> Section | None:
    """Return the dataclass `section` filled from a mapping; null and wrong values leave the default."""
    if not isinstance(values, dict):
        problems.append(f"`{path}` must be a mapping, but is {values!r}.")
        return None
    assert dataclasses.is_dataclass(section)
    fields = {field.name: field for field in dataclasses.fields(section)}
    annotations = _annotations(section)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else str(key)
        if key not in fields:
            problems.append(_unknown(str(key), path, list(fields)))
        elif value is not None:
            nested = _nested(annotations[key])
            if nested is not None:
                arguments[key] = _parse_section(nested, value, where, problems)
            else:
                parsed = _checked(value, annotations[key], where, problems, limits_of(fields[key]))
                if parsed is not None:
                    arguments[key] = parsed
    return section(**arguments)


@cache
def _annotations(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section)


def _nested(annotation: Any) -> type | None:
    """Return the dataclass in `Dataclass | None`, or None for plain values."""
    if isinstance(annotation, types.UnionType):
        for kind in typing.get_args(annotation):
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                return kind
    return None


def _parse_fairseq(values: Any, problems: list[str]) -> FairseqOptions:
    if not isinstance(values, dict):
        problems.append(f"`fairseq` must be a mapping of option groups, but is {values!r}.")
        return {}
    parsed: FairseqOptions = {}
    for group, options in values.items():
        path = f"fairseq.{group}"
        if group not in OPTIONS:
            problems.append(_unknown(str(group), "fairseq", list(OPTIONS)))
        elif options is not None and not isinstance(options, dict):
            problems.append(f"`{path}` must be a mapping, but is {options!r}.")
        else:
            parsed[group] = _parse_options(group, options or {}, problems)
    return parsed


def _parse_options(group: str, options: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    path = f"fairseq.{group}"
    parsed = {}
    for key, value in options.items():
        if key in MANAGED:
            problems.append(f"`{path}.{key}` is set by {MANAGED[key]}; leave it out.")
        elif key not in OPTIONS[group]:
            problems.append(_unknown(str(key), path, list(OPTIONS[group])))
        elif value is not None:
            checked = _checked(value, OPTIONS[group][key], f"{path}.{key}", problems, limits_of_option(key))
            if checked is not None:
                parsed[key] = checked
    return parsed


def _checked(value: Any, annotation: Any, path: str, problems: list[str], *limits: Any) -> Any:
    """Return `value` in its type (or as a function reads it), or None after noting what is wrong with it."""
    try:
        return annotation(value) if isinstance(annotation, types.FunctionType) else coerce(value, annotation, *limits)
    except ValueError as err:
        problems.append(f"`{path}` {err}.")
        return None


def _unknown(key: str, section: str, known: list[str]) -> str:
    """Return the sentence for a key that nobody reads: where it belongs, or the nearest known name."""
    path = f"{section}.{key}" if section else key
    if path in REMOVED:
        return f"`{path}` is no longer a key: {REMOVED[path]}."
    homes = [home for home in _homes().get(key, []) if home != section]
    if "fairseq.optimization" in homes:
        homes = ["fairseq.optimization"]
    if homes:
        places = " or ".join(f"under `{home}`" if home else "at the top level" for home in homes)
        return f"`{path}` is not a known key; `{key}` belongs {places}."
    return f"`{path}` is not a known key.{did_you_mean(key, known) or did_you_mean(key, list(_homes()))}"


@cache
def _homes() -> dict[str, list[str]]:
    """Every known key with the sections that hold it ("" is the top level)."""
    sections: dict[str, list[str]] = {
        "": TOP_LEVEL,
        **{name: list(_annotations(section)) for name, section in SECTIONS.items()},
        "loss.sequence_contrast": list(_annotations(SequenceContrastConfig)),
        **{f"fairseq.{group}": list(options) for group, options in OPTIONS.items()},
    }
    homes: dict[str, list[str]] = {}
    for section, names in sections.items():
        for name in names:
            homes.setdefault(name, []).append(section)
    return homes
