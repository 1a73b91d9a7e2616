"""Writes a demo corpus: lists, shards, captions, a small BERT, and the ground truth.

The same settings give the same bytes. `demo.json` is written last and holds the settings and the
hash of every file. If the settings change or a file is damaged, the corpus is made again.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from mmpt.batch import Captions, Split
from mmpt.errors import DataError
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.video import Video, make_features, make_video
from mmpt.prepare.demo_corpus.words import CLEAN, make_vocabulary
from mmpt.prepare.demo_corpus.world import World, make_world
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.shardedtensor import ids_stem, meta_path, times_stem, video_stem
from mmpt.shards.writer import write_shards
from mmpt.utils.io import atomic_write, file_hash, write_json, writing
from mmpt.utils.log import get_logger, progress
from mmpt.utils.rng import stable_seed
from mmpt.utils.validation import read_json_as

# Characters of a caption that are tokenised, as in the released preparation.
CAPTION_LETTERS = 96
# Videos of the alignment test, as in HTM-Align; scoring all takes too long.
NUM_ALIGNED = 80
TRAIN, VAL = Split.TRAIN.shard_name, Split.VALID.shard_name
logger = get_logger(__name__)


class _Manifest(BaseModel):
    """The part of `demo.json` that decides whether the corpus is complete."""

    format: Literal[1] = 1
    fingerprint: str = ""
    files: dict[str, str] = {}


def make_corpus(out: Path, settings: CorpusSettings) -> None:
    """Writes the corpus of `settings` to the folder `out`, unless it is complete.

    Raises:
        UserError: the folder cannot be written.
    """
    with writing(out):
        manifest_path = out / "demo.json"
        fingerprint = _fingerprint(settings)
        try:
            old = read_json_as(manifest_path, _Manifest, "")
        except DataError:  # there is no manifest, or it is damaged
            old = _Manifest()
        if old.fingerprint == fingerprint and _is_intact(out, old.files):
            logger.info("%s: already made with these settings", out)
            return
        manifest_path.unlink(missing_ok=True)
        world = make_world(settings)
        train = [
            make_video(world, TRAIN, index) for index in range(settings.num_videos)
        ]
        val = [make_video(world, VAL, index) for index in range(settings.num_val)]
        paths = write_files(out, world, make_vocabulary(), train, val)
        counts = {TRAIN: count_videos(train), VAL: count_videos(val)}
        hashes = {}
        for path in sorted(paths):
            name = path.relative_to(out).as_posix()
            hashes[name] = file_hash(path)
        for stale in old.files.keys() - hashes.keys():
            (out / stale).unlink(missing_ok=True)
        manifest = {
            "format": 1,
            "fingerprint": fingerprint,
            "settings": asdict(settings),
            "counts": counts,
            "files": hashes,
        }
        write_json(manifest_path, manifest)
    for split, split_counts in counts.items():
        shown = [f"{name} {count}" for name, count in split_counts.items()]
        logger.info("%s: %s", split, ", ".join(shown))
    logger.info("%s: made, fingerprint %s", out, fingerprint[:12])


def _is_intact(out: Path, hashes: dict[str, str]) -> bool:
    """Returns whether every file exists and has its hash."""
    for name, known in hashes.items():
        path = out / name
        if not path.is_file():
            return False
        if file_hash(path) != known:
            return False
    return True


def _fingerprint(settings: CorpusSettings) -> str:
    """Returns a hash of the settings and of the source code of the generator."""
    settings_json = json.dumps(asdict(settings), sort_keys=True)
    digest = hashlib.sha256(settings_json.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def write_files(
    out: Path,
    world: World,
    vocabulary: Sequence[str],
    train: Sequence[Video],
    val: Sequence[Video],
) -> list[Path]:
    """Writes all files of a corpus except the manifest, and returns their paths.

    Args:
        out: folder to write to.
        world: gives the sentences and the looks of the steps.
        vocabulary: word pieces in id order.
        train: training videos.
        val: validation videos.
    """
    paths = _write_bert(out / "bert", vocabulary)
    paths += _write_split(out, world, Split.TRAIN, train)
    paths += _write_split(out, world, Split.VALID, val)
    # Write the ground truth.
    clips = [true_clips(world, video) for video in val]
    captions = {video.id: _raw_captions(video) for video in (*train, *val)}
    alignment = {video.id: true_alignment(video) for video in val}
    test_alignment = {video.id: alignment[video.id] for video in val[:NUM_ALIGNED]}
    truth = {
        "captions.json": captions,
        # mmpt.endtasks.how2_clips reads it.
        "val_clips.json": {"format": 1, "videos": clips},
        "true_alignment.json": alignment,
        "test_alignment.json": test_alignment,
        "true_steps.json": {"database": _true_steps(world, val)},
    }
    for name, value in truth.items():
        path = out / name
        write_json(path, value)
        paths.append(path)
    return paths


def _write_bert(folder: Path, vocabulary: Sequence[str]) -> list[Path]:
    """Writes the configuration and vocabulary of a small BERT without weights."""
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "pad_token_id": vocabulary.index("[PAD]"),
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    tokenizer = {
        "do_lower_case": True,
        "model_max_length": 512,
        "tokenizer_class": "BertTokenizer",
    }
    vocabulary_path = folder / "vocab.txt"
    config_path = folder / "config.json"
    tokenizer_path = folder / "tokenizer_config.json"
    _write_lines(vocabulary_path, vocabulary)
    write_json(config_path, config)
    write_json(tokenizer_path, tokenizer)
    # An older vocabulary may have been read from this folder.
    load_tokenizer.cache_clear()
    return [vocabulary_path, config_path, tokenizer_path]


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    """Writes a text file."""
    with atomic_write(path) as file:
        for line in lines:
            file.write(f"{line}\n")


def _write_split(
    out: Path, world: World, split: Split, videos: Sequence[Video]
) -> list[Path]:
    """Writes the list and the shards of a split, with one shard in memory at a time.

    Returns:
        The paths of the written files.
    """
    name = split.shard_name
    vfeat_dir = str(out / "feat")
    tfeat_dir = f"{out}/feat/demo.bert-demo."
    tokenizer = load_tokenizer(str(out / "bert"))
    packed = _pack_videos(world, videos, tokenizer)
    rows = progress(packed, len(videos), f"{name} videos made", logger)
    shards = write_shards(vfeat_dir, tfeat_dir, split, rows, world.settings.shard_size)
    list_path = out / f"how2_s3d_{name}.lst"
    _write_lines(list_path, [video.id for video in videos])
    paths = [list_path, meta_path(vfeat_dir, split)]
    for shard in range(len(shards)):
        stems = [
            video_stem(vfeat_dir, split, shard),
            times_stem(tfeat_dir, split, shard),
            ids_stem(tfeat_dir, split, shard),
        ]
        for stem in stems:
            paths += [Path(f"{stem}_data.npy"), Path(f"{stem}_starts.npy")]
    return paths


def _pack_videos(
    world: World, videos: Sequence[Video], tokenizer: Any
) -> Iterator[tuple[str, np.ndarray, Captions]]:
    """Yields the id, the features and the tokenised captions of each video."""
    for video in videos:
        raw = _raw_captions(video)
        texts = [text[:CAPTION_LETTERS] for text in raw["text"]]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        captions: Captions = {"start": raw["start"], "end": raw["end"], "cap": ids}
        yield video.id, make_features(world, video), captions


def _raw_captions(video: Video) -> dict[str, list[Any]]:
    """Returns the captions of a video in the form of HowTo100M's caption files."""
    raw: dict[str, list[Any]] = {"start": [], "end": [], "text": []}
    for caption in video.captions:
        raw["start"].append(caption.start)
        raw["end"].append(caption.end)
        raw["text"].append(caption.text)
    return raw


def true_clips(world: World, video: Video) -> dict[str, Any]:
    """Returns the annotation of a video: every step shown, its seconds and a clean sentence."""
    seed = stable_seed("clips", world.settings.seed, video.id)
    rng = random.Random(seed)
    clips = []
    for shown in video.performances:
        step = world.steps[shown.step]
        text = step.fill(rng.choice(CLEAN), shown.kind)
        clips.append({"start": shown.start, "end": shown.end, "text": text})
    return {"id": video.id, "clips": clips}


def _true_steps(world: World, videos: Sequence[Video]) -> dict[str, Any]:
    """Returns the steps of all videos in the form of COIN's database.

    Only the steps that are shown get numbers, from 1 on.
    """
    shown: set[int] = set()
    for video in videos:
        shown.update(performance.step for performance in video.performances)
    numbers = {step: number for number, step in enumerate(sorted(shown), start=1)}
    database = {}
    for video in videos:
        segments = []
        for performance in video.performances:
            step = world.steps[performance.step]
            # The label identifies the step, because it does not contain the kind of the thing.
            label = step.fill("{do} the {thing} with the {tool}", performance.kind)
            segment = {
                "id": str(numbers[performance.step]),
                "label": label,
                "segment": [performance.start, performance.end],
            }
            segments.append(segment)
        database[video.id] = {"subset": "testing", "annotation": segments}
    return database


def true_alignment(video: Video) -> list[list[Any]]:
    """Returns [aligned, start, end, text] for every caption, in the form of HTM-Align.

    An aligned caption (1) has the times of its step. A caption without a step is not aligned (0)
    and keeps its own times.
    """
    rows: list[list[Any]] = []
    for caption in video.captions:
        if caption.about is None:
            rows.append([0, caption.start, caption.end, caption.text])
        else:
            shown = video.performances[caption.about]
            rows.append([1, shown.start, shown.end, caption.text])
    return rows


def count_videos(videos: Sequence[Video]) -> dict[str, Any]:
    """Returns the counts and shares of a split. Shares are fractions with four decimals."""
    num_seconds = num_performed = num_narrated = 0
    num_captions = num_words = num_relevant = num_misaligned = 0
    for video in videos:
        num_seconds += video.num_seconds
        num_performed += len(video.performances)
        num_captions += len(video.captions)
        narrated = set()  # the performances that have a caption
        for caption in video.captions:
            num_words += len(caption.text.split())
            if caption.about is None:
                continue
            narrated.add(caption.about)
            num_relevant += 1
            shown = video.performances[caption.about]
            middle = (caption.start + caption.end) / 2
            if not shown.start <= middle <= shown.end:
                num_misaligned += 1
        num_narrated += len(narrated)
    relevant_share = num_relevant / num_captions
    misaligned_share = num_misaligned / max(num_relevant, 1)
    narrated_share = num_narrated / num_performed
    return {
        "videos": len(videos),
        "hours": round(num_seconds / 3600, 2),
        "performances": num_performed,
        "captions": num_captions,
        "words": num_words,
        "irrelevant": round(1 - relevant_share, 4),
        "misaligned": round(misaligned_share, 4),
        "silent": round(1 - narrated_share, 4),
    }
