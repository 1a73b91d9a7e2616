"""Writes the tables and figures of docs/ablations.md from results.jsonl.

    python -m experiments.report

The results of an experiment replace the text between two lines of the page,
`<!-- results: EXPERIMENT CORPUS -->` and `<!-- end of results -->`. A table of the corpora replaces
the text between `<!-- corpora -->` and `<!-- end of corpora -->`.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from experiments.__main__ import EXPERIMENTS
from experiments.arms import ROOT, Arm, Experiment, Run
from experiments.corpora import CORPORA, Corpus, demo_videos, narration_statistics
from experiments.figures import draw_gains, draw_levels, draw_offsets
from experiments.results import RESULTS, Row, read_results
from experiments.tables import (
    DTW_CONSTANTS,
    MAIN,
    OTHER,
    BySeed,
    means_table,
    rows_of,
    tables,
)

PAGE = ROOT / "docs" / "ablations.md"
MARKED = re.compile(
    r"(<!-- results: (\S+) (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL
)
STATISTICS = re.compile(r"(<!-- corpora -->\n).*?(<!-- end of corpora -->)", re.DOTALL)
NO_RESULTS = "No results yet.\n"
STATISTICS_VIDEOS = 400
PUBLISHED: dict[str, str] = {
    "howto100m": "HowTo100M, labelled by hand (Han et al.) | about 30% | about 15% | | | 17",
    "half-aligned": "HowTo100M, random pairs (Miech et al.) | | about 50% | | | 17",
}
"""Name of a corpus -> cells of the row with the published numbers that it follows."""


def results_text(
    experiment: Experiment, corpus: Corpus, results: Sequence[Row], images: Path
) -> str:
    """Returns the tables of an experiment on a corpus as Markdown, and draws its figure.

    Args:
        images: folder of the figures.
    """
    by_arm = {
        arm.name: rows_of(arm, corpus, results) for arm in experiment.arms(corpus)
    }
    arms = arms_to_show(experiment, corpus, by_arm)
    if not any(by_arm.values()):
        return NO_RESULTS
    path = images / f"{experiment.name}-{corpus.name}.svg"
    rows = without_repeats(arms, corpus)
    table = f"{tables(rows, by_arm, MAIN)}\n\n{folded(tables(rows, by_arm, OTHER))}"
    if experiment.name == "dtw_offset":
        drawn = draw_offsets(arms, by_arm, path)
        # All other numbers are in the tables of the control experiment, whose runs these are.
        table = means_table("R@1 of DTW", DTW_CONSTANTS, arms, by_arm)
    elif experiment.x_title:
        drawn = draw_levels(arms, by_arm, experiment.x_title, path)
    else:
        drawn = draw_gains(arms, by_arm, path)
    seeds = sorted(set(chain.from_iterable(by_arm.values())))
    all_rows = chain.from_iterable(rows.values() for rows in by_arm.values())
    commits = sorted({row["commit"] for row in all_rows})
    parts = [f"Seeds {', '.join(map(str, seeds))}; commits {', '.join(commits)}."]
    if drawn:
        parts.append(f"![{experiment.question}]({images.name}/{path.name})")
    parts.append(table)
    return "\n\n".join(parts) + "\n"


def without_repeats(arms: Sequence[Arm], corpus: Corpus) -> list[Arm]:
    """Returns the arms without those that repeat the run of an earlier arm.

    For example, the default level occurs in every kind of noise.
    """
    first: dict[str, Arm] = {}
    for arm in arms:
        first.setdefault(Run.of(arm, corpus, 0).arm_key, arm)
    return list(first.values())


def folded(text: str) -> str:
    """Returns Markdown that GitHub and the site show when the reader clicks on its title."""
    begin = '<details markdown="1">\n<summary>Other scores</summary>'
    return f"{begin}\n\n{text}\n\n</details>"


def arms_to_show(
    experiment: Experiment, corpus: Corpus, by_arm: Mapping[str, BySeed]
) -> list[Arm]:
    """Returns the arms of the tables: all except the groups of later arms that have not been run.

    A group is the arms with one prefix of `later`. Some of them may repeat a run of the first pass,
    such as the default level of a kind of noise. A group is shown when another of its runs has a
    result.
    """

    def key(arm: Arm) -> str:
        return Run.of(arm, corpus, 0).arm_key

    arms = experiment.arms(corpus)
    first_keys = {key(arm) for arm in experiment.first_arms(corpus)}
    hidden: set[str] = set()
    for prefix in experiment.later:
        group = [arm for arm in arms if arm.name.startswith(prefix)]
        own = [arm for arm in group if key(arm) not in first_keys]
        if not any(by_arm[arm.name] for arm in own):
            hidden |= {arm.name for arm in group}
    return [arm for arm in arms if arm.name not in hidden]


def corpora_text(num_videos: int = STATISTICS_VIDEOS) -> str:
    """Returns a table of the statistics of the narrations, in percent where they are shares."""
    lines = [
        "| corpus | can be aligned | spoken while shown | median offset of the others "
        "| said in several videos | captions per minute |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, corpus in CORPORA.items():
        if corpus.maker != ("mmpt", "make-demo-data"):
            continue
        found = narration_statistics(demo_videos(corpus, num_videos))
        lines.append(
            f"| {name} | {found['alignable']:.0%} | {found['aligned']:.0%} "
            f"| {found['offset_s']:.1f} s | {found['repeated']:.0%} | {found['per_minute']:.1f} |"
        )
        if name in PUBLISHED:
            lines.append(f"| {PUBLISHED[name]} |")
    return "\n".join(lines) + "\n"


def update_page(page: Path, results: Path) -> None:
    """Replaces the text between the marks of a page, and draws the figures next to it."""
    rows = list(read_results(results).values())
    experiments = {experiment.name: experiment for experiment in EXPERIMENTS}

    def replace(match: re.Match[str]) -> str:
        name, corpus = match[2], match[3]
        text = results_text(
            experiments[name], CORPORA[corpus], rows, page.parent / "images"
        )
        return match[1] + text + match[4]

    text = MARKED.sub(replace, page.read_text())
    text = STATISTICS.sub(lambda match: match[1] + corpora_text() + match[2], text)
    page.write_text(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    update_page(args.page, args.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
