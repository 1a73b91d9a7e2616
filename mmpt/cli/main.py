"""The command `mmpt`, and the common parts of its subcommands.

typer parses the arguments, and `run_command` reports errors. Only the module of the subcommand that
runs is imported.
"""

import importlib
import inspect
import os
import platform
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer.main
from typer import Argument, Option
from typer.core import TyperGroup

from mmpt import __version__
from mmpt.errors import REQUEUE_CODE, LaunchError
from mmpt.utils.command import run_command
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

if TYPE_CHECKING:
    import torch

CONTINUE = "run the same command again to continue"
"""Message after an interrupt of a command that continues where it was interrupted."""
CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}

Overrides = Annotated[
    list[str] | None,
    Argument(
        metavar="key=value",
        help="Values that replace keys of the YAML: dataset.bert_name=my_bert.",
    ),
]
Device = Annotated[
    str | None,
    Option(
        help="cpu, cuda or cuda:1. Default: the first GPU, or the CPU if there is none.",
        autocompletion=lambda: ["cpu", "cuda"],
    ),
]


def choose_device(name: str | None) -> "torch.device":
    """Returns the device called `name`. The default is the first GPU, or the CPU without one.

    Raises:
        LaunchError: this machine has no such device, or torch cannot use it.
    """
    # deferred: takes seconds, and most commands do not need it
    import torch

    from mmpt.utils.device_check import device_problem

    device = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if problem := device_problem(device):
        named = name or f"{device} (the default)"
        raise LaunchError(
            f"--device {named}: not a device of this machine that torch can use ({problem}). Give "
            "another one, such as `--device cpu`. `mmpt doctor` checks the GPUs."
        )
    return torch.device(device)


def num_cores() -> int:
    """Returns the number of cores that this process may use. SLURM and containers limit it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def require_projects(command: str, *paths: str) -> None:
    """Raises LaunchError if a YAML of the folder `projects` does not exist.

    Args:
        command: the command that reads the YAMLs, for the message.
        paths: the YAMLs, relative to the current directory.
    """
    if missing := [path for path in paths if not os.path.exists(path)]:
        raise LaunchError(
            f"`{command}` reads the folder `projects` of MMPT, but {missing[0]} is not in the "
            "current directory. Run the command in a checkout of MMPT, or copy its folder "
            "`projects` into the current directory."
        )


def new_app(**settings: Any) -> typer.Typer:
    """Returns an app without commands. Its help is plain text, as rich truncates long options."""
    plain: dict[str, Any] = {
        "add_completion": False,
        "rich_markup_mode": None,
        "context_settings": CONTEXT_SETTINGS,
    }
    return typer.Typer(pretty_exceptions_enable=False, **plain | settings)


def run(
    app: typer.Typer, argv: Sequence[str] | None = None, name: str | None = None
) -> int:
    """Runs an app on `argv` and returns the exit code, which is 2 for a wrong command line.

    Args:
        argv: the arguments. None uses the arguments of the process.
        name: name of the program in messages. None uses the name of the process.
    """
    try:
        app(None if argv is None else list(argv), prog_name=name)
    except SystemExit as end:
        return int(end.code or 0)
    raise AssertionError("typer ends every command with SystemExit")


class Command:
    """A command line for a function. Calling it parses arguments and returns the exit code.

    Args:
        function: the command. Its parameters are the arguments and options, and its docstring is
            the help text. It returns the exit code; None is 0.
        interrupt_message: the message after an interrupt, such as "run the same command again to
            continue".
        stop_exit_code: exit code after a signal of a batch system; see `run_command`.
        options: a dataclass whose fields are the arguments and options. `function` then takes one
            object of this class.
        context_settings: additional context settings of the typer command.
    """

    def __init__(
        self,
        function: Callable[..., int | None],
        *,
        interrupt_message: str,
        stop_exit_code: int | None = None,
        options: type | None = None,
        **context_settings: Any,
    ):
        def command(**values: Any) -> None:
            arguments = {"options": options(**values)} if options else values
            raise typer.Exit(
                run_command(
                    lambda: function(**arguments),
                    interrupt_message=interrupt_message,
                    stop_exit_code=stop_exit_code,
                )
            )

        # Typer reads the help and the options from these two attributes.
        command.__doc__ = function.__doc__
        command.__signature__ = inspect.signature(options or function)  # type: ignore[attr-defined]
        self.app = new_app(context_settings=CONTEXT_SETTINGS | context_settings)
        self.app.command()(command)

    def __call__(
        self, argv: Sequence[str] | None = None, name: str | None = None
    ) -> int:
        """Runs the command and returns its exit code; see `run`."""
        return run(self.app, argv, name)


TRAIN, DATA, DEMO = "Train and evaluate", "Prepare data", "Demo"
TROUBLESHOOTING = "Troubleshooting"
"""Headings of the groups of commands in the help."""

COMMANDS = {
    "train": (
        "launch",
        TRAIN,
        "Train or evaluate what YAML files describe.",
    ),
    "predict": (
        "predict",
        TRAIN,
        "Score checkpoints on the test sets of evaluation YAMLs.",
    ),
    "report": (
        "report",
        TRAIN,
        "Write the HTML report of a training run or an evaluation.",
    ),
    "compare": (
        "compare",
        TRAIN,
        "Compare runs and scores with each other and the papers.",
    ),
    "embed": ("embed", TRAIN, "Embed videos, features or texts, and save the vectors."),
    "index": ("index", TRAIN, "Build an index of the moments of many videos."),
    "search": ("search", TRAIN, "Find the moments of an index that fit a text."),
    "push": ("push", TRAIN, "Upload a model to the Hugging Face Hub."),
    "app": ("app", TRAIN, "Open a page that searches an index and plays its moments."),
    "prepare": (
        "prepare",
        DATA,
        "Make shards and a YAML from your own videos or features.",
    ),
    "download": (
        "download",
        DATA,
        "Download checkpoints, weights, lists and annotations.",
    ),
    "extract": (
        "extract",
        DATA,
        "Extract features of videos, with S3D or other networks.",
    ),
    "pack": ("pack", DATA, "Pack feature files into shards."),
    "dedup": ("dedup", DATA, "Convert captions, with or without de-duplication."),
    "tokenize": ("tokenize", DATA, "Tokenise captions into text shards."),
    "check": (
        "check",
        DATA,
        "Check the data of a training YAML and print its statistics.",
    ),
    "demo": ("demo", DEMO, "Make the demo data, train on it, and print the scores."),
    "make-demo-data": (
        "make_demo_data",
        DEMO,
        "Make the demo data, a synthetic corpus.",
    ),
    "doctor": (
        "doctor",
        TROUBLESHOOTING,
        "Check whether training can run here.",
    ),
    "config": (
        "config",
        TROUBLESHOOTING,
        "Print the settings of a YAML and where they are from.",
    ),
}
"""Name of a command -> its module in `mmpt.cli`, the heading above it in the help, and its help."""

TRAINS = ("train", "demo")
"""Commands that start the processes of a training run."""


class LazyGroup(TyperGroup):
    """A group of commands that imports one of them only when the shell completes its options."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the name, the command and the other arguments of a command line."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS and ctx.resilient_parsing:  # that is, during completion
            command = typer.main.get_command(_module(name).main.app)
        return name, command, rest


def _module(name: str) -> Any:
    """Returns the module of the command `name`."""
    return importlib.import_module(f"mmpt.cli.{COMMANDS[name][0]}")


def _require_fork(name: str) -> None:
    """Raises LaunchError on Windows, where processes cannot be forked."""
    if not hasattr(os, "fork"):
        raise LaunchError(
            f"`mmpt {name}` needs Linux, because its processes are forked and ended by signals, "
            f"which {platform.system()} does not support. Run it on Linux or in WSL 2. Preparation "
            "and inference run here, and `mmpt predict` evaluates."
        )
    if sys.platform != "linux":
        logger.warning("training is tested on Linux only")


app = new_app(
    cls=LazyGroup,
    add_completion=True,
    rich_markup_mode="rich",
    no_args_is_help=True,
    invoke_without_command=True,
)
# Placeholders, which only show the help. `main` runs the commands themselves.
for _name, (_, _panel, _summary) in COMMANDS.items():
    app.command(_name, help=_summary, rich_help_panel=_panel)(lambda: None)


@app.callback()
def _group(
    version: Annotated[bool, Option("--version", help="Print the version.")] = False,
) -> None:
    """Pre-train video-text models on long, noisy, narrated videos, and evaluate them."""
    if version:
        print(f"mmpt {__version__}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `mmpt` and returns the exit code of the command."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name not in COMMANDS:
        return run(app, argv, name="mmpt")  # prints the help, the version, or an error

    def run_named() -> int:
        if name in TRAINS and not {"-h", "--help"} & set(rest):
            _require_fork(name)
        module = _module(name)
        try:
            return int(module.main(rest, name=f"mmpt {name}"))
        except ImportError:
            if name != "doctor":
                raise
            # typer parses with pydantic, which may be broken
            return int(module.doctor(to_json="--json" in rest))

    if name == "train":
        message, stop_exit_code = CONTINUE, REQUEUE_CODE
    else:
        message, stop_exit_code = "nothing was done; run the same command again", None
    return run_command(
        run_named, interrupt_message=message, stop_exit_code=stop_exit_code
    )
