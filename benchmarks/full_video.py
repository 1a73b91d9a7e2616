"""Scores of paragraphs against whole videos: many pairs at once (ours) beside a plain double loop
over pairs.

    python benchmarks/full_video.py    # 436 videos of 3 to 16 clips, as YouCook2; under a minute
    # extra memory of caption average at that many clips:
    python benchmarks/full_video.py --memory 100000

The loop is written in the plain way, a pair and a cell at a time on NumPy arrays, runs on a sample
of the pairs and is scaled up; both give the same scores, which is checked.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from mmpt.errors import UserError
from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.warping import Form
from process_memory import MB, peak_memory
from results import Figure, Options, in_turns, record, run_script, timed


def loop_average(block: np.ndarray, _: Lengths) -> float:
    """Caption average of one pair."""
    return float(np.mean([row.max() for row in block]))


def loop_dtw(block: np.ndarray, lengths: Lengths, form: Form) -> float:
    """DTW of one pair."""
    d = -block * scale(block, lengths)
    if form == "released":
        d = pad(d, lengths.most)
    total = np.zeros_like(d)
    for r in range(d.shape[0]):
        for c in range(d.shape[1]):
            if r and c:
                total[r, c] = d[r, c] + min(total[r - 1, c - 1], total[r - 1, c], total[r, c - 1])
            else:
                total[r, c] = d[r, c] + (total[r - 1, c] if r else total[r, c - 1] if c else 0)
    return -float(total[-1, -1])


def loop_otam(block: np.ndarray, lengths: Lengths, form: Form) -> float:
    """OTAM of one pair."""
    score, sign = 0.0, -1 if form == "released" else 1
    for side in (block, block.T):
        d = np.pad(-side * scale(block, lengths), ((0, 0), (1, 1)))
        if form == "released":
            d = pad(d, (lengths.most[0], lengths.most[1] + 2))
        total, last = np.zeros_like(d), d.shape[1] - 1
        total[0, 1:] = np.cumsum(d[0, 1:])
        for r in range(1, d.shape[0]):
            total[r, 1] = d[r, 1] + sign * min(total[r - 1, 0], total[r - 1, 1], total[r, 0])
            for c in range(2, last + 1):
                total[r, c] = d[r, c] + min(
                    total[r - 1, c - 1], total[r, c - 1], *total[r - 1, c : c + (c == last)]
                )
        score -= float(total[-1, -1])
    return score


def loop_transport(block: np.ndarray, _: Lengths) -> float:
    """Sinkhorn of one pair."""
    kernel = np.exp(block.astype(np.float64) / full_video.EPSILON)
    v = np.ones(block.shape[1])
    for _ in range(full_video.ITERATIONS):
        u = 1 / (len(block) * (kernel @ v))
        v = 1 / (len(v) * (u @ kernel))
    return float(u @ (kernel * block) @ v)


def scale(block: np.ndarray, lengths: Lengths) -> np.float32:
    """What distances are multiplied with."""
    return np.float32(lengths.most[0] * lengths.most[1] / block.size)


def pad(d: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pad as the release does."""
    more_rows, more_cols = size[0] - d.shape[0], size[1] - d.shape[1]
    padded = np.pad(d, ((0, more_rows), (0, more_cols)), constant_values=np.inf)
    padded[-more_rows - 1 :, -more_cols:] = 0
    return padded


LOOPS: dict[str, Callable[[np.ndarray, Lengths], float]] = {
    "caption average": loop_average,
    "DTW": partial(loop_dtw, form="released"),
    "DTW corrected": partial(loop_dtw, form="corrected"),
    "OTAM": partial(loop_otam, form="released"),
    "OTAM corrected": partial(loop_otam, form="corrected"),
    "OT": loop_transport,
}


def ways(*, background: bool) -> dict[str, full_video.Score]:
    """Return the ways to score, without or with background."""
    dtw = partial(full_video.dtw, background=background)
    otam = partial(full_video.otam, background=background)
    return {
        "DTW": dtw,
        "DTW corrected": partial(dtw, form="corrected"),
        "OTAM": otam,
        "OTAM corrected": partial(otam, form="corrected"),
        "OT": partial(full_video.optimal_transport, background=background),
    }


def compare_speed(num_videos: int, num_sampled: int, repeats: int) -> None:
    """Record a figure per way to score."""
    rng = np.random.default_rng(0)
    num_clips = np.append(16, rng.integers(3, 13, num_videos - 1))
    lengths = Lengths.of(num_clips)
    scores = rng.normal(0, 3, (num_clips.sum(), num_clips.sum())).astype(np.float32)
    note = f"equal scores; {num_clips.sum()} clips; plain is scaled from {num_sampled}^2 pairs"
    starts = np.cumsum(num_clips) - num_clips
    spans = [slice(starts[v], starts[v] + num_clips[v]) for v in range(num_sampled)]

    def by_loop(name: str) -> list[list[float]]:
        loop = LOOPS[name]
        return [[loop(scores[rows, columns], lengths) for columns in spans] for rows in spans]

    def check(result: np.ndarray, wanted: list[list[float]]) -> None:
        ours = result[:num_sampled, :num_sampled]
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-3)

    figures = []
    plain_ways = {"caption average": full_video.caption_average} | ways(background=False)
    for name, way in plain_ways.items():
        ours, sampled = in_turns(
            repeats,
            lambda _, way=way: way(scores, lengths),
            lambda _, name=name: by_loop(name),
            check=check,
        )
        plain = [seconds * (num_videos / num_sampled) ** 2 for seconds in sampled]
        what = f"{num_videos} x {num_videos} videos, {name}"
        figures.append(Figure(what, "s", ours, plain, note))
    num_windows = np.append(50, rng.integers(5, 45, num_videos - 1))
    bg_lengths = Lengths.of(num_clips, num_windows)
    bg_scores = rng.normal(0, 3, (num_clips.sum(), num_windows.sum())).astype(np.float32)
    note = f"{num_windows.sum()} windows"
    for name, way in ways(background=True).items():
        (taken,) = in_turns(repeats, lambda _, way=way: way(bg_scores, bg_lengths))
        figures.append(Figure(f"with background, {name}", "s", taken, note=note))
    record(figures)


def rank(text: np.ndarray, video: np.ndarray, lengths: Lengths) -> np.ndarray:
    """Rank all paragraphs by caption average, as many at a time as the metric does."""
    ways = {"": full_video.caption_average}
    return full_video.paragraph_ranks(text, video, lengths, ways)[""]


def measure_memory(num_clips: int, hidden_size: int) -> None:
    """Record what ranking by caption average takes beside the vectors, at two sizes of which one is
    a quarter.
    """
    before, figures = peak_memory(), []
    for size in (num_clips // 4, num_clips):
        rng = np.random.default_rng(0)
        lengths = Lengths.of(np.full(size // 8, 8))
        text, video = (
            rng.standard_normal((size // 8 * 8, hidden_size), dtype=np.float32) for _ in range(2)
        )
        took, ranks = timed(rank, text, video, lengths)
        vectors = (text.nbytes + video.nbytes) / MB
        assert len(ranks) == size // 8
        extra, what = (peak_memory() - before) / MB - vectors, f"ranking {size:,} x {size:,} clips"
        figures.append(Figure(what, "s", [took]))
        note = f"beside {vectors:.0f} MB of vectors; plain is the size of the whole matrix"
        figures.append(Figure(what, "MB", [extra], [4 * size * size / MB], note))
    record(figures)


def main() -> None:
    """Run the benchmark."""
    parser = Options(__doc__)
    parser.number("--videos", 436)
    parser.number("--sample", 20, "videos whose pairs the loop scores")
    parser.number("--repeats", 3)
    parser.number("--memory", None, "clips at which memory is measured, instead of speed", least=32)
    parser.number("--dim", 768)
    args = parser.parse_args()
    if args.sample > args.videos:
        raise UserError(f"--sample must be at most --videos ({args.videos}), but is {args.sample}.")
    if args.memory:
        measure_memory(args.memory, args.dim)
    else:
        compare_speed(args.videos, args.sample, args.repeats)


if __name__ == "__main__":
    run_script(main)
