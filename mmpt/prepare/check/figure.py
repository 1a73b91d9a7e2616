"""Histograms of a data set's statistics as one PNG; drawn without a screen and without matplotlib's
global state.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmpt.prepare.check.statistics import EDGES, SplitStatistics
from mmpt.utils.io import atomic_write

NUM_COLUMNS = 3


def save_histograms(path: str | Path, splits: Mapping[str, SplitStatistics]) -> None:
    """Draws every tally as the share of values per bin, a line per split, and writes `path`.

    Args:
        splits: split name -> its statistics.
    """
    from matplotlib.figure import Figure  # deferred: a second, and only figures need it

    num_rows = -(-len(EDGES) // NUM_COLUMNS)
    figure = Figure(figsize=(4 * NUM_COLUMNS, 3 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, NUM_COLUMNS, squeeze=False).flat
    for axis, name in zip(axes, EDGES, strict=False):
        for split, statistics in splits.items():
            tally = statistics.tallies[name]
            if tally.count:
                shares = tally.counts / tally.count
                label = f"{split}: mean {tally.mean:.3g}"
                axis.stairs(shares, tally.edges, label=label, fill=len(splits) == 1, alpha=0.8)
                axis.legend(fontsize="small")
        axis.set_xlabel(name)
        axis.set_ylabel("share")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
