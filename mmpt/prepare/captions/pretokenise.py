"""Tokenises the captions of every packed video into the text shards that training reads, shard by shard, in processes.

A process holds one video at a time: it seeks the video's line in the JSON Lines corpus and appends its rows to the
shard. Beside shard k of split s stands `.tokenising/<prefix><s>_<k>.json`: the fingerprint (captions, vocabulary, ids),
the sizes of its files, and the videos without captions. It is removed before its shard is touched and written after it.
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
    """What all shards of a run share; small enough to travel to every process."""

    corpus: Path  # JSON Lines
    target: Path  # folder of the meta files and shards
    prefix: str  # of the shards' file names, ending in a dot
    bert_name: str
    use_fast: bool
    fingerprint: str  # of captions and vocabulary

    @property
    def tfeat_dir(self) -> str:
        """What training calls the prefix."""
        return f"{self.target}/{self.prefix}"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard to make."""

    split: Split
    number: int
    ids: tuple[str, ...]
    offsets: np.ndarray  # int64 [len(ids)]: where each video's line begins; -1 for none


def shard_prefix(caption_path: str | Path, bert_name: str) -> str:
    """Return what the text shards' names begin with: `<caption file's stem>.<last part of bert_name>.`"""
    return f"{Path(caption_path).stem}.{Path(bert_name).name}."


def tokenise_captions(
    caption_path: str | Path, target_dir: str | Path, bert_name: str, *, use_fast: bool = True, workers: int = 1
) -> str:
    """Write the text shards of every video in `<target_dir>/{train,val}_meta.*`; finished shards are kept.

    Videos without captions get an empty row; `<prefix>report.json` lists them. A `.json` or `.pkl` corpus is first
    written as JSON Lines in `<target_dir>/.tokenising/`.

    Args:
        caption_path: `.jsonl`, `.json` or `.pkl`; where the file is not there, one of the other forms beside it.
        bert_name: names the tokenizer: a folder or a hub name.
        workers: shards made at once.
    Returns:
        The prefix of the shards, `dataset.tfeat_dir`.
    Raises:
        DataError: a file is missing or broken, no packed video has captions, or the target cannot be written.
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
        mark = fingerprint(FORMAT, index.sha256, tokenizer.fingerprint, MAX_CAPTION_IDS)
        settings = Settings(
            corpus=corpus, target=target, prefix=prefix, bert_name=bert_name, use_fast=use_fast, fingerprint=mark
        )
        shards = _shards(packed, index)
        _check_found(shards, settings)
        notes = _make_all(shards, settings, workers)
        _report(shards, notes, settings)
    return settings.tfeat_dir


def _as_lines(corpus: Path, folder: Path) -> Path:
    """Return the corpus as JSON Lines, written to `folder` if it is of another form."""
    if corpus.suffix == CORPUS_SUFFIX:
        return corpus
    converted = folder / f"{corpus.stem}{CORPUS_SUFFIX}"
    convert_corpus(corpus, converted)
    return converted


def _shards(packed: dict[Split, dict[int, list[str]]], index: CaptionIndex) -> list[Shard]:
    """Return the shards that have videos, and where their captions are."""
    return [
        Shard(split=split, number=number, ids=tuple(ids), offsets=index.find(ids))
        for split, chunks in packed.items()
        for number, ids in chunks.items()
        if ids
    ]


def _packed_shards(target: Path) -> dict[Split, dict[int, list[str]]]:
    """Return the ids of all packed shards; one of the two splits may be absent."""
    packed = {}
    problem = None
    for split in SPLITS:
        try:
            path = meta_path(target, split)
        except DataError as err:
            problem = err
            continue
        packed[split] = read_shard_meta(path.parent, split)
    if problem is not None and not packed:
        raise problem
    if problem is not None:
        logger.warning("%s: only %s videos are packed here", target, next(iter(packed)).shard_name)
    return packed


def _check_found(shards: Sequence[Shard], settings: Settings) -> None:
    for split in SPLITS:
        parts = [shard for shard in shards if shard.split is split]
        if parts and not any((shard.offsets >= 0).any() for shard in parts):
            raise DataError(
                f"{settings.corpus}: at least one of the {sum(len(shard.ids) for shard in parts)} videos of "
                f"{meta_path(settings.target, split)} must have captions, but none has (the first is "
                f"{parts[0].ids[0]}). Correct `dataset.caption_pkl_path` or `dataset.target_dir`."
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
    empty = []
    flaws = NO_FLAWS
    with (
        open(settings.corpus, "rb") as file,
        row_stream(times_path, 2, np.dtype(np.float32)) as times,
        row_stream(ids_path, MAX_CAPTION_IDS, np.dtype(np.int32)) as ids,
    ):
        for video_id, offset in zip(shard.ids, shard.offsets.tolist(), strict=True):
            captions = NO_CAPTIONS if offset < 0 else read_entry(file, settings.corpus, offset, video_id)
            captions, found = clean_times(captions, f"{settings.corpus}, video {video_id}")
            if found:
                flaws += found
            if offset >= 0 and not captions["start"]:
                empty.append(video_id)
            times.append(np.array([captions["start"], captions["end"]], dtype=np.float32).T)
            ids.append(tokenizer(captions["text"]))
    absent = [video_id for video_id, offset in zip(shard.ids, shard.offsets, strict=True) if offset < 0]
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
    place = (settings.tfeat_dir, shard.split, shard.number)
    return times_stem(*place), ids_stem(*place)


def _artefact(shard: Shard, settings: Settings) -> Artefact:
    name = f"{settings.prefix}{shard.split.shard_name}_{shard.number}.json"
    files = [Path(f"{stem}_{part}.npy") for stem in _stems(shard, settings) for part in ("data", "starts")]
    return Artefact(settings.target / NOTES / name, tuple(files))


# ---- all shards


def _make_all(shards: Sequence[Shard], settings: Settings, workers: int) -> list[dict[str, Any]]:
    """Return the notes of all shards; those that are finished are not made again."""
    notes = [_artefact(shard, settings).finished(_fingerprint(shard, settings)) for shard in shards]
    numbers = [number for number, note in enumerate(notes) if note is None]
    if len(numbers) < len(shards):
        logger.info("%d of %d shards are finished already", len(shards) - len(numbers), len(shards))
    waiting = [shards[number] for number in numbers]
    done = run_tasks(partial(make_shard, settings=settings), waiting, workers)
    for place, note in progress(done, len(numbers), "shards of captions tokenised", logger):
        notes[numbers[place]] = note
    return [note for note in notes if note is not None]


def _report(shards: Sequence[Shard], notes: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Write `<prefix>report.json` and warn of what it lists."""
    report: dict[str, Any] = {}
    for split in SPLITS:
        own = [(shard, made) for shard, made in zip(shards, notes, strict=True) if shard.split is split]
        flaws = sum((Flaws(**made["mended"]) for _, made in own), start=NO_FLAWS)
        lists = {
            key: [name for _, made in own for name in made[key]] for key in ("not_in_captions", "without_captions")
        }
        num_videos = sum(len(shard.ids) for shard, _ in own)
        num_captions = sum(made["captions"] for _, made in own)
        report[split.shard_name] = {
            "videos": num_videos, "captions": num_captions, "mended": asdict(flaws), **lists,
        }  # fmt: skip
        if own:
            logger.info("%s: %d videos, %d captions", split.shard_name, num_videos, num_captions)
        if flaws:
            logger.warning("%s: captions %s", split.shard_name, flaws.describe())
        if names := [name for ids in lists.values() for name in ids]:
            logger.warning(
                "%s: %d of %d videos have no captions (first: %s); their rows are empty and %sreport.json lists them",
                split.shard_name, len(names), num_videos, ", ".join(names[:NUM_NAMED]), settings.prefix,
            )  # fmt: skip
    write_json(f"{settings.tfeat_dir}report.json", report)
