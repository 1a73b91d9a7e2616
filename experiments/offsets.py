"""DTW and OTAM as functions of the constant in their distances.

Both use the distance c - score of a caption and a clip, with c = 0 in the release (c = 3 for DTW
with background). A contrastive loss with a softmax does not change if a constant is added to all
scores. So c has no natural value, and training moves the scores by a few units. The recall of DTW
depends on c, because the cost of a path is a sum over its cells, and because the cost of a block
is scaled with its size: with a small c all cells of similar videos have negative distances, and a
path that visits more of them costs less.

`calibrated_constant` chooses c for a checkpoint: a hundredth of all scores are greater. The rule
does not use which caption belongs to which clip. It was chosen on five checkpoints (VideoCLIP,
Norton and the plain loss, LayerNorm or all weights, demo corpus, seed 0), where it gives 8.3 to
10.4. There the recall of DTW is within 2 points of its maximum for all c from 8 to 12, and that of
OTAM for all c from 4 to 10.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.functional import ranks_from_scores
from mmpt.evaluators.warping import Form

CALIBRATION_QUANTILE = 0.99
CONSTANTS = (0, 2, 4, 6, 8, 10, 12, 16, 24)
"""Values of c in the curves."""
WAYS: dict[str, Form] = {"": "released", "-corrected": "corrected"}
"""Suffix of a name -> form of the alignment."""


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


def calibrated_constant(scores: Scores) -> float:
    """Returns the quantile of all scores that serves as c."""
    return float(np.quantile(scores.values, CALIBRATION_QUANTILE))


def recalls_at(scores: Scores, constant: float) -> dict[str, float]:
    """Returns R@1 of the paragraphs by DTW and OTAM with c = `constant`, as fractions."""
    background = scores.background
    moved_RM = scores.values - np.float32(constant)
    # With background, `dtw` itself adds 3 to the distances.
    own = full_video.BG_DTW_OFFSET if background else np.float32(0)
    recalls = {}
    for suffix, form in WAYS.items():
        by_dtw = full_video.dtw(moved_RM + own, scores.lengths, form, background=background)
        by_otam = full_video.otam(moved_RM, scores.lengths, form, background=background)
        recalls[f"DTW{suffix}-R1"] = _recall_at_1(by_dtw)
        recalls[f"OTAM{suffix}-R1"] = _recall_at_1(by_otam)
    return recalls


def offset_curve(scores: Scores) -> dict[str, list[float]]:
    """Returns the recalls for each constant of `CONSTANTS`, by name."""
    curve: dict[str, list[float]] = {}
    for constant in CONSTANTS:
        for name, value in recalls_at(scores, constant).items():
            curve.setdefault(name, []).append(round(value, 4))
    return curve


def _recall_at_1(scores_pn: np.ndarray) -> float:
    """Returns the share of paragraphs whose own video has the best score."""
    return float((ranks_from_scores(scores_pn) == 0).mean())
