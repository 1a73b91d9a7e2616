"""Makes the demo data: a small HowTo100M-like corpus whose truth is known."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from mmpt.cli.app import Command
from mmpt.prepare.demo_corpus.corpus import make_corpus
from mmpt.prepare.demo_corpus.settings import CorpusSettings


def _option(field: dataclasses.Field[Any]) -> tuple[str, Any, dataclasses.Field[Any]]:
    """Returns the option of a setting, as a field of the command's options."""
    option = Option(help=field.metadata["help"])
    kind: Any = type(field.default)
    return field.name, Annotated[kind, option], dataclasses.field(default=field.default)


Options = dataclasses.make_dataclass(
    "Options",
    [
        (
            "out",
            Annotated[Path, Option(help="Folder to write to.")],
            dataclasses.field(default=Path("data/demo")),
        ),
        *map(_option, dataclasses.fields(CorpusSettings)),
    ],
    frozen=True,
)


def make_demo_data(options: Any) -> None:
    """Make the demo data: a small HowTo100M-like corpus whose truth is known.

    Equal options give equal bytes. `demo.json` is written last and holds the options and every
    file's hash: a second run has nothing to do, other options (or a damaged file) make the corpus
    again.
    """
    settings = vars(options) | {}
    make_corpus(settings.pop("out"), CorpusSettings(**settings))


main = Command(make_demo_data, options=Options, stopped="run it again to make the corpus")
