"""Compares losses of several processes with the loss of the joined batch in one process."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmpt.config import LossConfig
from mmpt.errors import ConfigError, UserError
from mmpt.losses import LOSSES
from mmpt.utils.distributed import World
from tests.support.norton import norton_loss
from tests.support.ranks import run_group

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
    video, text = torch.randn(2, num, 5, 6, generator=generator).double()
    return {
        "video_outputs": video,
        "text_outputs": text,
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
        output = dict(batch)
        for name in ("video", "text"):
            states = getattr(self, name)(batch[f"{name}_outputs"])
            output |= {f"{name}_outputs": states, f"pooled_{name}": states.mean(1)}
        return output


def run(
    config: LossConfig, batch: dict[str, torch.Tensor], *, is_dummy_step: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns loss and gradients. Those of a dummy step are multiplied by 0, as in fairseq."""
    model, loss = Towers(), LOSSES.get(config.loss_cls or "", "loss")(config)
    total = loss(**model(batch), is_dummy_step=is_dummy_step).total
    (total * (0 if is_dummy_step else 1)).backward()
    return total.detach(), [parameter.grad for parameter in model.parameters()]


def average(gradients: list[torch.Tensor], num_batches: int) -> None:
    """Averages over the processes that have a batch, as data-parallel training does."""
    for gradient in gradients:
        dist.all_reduce(gradient)
        gradient /= num_batches


def in_process(world: World, rows: list[int], folder: Path) -> None:
    """Runs the losses. Processes without rows of their own run the first one's batch."""
    is_dummy_step = world.rank >= len(rows)
    mine = 0 if is_dummy_step else world.rank
    begin = sum(rows[:mine])
    batch = {name: value[begin : begin + rows[mine]] for name, value in inputs().items()}
    results = [run(config, batch, is_dummy_step=is_dummy_step) for config in CONFIGS]
    for _, gradients in results:
        average(gradients, len(rows))
    if world.is_main:
        torch.save(results, folder / "results.pt")


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("rows", "num_dummies"), [([16, 16], 0), ([8, 16, 8, 8], 0), ([16], 1), ([8, 16], 1)]
)
def test_several_processes_train_on_the_loss_of_the_joined_batch(
    rows: list[int], num_dummies: int, tmp_path: Path
) -> None:
    """The batches may differ in size. A process without a batch contributes no negatives."""
    run_group(in_process, rows, tmp_path, size=len(rows) + num_dummies)
    joined = {name: value[: sum(rows)] for name, value in inputs().items()}
    for config, (loss, gradients) in zip(CONFIGS, torch.load(tmp_path / "results.pt"), strict=True):
        expected_loss, expected = run(config, joined)
        torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-12)  # measured 0
        torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-12)  # measured 1e-15
        # A bias may cancel.
        assert all(gradient.dim() == 1 or gradient.abs().max() > 1e-4 for gradient in expected)


def refused_in_process(world: World) -> None:
    rows = [6, 10]  # 16 clips make 4 sequences, but the second would have clips of both processes
    batch = {name: value[: rows[world.rank]] for name, value in inputs().items()}
    for config in CONFIGS[:2]:
        with pytest.raises(UserError, match=r"threshold` \(4\).*they have \[6, 10\] clips"):
            LOSSES.get(config.loss_cls or "", "loss")(config)(**Towers()(batch))


@pytest.mark.spawn
def test_no_sequence_has_clips_of_two_processes() -> None:
    run_group(refused_in_process, size=2)


def test_a_loss_without_negatives_refuses() -> None:
    with pytest.raises(ConfigError, match="gather_negatives"):
        LOSSES.get("BCE", "loss")(LossConfig(loss_cls="BCE", gather_negatives=True))
