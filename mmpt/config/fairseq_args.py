"""fairseq's command-line flags from a config, in the order of the YAML."""

from __future__ import annotations

from typing import Any

from mmpt.config.run import RunConfig

RESUME_DROPS = (
    "restore_file",
    "reset_dataloader",
    "reset_lr_scheduler",
    "reset_meters",
    "reset_optimizer",
)
"""Options that would discard the state of an interrupted run."""


def fairseq_flags(config: RunConfig, *, without: tuple[str, ...] = ()) -> list[str]:
    """Returns one argv item per flag and value, unquoted.

    A null value and a false switch give no flag. (The release turned fp16 on for any value.)

    Args:
        without: names of options to leave out.
    """
    flags: list[str] = []
    for options in config.fairseq.values():
        for name, value in options.items():
            if name not in without:
                flags += _flag(name, config.batch_size if name == "batch_size" else value)
    return flags


def _flag(name: str, value: Any) -> list[str]:
    flag = "--" + name.replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if name == "lr":
        return [flag, str(value[0])]
    if name == "adam_betas" and isinstance(value, list):
        return [flag, str(tuple(value))]
    if name == "path" and isinstance(value, list):
        return [flag, ":".join(value)]
    return [flag, str(value)]
