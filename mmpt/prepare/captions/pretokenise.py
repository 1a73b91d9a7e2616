"""Tokenises the captions of every packed video into the text shards that training reads.

Each process makes one shard at a time. It reads a video's line from the JSON Lines corpus and
appends the video's rows to the shard, so memory holds one video. The note of shard k of split s is
`.tokenising/<prefix><s>_<k>.json`, with the videos that have no captions. A rerun keeps shards
whose captions, vocabulary and ids are unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import NO_FLAWS, CaptionList, Flaws, clean_times
from mmpt.prepare.captions.conversion import CORPUS_SUFFIX, convert_corpus
from mmpt.prepare.captions.corpus import CaptionIndex, find_corpus, read_entry
from mmpt.prepare.captions.tokens import CaptionTokenizer
from mmpt.shards.layout import ids_stem, meta_path, read_shard_meta, times_stem
from mmpt.shards.row_stream import row_stream
from mmpt.shards.writer import MAX_CAPTION_IDS
from mmpt.utils.artefact import Artefact, fingerprint
from mmpt.utils.io import remove_leftovers, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress
from mmpt.utils.workers import run_tasks

logger = get_logger(__name__)

NOTES = ".tokenising"
FORMAT = 1
NUM_NAMED = 5  # ids shown in a message
SPLITS = (Split.TRAIN, Split.VALID)
NO_CAPTIONS: CaptionList = {"start": [], "end": [], "text": []}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that all shards of a run share. They are sent to every process."""

    corpus: Path
    """The captions, as JSON Lines."""
    target: Path
    """Folder of the meta files and shards."""
    prefix: str
    """Beginning of the shards' file names, ending in a dot."""
    bert_name: str
    """The tokenizer: a folder or a hub name."""
    use_fast: bool
    """Passed on to transformers."""
    fingerprint: str
    """Fingerprint of captions and vocabulary."""

    @property
    def tfeat_dir(self) -> str:
        """The beginning of the shards' paths, `dataset.tfeat_dir` of a training YAML."""
        return f"{self.target}/{self.prefix}"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard to make."""

    split: Split
    number: int
    ids: tuple[str, ...]
    offsets: np.ndarray
    """The byte at which each video's line begins, int64 [len(ids)]; -1 if it has none."""


def shard_prefix(caption_path: str | Path, bert_name: str) -> str:
    """Returns `<stem of the caption file>.<last part of bert_name>.`, where shards' names begin."""
    return f"{Path(caption_path).stem}.{Path(bert_name).name}."


def tokenise_captions(
    caption_path: str | Path,
    target_dir: str | Path,
    bert_name: str,
    *,
    use_fast: bool = True,
    workers: int = 1,
) -> str:
    """Writes the text shards of every video in `<target_dir>/{train,val}_meta.*`.

    Finished shards are kept. Videos without captions get an empty row; `<prefix>report.json` lists
    them. A `.json` or `.pkl` corpus is first written as JSON Lines in `<target_dir>/.tokenising/`.

    Args:
        caption_path: a `.jsonl`, `.json` or `.pkl` file. If it is missing, the same name with
            another of these suffixes is used.
        bert_name: the tokenizer: a folder or a hub name.
        workers: the number of processes, each of which makes one shard at a time.
    Returns:
        The beginning of the shards' paths, `dataset.tfeat_dir`.
    Raises:
        DataError: a file is missing or broken, no packed video has captions, or the target cannot
            be written.
    """
    target = Path(target_dir)
    packed = _packed_shards(target)
    tokenizer = CaptionTokenizer(bert_name, use_fast)
    corpus = _as_lines(find_corpus(caption_path), target / NOTES)
    prefix = shard_prefix(caption_path, bert_name)
    with writing(target), exclusive(target / NOTES / "lock", "tokenising captions"):
        for folder in (target, target / NOTES):
            remove_leftovers(folder, f"{re.escape(prefix)}.*")
        index = CaptionIndex(corpus)
        shards = _shards(packed, index)
        settings = Settings(
            corpus=corpus,
            target=target,
            prefix=prefix,
            bert_name=bert_name,
            use_fast=use_fast,
            fingerprint=fingerprint(FORMAT, index.sha256, tokenizer.fingerprint, MAX_CAPTION_IDS),
        )
        del index, packed  # they hold an object per video
        _check_found(shards, settings)
        notes = _make_all(shards, settings, workers)
        _report(shards, notes, settings)
    return settings.tfeat_dir


def _as_lines(corpus: Path, folder: Path) -> Path:
    """Returns the corpus as JSON Lines, written to `folder` if it is of another form."""
    if corpus.suffix == CORPUS_SUFFIX:
        return corpus
    converted = folder / f"{corpus.stem}{CORPUS_SUFFIX}"
    convert_corpus(corpus, converted)
    return converted


def _packed_shards(target: Path) -> dict[Split, dict[int, list[str]]]:
    """Returns the ids of all packed shards.

    Raises:
        DataError: neither of the two splits is packed, or a meta file is damaged.
    """
    packed = {}
    missing: list[DataError] = []
    for split in SPLITS:
        try:
            folder = meta_path(target, split).parent
        except DataError as err:
            missing.append(err)
            continue
        packed[split] = read_shard_meta(folder, split)
    if not packed:
        raise missing[-1]
    if missing:
        logger.warning("%s: only %s videos are packed here", target, next(iter(packed)).shard_name)
    return packed


def _shards(packed: dict[Split, dict[int, list[str]]], index: CaptionIndex) -> list[Shard]:
    """Returns the shards that have videos, and the places of their captions."""
    shards = []
    for split, chunks in packed.items():
        for number, ids in chunks.items():
            if ids:
                offsets = index.find(ids)
                shards.append(Shard(split=split, number=number, ids=tuple(ids), offsets=offsets))
    return shards


def _check_found(shards: Sequence[Shard], settings: Settings) -> None:
    """Raises DataError if no video of a split has captions: one of the paths is wrong."""
    for split in SPLITS:
        parts = [shard for shard in shards if shard.split is split]
        if parts and not any((shard.offsets >= 0).any() for shard in parts):
            num_videos = sum(len(shard.ids) for shard in parts)
            raise DataError(
                f"{settings.corpus}: at least one of the {num_videos} videos of "
                f"{meta_path(settings.target, split)} must have captions, but none has (the first "
                f"is {parts[0].ids[0]}). Correct `dataset.caption_pkl_path` or "
                "`dataset.target_dir`."
            )


# ---- one shard


@lru_cache(maxsize=1)
def _tokenizer(settings: Settings) -> CaptionTokenizer:
    """Returns the tokenizer, which every process loads once."""
    return CaptionTokenizer(settings.bert_name, settings.use_fast)


def make_shard(shard: Shard, settings: Settings) -> dict[str, Any]:
    """Writes one shard's four files and then its note, which is returned."""
    tokenizer = _tokenizer(settings)
    artefact = _artefact(shard, settings)
    artefact.begin()
    times_path, ids_path = _stems(shard, settings)
    absent: list[str] = []  # videos that are not in the corpus
    empty: list[str] = []  # videos that are in it, but have no caption with a time
    flaws = NO_FLAWS
    with (
        open(settings.corpus, "rb") as file,
        row_stream(times_path, 2, np.dtype(np.float32)) as times,
        row_stream(ids_path, MAX_CAPTION_IDS, np.dtype(np.int32)) as ids,
    ):
        for video_id, offset in zip(shard.ids, shard.offsets.tolist(), strict=True):
            if offset < 0:
                captions = NO_CAPTIONS
                absent.append(video_id)
            else:
                captions = read_entry(file, settings.corpus, offset, video_id)
                captions, found = clean_times(captions, f"{settings.corpus}, video {video_id}")
                if found:
                    flaws += found
                if not captions["start"]:
                    empty.append(video_id)
            times.append(np.array([captions["start"], captions["end"]], dtype=np.float32).T)
            ids.append(tokenizer(captions["text"]))
    return artefact.finish(
        _fingerprint(shard, settings),
        captions=times.num_rows,
        mended=asdict(flaws),
        not_in_captions=absent,
        without_captions=empty,
    )


def _fingerprint(shard: Shard, settings: Settings) -> str:
    return fingerprint(settings.fingerprint, shard.ids)


def _stems(shard: Shard, settings: Settings) -> tuple[str, str]:
    """Returns the stems of the shard's times and of its ids."""
    place = (settings.tfeat_dir, shard.split, shard.number)
    return times_stem(*place), ids_stem(*place)


def _artefact(shard: Shard, settings: Settings) -> Artefact:
    name = f"{settings.prefix}{shard.split.shard_name}_{shard.number}.json"
    files = []
    for stem in _stems(shard, settings):
        files += [Path(f"{stem}_data.npy"), Path(f"{stem}_starts.npy")]
    return Artefact(settings.target / NOTES / name, tuple(files))


# ---- all shards


def _make_all(shards: Sequence[Shard], settings: Settings, workers: int) -> list[dict[str, Any]]:
    """Returns the notes of all shards; those that are finished are not made again."""
    notes = [_artefact(shard, settings).finished(_fingerprint(shard, settings)) for shard in shards]
    numbers = [number for number, note in enumerate(notes) if note is None]
    if len(numbers) < len(shards):
        num_finished = len(shards) - len(numbers)
        logger.info("%d of %d shards are finished already", num_finished, len(shards))
    waiting = [shards[number] for number in numbers]
    done = run_tasks(partial(make_shard, settings=settings), waiting, workers)
    for place, note in progress(done, len(numbers), "shards of captions tokenised", logger):
        notes[numbers[place]] = note
    return [note for note in notes if note is not None]


def _report(shards: Sequence[Shard], notes: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Writes `<prefix>report.json` and logs what it says."""
    report: dict[str, Any] = {}
    for split in SPLITS:
        num_videos = num_captions = 0
        flaws = NO_FLAWS
        absent: list[str] = []
        empty: list[str] = []
        for shard, note in zip(shards, notes, strict=True):
            if shard.split is split:
                num_videos += len(shard.ids)
                num_captions += note["captions"]
                flaws += Flaws(**note["mended"])
                absent += note["not_in_captions"]
                empty += note["without_captions"]
        name = split.shard_name
        report[name] = {
            "videos": num_videos,
            "captions": num_captions,
            "mended": asdict(flaws),
            "not_in_captions": absent,
            "without_captions": empty,
        }
        if num_videos:
            logger.info("%s: %d videos, %d captions", name, num_videos, num_captions)
        if flaws:
            logger.warning("%s: captions %s", name, flaws.describe())
        if names := absent + empty:
            logger.warning(
                "%s: %d of %d videos have no captions (first: %s); their rows are empty and "
                "%sreport.json lists them",
                name,
                len(names),
                num_videos,
                ", ".join(names[:NUM_NAMED]),
                settings.prefix,
            )
    write_json(f"{settings.tfeat_dir}report.json", report)
