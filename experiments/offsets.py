"""DTW and OTAM as functions of the constant in their distances.

Both use the distance c - score of a caption and a clip, with c = 0 in the release (c = 3 for DTW
with background). A contrastive loss with a softmax does not change if a constant is added to all
scores. So c has no natural value, and training moves the scores by a few units. The recall of DTW
depends on c, because the cost of a path is a sum over its cells, and because the cost of a block
is scaled with its size: with a small c all cells of similar videos have negative distances, and a
path that visits more of them costs less.

`calibrated` chooses c for a checkpoint and a method from the scores alone, without knowing which
paragraph belongs to which video. For each c, it counts the different videos that are the best
match of at least one paragraph, and it takes the c with the highest count. If every paragraph finds
its own video, all videos are counted. With a wrong c, a few long or short videos are the best match
of many paragraphs. On 16 sets of scores (VideoCLIP, Norton and the plain loss, demo corpus and
YouCook2, with and without background, seed 0), the recall with this c is within 4 points of the
best one. A quantile of all scores was tried before. It was as good on the demo corpus, but 10
points worse on YouCook2.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.functional import ranks_from_scores
from mmpt.evaluators.warping import Form

CONSTANTS = (-4, -2, 0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Values of c in the curves."""
TRIED_QUANTILES = (0.5, 0.999)
"""The calibration tries values of c between these quantiles of all scores."""
NUM_TRIED = 16
METHODS: dict[str, tuple[Callable[..., np.ndarray], Form]] = {
    "DTW": (full_video.dtw, "released"),
    "OTAM": (full_video.otam, "released"),
    "DTW-corrected": (full_video.dtw, "corrected"),
    "OTAM-corrected": (full_video.otam, "corrected"),
}
"""Name of a method of alignment -> its function and form."""


@dataclass(frozen=True)
class Scores:
    """The scores of all captions and clips (or windows) of a test set."""

    values: np.ndarray  # float32 [R, M], captions and clips by video and in time order
    lengths: Lengths
    background: bool
    """True if the videos have all their windows, and False if they have the clips only."""


def read_predictions(path: Path) -> Scores:
    """Reads an `.npz` of `mmpt predict --save-predictions`, of whole videos or of clips."""
    with np.load(path) as arrays:
        text, video = arrays["pooled_text"], arrays["pooled_video"]
        if "num_windows" in arrays:
            lengths = Lengths.of(arrays["num_captions"], arrays["num_windows"])
            return Scores(text @ video.T, lengths, background=True)
        videos, starts_s = list(arrays["video_id"]), list(arrays["start_s"])
    grouping = full_video.group_by_video(videos, starts_s)
    values_RM = text[grouping.order] @ video[grouping.order].T
    return Scores(values_RM, Lengths.of(grouping.lengths), background=False)


def pair_scores(scores: Scores, method: str, constant: float) -> np.ndarray:
    """Returns the scores of all paragraphs and videos with c = `constant`, float32 [p, n].

    Args:
        method: a name of `METHODS`.
    """
    background = scores.background
    align, form = METHODS[method]
    moved_RM = scores.values - np.float32(constant)
    if background and align is full_video.dtw:
        moved_RM += full_video.BG_DTW_OFFSET  # `dtw` itself adds it to the distances
    return align(moved_RM, scores.lengths, form, background=background)


def recall_at_1(scores_pn: np.ndarray) -> float:
    """Returns the share of paragraphs whose own video has the best score."""
    return float((ranks_from_scores(scores_pn) == 0).mean())


def calibrated(
    scores: Scores, methods: Iterable[str] = tuple(METHODS)
) -> dict[str, float]:
    """Returns the calibrated constant of each method, and R@1 with it.

    Their names are `METHOD-constant` and `METHOD-R1`.

    If several constants have the same count, their median is taken.

    Args:
        methods: names of `METHODS`.
    """
    low, high = np.quantile(scores.values, TRIED_QUANTILES)
    constants = np.linspace(low, high, NUM_TRIED)
    found = {}
    for method in methods:
        counts = []  # videos that are the best match of some paragraph
        for constant in constants:
            first_p = pair_scores(scores, method, constant).argmax(axis=1)
            counts.append(len(np.unique(first_p)))
        best = np.flatnonzero(np.array(counts) == max(counts))
        constant = float(constants[best[len(best) // 2]])
        found[f"{method}-constant"] = constant
        found[f"{method}-R1"] = recall_at_1(pair_scores(scores, method, constant))
    return found


def offset_curve(scores: Scores) -> dict[str, list[float]]:
    """Returns R@1 for each constant of `CONSTANTS`, by the name of the method."""
    curve = {}
    for method in METHODS:
        recalls = [
            recall_at_1(pair_scores(scores, method, constant)) for constant in CONSTANTS
        ]
        curve[method] = [round(recall, 4) for recall in recalls]
    return curve
