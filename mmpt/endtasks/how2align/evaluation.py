"""HTM-Align: cosines of every sentence with every second of a video, and recall and ROC-AUC.

Legend: n sentences and W windows of a video, L seconds, F video slots, T text slots, D hidden size.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from mmpt.endtasks.how2align import alignment_scores
from mmpt.evaluators import METRICS, PREDICTORS, WHOLE_VIDEO, Metric, Number, Outputs, Predictor
from mmpt.evaluators.base import Prepared, finite
from mmpt.reporting import Run, Section, pictures


class AlignedVideo(NamedTuple):
    """A video with the similarities of its sentences and its seconds."""

    video_id: str
    similarity: np.ndarray  # float32 [n, L]: mean cosine over windows, 0 where none was compared
    covered: np.ndarray  # bool [n, L]: whether any was
    aligned: np.ndarray  # bool [n]: the sentence is seen in the video
    spans_s: np.ndarray  # float64 [n, 2]: start and end, shown or else spoken


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
        return np.concatenate([video.covered.sum(axis=1) for video in self.videos])

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays of all videos, concatenated. Matrices are flattened row by row."""
        return {
            "video_id": np.array([video.video_id for video in self.videos]),
            "num_sentences": np.array([video.similarity.shape[0] for video in self.videos]),
            "num_seconds": np.array([video.similarity.shape[1] for video in self.videos]),
            "similarity": np.concatenate([video.similarity.ravel() for video in self.videos]),
            "covered": np.concatenate([video.covered.ravel() for video in self.videos]),
            "aligned": self.aligned,
            "span_s": np.concatenate([video.spans_s for video in self.videos]),
        }


@PREDICTORS.register
class How2AlignPredictor(Predictor[How2AlignOutputs]):
    """A predictor of the cosines of sentences and seconds.

    It encodes every sentence and every window once, and averages the cosines of overlapping
    windows. The model is a two-tower model with forward_video and forward_text. Batches hold one
    video each, as `How2AlignAligner` makes them.
    """

    makes = How2AlignOutputs
    reads = WHOLE_VIDEO | {"windows": 2}

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[dict[str, Any]]:
        """Yields the cosines of each video."""
        for batch, inputs in batches:
            only = {name: value[0] for name, value in inputs.items()}
            pooled_nD = model.forward_text(only["caps"], only["cmasks"])[0].float()
            text_nD = normalize(finite(pooled_nD, "sentences"), dim=-1)
            total_nL = text_nD.new_zeros(len(text_nD), int(batch["video_len"]))
            count_nL = torch.zeros_like(total_nL)
            # Add the cosines of every window and the sentences that it is compared with.
            windows = encode_windows(model, only)
            compared = batch["windows"][0].tolist()
            for (start, first, last), window_sD in zip(compared, windows, strict=True):
                place = slice(first, last), slice(start, start + len(window_sD))
                total_nL[place] += text_nD[first:last] @ window_sD.T
                count_nL[place] += 1
            video = AlignedVideo(
                video_id=batch["video_id"][0],
                similarity=(total_nL / count_nL.clamp(min=1)).cpu().numpy(),
                covered=(count_nL > 0).cpu().numpy(),
                aligned=batch["aligned"][0].numpy(),
                spans_s=batch["sentence_s"][0].numpy(),
            )
            yield {"videos": [video]}


def encode_windows(model: Any, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Returns unit vectors of the real seconds of each window, float32 [seconds, D].

    Args:
        inputs: caps and cmasks [n, T], vfeats [W, F, 512], vmasks [W, F].
    """
    vmasks_WF = inputs["vmasks"]
    if not len(vmasks_WF):
        return []
    # [CLS] and [SEP] are the same for every window.
    text = [inputs[name][:1].expand(len(vmasks_WF), -1) for name in ("caps", "cmasks")]
    states = model.forward_video(inputs["vfeats"], vmasks_WF, *text, output_hidden_states=True)
    real_RD = finite(states[:, 1 : 1 + vmasks_WF.shape[1]][vmasks_WF].float(), "seconds")
    return list(normalize(real_RD, dim=-1).split(vmasks_WF.sum(dim=1).tolist()))


@METRICS.register
class How2AlignMetric(Metric[How2AlignOutputs]):
    """The recall of alignable sentences, and the ROC-AUC of telling them from the others.

    In the published form, a cosine of exactly 0 counts as never compared, the first of equal maxima
    wins, and a sentence that was never compared is placed at second 0. The corrected form remembers
    what was compared, lets equally good seconds share a hit, and counts a sentence that was never
    compared as a miss.
    """

    takes = How2AlignOutputs
    numbers = (
        Number("Recall", "alignment, recall, as published"),
        Number("AUC", "alignment, ROC-AUC, as published"),
        Number("Recall-corrected", "alignment, recall, corrected"),
        Number("AUC-corrected", "alignment, ROC-AUC, corrected"),
    )

    def compute(self, outputs: How2AlignOutputs) -> dict[str, float]:
        """Returns recall and ROC-AUC (fractions) in both forms, and the share of sentences that
        were never compared.
        """
        aligned_N = outputs.aligned
        videos = outputs.videos
        released = [alignment_scores.place_released(v.similarity, v.spans_s) for v in videos]
        corrected = [
            alignment_scores.place_corrected(v.similarity, v.covered, v.spans_s) for v in videos
        ]
        result = {}
        for suffix, placed in (("", released), ("-corrected", corrected)):
            hits_N, peaks_N = map(np.concatenate, zip(*placed, strict=True))
            result[f"Recall{suffix}"] = float(hits_N[aligned_N].mean())
            result[f"AUC{suffix}"] = alignment_scores.roc_auc(peaks_N, aligned_N)
        return result | {"never-compared": float((outputs.num_covered == 0).mean())}

    def chance(self, outputs: How2AlignOutputs) -> dict[str, float]:
        """Returns the expected numbers if every cosine is drawn independently."""
        auc = alignment_scores.chance_auc(outputs.num_covered, outputs.aligned)
        result: dict[str, float] = {}
        for suffix in ("", "-corrected"):
            hits = [
                alignment_scores.chance_hits(video.covered, video.spans_s, released=not suffix)
                for video in outputs.videos
            ]
            recall = float(np.concatenate(hits)[outputs.aligned].mean())
            result |= {f"Recall{suffix}": recall, f"AUC{suffix}": auc}
        return result


@pictures.register
def _pictures(outputs: How2AlignOutputs, run: Run) -> list[Section]:
    from mmpt.endtasks.how2align.report import align_sections  # deferred: matplotlib

    return align_sections(outputs, run)
