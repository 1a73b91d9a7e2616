"""Computation in chunks against one pass, and chunk sizes on a device that runs out of memory.

Steps that are repeated in smaller chunks are compared with steps that used them from the start.
"""

import logging
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from mmpt.errors import DeviceMemoryError
from mmpt.losses import MMContraLoss
from mmpt.models import MMFusionSeparate
from mmpt.modules import ChunkSize, run_chunks, step_in_memory
from tests.support.norton import norton_loss
from tests.support.towers import draw, towers

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NUM, FITS = 24, 6
"""Clips of a step, and the number of them that `SmallDevice` has memory for."""


class Tower(torch.nn.Module):
    """A network that processes rows independently and records the number of rows of each call."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3, 3).double()
        self.dropout = torch.nn.Dropout(dropout)
        self.rows: list[int] = []

    def forward(self, values_NPD: torch.Tensor, scale_N: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(values_NPD))
        return self.dropout(
            torch.tanh(self.linear(values_NPD)) * scale_N[:, None, None]
        )


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(7, 2, 3, generator=generator, dtype=torch.float64)
    return values, torch.rand(7, generator=generator, dtype=torch.float64)


def weighted(states: torch.Tensor) -> torch.Tensor:
    """Returns a sum in which every element has another weight."""
    return (states * torch.arange(states.numel()).view_as(states)).sum()


def results(tower: Tower, states: torch.Tensor) -> list[torch.Tensor]:
    gradients = torch.autograd.grad(weighted(states), list(tower.parameters()))
    return [states.detach(), *gradients]


@pytest.mark.parametrize(
    ("size", "calls"), [(8, [7]), (7, [7]), (3, [3, 3, 1, 1, 3, 3])]
)
def test_chunks_give_the_values_and_gradients_of_one_pass(
    size: int, calls: list[int]
) -> None:
    tower = Tower()
    expected = results(tower, tower(*inputs()))
    tower.rows = []
    found = results(tower, run_chunks(tower, size, *inputs()))
    assert tower.rows == calls  # backward computes chunks again, the last one first
    # Measured 2e-14.
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_recomputation_repeats_the_dropout_masks() -> None:
    tower = Tower(dropout=0.5).train()
    torch.manual_seed(5)
    found = results(tower, run_chunks(tower, 3, *inputs()))
    torch.manual_seed(5)  # the same chunks in a plain loop, whose activations are kept
    chunks = zip(*(values.split(3) for values in inputs()), strict=True)
    expected = results(tower, torch.cat([tower(*chunk) for chunk in chunks]))
    assert (found[0] == 0).any()
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("setting", "on_gpu", "on_cpu"),
    [("auto", 512, 256), (100, 100, 100), (False, 5000, 5000)],
)
def test_initial_chunk_size(setting: int | str, on_gpu: int, on_cpu: int) -> None:
    chunk = ChunkSize("key", setting, start=512)
    assert [chunk.size(5000, device) for device in (GPU, CPU)] == [on_gpu, on_cpu]
    assert chunk.size(3, GPU) == chunk.size(3, CPU) == 3


class Memory:
    """A device with memory for `rows` rows. It records the size of every attempt."""

    def __init__(self, chunk: ChunkSize, rows: int):
        self.chunk = chunk
        self.rows = rows
        self.tried: list[int] = []

    def run(self, num_rows: int) -> str:
        self.tried.append(self.chunk.size(num_rows, GPU))
        if self.tried[-1] > self.rows:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has."
            )
        return "done"


def test_auto_halves_the_size_and_keeps_the_smaller_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chunk = ChunkSize("model.some_key", "auto")
    memory, undone = Memory(chunk, 60), []
    with caplog.at_level(logging.WARNING):
        for num_rows in (300, 1000):
            assert (
                chunk.retry(lambda n=num_rows: memory.run(n), lambda: undone.append(1))
                == "done"
            )
        memory.rows = 20  # other processes have taken the rest
        assert chunk.retry(lambda: memory.run(25)) == "done"
    assert memory.tried == [300, 150, 75, 37, 37, 25, 12]
    assert len(undone) == 3
    assert caplog.messages[0] == (
        "out of memory with 300 clips at once; `model.some_key: auto` takes 150 from now on"
    )
    assert len(caplog.messages) == 4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "auto",
            r"with `model.key: auto`, even with one clip at a time \(.*\)\. Make .*--batch-size",
        ),
        (
            4,
            r"with `model.key: 4` \(CUDA .* Tried to allocate 2 GiB\)\. Set it to `auto`\.$",
        ),
        (False, r"with `model.key: false` \(CUDA .*\)\. Set it to `auto`\.$"),
    ],
)
def test_the_error_names_the_key_if_no_size_fits(
    setting: int | str, message: str
) -> None:
    chunk = ChunkSize("model.key", setting)
    memory = Memory(chunk, 0)
    with pytest.raises(DeviceMemoryError, match=message):
        chunk.retry(lambda: memory.run(9))
    assert memory.tried == {"auto": [9, 4, 2, 1], 4: [4], False: [9]}[setting]


def test_memory_of_a_failed_attempt_is_freed_before_the_next() -> None:
    """Otherwise its tensors would occupy the memory that the next attempt needs."""
    chunk = ChunkSize("key", "auto")
    alive: list[int] = []

    class Block:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def run() -> int:
        num_alive, _block = len(alive), Block()
        if chunk.size(8, GPU) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return num_alive

    assert chunk.retry(run) == 0


class RefuseBackward(torch.autograd.Function):
    """The identity. Its gradient does not fit into memory."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor) -> torch.Tensor:
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")


class SmallDevice:
    """Hook that runs out of memory, in forward or backward, with more than `FITS` clips at once."""

    def __init__(self, in_backward: bool, calls_before: int = 0):
        self.in_backward = in_backward
        self.calls_before = calls_before
        """Number of calls that have enough memory."""

    def __call__(
        self, _module: nn.Module, _args: Any, inputs: dict[str, Any], output: Any
    ) -> None:
        self.calls_before -= 1
        if len(inputs["input_ids"]) <= FITS or self.calls_before >= 0:
            return
        if not self.in_backward:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        output.last_hidden_state = RefuseBackward.apply(output.last_hidden_state)


def own_towers(training: int | str = "auto", dropout: float = 0.1) -> MMFusionSeparate:
    return towers(packed=False, dropout=dropout, training=training).double()


def train(model: MMFusionSeparate, seeds: list[int]) -> tuple[list[float], list[Any]]:
    """Runs one update of a batch for each seed, and returns their losses and the gradients."""
    loss = MMContraLoss(norton_loss(sinkhorn_iterations=5, learnable_temperature=True))
    parameters = [*model.parameters(), *loss.parameters()]

    def step(seed: int) -> float:
        batch = draw(NUM, seed, torch.float64)
        total = loss(**batch, **model(**batch)).total
        total.backward()
        return total.item()

    torch.manual_seed(7)
    chunk = model.chunk_in_training
    losses = [
        step_in_memory(partial(step, seed), chunk, parameters, CPU) for seed in seeds
    ]
    return losses, [parameter.grad for parameter in parameters]


@pytest.mark.slow
@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_loss_and_gradients_equal_the_smaller_chunk(
    in_backward: bool, seeds: list[int]
) -> None:
    """Dropout is on. If an update has several batches, the first one is repeated."""
    model = own_towers()
    model.text_encoder.register_forward_hook(SmallDevice(in_backward), with_kwargs=True)
    found = train(model, seeds)
    # The attempts with 24 and 12 clips fail.
    assert model.chunk_in_training.size(NUM, CPU) == FITS
    torch.testing.assert_close(found, train(own_towers(FITS), seeds), rtol=0, atol=0)
    # The poolers of BERT have no gradient, as without retries.
    assert any(gradient is None for gradient in found[1])


@pytest.mark.parametrize("in_backward", [False, True])
def test_gradients_of_earlier_batches_are_kept(in_backward: bool) -> None:
    """The second batch of an update is the first that does not fit."""
    model = own_towers(dropout=0.0)
    device = SmallDevice(in_backward, calls_before=1)
    model.text_encoder.register_forward_hook(device, with_kwargs=True)
    found = train(model, [1, 2])
    assert model.chunk_in_training.size(NUM, CPU) == FITS
    expected = train(own_towers(False, dropout=0.0), [1, 2])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.gpu
def test_chunks_are_smaller_if_gpu_memory_is_full() -> None:
    """The memory errors are real: the process may use only a part of the memory of a whole step."""
    model = towers(packed=False).cuda()
    batch = {name: torch.cat([value] * 200).cuda() for name, value in draw(NUM).items()}

    def step() -> None:
        output = model(**batch)
        (output["video_outputs"].sum() + output["text_outputs"].sum()).backward()

    def peak() -> int:
        torch.cuda.reset_peak_memory_stats()
        step_in_memory(
            step, model.chunk_in_training, [*model.parameters()], torch.device("cuda")
        )
        return torch.cuda.max_memory_reserved()

    whole = peak()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        0.6 * whole / torch.cuda.mem_get_info()[1]
    )
    try:
        assert peak() < 0.6 * whole
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.chunk_in_training.size(10**6, torch.device("cuda")) < 200 * NUM
