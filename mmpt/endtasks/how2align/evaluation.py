"""HTM-Align: cosines between every sentence and every second of a video, and the recall and ROC-AUC
made of them.

Legend: n sentences and W windows of a video, L seconds, F video slots, T text slots, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from mmpt.endtasks.how2align.alignment_scores import (
    Placement,
    chance_auc,
    chance_hits,
    place_corrected,
    place_released,
    roc_auc,
)
from mmpt.errors import DataError
from mmpt.evaluators.base import (
    METRICS,
    PREDICTORS,
    WHOLE_VIDEO,
    Metric,
    Number,
    Outputs,
    Part,
    Predictor,
    Prepared,
)
from mmpt.evaluators.inference import finite

ROWS_AT_ONCE = 256
"""Windows, or sentences, that go through a tower together."""


class AlignedVideo(NamedTuple):
    """A video with its sentences set against its seconds."""

    video_id: str
    similarity: np.ndarray  # float32 [n, L]: mean cosine over windows, 0 where none was compared
    covered: np.ndarray  # bool [n, L]: whether any was
    aligned: np.ndarray  # bool [n]: the sentence is seen in the video
    spans_s: np.ndarray  # float64 [n, 2]: start and end; when said, if the sentence is not seen


@dataclass(frozen=True, kw_only=True)
class How2AlignOutputs(Outputs):
    """The videos of the test set."""

    videos: list[AlignedVideo]

    @property
    def aligned(self) -> np.ndarray:
        """Whether each sentence is alignable, bool, video after video."""
        return np.concatenate([video.aligned for video in self.videos])

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the videos one after another: similarity and covered are those of [n, L] each,
        row by row.
        """
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
    """Encodes every sentence and every window once, and averages the cosines of overlapping
    windows.

    The model is a two-tower model with forward_video and forward_text. Batches are of one video, as
    `How2AlignAligner` makes them.
    """

    makes = How2AlignOutputs
    reads = WHOLE_VIDEO | {"windows": 2}
    counts = "videos aligned"
    listed_by = "dataset.anno_path"

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the cosines of each video."""
        for batch, inputs in batches:
            yield {"videos": [align_video(model, batch, inputs)]}


def align_video(
    model: Any, batch: Mapping[str, Any], inputs: Mapping[str, torch.Tensor]
) -> AlignedVideo:
    """Returns the cosines of one collated video (leading axis 1)."""
    assert len(batch["video_id"]) == 1, "videos differ in length: one per batch"
    only = {name: value[0] for name, value in inputs.items()}
    text_nD = encode_sentences(model, only["caps"], only["cmasks"])
    video_WFD = encode_windows(model, only, text_nD.shape[1])
    total_nL = text_nD.new_zeros(len(text_nD), int(batch["video_len"]))
    count_nL = torch.zeros_like(total_nL)
    # Add the cosines of every window and the sentences that it is compared with.
    lengths_W, windows = only["vmasks"].sum(dim=1).tolist(), batch["windows"][0].tolist()
    for (start, first, last), length, window_FD in zip(windows, lengths_W, video_WFD, strict=True):
        total_nL[first:last, start : start + length] += text_nD[first:last] @ window_FD[:length].T
        count_nL[first:last, start : start + length] += 1
    return AlignedVideo(
        video_id=batch["video_id"][0],
        similarity=(total_nL / count_nL.clamp(min=1)).cpu().numpy(),
        covered=(count_nL > 0).cpu().numpy(),
        aligned=batch["aligned"][0].numpy(),
        spans_s=batch["sentence_s"][0].numpy(),
    )


def encode_sentences(model: Any, caps_nT: torch.Tensor, cmasks_nT: torch.Tensor) -> torch.Tensor:
    """Returns unit vectors, float32 [n, D]. Slots that are padding everywhere are not computed."""
    longest = int(cmasks_nT.sum(dim=1).max())
    parts = []
    for first in range(0, len(caps_nT), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        caps, cmasks = caps_nT[rows, :longest], cmasks_nT[rows, :longest]
        parts.append(model.forward_text(caps, cmasks)[0].float())
    return normalize(finite(torch.cat(parts), "sentences"), dim=-1)


def encode_windows(
    model: Any, inputs: Mapping[str, torch.Tensor], hidden_size: int
) -> torch.Tensor:
    """Returns unit vectors of every second, float32 [W, F, D]; those of padding mean nothing."""
    vfeats_WFE, vmasks_WF = inputs["vfeats"], inputs["vmasks"]
    parts = [vfeats_WFE.new_zeros(0, vfeats_WFE.shape[1], hidden_size)]  # a video without windows
    for first in range(0, len(vfeats_WFE), ROWS_AT_ONCE):
        vfeats = vfeats_WFE[first : first + ROWS_AT_ONCE]
        vmasks = vmasks_WF[first : first + ROWS_AT_ONCE]
        # [CLS] and [SEP] are the same for every window.
        text = [inputs[name][:1].expand(len(vfeats), -1) for name in ("caps", "cmasks")]
        states = model.forward_video(vfeats, vmasks, *text, output_hidden_states=True)
        seconds_BFD = states[:, 1 : 1 + vfeats.shape[1]].float()
        finite(seconds_BFD[vmasks], "seconds")
        parts.append(normalize(seconds_BFD, dim=-1))
    return torch.cat(parts)


@METRICS.register
class How2AlignMetric(Metric[How2AlignOutputs]):
    """Recall of the moments of alignable sentences, and ROC-AUC of telling these from the others.

    As published, a cosine of exactly 0 counts as never covered, the first of equal maxima wins, and
    a sentence that no window was compared with is put at second 0. Corrected, what was compared is
    remembered, equally good seconds share a hit, and a sentence that was never compared is a miss.
    """

    takes = How2AlignOutputs
    numbers = (
        Number("Recall", "alignment, recall, as published"),
        Number("AUC", "alignment, ROC-AUC, as published"),
        Number("Recall-corrected", "alignment, recall, corrected"),
        Number("AUC-corrected", "alignment, ROC-AUC, corrected"),
    )

    def compute(self, outputs: How2AlignOutputs) -> dict[str, float]:
        """Returns recall and ROC-AUC (fractions) of both forms, and the share of sentences never
        compared.

        Raises:
            DataError: the sentences are all alignable, or none is.
        """
        aligned_N = outputs.aligned
        if aligned_N.all() or not aligned_N.any():
            raise DataError(
                "The scored videos must have sentences that are alignable and others, but "
                f"{int(aligned_N.sum())} of {len(aligned_N)} are. Score more videos of "
                "`dataset.anno_path`."
            )
        published = [place_released(video.similarity, video.spans_s) for video in outputs.videos]
        corrected = [
            place_corrected(video.similarity, video.covered, video.spans_s)
            for video in outputs.videos
        ]
        return {
            **_numbers(published, aligned_N, ""),
            **_numbers(corrected, aligned_N, "-corrected"),
            "never-compared": float((_covered_seconds(outputs) == 0).mean()),
        }

    def chance(self, outputs: How2AlignOutputs) -> dict[str, float]:
        """Returns the expectation for cosines drawn independently for every sentence and second
        compared.
        """
        aligned_N = outputs.aligned
        auc = chance_auc(_covered_seconds(outputs), aligned_N)
        recall = {
            released: np.concatenate(
                [
                    chance_hits(video.covered, video.spans_s, released=released)
                    for video in outputs.videos
                ]
            )[aligned_N].mean()
            for released in (True, False)
        }
        return {
            "Recall": float(recall[True]),
            "AUC": auc,
            "Recall-corrected": float(recall[False]),
            "AUC-corrected": auc,
        }

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns the two numbers of the release, and how many sentences they are not about."""
        never = result["never-compared"]
        published = f"Recall: {result['Recall']:.4f} - AUC: {result['AUC']:.4f}"
        return f"{published} - sentences never compared: {never:.1%}"


def _numbers(placements: list[Placement], aligned_N: np.ndarray, suffix: str) -> dict[str, float]:
    hits_N = np.concatenate([placement.hits_n for placement in placements])
    peaks_N = np.concatenate([placement.peaks_n for placement in placements])
    return {
        f"Recall{suffix}": float(hits_N[aligned_N].mean()),
        f"AUC{suffix}": roc_auc(peaks_N, aligned_N),
    }


def _covered_seconds(outputs: How2AlignOutputs) -> np.ndarray:
    """Returns how many seconds each sentence was compared with, int64, video after video."""
    return np.concatenate([video.covered.sum(axis=1) for video in outputs.videos])
