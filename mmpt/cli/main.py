"""The command `mmpt`: lists the subcommands, and imports only the module of the one that runs."""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

from typer import Option

from mmpt import __version__
from mmpt.cli.app import CONTINUE, new_app, run
from mmpt.errors import REQUEUE_CODE
from mmpt.utils.command import run_command

TRAIN, DATA, DEMO = "Train and evaluate", "Prepare data", "Demo"

COMMANDS = {
    "train": (
        "launch",
        TRAIN,
        "Train a model or score checkpoints, as YAML files say.",
    ),
    "predict": (
        "predict",
        TRAIN,
        "Score checkpoints on the test sets of evaluation YAMLs.",
    ),
    "report": ("report", TRAIN, "Write the HTML report of an evaluation again."),
    "compare": ("compare", TRAIN, "Compare runs with each other and with the papers."),
    "embed": ("embed", TRAIN, "Embed videos, features or texts, and save the vectors."),
    "prepare": (
        "prepare",
        DATA,
        "Make shards and a training YAML from your own videos.",
    ),
    "download": (
        "download",
        DATA,
        "Download checkpoints, weights, lists and annotations.",
    ),
    "extract": ("extract", DATA, "Extract the S3D features of videos."),
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
}
"""Name of a command -> its module in `mmpt.cli`, the heading above it in the help, and its help."""


app = new_app(
    rich_markup_mode="rich", no_args_is_help=True, invoke_without_command=True
)
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
        module = importlib.import_module(f"mmpt.cli.{COMMANDS[name][0]}")
        return int(module.main(rest, name=f"mmpt {name}"))

    if name == "train":
        stopped, asked_code = CONTINUE, REQUEUE_CODE
    else:
        stopped, asked_code = "nothing was done; run the same command again", None
    return run_command(run_named, stopped=stopped, asked_code=asked_code)
