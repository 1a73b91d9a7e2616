"""The refresh makes one plan of all videos, which is the same for every number of processes."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.batch import Captions, Split
from mmpt.config import DatasetConfig
from mmpt.datasets import MMDataset
from mmpt.processors import (
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
)
from mmpt.retrieval import HARDNESS_LOG, Plan
from mmpt.tasks import Task, VideoRetriTask
from mmpt.utils.distributed import World
from mmpt.utils.io import read_json_lines
from tests.support.ranks import run_group
from tests.support.retri_task import make_model, make_task


def train_set(task: Task) -> MMDataset:
    dataset = task.build_dataset(Split.TRAIN)
    assert dataset is not None
    return dataset


def embed(task: VideoRetriTask, model: torch.nn.Module, epoch: int) -> np.ndarray:
    vectors = task.embed_videos(model, epoch, World())
    assert vectors is not None
    return vectors


def refresh_in_process(
    world: World, videos_at_once: int, infer_scale: int, corpus: Path, save_dir: Path
) -> None:
    folder = save_dir / f"of{world.size}"
    task = make_task(
        corpus, folder, f"infer_scale={infer_scale}", videos_at_once=videos_at_once
    )
    plan = task.refresh(make_model(task), 2, world)
    torch.save(plan.batches, save_dir / f"batches-{world.size}-{world.rank}.pt")


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("size", "videos_at_once", "infer_scale"),
    [(2, 3, 1), (3, 16, 100000)],  # the last has fewer pieces than processes
)
def test_the_plan_is_the_same_for_one_and_several_processes(
    corpus: Path, tmp_path: Path, size: int, videos_at_once: int, infer_scale: int
) -> None:
    torch.set_num_threads(1)
    task = make_task(corpus, tmp_path / "of1", "infer_scale=1")
    alone = task.refresh(make_model(task), 2, World())
    run_group(
        refresh_in_process, videos_at_once, infer_scale, corpus, tmp_path, size=size
    )
    for rank in range(size):
        batches = torch.load(tmp_path / f"batches-{size}-{rank}.pt")
        assert batches == alone.batches
    of_one = Plan.path(tmp_path / "of1" / "retri", 2)
    folder = tmp_path / f"of{size}" / "retri"
    of_many = Plan.path(folder, 2)
    assert of_many.read_bytes() == of_one.read_bytes()
    assert list(folder.glob("*vectors*")) == []


@pytest.mark.slow
def test_vectors_depend_on_the_epoch_and_the_weights_but_not_on_loading(
    corpus: Path, tmp_path: Path
) -> None:
    task = make_task(corpus, tmp_path)
    model = make_model(task)
    vectors = embed(task, model, 1)
    assert vectors.shape == (32, 32)
    for more in (
        ("infer_scale=5", "fairseq.dataset.num_workers=2"),
        ("infer_scale=100000",),
    ):
        other_loading = make_task(corpus, tmp_path, *more)
        assert np.array_equal(embed(other_loading, model, 1), vectors), "to the bit"
    other_epoch = embed(task, model, 2)
    assert abs(other_epoch - vectors).max() > 1e-3
    with torch.no_grad():
        next(model.parameters()).add_(0.05)
    other_weights = embed(task, model, 1)
    assert abs(other_weights - vectors).max() > 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_vectors_on_a_gpu(corpus: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    task = make_task(corpus, tmp_path, "fairseq.dataset.num_workers=2")
    model = make_model(task)
    vectors = embed(task, model, 1).astype(np.float32)
    model.to("cuda", dtype)
    on_gpu = embed(task, model, 1).astype(np.float32)
    tolerance = 4e-3 if dtype == torch.float32 else 5e-2  # float16 rows, values up to 3
    assert abs(on_gpu - vectors).max() < tolerance


def test_a_vector_is_the_mean_over_the_clips_of_its_video(
    corpus: Path, tmp_path: Path
) -> None:
    task = make_task(corpus, tmp_path)
    model = make_model(task).eval()
    vectors = embed(task, model, 3)
    item = task.embedding_dataset.item(17, 3)
    total = torch.zeros(32)
    for number in range(16):
        clip = slice(number, number + 1)
        with torch.no_grad():
            output = model(
                caps=item["caps"][clip],
                cmasks=item["cmasks"][clip],
                vfeats=item["vfeats"][clip],
                vmasks=item["vmasks"][clip],
            )
        both = output["pooled_video"][0] + output["pooled_text"][0]
        total += both / 2
    mean = total.numpy() / 16
    # half a step of float16 at values up to 4; measured: 7e-4
    assert abs(vectors[17] - mean).max() < 2**-10


def test_the_refresh_keeps_training_mode_and_the_random_state(
    corpus: Path, tmp_path: Path
) -> None:
    task = make_task(corpus, tmp_path)
    model = make_model(task).train()
    before = torch.get_rng_state()
    task.refresh(model, 1, World())
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    model.register_forward_pre_hook(_must_not_run)
    with pytest.raises(AssertionError):
        task.embed_videos(model, 2, World())
    assert model.training


def _must_not_run(*_: object) -> None:
    raise AssertionError("this was not to be called")


def test_planned_batches_are_complete_and_saved(corpus: Path, tmp_path: Path) -> None:
    task = make_task(corpus, tmp_path)
    dataset = train_set(task)
    identity = task.plan_epoch(dataset, make_model(task), 1, World())
    *_, fingerprint = identity.split("-")
    plan = Plan.load(tmp_path / "retri", 1, fingerprint, task._ids_fingerprint)
    assert len(plan.batches) == 8
    ids = task._video_ids
    for number, batch in enumerate(plan.batches):
        assert len(set(batch)) == 4
        planned_ids = [ids[position] for position in batch]
        assert dataset[number]["video_id"] == planned_ids


def test_a_refresh_logs_its_figures_in_a_line_that_fits_the_screen(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(corpus, tmp_path)
    with caplog.at_level("INFO"):
        plan = task.refresh(make_model(task), 1, World())
    (line,) = [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "screen", "") == "line"
    ]
    (row,) = read_json_lines(tmp_path / "retri" / HARDNESS_LOG)
    assert row == {"epoch": 1, **(plan.hardness or {})}
    assert 0 < row["refresh_s"] < 300
    assert line == (
        f"epoch 1: refreshed in {row['refresh_s']:.1f} s, {row['coverage']:.1%} of videos, "
        f"cosine {row['mean_cosine']:.3f} (random {row['random_mean_cosine']:.3f})"
    )
    # A terminal has 80 columns. A long run may have two digits more in its epoch and four in its
    # seconds.
    assert len(line) <= 80 - 6


@pytest.mark.slow
def test_the_plan_of_an_interrupted_epoch_is_read_but_no_other_plan(
    corpus: Path, tmp_path: Path
) -> None:
    task = make_task(corpus, tmp_path)
    identity = task.plan_epoch(train_set(task), make_model(task), 1, World())
    moved = make_model(task)
    with torch.no_grad():
        next(moved.parameters()).add_(0.05)

    again = make_task(corpus, tmp_path)
    again.refresh = _must_not_run  # type: ignore[method-assign]
    read = again.plan_epoch(train_set(again), moved, 1, World(), identity)
    assert read == identity

    other = make_task(corpus, tmp_path)
    foreign = identity[:-1] + "x"
    planned = other.plan_epoch(train_set(other), moved, 1, World(), foreign)
    assert planned not in (identity, foreign)


@pytest.mark.slow
def test_an_epoch_that_begins_again_uses_its_plan_if_the_weights_are_the_same(
    corpus: Path, tmp_path: Path
) -> None:
    task = make_task(corpus, tmp_path)
    model = make_model(task)
    identity = task.plan_epoch(train_set(task), model, 2, World())
    again = make_task(corpus, tmp_path)
    again.refresh = _must_not_run  # type: ignore[method-assign]
    earlier = "plan-1-0-0"  # a checkpoint at the end of epoch 1 names its plan
    assert again.plan_epoch(train_set(again), model, 2, World(), earlier) == identity
    with torch.no_grad():
        next(model.parameters()).add_(0.05)
    moved = make_task(corpus, tmp_path)
    assert moved.plan_epoch(train_set(moved), model, 2, World(), earlier) != identity


def test_a_plan_for_other_settings_is_not_used(corpus: Path, tmp_path: Path) -> None:
    task = make_task(corpus, tmp_path)
    identity = task.plan_epoch(train_set(task), make_model(task), 1, World())
    changed = make_task(corpus, tmp_path, "dataset.num_video_per_batch=2", "recall=0.9")
    dataset = train_set(changed)
    planned = changed.plan_epoch(dataset, make_model(changed), 1, World(), identity)
    assert planned != identity
    assert len(dataset[0]["video_id"]) == 2


def test_settings_that_change_no_plan_are_not_in_its_fingerprint(
    corpus: Path, tmp_path: Path
) -> None:
    more = ("infer_scale=3", "vectorpool_cls=DistributedVideoVectorPool")
    task = make_task(corpus, tmp_path)
    same = make_task(corpus, tmp_path / "elsewhere", *more)
    assert same._fingerprint(1) == task._fingerprint(1)


def test_a_frozen_plan_is_used_in_every_epoch(corpus: Path, tmp_path: Path) -> None:
    task = make_task(corpus, tmp_path, "freeze_plan=true")
    dataset = train_set(task)
    model = make_model(task)
    first = task.plan_epoch(dataset, model, 1, World())
    batches = dataset.meta.cands  # type: ignore[attr-defined]
    assert task.plan_epoch(dataset, model, 2, World()) == first
    assert dataset.meta.cands == batches  # type: ignore[attr-defined]
    resumed = make_task(corpus, tmp_path, "freeze_plan=true")
    resumed.refresh = _must_not_run  # type: ignore[method-assign]
    read = resumed.plan_epoch(train_set(resumed), model, 3, World(), first)
    assert read == first


def test_videos_are_grouped_at_random_before_retri_epoch(
    corpus: Path, tmp_path: Path
) -> None:
    task = make_task(corpus, tmp_path, "retri_epoch=3")
    task.refresh = _must_not_run  # type: ignore[method-assign]
    dataset = train_set(task)
    model = make_model(task)
    groups = []
    for epoch in (1, 2, 1):
        task.plan_epoch(dataset, model, epoch, World())
        groups.append(dataset.meta.cands)  # type: ignore[attr-defined]
    assert groups[0] == groups[2]
    assert groups[0] != groups[1]
    grouped = chain.from_iterable(groups[0])
    assert sorted(grouped) == sorted(task._video_ids)


class Mirrored(ShardedVideoRetriVideoProcessor):
    """Reads features whose channels are in reverse order."""

    class Config(DatasetConfig):
        sign: int = 1

    def __call__(self, key: Any) -> list[np.ndarray]:
        assert isinstance(key, list), "a reader of batches gets a list"
        return [self.config.sign * rows[:, ::-1] for rows in super().__call__(key)]


class FirstCaption(ShardedVideoRetriTextProcessor):
    """Reads only the first caption."""

    def __call__(self, key: Any) -> list[Captions]:
        return [
            Captions(start=one["start"][:1], end=one["end"][:1], cap=one["cap"][:1])
            for one in super().__call__(key)
        ]


MIRRORED = f"dataset.video_processor={__name__}.Mirrored"
FIRST = f"dataset.text_processor={__name__}.FirstCaption"


def test_the_embedding_pass_reads_with_the_processors_of_the_yaml(
    corpus: Path, tmp_path: Path
) -> None:
    plain = make_task(corpus, tmp_path)
    own = make_task(corpus, tmp_path, MIRRORED, FIRST)
    videos = [task.embedding_dataset.video for task in (plain, own)]
    texts = [task.embedding_dataset.text for task in (plain, own)]
    keys, _ = own.embedding_dataset.meta[7]
    (rows,), (mirrored,) = (read(keys) for read in videos)
    assert np.array_equal(mirrored, rows[:, ::-1])
    (captions,), (first,) = (read(keys) for read in texts)
    assert first["cap"] == captions["cap"][:1]
    item = own.embedding_dataset[7]
    assert item["video_id"] == [plain._video_ids[7]]
    # Each clip has the words of the first caption, and nothing else.
    assert (item["text_end"] == 1).all()
    assert not torch.equal(item["vfeats"], plain.embedding_dataset[7]["vfeats"])


def test_a_plan_depends_on_the_processors_and_their_own_keys(
    corpus: Path, tmp_path: Path
) -> None:
    fingerprints = set()
    for more in ([], [MIRRORED], [MIRRORED, "dataset.sign=-1"], [FIRST]):
        fingerprints.add(make_task(corpus, tmp_path, *more)._fingerprint(1))
    assert len(fingerprints) == 4
