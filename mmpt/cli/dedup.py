"""`mmpt dedup`: converts a corpus of captions to JSON Lines, with or without de-duplication."""

from pathlib import Path
from typing import Annotated

from typer import Option

from mmpt.cli.main import Command
from mmpt.errors import DataError
from mmpt.prepare.captions.corpus import SUFFIXES, convert_corpus
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES

SENTENCES, RAW = "sentencified_htm_1200k", "raw_caption"
"""Names of the corpora of Norton and of VideoCLIP, without a suffix."""


def dedup(
    how2dir: Annotated[
        Path,
        Option(help=f"Folder that contains {SENTENCES}.json, {RAW}.json, or both."),
    ] = Path("data/how2"),
    input: Annotated[
        Path | None,
        Option(
            help=f"Convert this one file ({', '.join(SUFFIXES)}), or this folder with a caption "
            f"file per video ({', '.join(CAPTION_SUFFIXES)}), instead of --how2dir."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            help="File to write. Default: next to the input, <name>.jsonl or <name>_dedup.jsonl."
        ),
    ] = None,
    dedup: Annotated[
        bool | None,
        Option(
            "--dedup/--no-dedup",
            help=f"De-duplicate or not. Default: de-duplicate only {RAW}.*",
        ),
    ] = None,
    seed: Annotated[
        int, Option(help="Seed of the random choices of the de-duplication.")
    ] = 0,
) -> None:
    """Convert a corpus of captions to JSON Lines, with or without de-duplication.

    Raw captions repeat parts of their neighbours, which the de-duplication removes. The output has
    one video per line. Without `--input`, every corpus in `--how2dir` is converted. A folder with a
    caption file per video, such as WhisperX's JSON, becomes one file: `tea.json` and `tea.en.vtt`
    are the captions of the video `tea`.
    """
    if output and not input:
        raise DataError("`--output` names one file, so it needs `--input`.")
    for source in [input] if input else _find_corpora(how2dir):
        wanted = source.stem == RAW if dedup is None else dedup
        suffix = "_dedup.jsonl" if wanted else ".jsonl"
        stem = source.name if source.is_dir() else source.stem
        target = output or source.with_name(stem + suffix)
        convert_corpus(source, target, dedup=wanted, seed=seed)


def _find_corpora(folder: Path) -> list[Path]:
    """Returns the corpora in a folder. A .json file takes precedence over a .pkl file.

    Raises:
        DataError: there is none.
    """
    corpora = []
    for stem in (SENTENCES, RAW):
        for path in (folder / f"{stem}.json", folder / f"{stem}.pkl"):
            if path.is_file():
                corpora.append(path)
                break
    if not corpora:
        raise DataError(
            f"{folder}: must hold {SENTENCES}.json or {RAW}.json, but holds neither. Download one "
            "(DATASET.md), correct `--how2dir`, or name a file with `--input`."
        )
    return corpora


main = Command(
    dedup, interrupt_message="nothing was left half-written; run the same command again"
)
