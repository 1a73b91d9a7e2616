"""What goes wrong because of the user's input: one exception family, one exit code, one grammar.

A message says what is wrong, the bound, the value found and the remedy, for example
"`dataset.max_len` must be at least `max_video_len` + 3 (19), but is 16."  Our own bugs raise
`assert`.
"""

from __future__ import annotations

from collections.abc import Iterator

EXIT_CODE = 2


class UserError(ValueError):
    """Something the user can mend; a command prints the message without a traceback and exits with
    `EXIT_CODE`.
    """


class ConfigError(UserError):
    """A YAML file or an override is wrong. `problems` holds every mistake found, one sentence
    each.
    """

    def __init__(self, source: str, problems: list[str]):
        self.source = source
        self.problems = list(problems)
        count = "1 mistake" if len(self.problems) == 1 else f"{len(self.problems)} mistakes"
        super().__init__(
            "\n".join([f"{source}: {count}", *(f"  - {problem}" for problem in self.problems)])
        )

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, list[str]]]:
        """Pickle by the constructor's own arguments, so that it crosses process borders."""
        return type(self), (self.source, self.problems)


class DataError(UserError):
    """A list, shard, caption or annotation file is missing, damaged or of another kind."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, of another shape, or holds more than tensors and plain
    settings.
    """


class DeviceMemoryError(UserError):
    """The GPU has no memory for what was asked of it, however small the pieces."""


class LaunchError(UserError):
    """The job cannot be started on this machine as asked."""


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception, then those that it was raised from or while handling, newest first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def message_of(error: UserError) -> str:
    """Return the message alone, without the traceback that a loader worker wraps around what it
    raises.
    """
    message, kind = str(error), type(error).__name__
    return (
        message.rpartition(f"{kind}: ")[2].strip() if "Original Traceback" in message else message
    )
