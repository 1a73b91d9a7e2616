"""An experiment: how much does DTW depend on a constant in its distances?

    python -m experiments.dtw_offset [--seeds 0 1 2] [--jobs 2] [--plan]
    python -m experiments.dtw_offset --predictions FILE.npz [FILE.npz ...]

A constant that is added to all scores changes neither the loss nor the ranks of clips, but it
changes the recall of DTW and OTAM (offsets.py). The runs are also part of the control experiment.
Each run records the recall for several constants, and for a constant that is calibrated on the
scores alone. The second command prints these recalls for predictions that `mmpt predict
--save-predictions` wrote.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import command
from experiments.arms import START, Arm, Experiment
from experiments.control import arms as control_arms
from experiments.corpora import HOWTO100M, Corpus
from experiments.offsets import CONSTANTS, calibrated, offset_curve, read_predictions

NAMES = (START.name, "A", "norton", "A, LayerNorm", "norton, LayerNorm")


def arms(corpus: Corpus) -> list[Arm]:
    """Returns the arms, which are runs of the control experiment."""
    return [arm for arm in control_arms(corpus) if arm.name in NAMES]


EXPERIMENT = Experiment(
    name="dtw_offset",
    question="How much does DTW depend on a constant in its distances?",
    make_arms=arms,
    corpora=(HOWTO100M,),
    num_seeds=5,
)


def print_curves(paths: Sequence[Path]) -> None:
    """Prints the recalls of predictions, in percent, as Markdown tables."""
    for path in paths:
        scores = read_predictions(path)
        found = calibrated(scores)
        names = [*map(str, CONSTANTS), "calibrated", "calibrated c"]
        print(f"\n{path}\n\n| R@1 | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
        for way, values in offset_curve(scores).items():
            recalls = [*values, found[f"{way}-R1"]]
            cells = [f"{100 * value:.1f}" for value in recalls]
            print(f"| {way} | {' | '.join(cells)} | {found[f'{way}-constant']:.1f} |")


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the curves of predictions, or runs the experiment."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--predictions", type=Path, nargs="+", default=[])
    args, others = parser.parse_known_args(argv)
    if args.predictions:
        print_curves(args.predictions)
        return 0
    return command.main([EXPERIMENT], __doc__, others)


if __name__ == "__main__":
    sys.exit(main())
