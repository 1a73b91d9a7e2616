"""Exceptions for mistakes that the user can fix.

All are subclasses of `UserError`. A command prints their message without a traceback and exits with
`EXIT_CODE`. A message gives what is wrong, the bound, the value found and the remedy, for example
"`dataset.max_len` must be at least `max_video_len` + 3 (19), but is 16." Bugs in this project raise
AssertionError and other exceptions instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

EXIT_CODE = 2
REQUEUE_CODE = 75
"""Exit code of a training run that was asked to stop and has saved its state. It is EX_TEMPFAIL of
sysexits.h: run the same command again to continue."""
_TERMINAL_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class UserError(ValueError):
    """A mistake that the user can fix."""


class ConfigError(UserError):
    """A YAML file, an override or an argument is wrong.

    Args:
        source: the file, section or key that is wrong.
        problems: all mistakes found in it, one sentence each.
    """

    def __init__(self, source: str, problems: list[str]):
        self.source = source
        self.problems = list(problems)
        num_problems = len(self.problems)
        count = "1 mistake" if num_problems == 1 else f"{num_problems} mistakes"
        lines = [f"{source}: {count}"]
        for problem in self.problems:
            lines.append(f"  - {problem}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, list[str]]]:
        """Pickles the constructor's arguments, so that errors can be sent between processes."""
        return type(self), (self.source, self.problems)


class DataError(UserError):
    """Data is missing, damaged or of another kind: a list, shard, caption or annotation file."""


class CheckpointError(UserError):
    """A checkpoint is missing or damaged, does not fit the model, or holds objects that could run
    code.
    """


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is cut short, or its checksums are wrong."""


class HubError(CheckpointError):
    """A model cannot be downloaded from the Hugging Face Hub, or uploaded to it."""


class DeviceMemoryError(UserError):
    """The GPU does not have enough memory, even for small chunks."""


class LaunchError(UserError):
    """The job cannot be started on this machine with the given options."""


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and then its causes, newest first.

    Causes are the exceptions that it was raised from, or during whose handling it was raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's message, or its type if there is none.

    Terminal escapes, such as bold letters in messages of torch, are removed.
    """
    message = _TERMINAL_ESCAPE.sub("", str(error)).strip()
    return (message or type(error).__name__).splitlines()[0]


def message_of(error: UserError) -> str:
    """Returns the message of an error.

    If the error was raised in a loader worker, torch has put the traceback in front of the message.
    It is removed.
    """
    message = str(error)
    if "Original Traceback" not in message:
        return message
    name = type(error).__name__
    _traceback, _, text = message.rpartition(f"{name}: ")
    return text.strip()
