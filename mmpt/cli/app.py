"""The frame of every command: typer reads the arguments, `run_command` reports errors."""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from mmpt.errors import LaunchError
from mmpt.utils.command import run_command

if TYPE_CHECKING:
    import torch

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}

Overrides = Annotated[
    list[str] | None,
    Argument(metavar="key=value", help="Settings on top of the YAML, such as dataset.max_len=48."),
]
Device = Annotated[
    str | None, Option(help="cpu, cuda or cuda:1. Default: the first GPU, else the CPU.")
]


def choose_device(name: str | None) -> "torch.device":
    """Returns the device called `name`, or the first GPU, else the CPU.

    Raises:
        LaunchError: this machine has none such.
    """
    import torch  # deferred: seconds, and most commands need none of it

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1, device=device).item()  # which `meta` has not
    except (RuntimeError, AssertionError) as err:  # unknown name, or a build of torch without it
        raise LaunchError(
            f"--device {name}: not a device of this machine ({str(err).splitlines()[0]})."
        ) from err
    return device


def new_app(**settings: Any) -> typer.Typer:
    """Returns an app without commands. Its help is plain, as rich's cuts the names of options."""
    plain: dict[str, Any] = {"rich_markup_mode": None, "context_settings": CONTEXT_SETTINGS}
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, **plain | settings)


def run(app: typer.Typer, argv: Sequence[str] | None = None, name: str | None = None) -> int:
    """Runs an app on `argv` and returns the exit code, which is 2 for a wrong command line.

    Args:
        argv: the arguments; None takes the process's own.
        name: name of the program in messages; None takes that of the process.
    """
    try:
        app(None if argv is None else list(argv), prog_name=name)
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("typer ends every command with SystemExit")


class Command:
    """A command line around a function. Call it with arguments to get the exit code.

    Args:
        work: the command. Its parameters are the arguments and options, its docstring is the help,
            and what it returns is the exit code; None is 0.
        stopped: what to print after an interrupt, such as "run the same command again to continue".
        options: a dataclass whose fields are the arguments and options. `work` then takes one such
            object.
        context_settings: further ones of typer's command.
    """

    def __init__(
        self,
        work: Callable[..., int | None],
        *,
        stopped: str,
        options: type | None = None,
        **context_settings: Any,
    ):
        def command(**values: Any) -> None:
            arguments = {"options": options(**values)} if options else values
            raise typer.Exit(run_command(lambda: work(**arguments), stopped=stopped))

        command.__doc__ = work.__doc__
        command.__signature__ = inspect.signature(options or work)  # type: ignore[attr-defined]
        self.app = new_app(context_settings=CONTEXT_SETTINGS | context_settings)
        self.app.command()(command)

    def __call__(self, argv: Sequence[str] | None = None, name: str | None = None) -> int:
        """Runs the command and returns its exit code; see `run`."""
        return run(self.app, argv, name)
