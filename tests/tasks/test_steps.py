"""Steps that were repeated in smaller chunks, against steps that had these from the start."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.tasks.steps import step_in_memory
from tests.support.norton import norton_loss
from tests.support.towers import draw, towers

CPU = torch.device("cpu")
NUM, FITS = 24, 6


class RefuseBackward(torch.autograd.Function):
    """The identity, whose gradient does not fit into memory."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor) -> torch.Tensor:
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


class SmallDevice:
    """Hook of a padded BERT: more than `FITS` clips at once do not fit, in forward or backward."""

    def __init__(self, in_backward: bool, calls_before: int = 0):
        self.in_backward = in_backward
        self.calls_before = calls_before
        """Calls that have memory enough."""

    def __call__(self, _module: nn.Module, _args: Any, inputs: dict[str, Any], output: Any) -> None:
        self.calls_before -= 1
        if len(inputs["input_ids"]) <= FITS or self.calls_before >= 0:
            return
        if not self.in_backward:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        output.last_hidden_state = RefuseBackward.apply(output.last_hidden_state)


def own_towers(training: int | str = "auto", dropout: float = 0.1) -> MMFusionSeparate:
    return towers(packed=False, dropout=dropout, training=training).double()


def train(model: MMFusionSeparate, seeds: list[int]) -> tuple[list[float], list[Any]]:
    """Run one update of a batch for each seed; return their losses, and the gradients."""
    loss = MMContraLoss(norton_loss(sinkhorn_iterations=5, learnable_temperature=True))
    parameters = [*model.parameters(), *loss.parameters()]

    def step(seed: int) -> float:
        batch = draw(NUM, seed, torch.float64)
        total = loss(**batch, **model(**batch)).total
        total.backward()
        return total.item()

    torch.manual_seed(7)
    chunk = model.chunk_in_training
    losses = [step_in_memory(partial(step, seed), chunk, parameters, CPU) for seed in seeds]
    return losses, [parameter.grad for parameter in parameters]


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_loss_and_gradients_are_those_of_the_smaller_chunk(
    in_backward: bool, seeds: list[int]
) -> None:
    """With dropout, and with several batches in an update, of which the first is repeated."""
    model = own_towers()
    model.text_encoder.register_forward_hook(SmallDevice(in_backward), with_kwargs=True)
    found = train(model, seeds)
    assert model.chunk_in_training.size(NUM, CPU) == FITS  # after 24 and 12
    torch.testing.assert_close(found, train(own_towers(FITS), seeds), rtol=0, atol=0)
    assert any(gradient is None for gradient in found[1])  # of BERT's poolers, as without retries


@pytest.mark.parametrize("in_backward", [False, True])
def test_gradients_of_earlier_batches_stay(in_backward: bool) -> None:
    """The second batch of an update is the first that does not fit."""
    model = own_towers(dropout=0.0)
    device = SmallDevice(in_backward, calls_before=1)
    model.text_encoder.register_forward_hook(device, with_kwargs=True)
    found = train(model, [1, 2])
    assert model.chunk_in_training.size(NUM, CPU) == FITS
    expected = train(own_towers(False, dropout=0.0), [1, 2])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.gpu
def test_a_gpu_that_is_full_is_given_less() -> None:
    """Real memory errors: the process may have a part of what the step takes at once."""
    model = towers(packed=False).cuda()
    batch = {name: torch.cat([value] * 200).cuda() for name, value in draw(NUM).items()}

    def step() -> None:
        output = model(**batch)
        (output["video_outputs"].sum() + output["text_outputs"].sum()).backward()

    def peak() -> int:
        torch.cuda.reset_peak_memory_stats()
        step_in_memory(step, model.chunk_in_training, [*model.parameters()], torch.device("cuda"))
        return torch.cuda.max_memory_reserved()

    whole = peak()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * whole / torch.cuda.mem_get_info()[1])
    try:
        assert peak() < 0.6 * whole
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.chunk_in_training.size(10**6, torch.device("cuda")) < 200 * NUM
