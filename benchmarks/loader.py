"""Videos per second and core of the training data set, beside a plain loop that reopens files and
slices clip by clip.

    python benchmarks/loader.py    # below a minute

Both sides read the same generated shards (V = 64 videos of about 200 s, C = 16 clips, Norton's
ranges), draw the same numbers and must give equal tensors. They take turns item by item, and CPU
time is measured (pages are in the cache, so that is the time of one free core). Then each side
works in a process of fairseq's loader, the plain one with torch's own collation; that adds what it
takes to hand a batch over, and in the parent to take it and to copy its features once.
"""

import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from full_size_data import write_bert
from mmpt.batch import Captions, ShardKey, Split
from mmpt.config import DatasetConfig, RunConfig
from mmpt.datasets import MMDataset
from mmpt.processors import VideoRetriOverlappedAligner
from mmpt.processors.aligner import Clip
from mmpt.processors.sampling import text_span
from mmpt.shards.layout import ids_stem, times_stem, video_stem
from mmpt.shards.writer import write_shards
from mmpt.tasks import Task
from mmpt.utils.rng import item_rng
from process_memory import cpu_s
from results import Figure, Options, in_turns, record, run_script

V, C, F, T = 64, 16, 16, 32
SEED = 0
TENSORS = ("caps", "cmasks", "vfeats", "vmasks")


def generate(folder: Path, num_videos: int) -> DatasetConfig:
    """Write shards of random features and captions, a list, and a BERT folder of 30,522 made-up
    words.
    """
    rng = np.random.default_rng(SEED)

    def videos():
        for number in range(num_videos):
            seconds = int(rng.integers(100, 300))
            starts = np.sort(rng.uniform(0, seconds - 5, size=seconds // 5))
            caps = [
                rng.integers(1000, 30000, size=size).tolist()
                for size in rng.integers(4, 20, size=len(starts))
            ]
            ends = np.minimum(starts + rng.uniform(2, 6, size=len(starts)), seconds)
            feature = rng.standard_normal((seconds, 512), dtype=np.float32).astype(np.float16)
            captions = Captions(start=starts.tolist(), end=ends.tolist(), cap=caps)
            yield f"video{number:06d}", feature, captions

    shards = write_shards(folder, f"{folder}/cap.bert.", Split.TRAIN, videos(), shard_size=128)
    (folder / "train.lst").write_text("\n".join(name for ids in shards for name in ids))
    write_bert(folder)
    return DatasetConfig(
        meta_processor="ShardedHow2VideoRetriMetaProcessor",
        video_processor="ShardedVideoRetriVideoProcessor",
        text_processor="ShardedVideoRetriTextProcessor",
        aligner="VideoRetriOverlappedAligner",
        bert_name=str(folder),
        train_path=str(folder / "train.lst"),
        vfeat_dir=str(folder),
        tfeat_dir=f"{folder}/cap.bert.",
        max_video_len=F,
        max_len=F + T,
        clip_per_video=C,
        num_video_per_batch=V,
        sampled_min_len=8,
        sampled_max_len=32,
        sampled_video_min_len=3,
        sampled_video_max_len=16,
    )


def training_set(config: DatasetConfig) -> MMDataset:
    """Return the data set of a generated folder."""
    data = Task(RunConfig(dataset=config), seed=SEED).build_dataset(Split.TRAIN)
    assert data is not None
    return data


def plain_read(stem: str, row: int) -> np.ndarray:
    """Open both files of a ragged tensor for one row."""
    data = np.load(f"{stem}_data.npy", mmap_mode="r")
    starts = np.load(f"{stem}_starts.npy", mmap_mode="r")
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


def plain_clips(
    aligner: VideoRetriOverlappedAligner, seconds: int, captions: Captions, rng: random.Random
) -> list[Clip]:
    """Draw the clips of a video number by number."""
    sizes, clips = [len(ids) for ids in captions["cap"]], []
    for _ in range(C):
        centre = rng.randint(0, len(sizes) - 1)
        target = rng.randint(aligner.sampled_min_len, aligner.sampled_max_len)
        first, last, _ = text_span(sizes, captions["start"], captions["end"], centre, target, rng)
        low, high = math.floor(captions["start"][first]), math.ceil(captions["end"][last - 1])
        middle = rng.randint(low, high) if low < high else (low + high) // 2
        middle = max(0, min(middle, seconds - 1))
        wanted = rng.randint(aligner.sampled_video_min_len, aligner.sampled_video_max_len)
        begin = end = middle
        for _ in range(min(wanted, seconds)):
            if begin <= 0:
                end += 1
            elif end >= seconds or rng.random() <= 0.5:
                begin -= 1
            else:
                end += 1
        clips.append(Clip(first, begin, last, end))
    return sorted(clips)


def plain_item(
    aligner: VideoRetriOverlappedAligner,
    config: DatasetConfig,
    keys: list[ShardKey],
    rng: random.Random,
) -> dict[str, torch.Tensor]:
    """Make the item of `keys` video by video and clip by clip, opening the files of every video."""
    videos = []
    for key in keys:
        feature = plain_read(video_stem(str(config.vfeat_dir), Split.TRAIN, key.shard), key.row)
        times = plain_read(times_stem(str(config.tfeat_dir), Split.TRAIN, key.shard), key.row)
        ids = plain_read(ids_stem(str(config.tfeat_dir), Split.TRAIN, key.shard), key.row)
        cap = [[int(token) for token in row if token != -1] for row in ids]
        start, end = ([float(t) for t in column] for column in np.array(times).T)
        captions = Captions(start=start, end=end, cap=cap)
        clips = []
        for clip in plain_clips(aligner, len(feature), captions, rng):
            window = [token for ids in cap[clip.text_start : clip.text_end] for token in ids]
            clips.append(plain_clip(window, feature[clip.video_start : clip.video_end]))
        videos.append([torch.stack(column) for column in zip(*clips, strict=True)])
    columns = zip(TENSORS, zip(*videos, strict=True), strict=True)
    return {name: torch.cat(column) for name, column in columns}


class PlainItems(Dataset):
    """The plain items as a data set."""

    def __init__(self, data: MMDataset, config: DatasetConfig):
        self.data = data
        self.config = config

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        keys, rng = self.data.meta[index][0], item_rng(SEED, self.data.epoch, index)
        return plain_item(self.data.aligner, self.config, keys, rng)


def check_equal(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> None:
    """Assert that two items have the same tensors."""
    for name in TENSORS:
        assert torch.equal(ours[name], plain[name]), name


def in_worker(dataset: Dataset, collate_fn: Callable, num_items: int) -> tuple[float, float]:
    """Return the CPU seconds per item of a loader's one process, and of it and its parent, which
    reads the features.
    """
    order = [[index % len(dataset)] for index in range(num_items + 4)]
    batches = iter(DataLoader(dataset, batch_sampler=order, collate_fn=collate_fn, num_workers=1))
    copy = torch.empty_like(next(batches)["vfeats"])  # it has begun
    (worker,) = multiprocessing.active_children()
    begin, parent_begin = cpu_s(worker.pid), time.process_time()
    for _ in range(num_items):
        copy.copy_(next(batches)["vfeats"])
    in_parent = time.process_time() - parent_begin
    in_process = cpu_s(worker.pid) - begin
    return in_process / num_items, (in_process + in_parent) / num_items


def main() -> None:
    """Generate, measure in turns, compare, record."""
    parser = Options(__doc__)
    parser.number("--items", 20, "items of 64 videos measured on each side")
    parser.number("--videos", 256, "videos generated (0.2 MB each)", least=V)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = generate(Path(folder), args.videos)
        data = training_set(config)
        plain = PlainItems(data, config)

        def item(side: Dataset, turn: int) -> dict[str, torch.Tensor]:
            data.set_epoch(turn)
            return side[turn % len(data)]

        sides = (partial(item, side) for side in (data, plain))
        # The warming turn fills the page cache.
        took = in_turns(args.items, *sides, check=check_equal, clock=time.process_time)
        rounds = [
            (in_worker(data, data.collate, 40), in_worker(plain, default_collate, 10))
            for _ in range(3)
        ]
    in_ms = ([1000 * seconds for seconds in side] for side in took)
    figures = [Figure("an item of 64 videos", "ms", *in_ms, note="equal tensors")]
    ours, others = zip(*rounds, strict=True)
    in_process, with_parent = (
        [[seconds[place] for seconds in side] for side in (ours, others)] for place in (0, 1)
    )
    for what, sides in (
        ("loader, a core", took),
        ("loader, a core, in its process", in_process),
        ("loader, a core, with its parent", with_parent),
    ):
        rates = ([V / seconds for seconds in side] for side in sides)
        figures.append(Figure(what, "videos/s", *rates))
    record(figures)


if __name__ == "__main__":
    run_script(main)
