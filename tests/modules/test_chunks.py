"""Chunks against one pass: values, gradients, what is kept, and the random numbers of what is computed again."""

import pytest
import torch

from mmpt.modules import run_chunks

LENGTHS = torch.tensor([3, 1, 4, 1, 5, 2, 6])


class Tower(torch.nn.Module):
    """Treats rows by themselves, and notes how many it was called with."""

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
    return torch.randn(7, 2, 3, generator=generator).double(), torch.rand(7, generator=generator).double()


def weighted(states: torch.Tensor) -> torch.Tensor:
    """A sum in which every row and place counts differently."""
    return (states * torch.arange(states.numel()).view_as(states)).sum()


@pytest.mark.parametrize(
    ("size", "kept", "calls"),
    [
        (None, 0, [7]),  # forward only
        (7, 0, [7]),
        (3, 0, [3, 3, 1, 1, 3, 3]),  # by length 1 1 2 | 3 4 5 | 6: all are computed twice, the last chunk first
        (3, 5, [3, 3, 1, 1, 3, 3]),
        (3, 6, [3, 3, 1, 3, 3]),  # the last chunk, of 6 positions, is kept
        (3, 18, [3, 3, 1, 3]),
        (3, 22, [7]),  # all 22 positions are: no need for chunks
    ],
)
def test_values_and_gradients_are_those_of_one_pass(size: int | None, kept: int, calls: list[int]) -> None:
    tower = Tower()
    expected = weighted(tower(*inputs()))
    gradients = torch.autograd.grad(expected, list(tower.parameters()))
    tower.rows = []
    states = run_chunks(tower, size, LENGTHS, *inputs(), positions_kept=kept)
    found = torch.autograd.grad(weighted(states), list(tower.parameters()))
    assert tower.rows == calls
    torch.testing.assert_close(weighted(states), expected, rtol=1e-14, atol=0)  # measured 0
    for gradient, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-13, atol=1e-13)  # measured 2e-14


def test_without_gradient_chunks_run_once() -> None:
    tower = Tower()
    with torch.no_grad():
        states = run_chunks(tower, 3, LENGTHS, *inputs(), positions_kept=22)
        assert tower.rows == [3, 3, 1]
        torch.testing.assert_close(states, tower(*inputs()), rtol=0, atol=1e-15)


def test_what_is_computed_again_has_the_dropout_that_it_had() -> None:
    results = []
    for kept in (0, 18, 21):  # 21: all but the shortest chunk
        tower = Tower(dropout=0.5).train()
        torch.manual_seed(5)
        states = run_chunks(tower, 3, LENGTHS, *inputs(), positions_kept=kept)
        results.append([states.detach(), *torch.autograd.grad(weighted(states), list(tower.parameters()))])
    order = LENGTHS.argsort(stable=True)
    tower = Tower(dropout=0.5).train()
    torch.manual_seed(5)  # the same chunks, written out and kept
    states = torch.cat([tower(*(each[rows] for each in inputs())) for rows in order.split(3)])[order.argsort()]
    results.append([states.detach(), *torch.autograd.grad(weighted(states), list(tower.parameters()))])
    assert (results[0][0] == 0).any()
    for result in results[:-1]:
        for found, expected in zip(result, results[-1], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
