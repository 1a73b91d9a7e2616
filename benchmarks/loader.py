"""Items per second and core of the training data set, beside a plain loop that reopens files and slices clip by clip.

Run:  python benchmarks/loader.py [--items 8] [--videos 256]

Both sides read the same generated shards (V = 64 videos of about 200 s, C = 16 clips, Norton's ranges), draw with the
same generator and must give equal tensors. They take turns item by item, and medians of CPU time are printed (pages are
in the cache, so that is the time of one free core).
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mmpt.batch import Captions, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.datasets import MMDataset
from mmpt.processors import (
    ShardedHow2VideoRetriMetaProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    VideoRetriOverlappedAligner,
)
from mmpt.processors.shard_layout import ids_stem, times_stem, video_stem
from mmpt.processors.shard_writer import write_shards
from mmpt.utils.rng import item_rng

V, C, F, T = 64, 16, 16, 32
SEED = 0


def generate(folder: Path, num_videos: int) -> DatasetConfig:
    """Write shards of random features and captions, a list, and a BERT folder of 30,522 made-up words."""
    rng = np.random.default_rng(SEED)

    def videos():
        for number in range(num_videos):
            seconds = int(rng.integers(100, 300))
            starts = np.sort(rng.uniform(0, seconds - 5, size=seconds // 5))
            caps = [rng.integers(1000, 30000, size=size).tolist() for size in rng.integers(4, 20, size=len(starts))]
            ends = np.minimum(starts + rng.uniform(2, 6, size=len(starts)), seconds)
            feature = rng.standard_normal((seconds, 512), dtype=np.float32).astype(np.float16)
            yield f"video{number:06d}", feature, Captions(start=starts.tolist(), end=ends.tolist(), cap=caps)

    shards = write_shards(folder, f"{folder}/cap.bert.", Split.TRAIN, videos(), shard_size=128)
    (folder / "train.lst").write_text("\n".join(name for ids in shards for name in ids))
    words = [f"word{number}" for number in range(30522)]
    words[0], words[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return DatasetConfig(
        bert_name=str(folder), train_path=str(folder / "train.lst"), vfeat_dir=str(folder),
        tfeat_dir=f"{folder}/cap.bert.", max_video_len=F, max_len=F + T, clip_per_video=C, num_video_per_batch=V,
        sampled_min_len=8, sampled_max_len=32, sampled_video_min_len=3, sampled_video_max_len=16,
    )  # fmt: skip


def plain_read(stem: str, row: int) -> np.ndarray:
    """Open both files of a ragged tensor for one row."""
    data, starts = np.load(f"{stem}_data.npy", mmap_mode="r"), np.load(f"{stem}_starts.npy", mmap_mode="r")
    return data[starts[row] : starts[row + 1]]


def plain_clip(ids: list[int], rows: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Make the tensors of one clip by itself."""
    ids = [101, 102, *ids[: T - 3], 102]
    caps = torch.LongTensor(ids + [0] * (T - len(ids)))
    cmasks = torch.zeros(T, dtype=torch.bool)
    cmasks[: len(ids)] = True
    video = torch.from_numpy(np.array(rows[:F]))
    vmasks = torch.zeros(F, dtype=torch.bool)
    vmasks[: len(video)] = True
    padding = torch.zeros((F - len(video), 512), dtype=video.dtype)
    return caps, cmasks, torch.cat([video, padding]), vmasks


def plain_item(aligner: VideoRetriOverlappedAligner, config: DatasetConfig, keys: list[ShardKey], rng: random.Random):
    """Make the item of `keys` video by video and clip by clip, opening the files of every video."""
    assert config.vfeat_dir
    assert config.tfeat_dir
    videos = []
    for key in keys:
        feature = plain_read(video_stem(config.vfeat_dir, Split.TRAIN, key.shard), key.row)
        times = plain_read(times_stem(config.tfeat_dir, Split.TRAIN, key.shard), key.row)
        ids = plain_read(ids_stem(config.tfeat_dir, Split.TRAIN, key.shard), key.row)
        cap = [[int(token) for token in row if token != -1] for row in ids]
        captions = Captions(start=[float(t[0]) for t in times], end=[float(t[1]) for t in times], cap=cap)
        clips = []
        for clip in aligner.draw_clips(key.video_id, len(feature), captions, rng):
            window = [token for index in clip.window for token in cap[index]]
            clips.append(plain_clip(window, feature[clip.video_start : clip.video_end]))
        videos.append([torch.stack(column) for column in zip(*clips, strict=True)])
    return [torch.stack(column) for column in zip(*videos, strict=True)]


def timed(make: Callable, *args: object) -> tuple[float, object]:
    """Return the CPU seconds that `make(*args)` took, and what it returned."""
    begin = time.process_time()
    value = make(*args)
    return time.process_time() - begin, value


def main() -> None:
    """Generate, measure in turns, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8, help="items of 64 videos measured on each side")
    parser.add_argument("--videos", type=int, default=256, help="videos generated (0.2 MB each)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = generate(Path(folder), args.videos)
        parts = (ShardedHow2VideoRetriMetaProcessor, ShardedVideoRetriVideoProcessor, ShardedVideoRetriTextProcessor)
        meta, video, text = (part(config, Split.TRAIN) for part in parts)
        aligner = VideoRetriOverlappedAligner(config, Split.TRAIN)
        data = MMDataset(meta, video, text, aligner, seed=SEED)
        ours, plain = [], []
        for turn in range(args.items + 1):
            index = turn % len(data)
            took, batch = timed(data.item, index, turn)
            naive_took, naive = timed(plain_item, aligner, config, meta[index][0], item_rng(SEED, turn, index))
            for name, value in zip(("caps", "cmasks", "vfeats", "vmasks"), naive, strict=True):
                assert torch.equal(batch[name], value), name
            if turn:  # the first turn warms the page cache
                ours.append(took)
                plain.append(naive_took)
    print(f"{'one core':<22}{'ms/item':>10}{'items/s':>10}{'videos/s':>10}")
    for name, took_s in (("mmpt", statistics.median(ours)), ("plain loop", statistics.median(plain))):
        print(f"{name:<22}{1000 * took_s:>10.1f}{1 / took_s:>10.1f}{V / took_s:>10.0f}")
    print(f"equal tensors; mmpt is {statistics.median(plain) / statistics.median(ours):.1f} times as fast")


if __name__ == "__main__":
    main()
