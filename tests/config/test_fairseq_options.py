"""The table of fairseq options against the dataclasses of the installed fairseq."""

import dataclasses
import types
import typing

import pytest

from mmpt.config.fairseq_options import _LIMITS, MANAGED, OPTIONS

# Options of fairseq that a YAML has no use for here: other hardware, pipelines, sharding, other wrappers.
UNUSED = {
    "common": {"tpu"},
    "distributed_training": {
        *("ddp_comm_hook", "slowmo_momentum", "slowmo_base_algorithm", "localsgd_frequency", "zero_sharding", "tpu"),
        *("fp16", "memory_efficient_fp16", "no_reshard_after_forward", "fp32_reduce_scatter", "cpu_offload"),
        *("use_sharded_state", "not_fsdp_flatten_parameters"),
        *("pipeline_model_parallel", "pipeline_balance", "pipeline_devices", "pipeline_chunks"),
        *("pipeline_encoder_balance", "pipeline_encoder_devices", "pipeline_decoder_balance"),
        *("pipeline_decoder_devices", "pipeline_checkpoint"),
    },
    "checkpoint": {"model_parallel_size"},
    "optimizer": {"tpu"},
}


def fairseq_dataclasses():
    pytest.importorskip("fairseq")
    from fairseq.dataclass import configs
    from fairseq.optim.adam import FairseqAdamConfig
    from fairseq.optim.lr_scheduler.polynomial_decay_schedule import PolynomialDecayLRScheduleConfig

    return {
        "common": configs.CommonConfig,
        "common_eval": configs.CommonEvalConfig,
        "dataset": configs.DatasetConfig,
        "optimization": configs.OptimizationConfig,
        "checkpoint": configs.CheckpointConfig,
        "distributed_training": configs.DistributedTrainingConfig,
        "ema": configs.EMAConfig,
        "optimizer": FairseqAdamConfig,
        "lr_scheduler": PolynomialDecayLRScheduleConfig,
    }


def plain_type(annotation):
    """Return bool, int, float, list[int], list[float], or str for everything else, as the command line takes it."""
    if typing.get_origin(annotation) is typing.Union:
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not types.NoneType)
    if typing.get_origin(annotation) is list:
        return list[typing.get_args(annotation)[0]]
    return annotation if annotation in (bool, int, float) else str


def test_the_table_holds_what_fairseq_has():
    groups = fairseq_dataclasses()
    assert set(OPTIONS) == set(groups)
    for group, cls in groups.items():
        theirs = {field.name: field.type for field in dataclasses.fields(cls)}
        wanted = set(theirs) - {"_name"} - UNUSED.get(group, set()) - set(MANAGED)
        extra = {"optimizer", "adam_betas"} if group == "optimizer" else {"lr_scheduler"}
        assert wanted <= set(OPTIONS[group]), group
        if group != "optimization":
            assert set(OPTIONS[group]) - wanted <= extra, group
        for name in wanted - {"adam_betas", "path"}:
            assert OPTIONS[group][name] == plain_type(theirs[name]), f"{group}.{name}"


def test_a_switch_that_is_on_by_default_would_be_turned_off_by_its_flag():
    """fairseq makes `store_false` of those; our rule "a true switch gives its flag" needs that there are none."""
    for group, cls in fairseq_dataclasses().items():
        on = [field.name for field in dataclasses.fields(cls) if field.default is True and field.name in OPTIONS[group]]
        assert on == [], group


def test_optimization_takes_what_the_released_yamls_put_there():
    borrowed = set(OPTIONS["optimizer"]) | set(OPTIONS["lr_scheduler"]) | {"ddp_backend"}
    own = {field.name for field in dataclasses.fields(fairseq_dataclasses()["optimization"])} - {"_name"}
    assert set(OPTIONS["optimization"]) == own | borrowed


def test_every_bound_is_of_an_option_and_allows_its_default():
    assert set(_LIMITS) <= {name for options in OPTIONS.values() for name in options}
    for cls in fairseq_dataclasses().values():
        for field in dataclasses.fields(cls):
            if (
                field.name in _LIMITS
                and isinstance(field.default, int | float | str)
                and "${" not in str(field.default)
            ):
                assert _LIMITS[field.name].allow(field.default), field.name
