"""Losses of several processes against the loss of the joined batch in one, value and gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmpt.config import LossConfig
from mmpt.errors import ConfigError, UserError
from mmpt.losses import LOSSES
from tests.norton import norton_loss
from tests.ranks import run_ranks

ROWS = {2: [16, 16], 4: [8, 16, 8, 8]}  # uneven too
NORTON = norton_loss(threshold=4, sinkhorn_iterations=10, gather_negatives=True)
CONFIGS = (
    NORTON,
    NORTON.replace(loss_cls="SequenceContrastLoss"),
    LossConfig(loss_cls="T2VContraLoss", gather_negatives=True),
)


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    num = 40
    mask = torch.arange(5) < torch.randint(1, 6, (num, 1), generator=generator)
    draws = {
        "video": torch.randn(num, 5, 6, generator=generator),
        "text": torch.randn(num, 5, 6, generator=generator),
    }
    return {f"{name}_outputs": value.double() for name, value in draws.items()} | {
        "video_mask_outputs": mask,
        "text_mask_outputs": mask.flip(0),
    }


class Towers(nn.Module):
    """A weight for each tower, which all processes share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.video, self.text = (nn.Linear(6, 6).double() for _ in range(2))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        states = {name: getattr(self, name)(batch[f"{name}_outputs"]) for name in ("video", "text")}
        output = {f"{name}_outputs": value for name, value in states.items()}
        for name, value in states.items():
            output[f"pooled_{name}"] = value.mean(1)
            output[f"{name}_mask_outputs"] = batch[f"{name}_mask_outputs"]
        return output


def run(
    config: LossConfig, batch: dict[str, torch.Tensor], *, is_idle: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return loss and gradients; those of an idle process count 0, as in fairseq."""
    model, loss = Towers(), LOSSES.get(config.loss_cls or "", "loss")(config, clip_per_video=4)
    loss.is_idle = is_idle
    total = loss(**model(batch)).total
    (total * (0 if is_idle else 1)).backward()
    return total.detach(), [parameter.grad for parameter in model.parameters()]


def average(gradients: list[torch.Tensor], num_batches: int) -> None:
    """Average over processes that have a batch, as data-parallel training does."""
    for gradient in gradients:
        dist.all_reduce(gradient)
        gradient /= num_batches


def in_process(rank: int, rows: list[int], folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(rows)
    )
    begin = sum(rows[:rank])
    mine = {name: value[begin : begin + rows[rank]] for name, value in inputs().items()}
    results = [run(config, mine) for config in CONFIGS]
    for _, gradients in results:
        average(gradients, len(rows))
    if rank == 0:
        torch.save(results, folder / "results.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("num_processes", [2, 4])
def test_several_processes_train_on_the_loss_of_the_joined_batch(
    num_processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = ROWS[num_processes]
    run_ranks(in_process, rows, tmp_path, size=num_processes)
    joined = {name: value[: sum(rows)] for name, value in inputs().items()}
    for config, (loss, gradients) in zip(CONFIGS, torch.load(tmp_path / "results.pt"), strict=True):
        expected_loss, expected_gradients = run(config, joined)
        torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-12)  # measured 0
        for ours, expected in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)  # measured 1e-15
            assert expected.dim() == 1 or expected.abs().max() > 1e-4  # a bias may cancel


def with_idle_in_process(rank: int, rows: list[int], folder: Path) -> None:
    """The last process runs the first one's batch, to keep step."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(rows) + 1
    )
    is_idle = rank == len(rows)
    mine = 0 if is_idle else rank
    begin = sum(rows[:mine])
    batch = {name: value[begin : begin + rows[mine]] for name, value in inputs().items()}
    loss, gradients = run(NORTON, batch, is_idle=is_idle)
    average(gradients, len(rows))
    if rank == 0:
        torch.save((loss, gradients), folder / "results.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("rows", [[16], [8, 16]])
def test_a_process_without_a_batch_lends_no_negatives(
    rows: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_ranks(with_idle_in_process, rows, tmp_path, size=len(rows) + 1)
    wanted_loss, wanted = run(
        NORTON, {name: value[: sum(rows)] for name, value in inputs().items()}
    )
    loss, gradients = torch.load(tmp_path / "results.pt")
    torch.testing.assert_close(loss, wanted_loss, rtol=0, atol=1e-12)  # measured 0
    for ours, expected in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)  # measured 2e-16


def refused_in_process(rank: int, folder: Path) -> None:
    rows = [6, 10]  # 16 clips make 4 sequences, but the second would have clips of both processes
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    batch = {name: value[: rows[rank]] for name, value in inputs().items()}
    for config in CONFIGS[:2]:
        with pytest.raises(UserError, match=r"threshold` \(4\).*they have \[6, 10\] clips"):
            LOSSES.get(config.loss_cls or "", "loss")(config)(**Towers()(batch))
    dist.destroy_process_group()


def test_no_sequence_has_clips_of_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_ranks(refused_in_process, tmp_path, size=2)


def test_a_loss_without_negatives_refuses() -> None:
    with pytest.raises(ConfigError, match="gather_negatives"):
        LOSSES.get("BCE", "loss")(LossConfig(loss_cls="BCE", gather_negatives=True))
