"""Videos per second and core that the training data set delivers: ours, and a plain loop.

    python benchmarks/loader.py    # below a minute

The plain loop opens the files of every video again and makes the tensors clip by clip. Both sides
read the same generated shards (V = 64 videos of about 200 s, C = 16 clips, the ranges of Norton's
recipe) and draw the same random numbers. They must return equal tensors.

First, the sides take turns item by item in this process. CPU time is measured. All pages are in the
cache, so this is the time of one free core. Then each side runs in a worker process of torch's
loader, and the plain side uses torch's own collation. This adds the time to send a batch to the
parent process. A third figure adds the time in which the parent receives a batch and copies its
features once.
"""

import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
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
from mmpt.shards.shardedtensor import ids_stem, times_stem, video_stem
from mmpt.shards.writer import write_shards
from mmpt.tasks import Task
from mmpt.utils.rng import item_rng
from process_memory import cpu_s
from results import Figure, Options, rates, record, run_script, time_in_turns

V = 64  # videos of an item
C = 16  # clips of a video
F = 16  # seconds of a clip
T = 32  # word pieces of a clip
SEED = 0
TENSORS = ("caps", "cmasks", "vfeats", "vmasks")


def generate(folder: Path, num_videos: int) -> DatasetConfig:
    """Writes a corpus of random videos, and returns the config that reads it.

    The corpus consists of shards of features and captions, a list, and the folder of a BERT with a
    vocabulary of 30,522 made-up words.
    """
    videos = random_videos(num_videos)
    shards = write_shards(
        folder, f"{folder}/cap.bert.", Split.TRAIN, videos, shard_size=128
    )
    names = [name for ids in shards for name in ids]
    (folder / "train.lst").write_text("\n".join(names))
    write_bert(folder)
    return VideoRetriOverlappedAligner.Config(
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


def random_videos(num_videos: int) -> Iterator[tuple[str, np.ndarray, Captions]]:
    """Yields id, features and captions of videos of 100 to 300 s with a caption every 5 s."""
    rng = np.random.default_rng(SEED)
    for number in range(num_videos):
        seconds = int(rng.integers(100, 300))
        starts = np.sort(rng.uniform(0, seconds - 5, size=seconds // 5))
        caps = []
        for size in rng.integers(4, 20, size=len(starts)):
            ids = rng.integers(1000, 30000, size=size)
            caps.append(ids.tolist())
        lengths = rng.uniform(2, 6, size=len(starts))
        ends = np.minimum(starts + lengths, seconds)
        feature = rng.standard_normal((seconds, 512), dtype=np.float32)
        captions = Captions(start=starts.tolist(), end=ends.tolist(), cap=caps)
        yield f"video{number:06d}", feature.astype(np.float16), captions


def training_set(config: DatasetConfig) -> MMDataset:
    """Returns the training data set of a generated corpus."""
    task = Task(RunConfig(dataset=config), seed=SEED)
    data = task.build_dataset(Split.TRAIN)
    assert data is not None
    return data


def plain_read(stem: str, row: int) -> np.ndarray:
    """Returns one row of a ragged tensor, opening both of its files."""
    data = np.load(f"{stem}_data.npy", mmap_mode="r")
    starts = np.load(f"{stem}_starts.npy", mmap_mode="r")
    begin = starts[row]
    end = starts[row + 1]
    return data[begin:end]


def plain_clip(ids: list[int], rows: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Returns caps, cmasks, vfeats and vmasks of one clip."""
    ids = [101, 102, *ids[: T - 3], 102]
    padding = [0] * (T - len(ids))
    caps = torch.LongTensor(ids + padding)
    cmasks = torch.zeros(T, dtype=torch.bool)
    cmasks[: len(ids)] = True
    video = torch.from_numpy(np.array(rows[:F]))
    vmasks = torch.zeros(F, dtype=torch.bool)
    vmasks[: len(video)] = True
    black = torch.zeros((F - len(video), 512), dtype=video.dtype)
    vfeats = torch.cat([video, black])
    return caps, cmasks, vfeats, vmasks


def plain_clips(
    aligner: VideoRetriOverlappedAligner,
    seconds: int,
    captions: Captions,
    rng: random.Random,
) -> list[Clip]:
    """Returns the sorted clips of a video, drawn as in the aligner.

    Each clip is a text window around a random caption, and a video window around a random second
    of the text window.
    """
    starts = captions["start"]
    ends = captions["end"]
    sizes = [len(ids) for ids in captions["cap"]]
    clips = []
    for _ in range(C):
        # The text window.
        centre = rng.randint(0, len(sizes) - 1)
        target = rng.randint(aligner.sampled_min_len, aligner.sampled_max_len)
        first, last, _ = text_span(sizes, starts, ends, centre, target, rng)
        # A second of it, inside the video.
        low = math.floor(starts[first])
        high = math.ceil(ends[last - 1])
        middle = rng.randint(low, high) if low < high else (low + high) // 2
        middle = max(0, min(middle, seconds - 1))
        # The video window grows by a second at a time, to a random side.
        wanted = rng.randint(
            aligner.sampled_video_min_len, aligner.sampled_video_max_len
        )
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
    """Returns the item of `keys`, made video by video and clip by clip."""
    videos = []
    for key in keys:
        stem = video_stem(str(config.vfeat_dir), Split.TRAIN, key.shard)
        feature = plain_read(stem, key.row)
        captions = plain_captions(str(config.tfeat_dir), key)
        clips = []
        for clip in plain_clips(aligner, len(feature), captions, rng):
            window = []
            for ids in captions["cap"][clip.text_start : clip.text_end]:
                window += ids
            rows = feature[clip.video_start : clip.video_end]
            clips.append(plain_clip(window, rows))
        videos.append([torch.stack(column) for column in zip(*clips, strict=True)])
    columns = zip(*videos, strict=True)
    return {
        name: torch.cat(column) for name, column in zip(TENSORS, columns, strict=True)
    }


def plain_captions(prefix: str, key: ShardKey) -> Captions:
    """Returns the captions of one video."""
    times = plain_read(times_stem(prefix, Split.TRAIN, key.shard), key.row)
    rows = plain_read(ids_stem(prefix, Split.TRAIN, key.shard), key.row)
    cap = []
    for row in rows:
        cap.append([int(token) for token in row if token != -1])  # -1 is padding
    start, end = np.array(times, dtype=np.float64).T
    return Captions(start=start.tolist(), end=end.tolist(), cap=cap)


class PlainItems(Dataset):
    """A data set that makes the items of another one in the plain way."""

    def __init__(self, data: MMDataset, config: DatasetConfig):
        self.data = data
        self.config = config

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        keys = self.data.meta[index][0]
        rng = item_rng(SEED, self.data.epoch, index)
        return plain_item(self.data.aligner, self.config, keys, rng)


def check_equal(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> None:
    """Asserts that two items have the same tensors."""
    for name in TENSORS:
        assert torch.equal(ours[name], plain[name]), name


def loader_seconds(
    dataset: Dataset, collate_fn: Callable, num_items: int
) -> tuple[float, float]:
    """Measures a loader with one worker process, whose parent copies the features.

    Returns:
        The CPU seconds per item of the worker, and of the worker and its parent together.
    """
    order = [[index % len(dataset)] for index in range(num_items + 4)]
    batches = iter(
        DataLoader(dataset, batch_sampler=order, collate_fn=collate_fn, num_workers=1)
    )
    copy = torch.empty_like(next(batches)["vfeats"])  # now the worker has started
    (worker,) = multiprocessing.active_children()
    begin = cpu_s(worker.pid)
    parent_begin = time.process_time()
    for _ in range(num_items):
        copy.copy_(next(batches)["vfeats"])
    in_parent = time.process_time() - parent_begin
    in_process = cpu_s(worker.pid) - begin
    return in_process / num_items, (in_process + in_parent) / num_items


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--items", 20, "items of 64 videos that each side makes")
    parser.number("--videos", 256, "videos of the corpus (0.2 MB each)", least=V)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = generate(Path(folder), args.videos)
        data = training_set(config)
        plain = PlainItems(data, config)

        def item(side: Dataset, turn: int) -> dict[str, torch.Tensor]:
            data.set_epoch(turn)
            return side[turn % len(data)]

        # The first round also fills the page cache.
        called = time_in_turns(
            args.items,
            partial(item, data),
            partial(item, plain),
            check=check_equal,
            clock=time.process_time,
        )
        in_worker, with_parent = measure_workers(data, plain)
    our_s, plain_s = called
    our_ms = [1000 * seconds for seconds in our_s]
    plain_ms = [1000 * seconds for seconds in plain_s]
    figures = [
        Figure("an item of 64 videos", "ms", our_ms, plain_ms, note="equal tensors")
    ]
    sides = {
        "loader, a core": called,
        "loader, a core, in its process": in_worker,
        "loader, a core, with its parent": with_parent,
    }
    for what, (our_s, plain_s) in sides.items():
        figures.append(Figure(what, "videos/s", rates(V, our_s), rates(V, plain_s)))
    record(figures, args.out)


def measure_workers(
    data: MMDataset, plain: PlainItems
) -> tuple[list[list[float]], ...]:
    """Returns the CPU seconds per item in a worker, and in worker and parent, of both sides."""
    in_worker: list[list[float]] = [[], []]
    with_parent: list[list[float]] = [[], []]
    sides = ((data, data.collate, 40), (plain, default_collate, 10))
    for _ in range(3):
        for place, (dataset, collate_fn, num_items) in enumerate(sides):
            worker_s, both_s = loader_seconds(dataset, collate_fn, num_items)
            in_worker[place].append(worker_s)
            with_parent[place].append(both_s)
    return in_worker, with_parent


if __name__ == "__main__":
    run_script(main)
