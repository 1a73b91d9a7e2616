"""An experiment: for which kinds of noise does Norton's loss help?

    python -m experiments.noise [--seeds 0 1 2] [--jobs 2] [--plan]

The corpus is the demo's, and one kind of noise is changed at a time:

- misaligned: share of the narrated steps that are described 4 to 20 seconds early or late
- irrelevant: share of the captions that are not about a step
- vague: share of the captions about a step that do not name it, and are the same in all videos
- tasks: number of tasks. With fewer tasks, more videos of a batch show the same steps, so that
  more negatives are faulty.
- reordered: share of the videos that show their steps in a random order

On each corpus, three runs continue from one VideoCLIP run: with the plain loss, with Norton as
released, and with the mean-pooled form of Norton's contrast (C, as in control.py). All weights are
trained. The result is how much better each form of Norton is than the plain loss.
"""

import sys
from collections.abc import Iterator

from experiments.arms import (
    ALL_WEIGHTS,
    POOLED_LOSS,
    Arm,
    Experiment,
    plain_and_norton,
)
from experiments.command import main
from experiments.corpora import HOWTO100M, Corpus

LEVELS: dict[str, tuple[str, tuple[float, ...]]] = {
    "misaligned": ("misalign", (0.0, 0.5, 1.0)),
    # The alignment AUC needs irrelevant captions.
    "irrelevant": ("irrelevant", (0.1, 0.35, 0.7)),
    "vague": ("vague", (0.0, 0.5)),
    "tasks": ("num_tasks", (5, 20, 60)),
    "reordered": ("reorder", (0.0, 1.0)),
}
"""Kind of noise -> option of the corpus and its values. One of them is the default."""


def noisy_corpus(corpus: Corpus, option: str, level: float) -> Corpus:
    """Returns a copy of a corpus with another level of noise, or `corpus` if it has this level."""
    if level == corpus.option(option):
        return corpus
    return corpus.with_options(f"{corpus.name}-{option}{level:g}", **{option: level})


def arms(corpus: Corpus) -> Iterator[Arm]:
    """Yields three arms for each kind and level of noise, on variants of `corpus`."""
    for kind, (option, levels) in LEVELS.items():
        for level in levels:
            name = f"{kind} {level:g}"
            noisy = noisy_corpus(corpus, option, level)
            plain, norton = plain_and_norton(
                name, ALL_WEIGHTS, corpus=noisy, panel=f"{kind}, released", level=level
            )
            pooled = Arm(
                f"{name}, pooled",
                f"{name}, mean-pooled (C)",
                {**ALL_WEIGHTS, **POOLED_LOSS},
                corpus=noisy,
                against=plain.name,
                panel=f"{kind}, mean-pooled",
                level=level,
            )
            yield from (plain, norton, pooled)


EXPERIMENT = Experiment(
    name="noise",
    question="For which kinds of noise does Norton's loss help?",
    make_arms=arms,
    later=("irrelevant 0.1", "vague", "tasks", "reordered"),
    corpora=(HOWTO100M,),
    x_title="share (number of tasks)",
)

if __name__ == "__main__":
    sys.exit(main([EXPERIMENT], __doc__))
