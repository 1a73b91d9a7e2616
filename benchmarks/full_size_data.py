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
from mmpt.shards.shardedtensor import ids_stem, times_stem, video_stem, write_shard_meta
from mmpt.shards.writer import MAX_CAPTION_IDS, SHARD_SIZE

MEAN_SECONDS = 400
CAPTIONS = 68
VALID_SHARE = 50
"""Number of training videos for each validation video, as in HowTo100M."""
PATTERN_ROWS = 1 << 17
"""Number of different captions. Each shard repeats them, beginning with a random one."""
NUM_WORDS = 30522
CLUSTER_SIZE = 200
SUBSPACE = 48  # number of dimensions
ALPHABET = np.frombuffer(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_", dtype="S1"
)


def claim_folder(folder: Path, num_videos: int) -> None:
    """Makes `folder`, or checks that it contains the data of an earlier run.

    Raises:
        SystemExit: it contains other files, which the run would remove at its end.
    """
    stamp = folder / "made.json"
    wanted = {"videos": num_videos, "captions": CAPTIONS}
    folder.mkdir(parents=True, exist_ok=True)
    is_ours = stamp.exists() and json.loads(stamp.read_text()) == wanted
    if any(folder.iterdir()) and not is_ours:
        raise SystemExit(
            f"{folder} must be empty or hold the data of {num_videos} videos, but holds other "
            "things; choose another folder with --folder."
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
        split_number = list(Split).index(split)
        ids = video_ids(count, seed=split_number)
        lines = [f"{name}\n" for name in ids]
        (folder / f"{split.value}.lst").write_text("".join(lines))
        shards = []
        for begin in range(0, count, SHARD_SIZE):
            names = ids[begin : begin + SHARD_SIZE]
            _write_shard(folder, split, len(shards), len(names), pattern)
            shards.append(names)
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
    words[0] = "[PAD]"
    words[100:104] = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "config.json").write_text('{"model_type": "bert"}')


def video_ids(count: int, seed: int) -> list[str]:
    """Returns different ids of 11 characters like YouTube's: six random ones, then a number."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 64, size=(count, 11), dtype=np.uint8)
    # The last five characters are the video's number in base 64, so that no id occurs twice.
    numbers = np.arange(count)
    for place in range(5):
        shifted = numbers >> (6 * place)
        digits[:, 6 + place] = shifted & 63
    letters = np.ascontiguousarray(ALPHABET[digits])
    names = letters.view("S11")[:, 0]
    return [name.decode() for name in names.tolist()]


def vector_blocks(
    num: int, size: int, rows: int, seed: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the vectors of `num` videos in blocks.

    Yields:
        The position of the first video of a block, and its vectors, float32 [rows, size].
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    basis = normal(SUBSPACE, size) / np.float32(SUBSPACE**0.5)
    num_clusters = max(1, num // CLUSTER_SIZE)
    centres = normal(num_clusters, SUBSPACE)
    for begin in range(0, num, rows):
        num_rows = min(rows, num - begin)
        clusters = rng.integers(0, num_clusters, num_rows)
        inner = centres[clusters]
        inner += np.float32(0.5) * normal(num_rows, SUBSPACE)
        noise = np.float32(0.1) * normal(num_rows, size)
        yield begin, inner @ basis + noise


def _write_shard(
    folder: Path, split: Split, shard: int, num_videos: int, pattern: np.ndarray
) -> None:
    """Writes the three ragged tensors of one shard: features, caption times and caption ids.

    The row starts of the caption ids are written last. If their file exists, the shard is whole.
    """
    prefix = f"{folder}/cap."
    features = video_stem(folder, split, shard)
    times = times_stem(prefix, split, shard)
    ids = ids_stem(prefix, split, shard)
    if Path(f"{ids}_starts.npy").exists():
        return
    split_number = list(Split).index(split)
    rng = np.random.default_rng([split_number, shard])
    # Videos have from a quarter of the mean length to seven quarters.
    shortest = MEAN_SECONDS // 4
    seconds = rng.integers(shortest, 2 * MEAN_SECONDS - shortest, size=num_videos)
    counts = seconds * CAPTIONS // MEAN_SECONDS
    seconds_starts = _starts(seconds)
    counts_starts = _starts(counts)
    times_C2 = _caption_times(seconds, counts, rng)
    num_captions = len(times_C2)
    # Each shard repeats the same captions, beginning with a random one.
    first = int(rng.integers(len(pattern)))
    rolled = np.roll(pattern, -first, axis=0)
    num_repeats = math.ceil(num_captions / len(pattern))
    repeated = np.concatenate([rolled] * num_repeats)
    _write_sparse(f"{features}_data.npy", (int(seconds.sum()), 512))
    np.save(f"{times}_data.npy", times_C2)
    np.save(f"{ids}_data.npy", repeated[:num_captions])
    np.save(f"{features}_starts.npy", seconds_starts)
    np.save(f"{times}_starts.npy", counts_starts)
    np.save(f"{ids}_starts.npy", counts_starts)


def _caption_times(
    seconds: np.ndarray, counts: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns start and end of all captions of a shard, float32 [captions, 2].

    The captions of a video begin at regular intervals, with random shifts.

    Args:
        seconds: length of every video.
        counts: number of captions of every video.
    """
    owners = np.repeat(np.arange(len(seconds)), counts)
    num_captions = len(owners)
    number_in_video = np.arange(num_captions) - _starts(counts)[owners]
    shifts = 0.5 * rng.random(num_captions)
    lengths = rng.uniform(2, 8, num_captions)
    times = np.empty((num_captions, 2), dtype=np.float32)
    times[:, 0] = (number_in_video + shifts) * (MEAN_SECONDS / CAPTIONS)
    times[:, 1] = np.minimum(times[:, 0] + lengths, seconds[owners])
    return times


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Returns the first position of every row of a ragged tensor, and the end of the last row."""
    ends = np.cumsum(lengths)
    return np.concatenate([[0], ends]).astype(np.int64)


def _write_sparse(path: str, shape: tuple[int, int]) -> None:
    """Writes a float16 array of zeros as a sparse .npy file."""
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    num_bytes = 2 * math.prod(shape)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + num_bytes)


def _caption_pattern() -> np.ndarray:
    """Returns captions of 4 to 20 word pieces, int32 [PATTERN_ROWS, 32], padded with -1."""
    rng = np.random.default_rng(0)
    ids = rng.integers(
        1000, NUM_WORDS, size=(PATTERN_ROWS, MAX_CAPTION_IDS), dtype=np.int32
    )
    lengths = rng.integers(4, 21, size=PATTERN_ROWS)
    is_padding = np.arange(MAX_CAPTION_IDS) >= lengths[:, None]
    ids[is_padding] = -1
    return ids
