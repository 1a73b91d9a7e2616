"""The options of a YAML's `fairseq:` groups.

Names, types and choices come from fairseq's own dataclasses. Bounds are added here, and a few
options of our own. fairseq is imported when options are checked. Without it, only the options in
`BOUNDS` are checked.
"""

import ast
import dataclasses
import enum
import logging
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, create_model

from mmpt.config import schema

GROUPS = (
    *(
        "common",
        "common_eval",
        "dataset",
        "optimization",
        "checkpoint",
        "distributed_training",
    ),
    *("optimizer", "lr_scheduler"),
)

_LAUNCHER = (
    "user_dir task arch criterion data taskconfig distributed_world_size distributed_rank "
    "distributed_init_method distributed_no_spawn distributed_port distributed_num_procs "
    "device_id nprocs_per_node"
)
REFUSED = {
    **dict.fromkeys(_LAUNCHER.split(), "is set by the launcher; leave it out"),
    "ema": "is not supported: there are no averaged weights; leave it out",
    "finetune_from_model": "is not supported: name the weights in `restore_file`, with "
    "`reset_optimizer: true` for a new optimizer",
}
"""Options that a YAML must not set -> the reason."""
OWN: dict[str, dict[str, Any]] = {
    "checkpoint": {"save_every_minutes": float, "stop_signals": list[str]},
    "distributed_training": {"timeout_minutes": float},
}
"""Group -> options that `FairseqMMTask` adds to fairseq's options, and their types."""
UNSUPPORTED = re.compile(
    "_name|tpu|ddp_comm_hook|(slowmo|localsgd|zero|pipeline|not_fsdp)_.*|no_reshard_after_forward"
    "|fp32_reduce_scatter|cpu_offload|use_sharded_state"
)
"""Options for devices and for ways of sharding a model that MMPT does not support."""

_NATURALS = (
    "seed max_epoch max_update warmup_updates num_workers save_interval_updates "
    "validate_interval_updates validate_after_updates empty_cache_freq"
)
_COUNTS = (
    "log_interval batch_size batch_size_valid save_interval validate_interval bucket_cap_mb "
    "all_gather_list_size fp16_init_scale amp_init_scale"
)
_NOT_NEGATIVE = "clip_norm weight_decay end_learning_rate fp16_scale_tolerance"
_POSITIVE = (
    "adam_eps total_num_update power min_loss_scale save_every_minutes timeout_minutes"
)


def _check_betas(value: Any) -> Any:
    try:
        pair = ast.literal_eval(value) if isinstance(value, str) else value
        TypeAdapter(tuple[Beta, Beta]).validate_python(pair)
    except (ValueError, SyntaxError):
        reason = "be two numbers of at least 0 and below 1, such as (0.9, 0.98)"
        raise ValueError(reason) from None
    return value


Beta = Annotated[float, Field(strict=True, ge=0, lt=1)]
Listed = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
BOUNDS: dict[str, Any] = {
    **dict.fromkeys(_NATURALS.split(), schema.Natural),
    **dict.fromkeys(_COUNTS.split(), schema.Count),
    **dict.fromkeys(_NOT_NEGATIVE.split(), schema.NotNegative),
    **dict.fromkeys(_POSITIVE.split(), schema.Positive),
    "lr": Annotated[list[schema.Positive], Field(min_length=1, max_length=1), Listed],
    "update_freq": Annotated[list[schema.Count], Field(min_length=1), Listed],
    "adam_betas": Annotated[Any, BeforeValidator(_check_betas)],
    "path": str | list[str],
    "stop_signals": list[Literal["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"]],
    "optimizer": Literal["adam"],
    "lr_scheduler": Literal["polynomial_decay", "fixed"],
    "best_checkpoint_metric": Literal["loss"],
    # Other back ends wait for a gradient of every parameter, and BERT's poolers get none.
    "ddp_backend": Literal["no_c10d", "legacy_ddp"],
}
"""Options that accept fewer values here than in fairseq -> the accepted values. 0 stays allowed
where it means "off"."""


@cache
def settings_model(*, import_fairseq: bool) -> type[schema.Settings]:
    """Returns the model of a YAML file, with a model of each group of fairseq's options.

    The keys of retrieval are at the top level, where the release has them.

    Args:
        import_fairseq: use fairseq, if it is installed. Otherwise all options are accepted.
    """
    types_by_group = _fairseq_types() if import_fairseq else {}
    kind: Any = {"strict": True, "extra": "forbid" if types_by_group else "allow"}
    groups: dict[str, Any] = {}
    for group in GROUPS:
        options: dict[str, Any] = {}
        for name, annotation in types_by_group.get(group, BOUNDS).items():
            options[name] = (BOUNDS.get(name, annotation), None)
        section = create_model(
            group, __base__=schema.Section, __cls_kwargs__=kind, **options
        )
        groups[group] = (section, None)
    fairseq: Any = create_model("fairseq", __base__=schema.Section, **groups)
    bases: Any = (schema.Settings, schema.RetrievalConfig)
    return create_model("YamlFile", __base__=bases, fairseq=(fairseq, None))


@contextmanager
def preserve_root_logger() -> Iterator[None]:
    """Restores the root logger after fairseq is imported in the block.

    The import adds a handler to it and sets its level to DEBUG.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _fairseq_types() -> dict[str, dict[str, Any]]:
    """Returns the type of each option by group, from fairseq; an empty mapping without fairseq.

    The released YAMLs have the options of the optimizer, of the schedule and `ddp_backend` in
    `optimization`. Both places are accepted.
    """
    try:
        with preserve_root_logger():
            from fairseq.dataclass import configs
            from fairseq.optim import adam
            from fairseq.optim.lr_scheduler import (
                polynomial_decay_schedule as polynomial,
            )
    except ImportError:
        return {}
    types = {
        "common": _types_of(configs.CommonConfig),
        "common_eval": _types_of(configs.CommonEvalConfig),
        "dataset": _types_of(configs.DatasetConfig),
        "optimization": _types_of(configs.OptimizationConfig) | {"ddp_backend": str},
        "checkpoint": _types_of(configs.CheckpointConfig) | OWN["checkpoint"],
        "distributed_training": _types_of(configs.DistributedTrainingConfig)
        | OWN["distributed_training"],
        "optimizer": _types_of(adam.FairseqAdamConfig) | {"optimizer": str},
        "lr_scheduler": _types_of(polynomial.PolynomialDecayLRScheduleConfig)
        | {"lr_scheduler": str},
    }
    types["optimization"] |= types["optimizer"] | types["lr_scheduler"]
    return types


def _types_of(group: Any) -> dict[str, Any]:
    """Returns the types of a dataclass' options that a YAML may set.

    An option whose default is `${common.<option>}` is left out, because it is set in `common`.
    """
    return {
        field.name: _plain_type(field.type)
        for field in dataclasses.fields(group)
        if field.name not in REFUSED
        and not UNSUPPORTED.fullmatch(field.name)
        and not str(field.default).startswith("${common.")
    }


def _plain_type(annotation: Any) -> Any:
    """Returns the type of an option in a YAML. For an enum, it is a `Literal` of its values."""
    for kind in typing.get_args(annotation) or (annotation,):
        if isinstance(kind, enum.EnumMeta):
            choices: list[Any] = list(kind)
            return Literal[tuple(choice.value for choice in choices)]
    return annotation
