"""An experiment: how many videos should a batch have?

    python -m experiments.batch [--seeds 0 1 2] [--jobs 2] [--plan]

A batch of 8, 16, 32 or 64 videos has 128 to 1,024 clips, each of which is contrasted with all
others. A batch is chosen from three times as many neighbours. All arms make 100 updates of one
batch, so the larger batches see more videos. All weights are trained.

Gathered negatives (`loss.gather_negatives`) have no arm, because they are equal to a larger batch:
two processes that share their negatives compute the same loss as one process with both batches. A
test of the losses shows this.
"""

import sys
from collections.abc import Iterator

from experiments.arms import ALL_WEIGHTS, Arm, Experiment, Overrides, plain_and_norton
from experiments.command import main
from experiments.corpora import HOWTO100M, Corpus

NUM_VIDEOS = (8, 16, 32, 64)
NUM_UPDATES = 100


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields the arms."""
    videos_per_epoch = corpus.option("num_videos")
    for num_videos in NUM_VIDEOS:
        updates_per_epoch = videos_per_epoch // num_videos
        size: Overrides = {
            **ALL_WEIGHTS,
            "dataset.num_video_per_batch": num_videos,
            "num_cands": 3 * num_videos,
            "fairseq.optimization.update_freq": [1],
            "fairseq.optimization.max_epoch": -(-NUM_UPDATES // updates_per_epoch),
            "fairseq.optimization.max_update": NUM_UPDATES,
        }
        yield from plain_and_norton(
            f"{num_videos} videos",
            size,
            panel="gain of Norton over the plain loss",
            level=num_videos,
        )


EXPERIMENT = Experiment(
    name="batch",
    question="How many videos should a batch have?",
    make_arms=arms,
    later=("32", "64"),
    corpora=(HOWTO100M,),
    x_title="videos in a batch",
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
