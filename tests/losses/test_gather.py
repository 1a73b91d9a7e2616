"""Compares losses of several processes with the loss of the joined batch in one process."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpt.config import LossConfig
from mmpt.errors import ConfigError, UserError
from mmpt.losses import LOSSES, Loss
from mmpt.utils.distributed import World
from tests.support.norton import norton_loss
from tests.support.ranks import run_group

NORTON = norton_loss(threshold=4, sinkhorn_iterations=10, gather_negatives=True)
CONFIGS = (
    NORTON,
    NORTON.replace(loss_cls="SequenceContrastLoss"),
    LossConfig(loss_cls="T2VContraLoss", gather_negatives=True),
)


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    num_clips = 40
    lengths = torch.randint(1, 6, (num_clips, 1), generator=generator)
    mask = torch.arange(5) < lengths
    video, text = torch.randn(2, num_clips, 5, 6, generator=generator).double()
    return {
        "video_outputs": video,
        "text_outputs": text,
        "video_mask_outputs": mask,
        "text_mask_outputs": mask.flip(0),
    }


def select(begin: int, end: int) -> dict[str, Tensor]:
    """Returns some rows of the inputs."""
    return {name: value[begin:end] for name, value in inputs().items()}


class Towers(nn.Module):
    """A weight for each tower, which all processes share."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.video = nn.Linear(6, 6).double()
        self.text = nn.Linear(6, 6).double()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        video = self.video(batch["video_outputs"])
        text = self.text(batch["text_outputs"])
        return {
            **batch,
            "video_outputs": video,
            "text_outputs": text,
            "pooled_video": video.mean(1),
            "pooled_text": text.mean(1),
        }


def make_loss(config: LossConfig) -> Loss:
    loss_cls = LOSSES.get(config.loss_cls or "", "loss")
    return loss_cls(config)


def run(
    config: LossConfig, batch: dict[str, Tensor], *, is_dummy_step: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Returns loss and gradients. In a dummy step, they are multiplied by 0, as in fairseq."""
    model = Towers()
    loss = make_loss(config)
    total = loss(**model(batch), is_dummy_step=is_dummy_step).total
    weight = 0 if is_dummy_step else 1
    (total * weight).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    return total.detach(), gradients


def average(gradients: list[Tensor], num_batches: int) -> None:
    """Averages over the processes that have a batch, as data-parallel training does."""
    for gradient in gradients:
        dist.all_reduce(gradient)
        gradient /= num_batches


def in_process(world: World, rows: list[int], folder: Path) -> None:
    """Runs the losses. Processes without rows run the batch of the first process."""
    is_dummy_step = world.rank >= len(rows)
    mine = 0 if is_dummy_step else world.rank
    begin = sum(rows[:mine])
    batch = select(begin, begin + rows[mine])
    results = []
    for config in CONFIGS:
        loss, gradients = run(config, batch, is_dummy_step=is_dummy_step)
        average(gradients, len(rows))
        results.append((loss, gradients))
    if world.is_main:
        torch.save(results, folder / "results.pt")


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("rows", "num_dummies"),
    [([16, 16], 0), ([8, 16, 8, 8], 0), ([16], 1), ([8, 16], 1)],
)
def test_several_processes_compute_the_loss_of_the_joined_batch(
    rows: list[int], num_dummies: int, tmp_path: Path
) -> None:
    """The batches may differ in size. A process without a batch contributes no negatives."""
    run_group(in_process, rows, tmp_path, size=len(rows) + num_dummies)
    results = torch.load(tmp_path / "results.pt")
    joined = select(0, sum(rows))
    for config, (loss, gradients) in zip(CONFIGS, results, strict=True):
        expected_loss, expected = run(config, joined)
        # Measured 0.
        torch.testing.assert_close(loss, expected_loss, rtol=0, atol=1e-12)
        # Measured 1e-15.
        torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-12)
        for gradient in expected:
            is_bias = gradient.dim() == 1  # its gradients may cancel
            assert is_bias or gradient.abs().max() > 1e-4


def refused_in_process(world: World, folder: Path) -> None:
    """Writes the messages of the losses that have sequences."""
    # 16 clips make 4 sequences, but the second would have clips of both processes.
    rows = [6, 10]
    batch = select(0, rows[world.rank])
    messages = []
    for config in CONFIGS[:2]:
        loss = make_loss(config)
        output = Towers()(batch)
        with pytest.raises(UserError) as caught:
            loss(**output)
        messages.append(str(caught.value))
    torch.save(messages, folder / f"{world.rank}.pt")


@pytest.mark.spawn
def test_sequences_with_clips_of_two_processes_are_refused(tmp_path: Path) -> None:
    run_group(refused_in_process, tmp_path, size=2)
    for rank in range(2):
        messages = torch.load(tmp_path / f"{rank}.pt")
        assert len(messages) == 2
        for message in messages:
            assert "`loss.sequence_contrast.threshold` (4) clips" in message
            assert "they have [6, 10] clips" in message


def test_a_loss_without_negatives_refuses_to_gather_them() -> None:
    with pytest.raises(ConfigError, match="gather_negatives"):
        make_loss(LossConfig(loss_cls="BCE", gather_negatives=True))
