"""`mmpt make-demo-data`: writes a small synthetic corpus like HowTo100M, with ground truth."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from mmpt.cli.main import Command
from mmpt.prepare.demo_corpus.corpus import make_corpus
from mmpt.prepare.demo_corpus.settings import CorpusSettings


def _option(field: dataclasses.Field[Any]) -> tuple[str, Any, dataclasses.Field[Any]]:
    """Returns a field of `Options` for a field of `CorpusSettings`: name, type, default."""
    option = Option(help=field.metadata["help"])
    kind: Any = type(field.default)
    return field.name, Annotated[kind, option], dataclasses.field(default=field.default)


# The command has an option for each setting of the corpus, and `--out`.
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
    """Make the demo data: a small synthetic corpus like HowTo100M.

    The corpus consists of features, captions and exact annotations: which steps a video shows, and
    when. The same options give the same bytes. `demo.json` is written last and contains the options
    and a hash of every file. If both match, the command does nothing. With other options, or if a
    file is damaged, the command makes the corpus again.
    """
    settings = dict(vars(options))
    make_corpus(settings.pop("out"), CorpusSettings(**settings))


main = Command(
    make_demo_data, options=Options, interrupt_message="run it again to make the corpus"
)
