"""HTM-Align: cosines between every sentence and every second of a video, and the recall and ROC-AUC made of them.

Legend: n sentences and W windows of a video, L seconds, F video slots, T text slots, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from mmpt.batch import ClipBatch
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
    BatchLoader,
    Metric,
    Number,
    Outputs,
    Predictor,
)
from mmpt.evaluators.inference import check_finite, evaluating, model_inputs
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

ROWS_AT_ONCE = 256
"""Windows, or sentences, that go through a tower together."""


class AlignedVideo(NamedTuple):
    """A video with its sentences set against its seconds."""

    video_id: str
    similarity: (
        np.ndarray
    )  # float32 [n, L]: mean cosine over the windows that were compared, 0 where none was
    covered: np.ndarray  # bool [n, L]: whether any was
    aligned: np.ndarray  # bool [n]: the sentence is seen in the video
    spans_s: (
        np.ndarray
    )  # float64 [n, 2]: start and end; of a sentence that is not seen, when it is said


@dataclass(frozen=True, kw_only=True)
class How2AlignOutputs(Outputs):
    """The videos of the test set."""

    videos: list[AlignedVideo]

    @property
    def aligned(self) -> np.ndarray:
        """Whether each sentence is alignable, bool, video after video."""
        return np.concatenate([video.aligned for video in self.videos])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the videos one after another: similarity and covered are those of [n, L] each, row by row."""
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
    """Encodes every sentence and every window once, and averages the cosines of overlapping windows."""

    makes = How2AlignOutputs
    reads: ClassVar[Mapping[str, int]] = {
        "caps": 2,
        "cmasks": 2,
        "vfeats": 3,
        "vmasks": 2,
        "windows": 2,
    }

    def __call__(
        self, model: nn.Module, loader: BatchLoader, device: torch.device
    ) -> How2AlignOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: a two-tower model with forward_video and forward_text.
            loader: one video per batch, as `How2AlignAligner` makes it.
        Raises:
            CheckpointError: the model gives vectors that are not finite.
        """
        videos = []
        with evaluating(model.to(device)):
            for batch in progress(loader, len(loader), "videos aligned", logger):
                assert len(batch["video_id"]) == 1, "videos differ in length: one per batch"
                videos.append(align_video(model, batch, device))
        return How2AlignOutputs(videos=videos)


def align_video(model: nn.Module, batch: ClipBatch, device: torch.device) -> AlignedVideo:
    """Return the cosines of one collated video (leading axis 1)."""
    inputs = {name: value.squeeze(0) for name, value in model_inputs(batch, model, device).items()}
    text_nD = encode_sentences(model, inputs["caps"], inputs["cmasks"])
    video_WFD = encode_windows(model, inputs, text_nD.shape[1])
    shape = (len(text_nD), int(batch["video_len"]))  # type: ignore[typeddict-item]
    total_nL, count_nL = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
    lengths_W = inputs["vmasks"].sum(dim=1).tolist()
    windows = batch["windows"].squeeze(0).tolist()  # type: ignore[typeddict-item]
    for (start, first, last), length, window_FD in zip(windows, lengths_W, video_WFD, strict=True):
        total_nL[first:last, start : start + length] += text_nD[first:last] @ window_FD[:length].T
        count_nL[first:last, start : start + length] += 1
    return AlignedVideo(
        video_id=batch["video_id"][0],
        similarity=(total_nL / count_nL.clamp(min=1)).cpu().numpy(),
        covered=(count_nL > 0).cpu().numpy(),
        aligned=batch["aligned"].squeeze(0).numpy(),  # type: ignore[typeddict-item]
        spans_s=batch["sentence_s"].squeeze(0).numpy(),  # type: ignore[typeddict-item]
    )


def encode_sentences(model: Any, caps_nT: torch.Tensor, cmasks_nT: torch.Tensor) -> torch.Tensor:
    """Return unit vectors, float32 [n, D]; slots that are padding in every sentence are not computed."""
    longest = int(cmasks_nT.sum(dim=1).max())
    chunks = zip(
        caps_nT[:, :longest].split(ROWS_AT_ONCE),
        cmasks_nT[:, :longest].split(ROWS_AT_ONCE),
        strict=True,
    )
    pooled_nD = torch.cat([model.forward_text(caps, cmasks)[0].float() for caps, cmasks in chunks])
    check_finite("sentences", pooled_nD)
    return normalize(pooled_nD, dim=-1)


def encode_windows(
    model: Any, inputs: Mapping[str, torch.Tensor], hidden_size: int
) -> torch.Tensor:
    """Return unit vectors of every second of every window, float32 [W, F, D]; those of padding mean nothing."""
    if not len(
        inputs["vfeats"]
    ):  # a video of half a window's seconds, or no sentence to compare with
        return inputs["vfeats"].new_zeros(0, inputs["vfeats"].shape[1], hidden_size)
    caps, cmasks = (
        inputs["caps"][:1],
        inputs["cmasks"][:1],
    )  # [CLS] and [SEP], the same for every window
    parts = []
    for vfeats, vmasks in zip(
        inputs["vfeats"].split(ROWS_AT_ONCE), inputs["vmasks"].split(ROWS_AT_ONCE), strict=True
    ):
        rows = len(vfeats)
        states = model.forward_video(
            vfeats, vmasks, caps.expand(rows, -1), cmasks.expand(rows, -1), True
        )
        seconds_BFD = states[:, 1 : 1 + vfeats.shape[1]].float()
        check_finite("seconds", seconds_BFD[vmasks])
        parts.append(normalize(seconds_BFD, dim=-1))
    return torch.cat(parts)


@METRICS.register
class How2AlignMetric(Metric[How2AlignOutputs]):
    """Recall of the moments of alignable sentences, and ROC-AUC of telling these from the others.

    As published, a cosine of exactly 0 counts as never covered, the first of equal maxima wins, and a sentence that no
    window was compared with is put at second 0. Corrected, what was compared is remembered, equally good seconds share
    a hit, and a sentence that was never compared is a miss.
    """

    takes = How2AlignOutputs
    numbers = (
        Number("Recall", "alignment, recall, as published"),
        Number("AUC", "alignment, ROC-AUC, as published"),
        Number("Recall-corrected", "alignment, recall, corrected"),
        Number("AUC-corrected", "alignment, ROC-AUC, corrected"),
    )

    def compute(self, outputs: How2AlignOutputs) -> dict[str, float]:
        """Return recall and ROC-AUC (fractions) of both forms, and the share of sentences never compared.

        Raises:
            DataError: the sentences are all alignable, or none is.
        """
        aligned_N = outputs.aligned
        if aligned_N.all() or not aligned_N.any():
            raise DataError(
                f"The scored videos must have sentences that are alignable and others, but {int(aligned_N.sum())} of "
                f"{len(aligned_N)} are. Score more videos of `dataset.anno_path`."
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
        """Return the expectation for cosines drawn independently for every sentence and second compared."""
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
        """Return the two numbers of the release, and how many sentences they are not about."""
        never = result["never-compared"]
        return f"Recall: {result['Recall']:.4f} - AUC: {result['AUC']:.4f} - sentences never compared: {never:.1%}"


def _numbers(placements: list[Placement], aligned_N: np.ndarray, suffix: str) -> dict[str, float]:
    hits_N = np.concatenate([placement.hits_n for placement in placements])
    peaks_N = np.concatenate([placement.peaks_n for placement in placements])
    return {
        f"Recall{suffix}": float(hits_N[aligned_N].mean()),
        f"AUC{suffix}": roc_auc(peaks_N, aligned_N),
    }


def _covered_seconds(outputs: How2AlignOutputs) -> np.ndarray:
    """Return how many seconds each sentence was compared with, int64, video after video."""
    return np.concatenate([video.covered.sum(axis=1) for video in outputs.videos])
