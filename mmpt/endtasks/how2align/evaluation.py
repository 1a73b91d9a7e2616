"""HTM-Align: cosines of every sentence with every second of a video, and recall and ROC-AUC.

Legend: n sentences and W windows of a video, R feature rows, L seconds, F video slots, T text
slots, D hidden size, k sentences that are compared with the s rows of a window.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from mmpt.endtasks.how2align.alignment_scores import (
    chance_auc,
    chance_hits,
    place_corrected,
    place_released,
    roc_auc,
)
from mmpt.evaluators import (
    METRICS,
    PREDICTORS,
    WHOLE_VIDEO,
    Metric,
    MetricValue,
    Outputs,
    Predictor,
)
from mmpt.evaluators.base import MetricValues, Part, Prepared, require_finite
from mmpt.processors.window_aligner import average_seconds
from mmpt.reporting import EvaluationRun, Section, prediction_sections


class AlignedVideo(NamedTuple):
    """A video with the similarities of its sentences and its seconds."""

    video_id: str
    # float32 [n, L]: mean cosine over windows, 0 where sentence and second were not compared
    similarity: np.ndarray
    covered: np.ndarray  # bool [n, L]: whether sentence and second were compared
    aligned: np.ndarray  # bool [n]: whether the sentence is shown in the video
    spans_s: np.ndarray  # float64 [n, 2]: when it is shown, or else when it is spoken


@dataclass(frozen=True, kw_only=True)
class How2AlignOutputs(Outputs):
    """The videos of the test set."""

    videos: list[AlignedVideo]

    @property
    def aligned(self) -> np.ndarray:
        """Whether each sentence is alignable, bool, video after video."""
        return np.concatenate([video.aligned for video in self.videos])

    @property
    def num_covered(self) -> np.ndarray:
        """Number of seconds that each sentence was compared with, int64, video after video."""
        counts = [video.covered.sum(axis=1) for video in self.videos]
        return np.concatenate(counts)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays of all videos, concatenated. Matrices are flattened row by row."""
        ids, similarities, covered, aligned, spans_s = zip(*self.videos, strict=True)
        shapes = np.array([similarity_nL.shape for similarity_nL in similarities])
        return {
            "video_id": np.array(ids),
            "num_sentences": shapes[:, 0],
            "num_seconds": shapes[:, 1],
            "similarity": np.concatenate(similarities, axis=None),
            "covered": np.concatenate(covered, axis=None),
            "aligned": np.concatenate(aligned),
            "span_s": np.concatenate(spans_s),
        }


@PREDICTORS.register
class How2AlignPredictor(Predictor[How2AlignOutputs]):
    """A predictor of the cosines of sentences and seconds.

    It encodes every sentence and every window once, and averages the cosines of overlapping
    windows. The model is a two-tower model with forward_video and forward_text. Batches hold one
    video each, as `How2AlignAligner` makes them.
    """

    output_type = How2AlignOutputs
    reads = WHOLE_VIDEO | {"windows": 2}

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the cosines of each video."""
        for batch, inputs in batches:
            only = {name: value[0] for name, value in inputs.items()}
            pooled_nD, *_ = model.forward_text(only["caps"], only["cmasks"])
            text_nD = normalize(require_finite(pooled_nD.float(), "sentences"), dim=-1)
            total_nR = text_nD.new_zeros(len(text_nD), int(batch["video_len"]))
            count_nR = torch.zeros_like(total_nR)
            # Add the cosines of every window and the sentences that it is compared with.
            windows = encode_windows(model, only)
            compared = batch["windows"][0].tolist()
            for (start, first, last), window_sD in zip(compared, windows, strict=True):
                end = start + len(window_sD)
                cosines_ks = text_nD[first:last] @ window_sD.T
                total_nR[first:last, start:end] += cosines_ks
                count_nR[first:last, start:end] += 1
            similarity_nR = total_nR / count_nR.clamp(min=1)
            similarity_nL, covered_nL = by_second(
                similarity_nR.cpu().numpy(),
                (count_nR > 0).cpu().numpy(),
                self.config.feature_fps,
            )
            video = AlignedVideo(
                video_id=batch["video_id"][0],
                similarity=similarity_nL,
                covered=covered_nL,
                aligned=batch["aligned"][0].numpy(),
                spans_s=batch["sentence_s"][0].numpy(),
            )
            yield {"videos": [video]}


def by_second(
    similarity_nR: np.ndarray, covered_nR: np.ndarray, fps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean similarity of the covered rows of each second, and whether there are any.

    Args:
        similarity_nR: float32, similarity of sentences and feature rows; 0 where not covered.
        covered_nR: bool.
        fps: feature rows per second.
    """
    covered_Rn = covered_nR.T.astype(np.float32)
    shares_nL = average_seconds(covered_Rn, fps).T
    sums_nL = average_seconds(similarity_nR.T, fps).T
    covered_nL = shares_nL > 0
    means_nL = sums_nL / np.where(covered_nL, shares_nL, 1)
    return means_nL, covered_nL


def encode_windows(
    model: Any, inputs: Mapping[str, torch.Tensor]
) -> list[torch.Tensor]:
    """Returns unit vectors of the real rows of each window, float32 [rows, D].

    Args:
        inputs: caps and cmasks [n, T], vfeats [W, F, width], vmasks [W, F].
    """
    vmasks_WF = inputs["vmasks"]
    num_windows, num_slots = vmasks_WF.shape
    if not num_windows:
        return []
    # [CLS] and [SEP] are the same for every window.
    caps_WT = inputs["caps"][:1].expand(num_windows, -1)
    cmasks_WT = inputs["cmasks"][:1].expand(num_windows, -1)
    states = model.forward_video(
        inputs["vfeats"], vmasks_WF, caps_WT, cmasks_WT, output_hidden_states=True
    )
    states_WFD = states[:, 1 : num_slots + 1]  # [CLS] is first
    # Normalise the real rows of all windows, then divide them among the windows.
    real_ND = require_finite(states_WFD[vmasks_WF].float(), "seconds")
    num_rows_W = vmasks_WF.sum(dim=1)
    return list(normalize(real_ND, dim=-1).split(num_rows_W.tolist()))


@METRICS.register
class How2AlignMetric(Metric[How2AlignOutputs]):
    """The recall of alignable sentences, and the ROC-AUC of separating them from the others.

    In the published form, a cosine of exactly 0 counts as never compared, the first of equal maxima
    wins, and a sentence that was never compared is placed at second 0. The corrected form remembers
    what was compared, lets equally good seconds share a hit, and counts a sentence that was never
    compared as a miss.
    """

    input_type = How2AlignOutputs
    numbers = (
        MetricValue("Recall", "alignment, recall, as published"),
        MetricValue("AUC", "alignment, ROC-AUC, as published"),
        MetricValue("Recall-corrected", "alignment, recall, corrected", is_detail=True),
        MetricValue("AUC-corrected", "alignment, ROC-AUC, corrected", is_detail=True),
    )

    def compute(self, outputs: How2AlignOutputs) -> MetricValues:
        """Returns recall and ROC-AUC (fractions) in both forms, and the share of sentences that
        were never compared.
        """
        released, corrected = [], []
        for video in outputs.videos:
            similarity_nL, spans_s = video.similarity, video.spans_s
            released.append(place_released(similarity_nL, spans_s))
            corrected.append(place_corrected(similarity_nL, video.covered, spans_s))
        aligned_N = outputs.aligned
        result = {}
        for suffix, placements in (("", released), ("-corrected", corrected)):
            hits, peaks = zip(*placements, strict=True)
            hits_N = np.concatenate(hits)
            peaks_N = np.concatenate(peaks)
            result[f"Recall{suffix}"] = float(hits_N[aligned_N].mean())
            result[f"AUC{suffix}"] = roc_auc(peaks_N, aligned_N)
        never_N = outputs.num_covered == 0
        return result | {"never-compared": float(never_N.mean())}

    def chance(self, outputs: How2AlignOutputs) -> MetricValues:
        """Returns the expected numbers if every cosine is drawn independently."""
        auc = chance_auc(outputs.num_covered, outputs.aligned)
        result: MetricValues = {}
        for suffix in ("", "-corrected"):
            hits = []
            for video in outputs.videos:
                hits.append(
                    chance_hits(video.covered, video.spans_s, released=not suffix)
                )
            hits_N = np.concatenate(hits)
            result[f"Recall{suffix}"] = float(hits_N[outputs.aligned].mean())
            result[f"AUC{suffix}"] = auc
        return result


@prediction_sections.register
def _prediction_sections(
    outputs: How2AlignOutputs, run: EvaluationRun
) -> list[Section]:
    from mmpt.endtasks.how2align.report import align_sections  # deferred: matplotlib

    return align_sections(outputs, run)
