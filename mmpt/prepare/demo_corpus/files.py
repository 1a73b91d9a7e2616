"""Writes a demo corpus: lists, shards (by the project's own writer), captions, a small BERT, and
the truth.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import Captions, Split
from mmpt.prepare.demo_corpus.narration import clean_sentence, step_label
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.summary import count_videos
from mmpt.prepare.demo_corpus.video import Video, film, make_video
from mmpt.prepare.demo_corpus.vocabulary import make_vocabulary
from mmpt.prepare.demo_corpus.words import all_sentences
from mmpt.prepare.demo_corpus.world import World, make_world
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.shards.layout import ids_stem, meta_path, times_stem, video_stem
from mmpt.shards.writer import write_shards
from mmpt.utils.io import atomic_write, write_json
from mmpt.utils.log import get_logger, progress
from mmpt.utils.rng import stable_seed

CLIPS_FORMAT = 1  # of val_clips.json, which mmpt.endtasks.how2_clips reads
CAPTION_LETTERS = 96  # letters of a caption that are tokenised, as in the released preparation
BERT_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}
# videos of the alignment test, as many as HTM-Align has; all of them would take the demo too long
NUM_ALIGNED = 80
logger = get_logger(__name__)


def write_corpus(
    out: Path, settings: CorpusSettings
) -> tuple[list[Path], dict[str, dict[str, Any]]]:
    """Write everything but the manifest into `out`; return the files written and the counts of both
    splits.
    """
    world = make_world(settings)
    paths = _write_bert(out / "bert")
    train = _write_split(out, world, Split.TRAIN, settings.num_videos, paths)
    val = _write_split(out, world, Split.VALID, settings.num_val, paths)
    truth = {
        "captions.json": {video.id: _raw_captions(video) for video in (*train, *val)},
        "val_clips.json": {
            "format": CLIPS_FORMAT,
            "videos": [_true_clips(world, video) for video in val],
        },
        "true_alignment.json": {video.id: _true_alignment(video) for video in val},
        "test_alignment.json": {video.id: _true_alignment(video) for video in val[:NUM_ALIGNED]},
        "true_steps.json": _true_steps(world, val),
    }
    for name, value in truth.items():
        write_json(out / name, value)
        paths.append(out / name)
    return paths, {"train": count_videos(train), "val": count_videos(val)}


def _write_bert(folder: Path) -> list[Path]:
    """Write the configuration and vocabulary of a small BERT without weights."""
    vocabulary = make_vocabulary(all_sentences())
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
        **BERT_SIZES,
    }
    paths = [folder / name for name in ("vocab.txt", "config.json", "tokenizer_config.json")]
    with atomic_write(paths[0]) as file:
        file.writelines(f"{piece}\n" for piece in vocabulary)
    write_json(paths[1], config)
    write_json(
        paths[2],
        {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"},
    )
    load_tokenizer.cache_clear()  # an older vocabulary may have been read from this folder
    return paths


def _write_split(
    out: Path, world: World, split: Split, count: int, paths: list[Path]
) -> list[Video]:
    """Write the list and shards of a split, one shard in memory at a time; return its videos and
    extend `paths`.
    """
    tokenizer = load_tokenizer(str(out / "bert"))
    videos: list[Video] = []

    def rows() -> Iterator[tuple[str, np.ndarray, Captions]]:
        for index in progress(range(count), count, f"{split.shard_name} videos made", logger):
            video = make_video(world, split.shard_name, index)
            videos.append(video)
            yield video.id, film(world, video), _tokenised(video, tokenizer)

    vfeat_dir, tfeat_dir = str(out / "feat"), f"{out}/feat/demo.bert-demo."
    shards = write_shards(vfeat_dir, tfeat_dir, split, rows(), world.settings.shard_size)
    list_path = out / f"how2_s3d_{split.shard_name}.lst"
    with atomic_write(list_path) as file:
        file.writelines(f"{video.id}\n" for video in videos)
    paths += [list_path, meta_path(vfeat_dir, split)]
    for shard in range(len(shards)):
        stems = (
            video_stem(vfeat_dir, split, shard),
            times_stem(tfeat_dir, split, shard),
            ids_stem(tfeat_dir, split, shard),
        )
        paths += [Path(f"{stem}_{part}.npy") for stem in stems for part in ("data", "starts")]
    return videos


def _tokenised(video: Video, tokenizer: Any) -> Captions:
    texts = [caption.text[:CAPTION_LETTERS] for caption in video.captions]
    return {
        "start": [caption.start for caption in video.captions],
        "end": [caption.end for caption in video.captions],
        "cap": tokenizer(texts, add_special_tokens=False)["input_ids"],
    }


def _raw_captions(video: Video) -> dict[str, list[Any]]:
    columns: Sequence[str] = ("start", "end", "text")
    return {column: [getattr(caption, column) for caption in video.captions] for column in columns}


def _true_clips(world: World, video: Video) -> dict[str, Any]:
    """Return what an annotator would: every performed step with its seconds and one clean
    sentence.
    """
    rng = random.Random(stable_seed("clips", world.settings.seed, video.id))
    clips = [
        {
            "start": shown.start,
            "end": shown.end,
            "text": clean_sentence(world.steps[shown.step], shown.kind, rng),
        }
        for shown in video.performances
    ]
    return {"id": video.id, "clips": clips}


def _true_steps(world: World, videos: Sequence[Video]) -> dict[str, Any]:
    """Return COIN's layout: the videos with the seconds of each step, numbered from 1 over those
    that are shown.
    """
    shown = sorted({performance.step for video in videos for performance in video.performances})
    number = {step: place for place, step in enumerate(shown, start=1)}

    def segments(video: Video) -> list[dict[str, Any]]:
        return [
            {
                "id": str(number[one.step]),
                "label": step_label(world.steps[one.step]),
                "segment": [one.start, one.end],
            }
            for one in video.performances
        ]

    return {
        "database": {
            video.id: {"subset": "testing", "annotation": segments(video)} for video in videos
        }
    }


def _true_alignment(video: Video) -> list[list[Any]]:
    """Return HTM-Align's [aligned, start, end, text] per caption: when its step is seen, or else
    when it is said.
    """
    rows = []
    for caption in video.captions:
        seen = None if caption.about is None else video.performances[caption.about]
        start, end = (caption.start, caption.end) if seen is None else (seen.start, seen.end)
        rows.append([int(seen is not None), start, end, caption.text])
    return rows
