"""Tokenises the captions of every packed video into the text shards that training reads.

Each process makes one shard at a time. It reads a video's line from the JSON Lines corpus and
appends the video's rows to the shard, so memory holds one video. The note of shard k of split s is
`.tokenising/<prefix><s>_<k>.json`, with the videos that have no captions. A rerun keeps shards
whose captions, vocabulary and ids are unchanged.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
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
from mmpt.shards.writer import MAX_CAPTION_IDS, pad_ids, row_stream
from mmpt.utils.artefact import fingerprint
from mmpt.utils.io import file_hash, remove_leftovers, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NOTES = ".tokenising"
FORMAT = 2
NUM_NAMED = 5  # ids shown in a message
MAX_LETTERS = 96  # characters of a caption that are tokenised
SPLITS = (Split.TRAIN, Split.VALID)
NO_CAPTIONS: CaptionList = {"start": [], "end": [], "text": []}


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
        mark = fingerprint(FORMAT, file_hash(corpus), vocabulary, MAX_LETTERS, MAX_CAPTION_IDS)
        begins = corpora.index_lines(corpus)
        jobs = []
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
                stems = (times_stem(*place), ids_stem(*place))
                videos = [(video_id, begins.get(video_id)) for video_id in chunk]
                job = ShardJob(
                    note=target / NOTES / f"{prefix}{split.shard_name}_{number}.json",
                    stems=stems,
                    mark=fingerprint(mark, chunk),
                    write=partial(write_shard, split, *stems, corpus, videos, bert_name, use_fast),
                )
                jobs.append(job)
        del begins, packed  # they hold an object per video
        notes = make_missing(jobs, workers, "shards of captions tokenised")
        _report(notes, f"{tfeat_dir}report.json")
    return tfeat_dir


def write_shard(
    split: Split,
    times_path: str,
    ids_path: str,
    corpus: Path,
    videos: Sequence[tuple[str, int | None]],
    bert_name: str,
    use_fast: bool,
) -> Note:
    """Writes the four files of one shard. Returns what the report says of it.

    Args:
        corpus: the captions, as JSON Lines.
        videos: id, and the byte at which its line begins; None if it has none.
    """
    tokenizer = load_tokenizer(bert_name, use_fast)  # once per process
    absent: list[str] = []  # videos that are not in the corpus
    empty: list[str] = []  # videos that are in it, but have no caption with a time
    mended = Counter(dict.fromkeys(FLAWS, 0))
    with (
        open(corpus, "rb") as file,
        row_stream(times_path, 2, np.dtype(np.float32)) as times,
        row_stream(ids_path, MAX_CAPTION_IDS, np.dtype(np.int32)) as ids,
    ):
        for video_id, offset in videos:
            captions = NO_CAPTIONS
            if offset is None:
                absent.append(video_id)
            else:
                found = corpora.read_line(file, corpus, offset)
                captions, flaws = clean_times(found, f"{corpus}, video {video_id}")
                mended.update(flaws)
                if not captions["start"]:
                    empty.append(video_id)
            times.append(np.array([captions["start"], captions["end"]], dtype=np.float32).T)
            ids.append(caption_ids(tokenizer, captions["text"]))
    return {
        "split": split.shard_name,
        "videos": len(videos),
        "captions": times.starts[-1],
        "mended": mended,
        "not_in_captions": absent,
        "without_captions": empty,
    }


def caption_ids(tokenizer: Any, texts: Sequence[Any]) -> np.ndarray:
    """Returns the word-piece ids of every text, int32 [captions, 32], padded with -1.

    As in the released preparation, the first 96 characters are tokenised without special tokens,
    and the first 32 word pieces are kept.

    Args:
        tokenizer: of transformers.
        texts: one that is not a string has no ids.
    """
    if not texts:
        return pad_ids([])
    heads = [text[:MAX_LETTERS] if isinstance(text, str) else "" for text in texts]
    encoded = tokenizer(
        # The tokenizer refuses half a surrogate pair.
        [head.encode("utf-8", "replace").decode() for head in heads],
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return pad_ids(encoded["input_ids"])


def _report(notes: Sequence[Note], path: str) -> None:
    """Writes the report of both splits and logs what it says."""
    report = {}
    for name in ("train", "val"):
        total: dict[str, Any] = {
            "videos": 0,
            "captions": 0,
            "mended": Counter(dict.fromkeys(FLAWS, 0)),
            "not_in_captions": [],
            "without_captions": [],
        }
        for note in notes:
            if note["split"] == name:
                total["mended"].update(note["mended"])
                for key in ("videos", "captions", "not_in_captions", "without_captions"):
                    total[key] += note[key]
        report[name] = total
        if num_videos := total["videos"]:
            logger.info("%s: %d videos, %d captions", name, num_videos, total["captions"])
        warn_of_flaws(total["mended"], name)
        if names := total["not_in_captions"] + total["without_captions"]:
            first = ", ".join(names[:NUM_NAMED])
            what = "%s: %d of %d videos have no captions (first: %s); %s lists them"
            logger.warning(what, name, len(names), num_videos, first, path)
    write_json(path, report)
