"""Prints what the fine-grained similarity of a trained VideoCLIP measures, as a Markdown table.

    python -m experiments.token_lengths [--corpus howto100m] [--seeds 0 1 2]

It needs the VideoCLIP runs of the corpus, which all experiments but `retrieval` make. The
similarities of all captions and clips are computed for batches of random validation videos.
For each form of the similarity, the table shows two numbers, which are means over the batches:

- the share of its variance that the lengths explain. All pairs with the same number of caption
  tokens and the same number of clip tokens are a group. The share is the variance of the similarity
  after each pair is replaced by the mean of its group, divided by the variance before.
- the mean rank of a caption's own clip, as a share of the clips of the batch: 100 % is the best,
  and 50 % is chance.

Legend: A captions, B clips.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from experiments.arms import NORTON, START, Run, override_args
from experiments.command import only_warnings
from experiments.corpora import CORPORA, HOWTO100M
from experiments.measures import CHECKPOINT
from experiments.runner import corpus_folder, data_places, run_folder
from mmpt.batch import ModelOutput, Split
from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.losses.sequence import min_max_normalise, pooled_similarity
from mmpt.losses.tokenscore import token_similarity
from mmpt.models.checkpoint import load_weights
from mmpt.tasks import Task
from mmpt.utils.command import run_command

NUM_BATCHES = 32
"""All validation videos of the demo, in batches of 8."""
FORMS: dict[str, dict[str, Any]] = {
    "as released, alpha 1": {"alpha": 1.0, "masked_outer_sum": True},
    "as released, alpha 0.1": {"alpha": 0.1, "masked_outer_sum": True},
    "as released, alpha 0.02 (maximum)": {"alpha": 0.02, "masked_outer_sum": True},
    "as in the paper, alpha 1": {"alpha": 1.0, "masked_outer_sum": False},
    "as in the paper, alpha 0.1": {"alpha": 0.1, "masked_outer_sum": False},
    "as in the paper, alpha 0.02 (maximum)": {"alpha": 0.02, "masked_outer_sum": False},
    "log-mean-exp, alpha 1": {"alpha": 1.0, "log_mean_exp": True},
    "log-mean-exp, alpha 0.1": {"alpha": 0.1, "log_mean_exp": True},
}
"""Title -> arguments of `token_similarity`."""


def batches(run: Run) -> Iterator[ModelOutput]:
    """Yields the outputs of a run's model for batches of validation videos.

    Raises:
        DataError: the run has no checkpoint.
    """
    places = data_places(corpus_folder(run))
    config = load_config(NORTON, override_args(places), import_fairseq=False)
    checkpoint = run_folder(run) / CHECKPOINT
    if not checkpoint.exists():
        problem = "must exist, but does not; run `python -m experiments.control` first."
        raise DataError(f"{checkpoint} {problem}")
    task = Task.from_config(config)
    dataset = task.build_dataset(Split.VALID)
    assert dataset is not None
    model = task.build_model(pretrained=False).eval()
    load_weights(model, checkpoint)
    for position in range(min(NUM_BATCHES, len(dataset))):
        batch = dataset.collate([dataset[position]])
        with torch.inference_mode():
            yield model(**batch)


def similarities(outputs: ModelOutput) -> dict[str, Tensor]:
    """Returns the similarity of all captions and clips in each form, float [A, B]."""
    states = [
        outputs["text_outputs"],
        outputs["text_mask_outputs"],
        outputs["video_outputs"],
        outputs["video_mask_outputs"],
    ]
    pooled = pooled_similarity(outputs["pooled_text"], outputs["pooled_video"])
    found = {"mean-pooled": pooled}
    for title, options in FORMS.items():
        t2v, v2t = token_similarity(*states, **{"masked_outer_sum": False, **options})
        # as the loss combines them
        found[title] = (min_max_normalise(t2v) + min_max_normalise(v2t)) / 2
    return found


def share_of_lengths(similarity_AB: Tensor, text_A: Tensor, video_B: Tensor) -> float:
    """Returns the share of a similarity's variance that the numbers of tokens explain.

    Args:
        text_A: int64 [A], number of tokens of each caption.
        video_B: int64 [B], number of tokens of each clip.
    """
    text_AG = one_hot(text_A).double()
    video_BH = one_hot(video_B).double()
    # The mean of each group of pairs with the same lengths. Empty groups are 0 / 1.
    sums_GH = text_AG.T @ similarity_AB.double() @ video_BH
    counts_GH = text_AG.sum(0).outer(video_BH.sum(0))
    means_GH = sums_GH / counts_GH.clamp(min=1)
    explained_AB = text_AG @ means_GH @ video_BH.T
    return float(explained_AB.var() / similarity_AB.double().var())


def rank_of_own(similarity_AB: Tensor) -> float:
    """Returns the mean share of the other clips that are less similar than a caption's own."""
    own_A1 = similarity_AB.diagonal().unsqueeze(1)
    num_others = similarity_AB.shape[1] - 1
    return float((similarity_AB < own_A1).sum(1).double().mean() / num_others)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", choices=sorted(CORPORA), default=HOWTO100M.name)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args(argv)

    def work() -> int:
        lengths, ranks = defaultdict(list), defaultdict(list)
        runs = [Run(START, CORPORA[args.corpus], seed) for seed in args.seeds]
        for outputs in chain.from_iterable(map(batches, runs)):
            num_text = outputs["text_mask_outputs"].sum(1)
            num_video = outputs["video_mask_outputs"].sum(1)
            for title, similarity in similarities(outputs).items():
                lengths[title].append(share_of_lengths(similarity, num_text, num_video))
                ranks[title].append(rank_of_own(similarity))
        print("| similarity | explained by lengths | rank of the own clip |")
        print("|---|---:|---:|")
        for title in lengths:
            share, rank = fmean(lengths[title]), fmean(ranks[title])
            print(f"| {title} | {share:.1%} | {rank:.1%} |")
        return 0

    with only_warnings("mmpt"):
        return run_command(work, interrupt_message="run it again")


if __name__ == "__main__":
    sys.exit(main())
