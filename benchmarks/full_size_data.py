"""Data of the real layout and size for full_size.py: features as sparse files, captions as real
ones; video vectors.

The features of 1.2 million videos of 400 s would be 490 GB; their files have that size but hold no
blocks, so that they read as zeros. Captions are written in full: 68 a video, as in HowTo100M's 80
million sentences, of 136 bytes each, 11 GB in all. Files that are there are kept, so a build that
was interrupted goes on. Video vectors are clusters of 200 in a 48-dimensional subspace, plus noise.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmpt.batch import Split
from mmpt.shards.layout import ids_stem, times_stem, video_stem, write_shard_meta
from mmpt.shards.writer import MAX_CAPTION_IDS, SHARD_SIZE

MEAN_SECONDS = 400
CAPTIONS = 68
VALID_SHARE = 50
"""One video of so many is in the validation list, as in HowTo100M's."""
PATTERN_ROWS = 1 << 17
"""Different captions; a shard takes them from a place of its own on."""
NUM_WORDS = 30522
CLUSTER_SIZE, SUBSPACE = 200, 48
ALPHABET = np.frombuffer(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_", dtype="S1"
)


def claim(folder: Path, num_videos: int) -> None:
    """Make `folder`, or take up what an earlier run has left there.

    Raises:
        SystemExit: it holds something else, which the end of the run would remove.
    """
    stamp, wanted = folder / "made.json", {"videos": num_videos, "captions": CAPTIONS}
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (stamp.exists() and json.loads(stamp.read_text()) == wanted):
        raise SystemExit(
            f"{folder} holds other things than data of {num_videos} videos; name another by "
            "--folder."
        )
    stamp.write_text(json.dumps(wanted))


def build(folder: Path, num_videos: int) -> None:
    """Write lists, meta files, shards and a BERT folder into `folder`, as far as they are not
    there.
    """
    write_bert(folder / "bert")
    pattern = _caption_pattern()
    for split, count in (
        (Split.TRAIN, num_videos),
        (Split.VALID, max(64, num_videos // VALID_SHARE)),
    ):
        ids = video_ids(count, seed=list(Split).index(split))
        (folder / f"{split.value}.lst").write_text("".join(f"{name}\n" for name in ids))
        shards = [ids[begin : begin + SHARD_SIZE] for begin in range(0, count, SHARD_SIZE)]
        for shard, names in enumerate(shards):
            _write_shard(folder, split, shard, len(names), pattern)
        write_shard_meta(folder, split, shards)


def overrides(folder: Path) -> list[str]:
    """Return what makes how2_pretrain.yaml read `folder`."""
    paths = {
        "train_path": "train.lst",
        "val_path": "valid.lst",
        "vfeat_dir": "",
        "tfeat_dir": "cap.",
        "bert_name": "bert",
    }
    return [f"dataset.{key}={folder}/{name}" for key, name in paths.items()]


def write_bert(folder: Path) -> None:
    """Write a vocabulary of 30,522 made-up words, with the special ones where BERT has them."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"word{number}" for number in range(NUM_WORDS)]
    words[0], words[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "config.json").write_text('{"model_type": "bert"}')


def video_ids(count: int, seed: int) -> list[str]:
    """Return different ids of 11 characters, as YouTube's: six at random, then a number."""
    digits = np.random.default_rng(seed).integers(0, 64, size=(count, 11), dtype=np.uint8)
    for place in range(5):
        digits[:, 6 + place] = (np.arange(count) >> (6 * place)) & 63
    return [
        name.decode() for name in np.ascontiguousarray(ALPHABET[digits]).view("S11")[:, 0].tolist()
    ]


def vector_blocks(
    num: int, size: int, rows: int, seed: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first position and the vectors float32 [rows, size] of block after block of `num`
    videos.
    """
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((SUBSPACE, size), dtype=np.float32) / np.float32(SUBSPACE**0.5)
    centres = rng.standard_normal((max(1, num // CLUSTER_SIZE), SUBSPACE), dtype=np.float32)
    for begin in range(0, num, rows):
        inner = centres[rng.integers(0, len(centres), min(rows, num - begin))]
        inner += np.float32(0.5) * rng.standard_normal(inner.shape, dtype=np.float32)
        noise = rng.standard_normal((len(inner), size), dtype=np.float32)
        yield begin, inner @ basis + np.float32(0.1) * noise


def _write_shard(
    folder: Path, split: Split, shard: int, num_videos: int, pattern: np.ndarray
) -> None:
    """Write the three tensors of one shard, the starts of the captions' ids last."""
    prefix = f"{folder}/cap."
    stems = [
        video_stem(folder, split, shard),
        times_stem(prefix, split, shard),
        ids_stem(prefix, split, shard),
    ]
    if Path(f"{stems[2]}_starts.npy").exists():
        return
    rng = np.random.default_rng([list(Split).index(split), shard])
    seconds = rng.integers(MEAN_SECONDS // 4, 2 * MEAN_SECONDS - MEAN_SECONDS // 4, size=num_videos)
    counts = seconds * CAPTIONS // MEAN_SECONDS
    owners = np.repeat(np.arange(num_videos), counts)
    spacing = MEAN_SECONDS / CAPTIONS
    times = np.empty((len(owners), 2), dtype=np.float32)
    times[:, 0] = (
        np.arange(len(owners)) - _starts(counts)[owners] + 0.5 * rng.random(len(owners))
    ) * spacing
    times[:, 1] = np.minimum(times[:, 0] + rng.uniform(2, 8, len(owners)), seconds[owners])
    _write_holes(f"{stems[0]}_data.npy", (int(seconds.sum()), 512))
    np.save(f"{stems[1]}_data.npy", times)
    turned = np.roll(pattern, -int(rng.integers(len(pattern))), axis=0)
    repeats = math.ceil(len(owners) / len(pattern))
    np.save(f"{stems[2]}_data.npy", np.concatenate([turned] * repeats)[: len(owners)])
    for stem, lengths in zip(stems, (seconds, counts, counts), strict=True):
        np.save(f"{stem}_starts.npy", _starts(lengths))


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _write_holes(path: str, shape: tuple[int, int]) -> None:
    """Write the header of a float16 array and make the file as long as its numbers would, without
    blocks.
    """
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": shape}
        )
        file.truncate(file.tell() + 2 * math.prod(shape))


def _caption_pattern() -> np.ndarray:
    """Return int32 [PATTERN_ROWS, 32]: captions of 4 to 20 word pieces, padded with -1."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, NUM_WORDS, size=(PATTERN_ROWS, MAX_CAPTION_IDS), dtype=np.int32)
    ids[np.arange(MAX_CAPTION_IDS) >= rng.integers(4, 21, size=PATTERN_ROWS)[:, None]] = -1
    return ids
