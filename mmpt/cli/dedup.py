"""Writes a corpus of raw captions as JSON Lines, de-duplicated or as it is.

    python -m mmpt.processors.dedupprocessor [--how2dir DIR] [--input FILE] [--output FILE] [--dedup] [--seed N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmpt.errors import DataError
from mmpt.prepare.captions.conversion import convert_corpus
from mmpt.prepare.captions.corpus import SUFFIXES
from mmpt.prepare.captions.dedup import CaptionDedupProcessor
from mmpt.utils.command import run_command

HOW2_DIR = "data/how2"
SENTENCES, RAW = "sentencified_htm_1200k", "raw_caption"  # the corpora of Norton and of VideoCLIP


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(lambda: _convert(_parser().parse_args(argv)), stopped="nothing was left half-written")


def _convert(args: argparse.Namespace) -> None:
    for source in _sources(args):
        dedup = args.dedup if args.dedup is not None else source.stem == RAW
        output = Path(args.output) if args.output else source.with_name(f"{source.stem}{'_dedup' * dedup}.jsonl")
        convert_corpus(source, output, CaptionDedupProcessor(args.seed) if dedup else None, seed=args.seed)


def _parser() -> argparse.ArgumentParser:
    description = "Write a corpus of raw captions as JSON Lines, de-duplicated or as it is."
    parser = argparse.ArgumentParser(
        prog="python -m mmpt.processors.dedupprocessor", description=description, allow_abbrev=False
    )
    parser.add_argument(
        "--how2dir", default=HOW2_DIR, help=f"folder with {SENTENCES}.json and/or {RAW}.json (%(default)s)"
    )
    parser.add_argument("--input", help=f"one {', '.join(SUFFIXES)} file instead")
    parser.add_argument("--output", help="where to; default: beside the input, <name>.jsonl or <name>_dedup.jsonl")
    parser.add_argument(
        "--dedup", action=argparse.BooleanOptionalAction, help=f"de-duplicate or not; default: only {RAW}.*"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the de-duplication's draws (%(default)s)")
    return parser


def _sources(args: argparse.Namespace) -> list[Path]:
    """Return the files to convert."""
    if args.input:
        return [Path(args.input)]
    if args.output:
        raise DataError("`--output` names one file, so it needs `--input`.")
    candidates = [[Path(args.how2dir, f"{stem}{suffix}") for suffix in (".json", ".pkl")] for stem in (SENTENCES, RAW)]
    found = [next((path for path in paths if path.is_file()), None) for paths in candidates]
    sources = [path for path in found if path is not None]
    if not sources:
        raise DataError(
            f"{args.how2dir}: must hold {SENTENCES}.json or {RAW}.json, but holds neither. Download one (DATASET.md), "
            "correct `--how2dir`, or name a file with `--input`."
        )
    return sources
