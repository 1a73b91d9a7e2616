"""Tokenises the captions of every packed video and writes the text shards that training reads.

Each process writes one shard at a time. It reads a video's line from the JSON Lines corpus and
appends the video's rows to the shard, so memory holds one video. The stamp of shard k of split s is
`.tokenising/<prefix><s>_<k>.json`. It lists the videos without captions. A rerun keeps the shards
whose captions, vocabulary and video ids are unchanged.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.prepare.captions import corpus as corpora
from mmpt.prepare.captions.caption_list import (
    FLAWS,
    CaptionList,
    clean_times,
    warn_of_flaws,
)
from mmpt.prepare.shard_jobs import ShardJob, Stamp, write_missing
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.shardedtensor import ids_stem, meta_path, read_shard_meta, times_stem
from mmpt.shards.writer import MAX_CAPTION_IDS, pad_ids, row_stream
from mmpt.utils.artefact import fingerprint
from mmpt.utils.io import file_hash, remove_leftovers, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

STAMPS = ".tokenising"  # folder of the stamps, inside the target folder
FORMAT = 3  # increase it when the content of shards or of their stamps changes
MAX_LISTED = 5  # ids listed in a message
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
    """Writes the text shards of all videos in `<target_dir>/{train,val}_meta.*`.

    Finished shards are kept. Videos without captions get an empty row and are listed in
    `<prefix>report.json`. A `.json` or `.pkl` corpus is first converted to JSON Lines in
    `<target_dir>/.tokenising/`.

    Args:
        caption_path: a `.jsonl`, `.json` or `.pkl` file. If it is missing, the same name with
            another of these suffixes is used.
        target_dir: the folder of the feature shards.
        bert_name: the tokenizer: a folder or a hub name.
        use_fast: use the fast tokenizer.
        workers: number of processes. Each writes one shard at a time.
    Returns:
        The path prefix of the shards, for `dataset.tfeat_dir`.
    Raises:
        DataError: a file is missing or broken, no packed video has captions, or the target cannot
            be written.
    """
    target = Path(target_dir)
    stamps_dir = target / STAMPS
    packed = _read_packed(target)
    vocabulary = load_tokenizer(bert_name, use_fast).backend_tokenizer.to_str()
    corpus = _as_json_lines(corpora.find_corpus(caption_path), stamps_dir)
    caption_name = Path(caption_path).stem
    tokenizer_name = Path(bert_name).name
    prefix = f"{caption_name}.{tokenizer_name}."
    tfeat_dir = f"{target}/{prefix}"
    with writing(target), exclusive(stamps_dir / "lock", "tokenising captions"):
        for folder in (target, stamps_dir):
            remove_leftovers(folder, f"{re.escape(prefix)}.*")
        mark = fingerprint(
            FORMAT, file_hash(corpus), vocabulary, MAX_LETTERS, MAX_CAPTION_IDS
        )
        offsets = corpora.index_lines(corpus)
        jobs: list[ShardJob] = []
        for split, shards in packed.items():
            _check_overlap(offsets, split, shards, corpus, target)
            for number, ids in shards.items():
                stems = (
                    times_stem(tfeat_dir, split, number),
                    ids_stem(tfeat_dir, split, number),
                )
                videos = [(video_id, offsets.get(video_id)) for video_id in ids]
                job = ShardJob(
                    stamp=stamps_dir / f"{prefix}{split.shard_name}_{number}.json",
                    stems=stems,
                    fingerprint=fingerprint(mark, ids),
                    write=partial(
                        write_shard, split, stems, corpus, videos, bert_name, use_fast
                    ),
                )
                jobs.append(job)
        del offsets, packed  # they hold an object per video
        stamps = write_missing(jobs, workers, "shards of captions tokenised")
        _write_report(stamps, f"{tfeat_dir}report.json")
    return tfeat_dir


def _as_json_lines(corpus: Path, folder: Path) -> Path:
    """Returns the path of a corpus as JSON Lines. Another form is converted into `folder`."""
    if corpus.suffix == ".jsonl":
        return corpus
    converted = folder / f"{corpus.stem}.jsonl"
    corpora.convert_corpus(corpus, converted)
    return converted


def _read_packed(target: Path) -> dict[Split, dict[int, list[str]]]:
    """Returns the video ids of all feature shards by split and shard."""
    splits = []
    for split in SPLITS:
        meta_files = target.glob(f"{split.shard_name}_meta.*")
        if any(meta_files):
            splits.append(split)
    if len(splits) == 1:
        logger.warning(
            "%s: only %s videos are packed here", target, splits[0].shard_name
        )
    # Without any meta file, reading the first one raises the error.
    return {split: read_shard_meta(target, split) for split in splits or SPLITS}


def _check_overlap(
    offsets: Mapping[str, int],
    split: Split,
    shards: Mapping[int, Sequence[str]],
    corpus: Path,
    target: Path,
) -> None:
    """Raises DataError if no packed video of a split is in the corpus."""
    ids = list(chain.from_iterable(shards.values()))
    if ids and offsets.keys().isdisjoint(ids):
        raise DataError(
            f"{corpus}: at least one of the {len(ids)} videos of {meta_path(target, split)} must "
            f"have captions, but none has (the first is {ids[0]}). Correct "
            "`dataset.caption_pkl_path` or `dataset.target_dir`."
        )


def write_shard(
    split: Split,
    stems: tuple[str, str],
    corpus: Path,
    videos: Sequence[tuple[str, int | None]],
    bert_name: str,
    use_fast: bool,
) -> Stamp:
    """Writes the four files of one shard. Returns its numbers for the report.

    Args:
        split: the split of the shard.
        stems: path stems of the caption times and of the word-piece ids.
        corpus: the captions, as JSON Lines.
        videos: id of every video, and the byte offset of its line in the corpus; None if it is not
            in the corpus.
        bert_name: the tokenizer: a folder or a hub name.
        use_fast: use the fast tokenizer.
    """
    tokenizer = load_tokenizer(bert_name, use_fast)  # cached in each process
    absent: list[str] = []  # videos that are not in the corpus
    empty: list[str] = []  # videos that are in it, but have no caption with a time
    all_flaws = Counter(dict.fromkeys(FLAWS, 0))
    times_path, ids_path = stems
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
                where = f"{corpus}, video {video_id}"
                captions, flaws = clean_times(found, where)
                all_flaws.update(flaws)
                if not captions["start"]:
                    empty.append(video_id)
            times_2C = np.array([captions["start"], captions["end"]], dtype=np.float32)
            times.append(times_2C.T)
            ids.append(caption_ids(tokenizer, captions["text"]))
    return {
        "split": split.shard_name,
        "videos": len(videos),
        "captions": times.starts[-1],
        "fixed": all_flaws,
        "not_in_captions": absent,
        "without_captions": empty,
    }


def caption_ids(tokenizer: Any, texts: Sequence[Any]) -> np.ndarray:
    """Returns the word-piece ids of every text, int32 [captions, 32], padded with -1.

    As in the released preparation, the first 96 characters are tokenised without special tokens,
    and the first 32 word pieces are kept.

    Args:
        tokenizer: a tokenizer of transformers.
        texts: the captions. One that is not a string gets no ids.
    """
    if not texts:
        return pad_ids([])
    heads = []
    for text in texts:
        head = text[:MAX_LETTERS] if isinstance(text, str) else ""
        # The tokenizer rejects lone surrogates, so they are replaced.
        as_bytes = head.encode("utf-8", "replace")
        heads.append(as_bytes.decode())
    encoded = tokenizer(
        heads,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # the aligner cuts long captions, so no warning is due
    )
    return pad_ids(encoded["input_ids"])


def _write_report(stamps: Sequence[Stamp], path: str) -> None:
    """Writes the sums of the stamps of both splits, and logs them."""
    report = {}
    for name in ("train", "val"):
        split_stamps = [stamp for stamp in stamps if stamp["split"] == name]
        total = _sum_stamps(split_stamps)
        report[name] = total
        num_videos = total["videos"]
        if num_videos:
            logger.info(
                "%s: %d videos, %d captions", name, num_videos, total["captions"]
            )
        warn_of_flaws(total["fixed"], name)
        ids = total["not_in_captions"] + total["without_captions"]
        if ids:
            first = ", ".join(ids[:MAX_LISTED])
            what = "%s: %d of %d videos have no captions (first: %s); %s lists them"
            logger.warning(what, name, len(ids), num_videos, first, path)
    write_json(path, report)


def _sum_stamps(stamps: Sequence[Stamp]) -> dict[str, Any]:
    """Returns the sums of the counts of several shards, and the concatenation of their lists."""
    total: dict[str, Any] = {
        "videos": 0,
        "captions": 0,
        "fixed": Counter(dict.fromkeys(FLAWS, 0)),
        "not_in_captions": [],
        "without_captions": [],
    }
    for stamp in stamps:
        total["fixed"].update(stamp["fixed"])
        for key in ("videos", "captions", "not_in_captions", "without_captions"):
            total[key] += stamp[key]
    return total
