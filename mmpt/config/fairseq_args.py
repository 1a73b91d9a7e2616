"""fairseq's command-line flags from a config, in the order of the YAML."""

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
            if name in without or value is None or value is False:
                continue
            flags.append("--" + name.replace("_", "-"))
            if name == "batch_size":
                value = config.batch_size
            elif name == "lr":
                value = value[0]
            elif isinstance(value, list) and name == "adam_betas":
                value = tuple(value)
            elif isinstance(value, list) and name == "path":
                value = ":".join(value)
            if value is not True:
                flags.append(str(value))
    return flags
