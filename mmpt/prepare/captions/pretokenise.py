"""Tokenises the captions of every packed video into the text shards that training reads.

Each process makes one shard at a time. It reads a video's line from the JSON Lines corpus and
appends the video's rows to the shard, so memory holds one video. The note of shard k of split s is
`.tokenising/<prefix><s>_<k>.json`, with the videos that have no captions. A rerun keeps shards
whose captions, vocabulary and ids are unchanged.

Shapes: N captions, L kept word pieces of one (32).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.prepare.captions import corpus as corpora
from mmpt.prepare.captions.caption_list import FLAWS, CaptionList, clean_times, warn_of_flaws
from mmpt.prepare.shard_jobs import Note, ShardJob, make_missing
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.layout import ids_stem, meta_path, read_shard_meta, times_stem
from mmpt.shards.writer import MAX_CAPTION_IDS, PADDING, row_stream
from mmpt.utils.artefact import fingerprint
from mmpt.utils.io import remove_leftovers, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NOTES = ".tokenising"
FORMAT = 1
NUM_NAMED = 5  # ids shown in a message
MAX_LETTERS = 96  # characters of a caption that are tokenised
SPLITS = (Split.TRAIN, Split.VALID)
NO_CAPTIONS: CaptionList = {"start": [], "end": [], "text": []}


@dataclass(frozen=True, kw_only=True)
class TextShard(ShardJob):
    """The captions of one shard, and the tokenizer."""

    split: Split
    corpus: Path
    """The captions, as JSON Lines."""
    offsets: tuple[int | None, ...]
    """The byte at which each video's line begins; None if it has none."""
    bert_name: str
    """The tokenizer: a folder or a hub name."""
    use_fast: bool
    """Passed on to transformers."""


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
    splits = [split for split in SPLITS if any(target.glob(f"{split.shard_name}_meta.*"))]
    if len(splits) == 1:
        logger.warning("%s: only %s videos are packed here", target, splits[0].shard_name)
    packed = {split: read_shard_meta(target, split) for split in splits or SPLITS}
    vocabulary = load_tokenizer(bert_name, use_fast).backend_tokenizer.to_str()
    corpus = corpora.find_corpus(caption_path)
    if corpus.suffix != ".jsonl":
        source, corpus = corpus, target / NOTES / f"{corpus.stem}.jsonl"
        corpora.convert_corpus(source, corpus)
    prefix = f"{Path(caption_path).stem}.{Path(bert_name).name}."
    tfeat_dir = f"{target}/{prefix}"
    with writing(target), exclusive(target / NOTES / "lock", "tokenising captions"):
        for folder in (target, target / NOTES):
            remove_leftovers(folder, f"{re.escape(prefix)}.*")
        mark = fingerprint(
            FORMAT, corpora.hash_of(corpus), vocabulary, MAX_LETTERS, MAX_CAPTION_IDS
        )
        begins = corpora.index_lines(corpus)
        shards = []
        for split, chunks in packed.items():
            ids = [video_id for chunk in chunks.values() for video_id in chunk]
            if ids and begins.keys().isdisjoint(ids):
                raise DataError(
                    f"{corpus}: at least one of the {len(ids)} videos of "
                    f"{meta_path(target, split)} must have captions, but none has (the first is "
                    f"{ids[0]}). Correct `dataset.caption_pkl_path` or `dataset.target_dir`."
                )
            for number, chunk in chunks.items():
                place = (tfeat_dir, split, number)
                shard = TextShard(
                    split=split,
                    ids=tuple(chunk),
                    stems=(times_stem(*place), ids_stem(*place)),
                    note=target / NOTES / f"{prefix}{split.shard_name}_{number}.json",
                    mark=fingerprint(mark, chunk),
                    corpus=corpus,
                    offsets=tuple(begins.get(video_id) for video_id in chunk),
                    bert_name=bert_name,
                    use_fast=use_fast,
                )
                shards.append(shard)
        del begins, packed  # they hold an object per video
        notes = make_missing(shards, make_shard, workers, "shards of captions tokenised")
        _report(shards, notes, f"{tfeat_dir}report.json")
    return tfeat_dir


def make_shard(shard: TextShard) -> Note:
    """Writes one shard's four files and then its note, which is returned."""
    tokenizer = load_tokenizer(shard.bert_name, shard.use_fast)  # once per process
    shard.artefact.begin()
    times_path, ids_path = shard.stems
    absent: list[str] = []  # videos that are not in the corpus
    empty: list[str] = []  # videos that are in it, but have no caption with a time
    mended = Counter(dict.fromkeys(FLAWS, 0))
    with (
        open(shard.corpus, "rb") as file,
        row_stream(times_path, 2, np.dtype(np.float32)) as times,
        row_stream(ids_path, MAX_CAPTION_IDS, np.dtype(np.int32)) as ids,
    ):
        for video_id, offset in zip(shard.ids, shard.offsets, strict=True):
            captions = NO_CAPTIONS
            if offset is None:
                absent.append(video_id)
            else:
                found = corpora.read_line(file, shard.corpus, offset)
                captions, flaws = clean_times(found, f"{shard.corpus}, video {video_id}")
                mended.update(flaws)
                if not captions["start"]:
                    empty.append(video_id)
            times.append(np.array([captions["start"], captions["end"]], dtype=np.float32).T)
            ids.append(caption_ids(tokenizer, captions["text"]))
    return shard.artefact.finish(
        shard.mark,
        captions=times.starts[-1],
        mended=mended,
        not_in_captions=absent,
        without_captions=empty,
    )


def caption_ids(tokenizer: Any, texts: Sequence[Any]) -> np.ndarray:
    """Returns the word-piece ids of every text, int32 [N, 32], padded with -1.

    As in the released preparation, the first 96 characters are tokenised without special tokens,
    and the first 32 word pieces are kept.

    Args:
        tokenizer: of transformers.
        texts: one that is not a string has no ids.
    """
    rows_NL = np.full((len(texts), MAX_CAPTION_IDS), PADDING, dtype=np.int32)
    if texts:
        plain = [text[:MAX_LETTERS] if isinstance(text, str) else "" for text in texts]
        encoded = tokenizer(
            # The tokenizer refuses half a surrogate pair.
            [text.encode("utf-8", "replace").decode() for text in plain],
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        for row_L, ids in zip(rows_NL, encoded["input_ids"], strict=True):
            kept = ids[:MAX_CAPTION_IDS]
            row_L[: len(kept)] = kept
    return rows_NL


def _report(shards: Sequence[TextShard], notes: Sequence[Note], path: str) -> None:
    """Writes the report of both splits and logs what it says."""
    report = {}
    for split in SPLITS:
        total: dict[str, Any] = {
            "videos": 0,
            "captions": 0,
            "mended": Counter(dict.fromkeys(FLAWS, 0)),
            "not_in_captions": [],
            "without_captions": [],
        }
        for shard, note in zip(shards, notes, strict=True):
            if shard.split is split:
                total["videos"] += len(shard.ids)
                total["captions"] += note["captions"]
                total["mended"].update(note["mended"])
                total["not_in_captions"] += note["not_in_captions"]
                total["without_captions"] += note["without_captions"]
        name = split.shard_name
        report[name] = total
        if num_videos := total["videos"]:
            logger.info("%s: %d videos, %d captions", name, num_videos, total["captions"])
        warn_of_flaws(total["mended"], name)
        if names := total["not_in_captions"] + total["without_captions"]:
            first = ", ".join(names[:NUM_NAMED])
            what = "%s: %d of %d videos have no captions (first: %s); %s lists them"
            logger.warning(what, name, len(names), num_videos, first, path)
    write_json(path, report)
