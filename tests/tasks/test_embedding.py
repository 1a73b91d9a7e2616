"""The embedding pass takes bounded pieces; one that was killed continues to the same plan."""

from __future__ import annotations

import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from mmpt.retrieval import Plan
from mmpt.tasks import embedding, retritask
from mmpt.utils.distributed import World
from tests.ranks import run_ranks
from tests.retri_task import CLIPS, make_model, make_task

NUM_VIDEOS = 32


def watch_model(
    model: torch.nn.Module, stop_at: int | None = None, error: type[BaseException] | None = None
) -> list[int]:
    """Returns a list to which every pass adds its number of videos.

    Pass `stop_at` kills the process, or raises `error`.
    """
    videos: list[int] = []

    def note(_module: torch.nn.Module, _args: Any, batch: dict[str, Any]) -> None:
        if len(videos) == stop_at:
            if error is not None:
                raise error
            os.kill(os.getpid(), signal.SIGKILL)
        videos.append(len(batch["caps"]) // CLIPS)

    model.register_forward_pre_hook(note, with_kwargs=True)
    return videos


def refresh_in_process(
    rank: int, size: int, dies_after: int | None, corpus: Path, save_dir: Path, store: str
) -> None:
    """Refreshes in one of `size` processes; the last one is killed after `dies_after` passes."""
    torch.set_num_threads(1)
    embedding.KEEP_EVERY_S = -1  # after every piece
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size
    )
    task = make_task(corpus, save_dir, "infer_scale=1")
    model = make_model(task)
    videos = watch_model(model, dies_after if rank == size - 1 else None)
    task.refresh(model, 2, World.current())
    # The first is for the width of a vector.
    (save_dir / f"videos-{size}-{rank}").write_text(str(sum(videos[1:])))
    torch.distributed.destroy_process_group()


def plan_of(save_dir: Path) -> bytes:
    return Plan.path(save_dir / "retri", 2).read_bytes()


def vector_files(save_dir: Path) -> list[Path]:
    return list((save_dir / "retri").glob("*vectors_*"))


def test_pieces_fit_into_memory_whatever_infer_scale_says(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    collate = embedding.collate
    monkeypatch.setattr(
        embedding, "collate", lambda items: loaded.append(len(items)) or collate(items)
    )
    task = make_task(corpus, tmp_path, "infer_scale=100000")
    model = make_model(task)
    videos = watch_model(model)
    task.refresh(model, 1, World())
    assert videos == loaded == [1, *[3] * 10, 2]  # the first for the width of a vector


def test_a_video_with_more_clips_than_fit_is_embedded_in_parts(
    corpus: Path, tmp_path: Path
) -> None:
    small, large = (
        make_task(corpus, tmp_path, f"clips_per_forward={clips}") for clips in (7, CLIPS)
    )
    batch = embedding.collate([small.embedding_dataset[5]])
    clips: list[int] = []
    model = make_model(small).eval()
    encode = model._encode_text
    model._encode_text = lambda ids, *rest, **options: (
        clips.append(len(ids)) or encode(ids, *rest, **options)
    )
    pieces = small._embedding_pass(model)
    parts = pieces._vectors(model, batch)
    assert (pieces.videos_per_piece, clips) == (1, [7, 7, 2])
    whole = pieces._vectors(make_model(large).eval(), batch)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)  # measured: 5e-7


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("per_chunk", [1, 12, 10**6])
@pytest.mark.parametrize("num_videos", [0, 3, 97, 100])
def test_every_piece_is_dealt_once_and_evenly(size: int, per_chunk: int, num_videos: int) -> None:
    dealt = [
        embedding.deal_pieces(num_videos, 4, per_chunk, World(rank, size)) for rank in range(size)
    ]
    together = sorted(
        (piece for pieces in dealt for piece in pieces), key=lambda piece: piece.start
    )
    assert together == [
        range(start, min(start + 4, num_videos)) for start in range(0, num_videos, 4)
    ]
    at_a_time = max(1, min(per_chunk // 4, -(-len(together) // size)))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= at_a_time


@pytest.mark.parametrize("again", [2, 1])
def test_a_refresh_that_was_killed_goes_on(corpus: Path, tmp_path: Path, again: int) -> None:
    torch.set_num_threads(1)
    task = make_task(corpus, tmp_path / "whole")
    task.refresh(make_model(task), 2, World())

    broken = tmp_path / "broken"
    with pytest.raises(
        (ProcessExitedException, ProcessRaisedException)
    ):  # the killed one, or the one that lost it
        run_ranks(refresh_in_process, 2, 4, corpus, broken, str(tmp_path / "store1"), size=2)
    assert not Plan.path(broken / "retri", 2).exists()

    run_ranks(refresh_in_process, again, None, corpus, broken, str(tmp_path / "store2"), size=again)
    embedded = sum(int((broken / f"videos-{again}-{rank}").read_text()) for rank in range(again))
    if again == 2:
        # The killed process had done three pieces of three videos.
        assert embedded <= NUM_VIDEOS - 9
    else:
        assert embedded == NUM_VIDEOS  # another number of processes starts again
    assert plan_of(broken) == plan_of(tmp_path / "whole")
    assert vector_files(broken) == []


@pytest.mark.parametrize(("epoch", "known"), [(1, 15), (2, 0)])
def test_what_was_embedded_counts_for_the_same_clips_only(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, epoch: int, known: int
) -> None:
    task = make_task(corpus, tmp_path)
    model = make_model(task)
    watch_model(model, 6, KeyboardInterrupt)  # the first pass is for the width of a vector
    with pytest.raises(KeyboardInterrupt):
        task.refresh(model, 1, World())
    assert len(vector_files(tmp_path)) == 2

    model = make_model(task)
    videos = watch_model(model)
    with caplog.at_level(logging.INFO, logger="mmpt"):
        task.refresh(model, epoch, World())
    assert sum(videos) == 1 + NUM_VIDEOS - known
    assert ("15 of 32 videos are embedded already" in caplog.text) == (known > 0)
    assert vector_files(tmp_path) == []


def interrupted(*_args: Any, **_settings: Any) -> None:
    raise KeyboardInterrupt


def test_a_refresh_that_was_killed_while_it_searched_embeds_nothing_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(corpus, tmp_path, "fairseq.dataset.num_workers=1")
    model = make_model(task)
    videos = watch_model(model)
    monkeypatch.setattr(retritask, "refresh_plan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        task.refresh(model, 1, World())
    monkeypatch.undo()
    videos.clear()
    plan = task.refresh(model, 1, World())
    assert videos == [1]
    fresh = make_task(corpus, tmp_path / "fresh")
    assert fresh.refresh(make_model(fresh), 1, World()) == plan


def test_vectors_of_other_weights_are_not_taken_up(corpus: Path, tmp_path: Path) -> None:
    task = make_task(corpus, tmp_path)
    model = make_model(task).requires_grad_(False)
    model.text_encoder.pooler.dense.bias.requires_grad_(True)
    embedding_pass = embedding.EmbeddingPass(task.embedding_dataset, CLIPS, CLIPS, 4, 0)
    key = task._vectors_key(embedding_pass, model, 1, World())
    assert task._vectors_key(embedding_pass, model, 1, World()) == key
    assert task._vectors_key(embedding_pass, model, 1, World(0, 2)) != key
    model.video_encoder.bert.embeddings.LayerNorm.bias[0] += 0.5  # frozen, but it counts
    assert task._vectors_key(embedding_pass, model, 1, World()) != key


def test_the_log_says_where_the_time_went(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(corpus, tmp_path)
    with caplog.at_level(logging.INFO, logger="mmpt"):
        task.refresh(make_model(task), 2, World())
    (line,) = [
        record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith("refresh of epoch")
    ]
    assert line.startswith("refresh of epoch 2: 32 videos in ")
    parts = line.partition(" s: ")[2]
    speed = r"[\d,]+ videos/s, [\d,]+ clips/s, \d+% waiting for data"
    seconds = r" \d+\.\d s"
    names = ("gather", "index", "search", "plan", "save")
    rest = "".join(rf", {name}{seconds}" for name in names)
    assert re.fullmatch(rf"embed{seconds} \({speed}\){rest}", parts)
