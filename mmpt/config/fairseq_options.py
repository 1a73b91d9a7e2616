"""The fairseq options a YAML may set, by group and type, written down so that checking one needs no fairseq.

`tests/config/test_fairseq_options.py` compares this table with the dataclasses of the installed fairseq. Released
YAMLs put the options of the optimizer (adam), of the schedule (polynomial_decay) and `ddp_backend` under
`optimization`; both places are accepted.
"""

from __future__ import annotations

from typing import Any

from mmpt.config.fields import NO_LIMITS, Limits

TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "ints": list[int],
    "floats": list[float],
}

_ADAM = {"floats": "lr", "float": "adam_eps weight_decay", "bool": "use_old_adam fp16_adam_stats"}
_POLYNOMIAL_DECAY = {
    "int": "warmup_updates force_anneal",
    "float": "end_learning_rate power total_num_update",
    "floats": "lr",
}

_TABLE: dict[str, dict[str, str]] = {
    "common": {
        "bool": "no_progress_bar cpu bf16 memory_efficient_bf16 fp16 memory_efficient_fp16 fp16_no_flatten_grads "
        "on_cpu_convert_precision amp profile reset_logging suppress_crashes use_plasma_view azureml_logging",
        "int": "log_interval seed fp16_init_scale fp16_scale_window amp_batch_retries amp_init_scale amp_scale_window "
        "empty_cache_freq all_gather_list_size model_parallel_size",
        "float": "fp16_scale_tolerance min_loss_scale threshold_loss_scale",
        "str": "log_format log_file aim_repo aim_run_hash tensorboard_logdir wandb_project quantization_config_path "
        "plasma_path",
    },
    "common_eval": {"str": "path post_process results_path model_overrides", "bool": "quiet"},
    "dataset": {
        "int": "num_workers max_tokens batch_size required_batch_size_multiple required_seq_len_multiple "
        "data_buffer_size validate_interval validate_interval_updates validate_after_updates fixed_validation_seed "
        "max_tokens_valid batch_size_valid max_valid_steps curriculum num_shards shard_id",
        "bool": "skip_invalid_size_inputs_valid_test disable_validation grouped_shuffling update_epoch_batch_itr "
        "update_ordered_indices_seed combine_valid_subsets ignore_unused_valid_subsets",
        "str": "dataset_impl train_subset valid_subset gen_subset",
    },
    "optimization": {
        "int": "max_epoch max_update",
        "float": "stop_time_hours clip_norm stop_min_lr",
        "bool": "sentence_avg use_bmuf debug_param_names skip_remainder_batch",
        "ints": "update_freq",
        "floats": "lr",
    },
    "checkpoint": {
        "str": "save_dir restore_file continue_once finetune_from_model optimizer_overrides best_checkpoint_metric "
        "checkpoint_suffix",
        "bool": "reset_dataloader reset_lr_scheduler reset_meters reset_optimizer no_save no_epoch_checkpoints "
        "no_last_checkpoints no_save_optimizer_state maximize_best_checkpoint_metric load_checkpoint_on_all_dp_ranks "
        "write_checkpoints_asynchronously",
        "int": "save_interval save_interval_updates keep_interval_updates keep_interval_updates_pattern "
        "keep_last_epochs keep_best_checkpoints patience checkpoint_shard_count",
    },
    "distributed_training": {
        "int": "bucket_cap_mb heartbeat_timeout",
        "str": "ddp_backend distributed_backend",
        "bool": "find_unused_parameters broadcast_buffers fast_stat_sync fix_batches_to_gpus gradient_as_bucket_view",
    },
    "ema": {
        "str": "ema_seed_model",
        "bool": "store_ema ema_fp32",
        "float": "ema_decay",
        "int": "ema_start_update ema_update_freq",
    },
    "optimizer": {"str": "optimizer", **_ADAM},
    "lr_scheduler": {"str": "lr_scheduler", **_POLYNOMIAL_DECAY},
}

_LAUNCHER = "user_dir task arch criterion data taskconfig"
_JOB_TYPE = (
    "distributed_world_size distributed_rank distributed_init_method distributed_no_spawn distributed_port "
    "distributed_num_procs device_id nprocs_per_node"
)
MANAGED = dict.fromkeys(_LAUNCHER.split(), "the launcher") | dict.fromkeys(_JOB_TYPE.split(), "the job type")
"""Options that a YAML must leave alone, and what sets them."""


def _types_by_name(table: dict[str, str]) -> dict[str, Any]:
    return {name: TYPES[kind] for kind, names in table.items() for name in names.split()}


OPTIONS: dict[str, dict[str, Any]] = {group: _types_by_name(table) for group, table in _TABLE.items()}
"""Group -> option -> type."""

OPTIONS["optimization"] |= OPTIONS["optimizer"] | OPTIONS["lr_scheduler"] | {"ddp_backend": str}
OPTIONS["optimization"]["adam_betas"] = OPTIONS["optimizer"]["adam_betas"] = str | list[float]
OPTIONS["common_eval"]["path"] = str | list[str]

_AT_LEAST = {
    0: "seed max_epoch max_update clip_norm warmup_updates weight_decay end_learning_rate num_workers "
    "save_interval_updates validate_interval_updates validate_after_updates empty_cache_freq fp16_scale_tolerance",
    1: "log_interval update_freq batch_size batch_size_valid save_interval validate_interval bucket_cap_mb "
    "all_gather_list_size fp16_init_scale amp_init_scale",
}
_ABOVE_ZERO = "lr adam_eps total_num_update power min_loss_scale"
_ONE_OF = {
    "log_format": ("json", "none", "simple", "tqdm"),
    "optimizer": ("adam",),
    "lr_scheduler": ("polynomial_decay", "fixed"),
    "best_checkpoint_metric": ("loss",),
}
_LIMITS = (
    {name: Limits(at_least=bound) for bound, names in _AT_LEAST.items() for name in names.split()}
    | {name: Limits(above=0) for name in _ABOVE_ZERO.split()}
    | {name: Limits(one_of=names) for name, names in _ONE_OF.items()}
)


def limits_of_option(name: str) -> Limits:
    """Return the bounds of an option, which are those of every group that has it; 0 switches many of them off."""
    return _LIMITS.get(name, NO_LIMITS)
