"""Writes a corpus of raw captions as JSON Lines, de-duplicated or as it is."""

from pathlib import Path
from typing import Annotated

from typer import Option

from mmpt.cli.app import Command
from mmpt.errors import DataError
from mmpt.prepare.captions.corpus import SUFFIXES, convert_corpus

SENTENCES, RAW = "sentencified_htm_1200k", "raw_caption"
"""The corpora of Norton and of VideoCLIP, without `.json`."""


def dedup(
    how2dir: Annotated[
        Path, Option(help=f"Folder with {SENTENCES}.json and/or {RAW}.json.")
    ] = Path("data/how2"),
    input: Annotated[
        Path | None, Option(help=f"One file ({', '.join(SUFFIXES)}) in place of the folder.")
    ] = None,
    output: Annotated[
        Path | None,
        Option(
            help="File to write. Default: next to the input, <name>.jsonl or <name>_dedup.jsonl."
        ),
    ] = None,
    dedup: Annotated[
        bool | None,
        Option("--dedup/--no-dedup", help=f"De-duplicate or not. Default: only {RAW}.*"),
    ] = None,
    seed: Annotated[int, Option(help="Seed of the de-duplication's draws.")] = 0,
) -> None:
    """Write a corpus of raw captions as JSON Lines, de-duplicated or as it is."""
    if output and not input:
        raise DataError("`--output` names one file, so it needs `--input`.")
    sources = [input] if input else []
    for stem in () if input else (SENTENCES, RAW):
        forms = [how2dir / f"{stem}{suffix}" for suffix in (".json", ".pkl")]
        sources += [path for path in forms if path.is_file()][:1]
    if not sources:
        raise DataError(
            f"{how2dir}: must hold {SENTENCES}.json or {RAW}.json, but holds neither. Download one "
            "(DATASET.md), correct `--how2dir`, or name a file with `--input`."
        )
    for source in sources:
        wanted = source.stem == RAW if dedup is None else dedup
        suffix = "_dedup.jsonl" if wanted else ".jsonl"
        target = output or source.with_name(source.stem + suffix)
        convert_corpus(source, target, dedup=wanted, seed=seed)


main = Command(dedup, stopped="nothing was left half-written; run the same command again")
