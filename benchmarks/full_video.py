"""Scores of paragraphs against whole videos: many pairs at once (ours), and a loop over pairs.

    python benchmarks/full_video.py    # 436 videos of 3 to 16 clips, as YouCook2; under a minute
    # extra memory of caption average with this many clips:
    python benchmarks/full_video.py --memory 100000

The plain side computes one pair of paragraph and video at a time, and one cell of its matrix at a
time, on NumPy arrays. It runs on a sample of the pairs, and its time is scaled to all pairs. Both
sides must give the same scores.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from mmpt.errors import UserError
from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.warping import Form
from process_memory import MB, peak_memory
from results import Figure, Options, record, run_script, time_in_turns, timed


def loop_average(block: np.ndarray, _: Lengths) -> float:
    """Returns the caption average of one pair: the mean over captions of their best clip."""
    best = [row.max() for row in block]
    return float(np.mean(best))


def loop_dtw(block: np.ndarray, lengths: Lengths, form: Form) -> float:
    """Returns the DTW score of one pair.

    DTW aligns captions and clips in order, at the lowest total distance. `total[r, c]` is the
    lowest distance of an alignment of the first r + 1 captions and the first c + 1 clips. It
    extends the best of the alignments that end one caption earlier, one clip earlier, or both.
    """
    d = -block * scale(block, lengths)
    if form == "released":
        d = pad(d, lengths.maximum)
    num_rows, num_columns = d.shape
    total = np.zeros_like(d)
    for r in range(num_rows):
        for c in range(num_columns):
            if r and c:
                before = min(total[r - 1, c - 1], total[r - 1, c], total[r, c - 1])
            elif r:
                before = total[r - 1, c]
            elif c:
                before = total[r, c - 1]
            else:
                before = 0
            total[r, c] = d[r, c] + before
    return -float(total[-1, -1])


def loop_otam(block: np.ndarray, lengths: Lengths, form: Form) -> float:
    """Returns the OTAM score of one pair: the sum over both directions.

    OTAM is DTW in which an alignment may begin and end at any clip. A column of zeros on either
    side makes this possible: an alignment may stay in it without cost.
    """
    factor = scale(block, lengths)
    score = 0.0
    for side in (block, block.T):
        d = np.pad(-side * factor, ((0, 0), (1, 1)))
        if form == "released":
            most_rows, most_columns = lengths.maximum
            d = pad(d, (most_rows, most_columns + 2))
        score -= otam_distance(d, form)
    return score


def otam_distance(d: np.ndarray, form: Form) -> float:
    """Returns the lowest distance of an OTAM alignment, given distances with border columns.

    `total` is as in `loop_dtw`, but an alignment may stay in its column, to skip captions, only in
    the columns 0, 1 and the last. The released form subtracts the best total before column 1
    instead of adding it.
    """
    num_rows, num_columns = d.shape
    last = num_columns - 1
    sign = -1 if form == "released" else 1
    total = np.zeros_like(d)
    total[0, 1:] = np.cumsum(d[0, 1:])
    for r in range(1, num_rows):
        before = min(total[r - 1, 0], total[r - 1, 1], total[r, 0])
        total[r, 1] = d[r, 1] + sign * before
        for c in range(2, num_columns):
            before = min(total[r - 1, c - 1], total[r, c - 1])
            if c == last:  # only here may an alignment stay in its column
                before = min(before, total[r - 1, c])
            total[r, c] = d[r, c] + before
    return float(total[-1, -1])


def loop_transport(block: np.ndarray, _: Lengths) -> float:
    """Returns the optimal transport score of one pair, by Sinkhorn's algorithm."""
    num_captions, num_clips = block.shape
    kernel = np.exp(block.astype(np.float64) / full_video.EPSILON)
    v = np.ones(num_clips)
    for _ in range(full_video.ITERATIONS):
        u = 1 / (num_captions * (kernel @ v))
        v = 1 / (num_clips * (u @ kernel))
    return float(u @ (kernel * block) @ v)


def scale(block: np.ndarray, lengths: Lengths) -> np.float32:
    """Returns the factor that makes distances of pairs with different lengths comparable."""
    most_captions, most_clips = lengths.maximum
    return np.float32(most_captions * most_clips / block.size)


def pad(d: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns distances padded to `size` as in the release.

    New cells are infinite, except that the new columns are 0 from the last real row on. Without new
    columns, the slice `-0:` selects all columns, so the last real row is 0, too.
    """
    rows, columns = size
    more_rows = rows - d.shape[0]
    more_cols = columns - d.shape[1]
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


def score_functions(*, background: bool) -> dict[str, full_video.Score]:
    """Returns the scores of whole videos by name, without or with background."""
    dtw = partial(full_video.dtw, background=background)
    otam = partial(full_video.otam, background=background)
    return {
        "DTW": dtw,
        "DTW corrected": partial(dtw, form="corrected"),
        "OTAM": otam,
        "OTAM corrected": partial(otam, form="corrected"),
        "OT": partial(full_video.optimal_transport, background=background),
    }


def compare_speed(num_videos: int, num_sampled: int, repeats: int) -> list[Figure]:
    """Returns a figure per score."""
    rng = np.random.default_rng(0)
    others = rng.integers(3, 13, num_videos - 1)
    num_clips = np.append(16, others)  # of each video
    figures = figures_without_background(num_clips, num_sampled, repeats, rng)
    figures += figures_with_background(num_clips, repeats, rng)
    return figures


def figures_without_background(
    num_clips: np.ndarray, num_sampled: int, repeats: int, rng: np.random.Generator
) -> list[Figure]:
    """Measures both sides on the matrix of all captions and all clips."""
    num_videos = len(num_clips)
    lengths = Lengths.of(num_clips)
    total = num_clips.sum()
    scores = rng.normal(0, 3, (total, total)).astype(np.float32)
    note = f"equal scores; {total} clips; plain is scaled from {num_sampled}^2 pairs"
    num_pairs_ratio = (num_videos / num_sampled) ** 2
    ends = np.cumsum(num_clips)
    starts = ends - num_clips
    spans = [slice(starts[v], ends[v]) for v in range(num_sampled)]

    def at_once(function: full_video.Score, _: int) -> np.ndarray:
        return function(scores, lengths)

    def by_loop(name: str, _: int) -> list[list[float]]:
        score = LOOPS[name]
        found = []
        for rows in spans:
            found.append([score(scores[rows, columns], lengths) for columns in spans])
        return found

    def check(result: np.ndarray, wanted: list[list[float]]) -> None:
        ours = result[:num_sampled, :num_sampled]
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-3)

    figures = []
    functions = {"caption average": full_video.caption_average}
    functions |= score_functions(background=False)
    for name, function in functions.items():
        ours, sampled = time_in_turns(
            repeats,
            partial(at_once, function),
            partial(by_loop, name),
            check=check,
        )
        plain = [seconds * num_pairs_ratio for seconds in sampled]
        what = f"{num_videos} x {num_videos} videos, {name}"
        figures.append(Figure(what, "s", ours, plain, note))
    return figures


def figures_with_background(
    num_clips: np.ndarray, repeats: int, rng: np.random.Generator
) -> list[Figure]:
    """Measures our side on the matrix of all captions and all windows of whole videos."""
    others = rng.integers(5, 45, len(num_clips) - 1)
    num_windows = np.append(50, others)
    lengths = Lengths.of(num_clips, num_windows)
    shape = (num_clips.sum(), num_windows.sum())
    scores = rng.normal(0, 3, shape).astype(np.float32)
    note = f"{num_windows.sum()} windows"
    figures = []

    def at_once(function: full_video.Score, _: int) -> np.ndarray:
        return function(scores, lengths)

    for name, function in score_functions(background=True).items():
        (taken,) = time_in_turns(repeats, partial(at_once, function))
        figures.append(Figure(f"with background, {name}", "s", taken, note=note))
    return figures


def rank(text: np.ndarray, video: np.ndarray, lengths: Lengths) -> np.ndarray:
    """Returns the ranks of all paragraphs by caption average, computed in parts like the metric."""
    ranks = full_video.paragraph_ranks(
        text, video, lengths, {"": full_video.caption_average}
    )
    return ranks[""]


def measure_memory(num_clips: int, hidden_size: int) -> list[Figure]:
    """Measures the time of ranking by caption average, and its memory in addition to the vectors.

    Both are measured with a quarter of `num_clips` and with `num_clips` clips.
    """
    before = peak_memory()
    figures = []
    for size in (num_clips // 4, num_clips):
        rng = np.random.default_rng(0)
        num_videos = size // 8
        lengths = Lengths.of(np.full(num_videos, 8))
        shape = (8 * num_videos, hidden_size)
        text = rng.standard_normal(shape, dtype=np.float32)
        video = rng.standard_normal(shape, dtype=np.float32)
        took, ranks = timed(rank, text, video, lengths)
        assert len(ranks) == num_videos
        vectors = (text.nbytes + video.nbytes) / MB
        growth = (peak_memory() - before) / MB
        matrix = 4 * size * size / MB
        what = f"ranking {size:,} x {size:,} clips"
        figures.append(Figure(what, "s", [took]))
        note = f"in addition to {vectors:.0f} MB of vectors; plain is the size of the whole matrix"
        figures.append(Figure(what, "MB", [growth - vectors], [matrix], note))
    return figures


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    parser.number("--videos", 436, "number of videos")
    parser.number("--sample", 20, "videos whose pairs the loop scores")
    parser.number("--repeats", 3)
    parser.number(
        "--memory",
        None,
        "number of clips; measure memory instead of speed",
        least=32,
    )
    parser.number("--dim", 768, "length of a vector")
    args = parser.parse_args()
    if args.sample > args.videos:
        raise UserError(
            f"--sample must be at most --videos ({args.videos}), but is {args.sample}."
        )
    if args.memory:
        figures = measure_memory(args.memory, args.dim)
    else:
        figures = compare_speed(args.videos, args.sample, args.repeats)
    record(figures, args.out)


if __name__ == "__main__":
    run_script(main)
