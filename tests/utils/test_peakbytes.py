"""Bytes of living tensors, counted by hand."""

import torch

from mmpt.utils.peakbytes import PeakBytes


def test_peak_bytes_counts_living_storages_once() -> None:
    outside = torch.zeros(1000)
    with PeakBytes() as count:
        made = outside + 1
        assert count.held == 4000
        view, alias = made[3:], outside.view(10, 100)
        assert count.held == 4000
        made.add_(1)
        twice = torch.cat([made, alias.flatten()])
        assert count.held == 12000
        del made
        assert count.held == 12000  # the view is left
        del view, twice
        assert (count.held, count.peak) == (0, 12000)
