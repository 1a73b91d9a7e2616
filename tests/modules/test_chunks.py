"""Computation in chunks against one pass, and chunk sizes on a device that runs out of memory."""

import logging

import pytest
import torch

from mmpt.errors import DeviceMemoryError
from mmpt.modules import ChunkSize, run_chunks

CPU, GPU = torch.device("cpu"), torch.device("cuda")


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
        return self.dropout(torch.tanh(self.linear(values_NPD)) * scale_N[:, None, None])


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


@pytest.mark.parametrize(("size", "calls"), [(8, [7]), (7, [7]), (3, [3, 3, 1, 1, 3, 3])])
def test_chunks_give_the_values_and_gradients_of_one_pass(size: int, calls: list[int]) -> None:
    tower = Tower()
    expected = results(tower, tower(*inputs()))
    tower.rows = []
    found = results(tower, run_chunks(tower, size, *inputs()))
    assert tower.rows == calls  # backward computes chunks again, the last one first
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)  # measured 2e-14


def test_recomputation_repeats_the_dropout_masks() -> None:
    tower = Tower(dropout=0.5).train()
    torch.manual_seed(5)
    found = results(tower, run_chunks(tower, 3, *inputs()))
    torch.manual_seed(5)  # the same chunks, written out and kept
    chunks = zip(*(values.split(3) for values in inputs()), strict=True)
    expected = results(tower, torch.cat([tower(*chunk) for chunk in chunks]))
    assert (found[0] == 0).any()
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("setting", "on_gpu", "on_cpu"), [("auto", 512, 256), (100, 100, 100), (False, 5000, 5000)]
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
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has.")
        return "done"


def test_auto_halves_the_size_and_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    chunk = ChunkSize("model.some_key", "auto")
    memory, undone = Memory(chunk, 60), []
    with caplog.at_level(logging.WARNING):
        for num_rows in (300, 1000):
            assert chunk.retry(lambda n=num_rows: memory.run(n), lambda: undone.append(1)) == "done"
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
        ("auto", r"with `model.key: auto`, even with one clip at a time \(.*\)\. Make the batch "),
        (4, r"with `model.key: 4` \(CUDA .* Tried to allocate 2 GiB\)\. Set it to `auto`\.$"),
        (False, r"with `model.key: false` \(CUDA .*\)\. Set it to `auto`\.$"),
    ],
)
def test_the_error_names_the_key_if_no_size_fits(setting: int | str, message: str) -> None:
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
