"""Runs all experiments, the most important one first. See the package for the options."""

import sys

from experiments import (
    batch,
    contrast,
    control,
    dtw_offset,
    noise,
    quirks,
    retrieval,
    trained,
)
from experiments.command import main

EXPERIMENTS = (
    control.EXPERIMENT,
    dtw_offset.EXPERIMENT,
    quirks.EXPERIMENT,
    contrast.EXPERIMENT,
    retrieval.EXPERIMENT,
    noise.EXPERIMENT,
    trained.EXPERIMENT,
    batch.EXPERIMENT,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENTS, __doc__))
