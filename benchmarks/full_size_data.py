"""Generated data for full_size.py, with the file layout and the size of HowTo100M.

The features of 1.2 million videos of 400 s take 490 GB. They are therefore sparse files: they have
this size, but no blocks on the disk, and read as zeros. Captions are written in full: 68 per video
as in HowTo100M's 80 million sentences, with 136 bytes each, 11 GB in all. Existing files are kept,
so that an interrupted build continues. The vectors of videos are clusters of 200 in a
48-dimensional subspace, with noise.
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
"""There is a validation video for this many training videos, as in HowTo100M."""
PATTERN_ROWS = 1 << 17
"""Number of different captions. Each shard repeats them, from a random one on."""
NUM_WORDS = 30522
CLUSTER_SIZE, SUBSPACE = 200, 48
ALPHABET = np.frombuffer(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_", dtype="S1"
)


def claim_folder(folder: Path, num_videos: int) -> None:
    """Makes `folder`, or checks that it contains the data of an earlier run.

    Raises:
        SystemExit: it contains something else, which the end of the run would remove.
    """
    stamp, wanted = folder / "made.json", {"videos": num_videos, "captions": CAPTIONS}
    folder.mkdir(parents=True, exist_ok=True)
    is_ours = stamp.exists() and json.loads(stamp.read_text()) == wanted
    if any(folder.iterdir()) and not is_ours:
        raise SystemExit(
            f"{folder} holds other things than data of {num_videos} videos; name another by "
            "--folder."
        )
    stamp.write_text(json.dumps(wanted))


def build(folder: Path, num_videos: int) -> None:
    """Writes the lists, meta files and shards of both splits and a BERT folder into `folder`.

    Shards that exist are not written again.
    """
    write_bert(folder / "bert")
    pattern = _caption_pattern()
    num_valid = max(64, num_videos // VALID_SHARE)
    for split, count in ((Split.TRAIN, num_videos), (Split.VALID, num_valid)):
        ids = video_ids(count, seed=list(Split).index(split))
        (folder / f"{split.value}.lst").write_text("".join(f"{name}\n" for name in ids))
        shards = [ids[begin : begin + SHARD_SIZE] for begin in range(0, count, SHARD_SIZE)]
        for shard, names in enumerate(shards):
            _write_shard(folder, split, shard, len(names), pattern)
        write_shard_meta(folder, split, shards)


def overrides(folder: Path) -> list[str]:
    """Returns the overrides with which how2_pretrain.yaml reads `folder`."""
    paths = {
        "train_path": "train.lst",
        "val_path": "valid.lst",
        "vfeat_dir": "",
        "tfeat_dir": "cap.",
        "bert_name": "bert",
    }
    return [f"dataset.{key}={folder}/{name}" for key, name in paths.items()]


def write_bert(folder: Path) -> None:
    """Writes a vocabulary of 30,522 made-up words, with special tokens at BERT's positions."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"word{number}" for number in range(NUM_WORDS)]
    words[0], words[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "config.json").write_text('{"model_type": "bert"}')


def video_ids(count: int, seed: int) -> list[str]:
    """Returns different ids of 11 characters like YouTube's: six random ones, then a number."""
    digits = np.random.default_rng(seed).integers(0, 64, size=(count, 11), dtype=np.uint8)
    # The last five characters are the video's number in base 64, so that no id occurs twice.
    for place in range(5):
        digits[:, 6 + place] = (np.arange(count) >> (6 * place)) & 63
    names = np.ascontiguousarray(ALPHABET[digits]).view("S11")[:, 0]
    return [name.decode() for name in names.tolist()]


def vector_blocks(
    num: int, size: int, rows: int, seed: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the vectors of `num` videos in blocks.

    Yields:
        The position of the first video of a block, and its vectors, float32 [rows, size].
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
    """Writes the three ragged tensors of one shard: features, caption times and caption ids.

    The row starts of the caption ids are written last. If their file exists, the shard is whole.
    """
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
    # The captions of a video begin at regular intervals, with random shifts.
    spacing = MEAN_SECONDS / CAPTIONS
    number_in_video = np.arange(len(owners)) - _starts(counts)[owners]
    times = np.empty((len(owners), 2), dtype=np.float32)
    times[:, 0] = (number_in_video + 0.5 * rng.random(len(owners))) * spacing
    times[:, 1] = np.minimum(times[:, 0] + rng.uniform(2, 8, len(owners)), seconds[owners])
    _write_sparse(f"{stems[0]}_data.npy", (int(seconds.sum()), 512))
    np.save(f"{stems[1]}_data.npy", times)
    rolled = np.roll(pattern, -int(rng.integers(len(pattern))), axis=0)
    repeats = math.ceil(len(owners) / len(pattern))
    np.save(f"{stems[2]}_data.npy", np.concatenate([rolled] * repeats)[: len(owners)])
    for stem, lengths in zip(stems, (seconds, counts, counts), strict=True):
        np.save(f"{stem}_starts.npy", _starts(lengths))


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Returns the first position of every row of a ragged tensor, and the end of the last row."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _write_sparse(path: str, shape: tuple[int, int]) -> None:
    """Writes a float16 array of zeros as a sparse .npy file."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": shape}
        )
        file.truncate(file.tell() + 2 * math.prod(shape))


def _caption_pattern() -> np.ndarray:
    """Returns captions of 4 to 20 word pieces, int32 [PATTERN_ROWS, 32], padded with -1."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, NUM_WORDS, size=(PATTERN_ROWS, MAX_CAPTION_IDS), dtype=np.int32)
    ids[np.arange(MAX_CAPTION_IDS) >= rng.integers(4, 21, size=PATTERN_ROWS)[:, None]] = -1
    return ids
