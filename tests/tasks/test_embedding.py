"""The embedding pass uses pieces of bounded size. After a kill, it continues to the same plan."""

import logging
import math
import os
import re
import signal
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from mmpt.retrieval import Plan
from mmpt.tasks import embedding
from mmpt.utils.distributed import World
from tests.support.ranks import run_group
from tests.support.retri_task import CLIPS, make_model, make_task

NUM_VIDEOS = 32


def watch_model(
    model: torch.nn.Module,
    stop_at: int | None = None,
    error: type[BaseException] | None = None,
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
    world: World, dies_after: int | None, corpus: Path, save_dir: Path
) -> None:
    """Refreshes in one of several processes. The last one is killed after `dies_after` passes."""
    task = make_task(corpus, save_dir, "infer_scale=1")
    model = make_model(task)
    videos = watch_model(model, dies_after if world.rank == world.size - 1 else None)
    task.refresh(model, 2, world)
    # The first pass determines the width of a vector.
    (save_dir / f"videos-{world.size}-{world.rank}").write_text(str(sum(videos[1:])))


def plan_of(save_dir: Path) -> bytes:
    return Plan.path(save_dir / "retri", 2).read_bytes()


def vector_files(save_dir: Path) -> list[Path]:
    return list((save_dir / "retri").glob("*vectors_*"))


def test_pieces_fit_into_memory_for_any_infer_scale(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(corpus, tmp_path, "infer_scale=100000")
    model = make_model(task)
    videos = watch_model(model)
    with caplog.at_level(logging.INFO, logger="mmpt"):
        task.refresh(model, 1, World())
    assert videos == [1, *[3] * 10, 2]  # the first pass determines the width

    # The log has the time of each part.
    (line,) = (line for line in caplog.messages if line.startswith("refresh of epoch"))
    speed = r"[\d,]+ videos/s, [\d,]+ clips/s, \d+% waiting for data"
    seconds = r" \d+\.\d s"
    rest = "".join(
        f", {name}{seconds}" for name in ("gather", "index", "search", "plan", "save")
    )
    begin = rf"refresh of epoch 1: 32 videos in{seconds}: "
    assert re.fullmatch(rf"{begin}embed{seconds} \({speed}\){rest}", line)


def test_a_video_with_more_clips_than_fit_is_embedded_in_parts(
    corpus: Path, tmp_path: Path
) -> None:
    passes = []

    def note(_module: torch.nn.Module, _args: Any, _output: Any) -> None:
        passes.append("text")

    vectors = []
    for at_once in (7, CLIPS):
        task = make_task(corpus, tmp_path, f"clips_per_forward={at_once}")
        model = make_model(task).eval()
        model.text_encoder.register_forward_hook(note)
        batch = dict(task.embedding_dataset[5])
        vectors.append(embedding.embed(model, batch, CLIPS))
    in_parts, at_once_1D = vectors
    assert len(passes) == 3 + 1
    # measured: 5e-7
    torch.testing.assert_close(in_parts, at_once_1D, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("per_chunk", [1, 12, 10**6])
@pytest.mark.parametrize("num_videos", [0, 3, 97, 100])
def test_every_piece_is_assigned_once_and_evenly(
    size: int, per_chunk: int, num_videos: int
) -> None:
    dealt = []
    for rank in range(size):
        pieces = embedding.assign_pieces(num_videos, 4, per_chunk, World(rank, size))
        dealt.append(pieces)
    together = sorted(chain.from_iterable(dealt), key=lambda piece: piece.start)
    begins = range(0, num_videos, 4)
    assert together == [range(begin, min(begin + 4, num_videos)) for begin in begins]

    num_pieces = [len(pieces) for pieces in dealt]
    fair_share = math.ceil(len(together) / size)
    pieces_per_turn = max(1, min(per_chunk // 4, fair_share))
    assert max(num_pieces) - min(num_pieces) <= pieces_per_turn


@pytest.mark.spawn
@pytest.mark.parametrize("again", [2, 1])
def test_a_refresh_that_was_killed_continues(
    corpus: Path, tmp_path: Path, again: int
) -> None:
    torch.set_num_threads(1)
    task = make_task(corpus, tmp_path / "whole")
    task.refresh(make_model(task), 2, World())

    broken = tmp_path / "broken"
    # The error is from the killed process, or from the process that lost its peer.
    with pytest.raises((ProcessExitedException, ProcessRaisedException)):
        run_group(refresh_in_process, 4, corpus, broken, size=2)
    assert not Plan.path(broken / "retri", 2).exists()

    run_group(refresh_in_process, None, corpus, broken, size=again)
    embedded = 0
    for rank in range(again):
        num_videos = (broken / f"videos-{again}-{rank}").read_text()
        embedded += int(num_videos)
    if again == 2:
        # The killed process had finished three pieces of three videos.
        assert embedded <= NUM_VIDEOS - 9
    else:
        # With another number of processes, the pass starts again.
        assert embedded == NUM_VIDEOS
    assert plan_of(broken) == plan_of(tmp_path / "whole")
    assert vector_files(broken) == []


@pytest.mark.parametrize(
    ("epoch", "change", "known"), [(1, 0.0, 15), (2, 0.0, 0), (1, 0.5, 0)]
)
def test_vectors_are_reused_only_for_the_same_clips_and_weights(
    corpus: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    epoch: int,
    change: float,
    known: int,
) -> None:
    task = make_task(corpus, tmp_path)
    model = make_model(task)
    # The first pass determines the width of a vector.
    watch_model(model, 6, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        task.refresh(model, 1, World())
    assert len(vector_files(tmp_path)) == 1

    model = make_model(task)
    frozen = model.video_encoder.bert.embeddings.LayerNorm.requires_grad_(False)
    frozen.bias.data += change  # it counts, too
    videos = watch_model(model)
    with caplog.at_level(logging.INFO, logger="mmpt"):
        task.refresh(model, epoch, World())
    assert sum(videos) == 1 + NUM_VIDEOS - known
    continues = "15 of 32 videos are embedded already" in caplog.text
    assert continues == (known > 0)
    assert vector_files(tmp_path) == []


@pytest.mark.slow
def test_a_refresh_that_was_interrupted_in_the_search_reuses_all_vectors(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: Any, **_settings: Any) -> None:
        raise KeyboardInterrupt

    task = make_task(corpus, tmp_path, "fairseq.dataset.num_workers=1")
    model = make_model(task)
    videos = watch_model(model)
    monkeypatch.setattr("mmpt.retrieval.refresh_plan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        task.refresh(model, 1, World())
    monkeypatch.undo()
    videos.clear()
    plan = task.refresh(model, 1, World())
    assert videos == [1]
    fresh = make_task(corpus, tmp_path / "fresh")
    assert fresh.refresh(make_model(fresh), 1, World()) == plan
