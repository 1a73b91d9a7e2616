"""De-duplicates raw captions, whose neighbours repeat each other's words, and writes a corpus as JSON Lines.

    python -m mmpt.processors.dedupprocessor [--how2dir DIR] [--input FILE] [--output FILE] [--dedup] [--seed N]

One generator serves all videos in file order, as in the original, so the result depends on the seed and the file only.
Videos stream through: what is held in memory is one video and a megabyte of text (a pickle has to be read whole).
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

from mmpt.errors import DataError
from mmpt.processors.caption_conversion import convert_corpus
from mmpt.processors.caption_corpus import SUFFIXES
from mmpt.processors.caption_list import CaptionList
from mmpt.utils.command import run_command

SLACK_S = 0.001  # a caption may start this much behind the end of what it replaces
HOW2_DIR = "data/how2"
SENTENCES, RAW = "sentencified_htm_1200k", "raw_caption"  # the corpora of Norton and of VideoCLIP


def deduplicate(captions: CaptionList, draw: Callable[[], float]) -> CaptionList:
    """Return the captions of one video without the words that they share with the one before.

    An overlap is the *shortest* head of a text that the text before ends with, a single letter included: "the pan" and
    "now" lose an n. The published VideoCLIP text was made this way. Half of the overlaps stay with the text before.

    Args:
        captions: ordered by start, none ends before it starts; texts that are no string or blank are left out.
        draw: gives uniform numbers of [0, 1); called once per overlap.
    Raises:
        DataError: a caption ends before it starts.
    """
    kept = _Kept()
    for start, end, text in zip(captions["start"], captions["end"], captions["text"], strict=True):
        text = text.replace("\n", " ").strip() if isinstance(text, str) else ""
        if text:
            kept.add(start, end, text, draw)
    return {"start": kept.starts, "end": kept.ends, "text": kept.texts}


class _Kept:
    """The captions of one video so far."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.texts: list[str] = []

    def add(self, start: float, end: float, text: str, draw: Callable[[], float]) -> None:
        """Take the next caption in."""
        before = self.texts[-1] if self.texts else ""
        if not before:
            self._push(start, end, text)
        elif before.endswith(text):
            self.ends[-1] = max(self.ends[-1], end)
        elif text.startswith(before):
            self.texts[-1] = text
            self.starts[-1] = min(self.starts[-1], start)
            self.ends[-1] = max(self.ends[-1], end)
        elif (overlap := _overlap(before, text)) == 0:
            self._push(start, end, text)
        elif draw() > 0.5:
            self._leave_with_previous(start, end, text[overlap:].strip())
        else:
            self._move_to_current(start, end, text, before[: len(before) - overlap].strip())
        assert self.texts[-1]
        if self.ends[-1] + SLACK_S < self.starts[-1]:
            raise DataError(
                f"captions must not end before they start, but {self.texts[-1]!r} starts at {self.starts[-1]:g} s and "
                f"ends at {self.ends[-1]:g} s. Clean the times first."
            )

    def _push(self, start: float, end: float, text: str) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.texts.append(text)

    def _leave_with_previous(self, start: float, end: float, rest: str) -> None:
        self.ends[-1] = max(self.ends[-1], start)
        if rest:
            start = max(self.ends[-1], start)
            self._push(start, max(end, start), rest)

    def _move_to_current(self, start: float, end: float, text: str, rest: str) -> None:
        if rest:
            self.ends[-1] = min(self.ends[-1], start)
            self.texts[-1] = rest
        else:
            for column in (self.starts, self.ends, self.texts):
                column.pop()
        self._push(start, end, text)


def _overlap(before: str, text: str) -> int:
    """Return the smallest k > 0 such that `before` ends with `text[:k]`; 0 when there is none."""
    first = max(0, len(before) - len(text))
    place = len(before)
    while (place := before.rfind(text[0], first, place)) >= 0:
        if text.startswith(before[place:]):
            return len(before) - place
    return 0


class CaptionDedupProcessor:
    """De-duplicates video after video with one generator."""

    def __init__(self, seed: int = 0):
        self._draw = random.Random(seed).random

    def __call__(self, captions: CaptionList) -> CaptionList:
        """Return the captions of the next video, de-duplicated; errors as in `deduplicate`."""
        return deduplicate(captions, self._draw)


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


if __name__ == "__main__":
    sys.exit(main())
