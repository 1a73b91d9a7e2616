"""The command `mmpt`: lists its subcommands, and imports the module of the one that is run."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmpt import __version__
from mmpt.cli.app import new_app, run
from mmpt.utils.command import run_command

TRAIN, DATA, DEMO = "Train and evaluate", "Prepare data", "Demo"

COMMANDS = {
    "train": ("launch", TRAIN, "Train or evaluate what YAML files describe."),
    "predict": ("predict", TRAIN, "Score checkpoints on the test sets of evaluation YAMLs."),
    "report": ("report", TRAIN, "Write the HTML report of an evaluation again."),
    "compare": ("compare", TRAIN, "Show runs side by side with the published numbers."),
    "embed": ("embed", TRAIN, "Turn videos, features or texts into vectors."),
    "prepare": ("prepare", DATA, "Make shards and a training YAML from your own videos."),
    "download": ("download", DATA, "Download checkpoints, weights, lists and annotations."),
    "extract": ("extract", DATA, "Extract S3D features of videos."),
    "pack": ("pack", DATA, "Pack feature files into shards."),
    "dedup": ("dedup", DATA, "Convert raw captions, with or without de-duplication."),
    "tokenize": ("tokenize", DATA, "Tokenise captions into text shards."),
    "check": ("check", DATA, "Check the data of a training YAML and print its statistics."),
    "demo": ("demo", DEMO, "Run the main job on the demo data, end to end."),
    "make-demo-data": ("make_demo_data", DEMO, "Make the demo data."),
}
"""Name of a command -> its module in `mmpt.cli`, its panel in the help, its line of help."""


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command runs; its help needs none of
    them.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns a command's name, the command, and its arguments."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, typer.main.get_command(_load_app(COMMANDS[args[0]][0])), rest


def _load_app(module: str) -> typer.Typer:
    """Returns the app of a module's `main`; a missing package or Ctrl-C ends the command."""
    loaded: list[ModuleType] = []

    def load() -> None:
        loaded.append(importlib.import_module(f"mmpt.cli.{module}"))

    if code := run_command(load, stopped="nothing was done"):
        raise typer.Exit(code)
    return loaded[0].main.app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mmpt {__version__}")
        raise typer.Exit


def _group_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Pre-train video-text models on long, noisy, narrated videos, and evaluate them."""


def _placeholder() -> None:
    """Stands for a command until `LazyGroup` imports it."""


app = new_app(cls=LazyGroup, callback=_group_options, rich_markup_mode="rich", no_args_is_help=True)
for _name, (_, _panel, _summary) in COMMANDS.items():
    app.command(_name, help=_summary, rich_help_panel=_panel)(_placeholder)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `mmpt`; returns the command's exit code."""
    return run(app, argv, name="mmpt")
