"""Writes a demo corpus: lists, shards, captions, a small BERT, and the ground truth.

The same settings give the same bytes. `demo.json` is written last and holds the settings and the
hash of every file. If the settings change or a file is damaged, the corpus is made again.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
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
from mmpt.shards.layout import ids_stem, meta_path, times_stem, video_stem
from mmpt.shards.writer import write_shards
from mmpt.utils.io import atomic_write, file_hash, write_json, writing
from mmpt.utils.log import get_logger, progress
from mmpt.utils.rng import stable_seed
from mmpt.utils.validation import read_json_as

CAPTION_LETTERS = 96  # characters of a caption that are tokenised, as in the released preparation
NUM_ALIGNED = 80  # videos of the alignment test, as in HTM-Align; scoring all takes too long
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
        manifest = out / "demo.json"
        fingerprint = _fingerprint(settings)
        try:
            old = read_json_as(manifest, _Manifest, "")
        except DataError:  # there is no manifest, or it is damaged
            old = _Manifest()
        hashes = {name: file_hash(out / name) for name in old.files if (out / name).is_file()}
        changed = [name for name, known in old.files.items() if hashes.get(name) != known]
        if old.fingerprint == fingerprint and not changed:
            logger.info("%s: already made with these settings", out)
            return
        manifest.unlink(missing_ok=True)
        paths, counts = _write_files(out, settings)
        files = {path.relative_to(out).as_posix(): file_hash(path) for path in sorted(paths)}
        for stale in set(old.files) - set(files):
            (out / stale).unlink(missing_ok=True)
        made = {"settings": dataclasses.asdict(settings), "counts": counts, "files": files}
        write_json(manifest, {"format": 1, "fingerprint": fingerprint, **made})
    for split, count in counts.items():
        shown = [f"{key} {value}" for key, value in count.items()]
        logger.info("%s: %s", split, ", ".join(shown))
    logger.info("%s: made, fingerprint %s", out, fingerprint[:12])


def _fingerprint(settings: CorpusSettings) -> str:
    """Returns a hash of the settings and of the source code of the generator."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(settings), sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _write_files(
    out: Path, settings: CorpusSettings
) -> tuple[list[Path], dict[str, dict[str, Any]]]:
    """Writes all files except the manifest.

    Returns:
        The paths, and the counts of both splits.
    """
    world = make_world(settings)
    paths = _write_bert(out / "bert")
    train = _write_split(out, world, Split.TRAIN, settings.num_videos, paths)
    val = _write_split(out, world, Split.VALID, settings.num_val, paths)
    alignment = {video.id: _true_alignment(video) for video in val}
    clips = [_true_clips(world, video) for video in val]
    captions = {video.id: _raw_captions(video) for video in (*train, *val)}
    truth = {
        "captions.json": captions,
        "val_clips.json": {"format": 1, "videos": clips},  # mmpt.endtasks.how2_clips reads it
        "true_alignment.json": alignment,
        "test_alignment.json": dict(list(alignment.items())[:NUM_ALIGNED]),
        "true_steps.json": {"database": _true_steps(world, val)},
    }
    for name, value in truth.items():
        write_json(out / name, value)
        paths.append(out / name)
    return paths, {"train": count_videos(train), "val": count_videos(val)}


def _write_bert(folder: Path) -> list[Path]:
    """Writes the configuration and vocabulary of a small BERT without weights."""
    vocabulary = make_vocabulary()
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
    tokenizer = {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    paths = [folder / name for name in ("vocab.txt", "config.json", "tokenizer_config.json")]
    with atomic_write(paths[0]) as file:
        file.writelines(f"{piece}\n" for piece in vocabulary)
    write_json(paths[1], config)
    write_json(paths[2], tokenizer)
    load_tokenizer.cache_clear()  # an older vocabulary may have been read from this folder
    return paths


def _write_split(
    out: Path, world: World, split: Split, count: int, paths: list[Path]
) -> list[Video]:
    """Writes the list and the shards of a split, with one shard in memory at a time.

    Args:
        count: number of videos.
        paths: the paths of the written files are added here.
    Returns:
        The videos.
    """
    tokenizer = load_tokenizer(str(out / "bert"))
    videos: list[Video] = []

    def rows() -> Iterator[tuple[str, np.ndarray, Captions]]:
        for index in progress(range(count), count, f"{split.shard_name} videos made", logger):
            video = make_video(world, split.shard_name, index)
            videos.append(video)
            raw = _raw_captions(video)
            texts = [text[:CAPTION_LETTERS] for text in raw["text"]]
            ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
            captions: Captions = {"start": raw["start"], "end": raw["end"], "cap": ids}
            yield video.id, make_features(world, video), captions

    vfeat_dir, tfeat_dir = str(out / "feat"), f"{out}/feat/demo.bert-demo."
    shards = write_shards(vfeat_dir, tfeat_dir, split, rows(), world.settings.shard_size)
    list_path = out / f"how2_s3d_{split.shard_name}.lst"
    with atomic_write(list_path) as file:
        file.writelines(f"{video.id}\n" for video in videos)
    paths += [list_path, meta_path(vfeat_dir, split)]
    for shard in range(len(shards)):
        stems = [video_stem(vfeat_dir, split, shard)]
        stems += [times_stem(tfeat_dir, split, shard), ids_stem(tfeat_dir, split, shard)]
        paths += [Path(f"{stem}_{part}.npy") for stem in stems for part in ("data", "starts")]
    return videos


def _raw_captions(video: Video) -> dict[str, list[Any]]:
    """Returns the captions of a video in the form of HowTo100M's caption files."""
    return {
        "start": [caption.start for caption in video.captions],
        "end": [caption.end for caption in video.captions],
        "text": [caption.text for caption in video.captions],
    }


def _true_clips(world: World, video: Video) -> dict[str, Any]:
    """Returns the annotation of a video: every step shown, its seconds and a clean sentence."""
    rng = random.Random(stable_seed("clips", world.settings.seed, video.id))
    clips = []
    for shown in video.performances:
        text = world.steps[shown.step].fill(rng.choice(CLEAN), shown.kind)
        clips.append({"start": shown.start, "end": shown.end, "text": text})
    return {"id": video.id, "clips": clips}


def _true_steps(world: World, videos: Sequence[Video]) -> dict[str, Any]:
    """Returns the steps of all videos in the form of COIN's database.

    Only the steps that are shown get numbers, from 1 on.
    """
    shown = {performance.step for video in videos for performance in video.performances}
    numbers = {step: place for place, step in enumerate(sorted(shown), start=1)}
    database = {}
    for video in videos:
        segments = []
        for performance in video.performances:
            step = world.steps[performance.step]
            # The label identifies the step, because it does not contain the kind of the thing.
            label = step.fill("{do} the {thing} with the {tool}", performance.kind)
            number = str(numbers[performance.step])
            segment = [performance.start, performance.end]
            segments.append({"id": number, "label": label, "segment": segment})
        database[video.id] = {"subset": "testing", "annotation": segments}
    return database


def _true_alignment(video: Video) -> list[list[Any]]:
    """Returns [aligned, start, end, text] for every caption, in the form of HTM-Align.

    The times are those of the caption's step. A caption without a step is not aligned (0) and keeps
    its own times.
    """
    rows: list[list[Any]] = []
    for caption in video.captions:
        seen = caption if caption.about is None else video.performances[caption.about]
        rows.append([int(seen is not caption), seen.start, seen.end, caption.text])
    return rows


def count_videos(videos: Sequence[Video]) -> dict[str, Any]:
    """Returns the counts and shares of a split. Shares are fractions with four decimals."""
    num_captions = num_words = num_relevant = num_misaligned = num_narrated = 0
    for video in videos:
        narrated = set()  # the performances that have a caption
        for caption in video.captions:
            num_captions += 1
            num_words += len(caption.text.split())
            if caption.about is not None:
                shown = video.performances[caption.about]
                middle = (caption.start + caption.end) / 2
                narrated.add(caption.about)
                num_relevant += 1
                num_misaligned += not shown.start <= middle <= shown.end
        num_narrated += len(narrated)
    num_performed = sum(len(video.performances) for video in videos)
    return {
        "videos": len(videos),
        "hours": round(sum(video.num_seconds for video in videos) / 3600, 2),
        "performances": num_performed,
        "captions": num_captions,
        "words": num_words,
        "irrelevant": round(1 - num_relevant / num_captions, 4),
        "misaligned": round(num_misaligned / max(num_relevant, 1), 4),
        "silent": round(1 - num_narrated / num_performed, 4),
    }
