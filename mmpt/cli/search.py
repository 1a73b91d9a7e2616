"""`mmpt search`: prints the moments of an index that fit texts best."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from mmpt.cli.embed import read_texts
from mmpt.cli.main import Command, Device, choose_device
from mmpt.errors import LaunchError
from mmpt.inference.moments import Moment
from mmpt.utils.log import format_seconds
from mmpt.utils.tables import text_table

STDIN = Path("-")


def search(
    index: Annotated[
        Path, Argument(metavar="INDEX", help="Folder that mmpt index has made.")
    ],
    queries: Annotated[
        list[str] | None, Argument(metavar="[QUERY]...", help="Texts to search for.")
    ] = None,
    *,
    file: Annotated[
        Path | None,
        Option(
            "--queries",
            metavar="FILE",
            help="UTF-8 file of texts, one per line; - reads standard input.",
        ),
    ] = None,
    top: Annotated[int, Option(min=1, help="Moments per text.")] = 10,
    max_overlap: Annotated[
        float,
        Option(
            min=0,
            max=1,
            help="Largest overlap of two moments: intersection over union.",
        ),
    ] = 0.0,
    to_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
    model: Annotated[
        str | None,
        Option(help="Path or Hub name of the model. Default: as stored in the index."),
    ] = None,
    checkpoint: Annotated[
        str | None, Option(help="File name of its checkpoint.")
    ] = None,
    device: Device = None,
) -> None:
    """Find the moments of an index that fit a text.

    Prints a table for each text: video, start and end, and score (a dot product), best first.
    Overlapping moments of a video are left out, except for the best one.
    """
    texts = _read_queries(queries or [], file)
    # Deferred, so that --help and argument errors do not wait for this import.
    from mmpt.inference.moment_index import MomentIndex

    searched = MomentIndex.load(index, model, checkpoint, device=choose_device(device))
    results = searched.search(texts, top, max_overlap)
    found = list(zip(texts, results, strict=True))
    if to_json:
        rows = [_to_json(text, moments) for text, moments in found]
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        tables = [f"{text}\n{_to_table(moments)}" for text, moments in found]
        print("\n\n".join(tables))


def _read_queries(queries: list[str], file: Path | None) -> list[str]:
    """Returns the texts of the command line, or of a file.

    Raises:
        LaunchError: there are none, one is empty, or both are given.
        DataError: the file cannot be read, or holds no text.
    """
    if bool(queries) == (file is not None):
        raise LaunchError("give texts, or a file of texts with `--queries`.")
    if file is None:
        if not all(map(str.strip, queries)):
            raise LaunchError("a text must have at least one word, but one is empty.")
        return queries
    if file == STDIN:
        texts = [line.strip() for line in sys.stdin if line.strip()]
        if not texts:
            raise LaunchError(
                "standard input must hold one text per line, but is empty."
            )
        return texts
    return read_texts(file)


def _to_table(moments: list[Moment]) -> str:
    """Returns a table of moments."""
    rows = []
    for moment in moments:
        span = f"{format_seconds(moment.start)}-{format_seconds(moment.end)}"
        rows.append((moment.video, span, f"{moment.score:.3f}"))
    return text_table(("video", "time", "score"), rows)


def _to_json(text: str, moments: list[Moment]) -> dict[str, Any]:
    """Returns a text and its moments as plain values."""
    return {"query": text, "moments": [moment._asdict() for moment in moments]}


main = Command(
    search, interrupt_message="nothing was written; run the same command again"
)


if __name__ == "__main__":
    sys.exit(main())
