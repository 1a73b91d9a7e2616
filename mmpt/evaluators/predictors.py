"""Predictors run a model over a test set and keep what the metrics need; scores are float32 dot products on the CPU.

Legend: B pairs of a batch, N pairs in all, T text slots, F video slots (seconds), D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from mmpt.batch import ClipBatch
from mmpt.errors import CheckpointError, DataError
from mmpt.evaluators.metrics import ClipId, RetrievalOutputs
from mmpt.registry import Registry
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

_CAPTIONS_PER_CHUNK = 1024


class BatchLoader(Protocol):
    """A sized stream of collated batches, such as a DataLoader or a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ClipBatch]: ...


class Predictor(Protocol):
    """Anything that turns a model and a test set into outputs for metrics."""

    def __call__(self, model: nn.Module, loader: BatchLoader, device: torch.device) -> RetrievalOutputs:
        """Run `model` over `loader` on `device`."""


PREDICTORS: Registry[Predictor] = Registry("predictor")


@PREDICTORS.register
class RetrievalPredictor:
    """Embeds every caption and every clip once, and scores all captions against all clips."""

    def __call__(self, model: nn.Module, loader: BatchLoader, device: torch.device) -> RetrievalOutputs:
        """Run `model` over `loader` in eval mode and without gradients; the model stays on `device`.

        Args:
            model: forward(caps=, cmasks=, vfeats=, vmasks=) returns pooled_text and pooled_video, float [B, D].
            loader: batches with caps int64 [B, T], cmasks bool [B, T], vfeats float16/32 [B, F, 512],
                vmasks bool [B, F], and video_id.
        Raises:
            DataError: the test set is empty.
            CheckpointError: the model gives vectors that are not finite.
        """
        text_parts: list[torch.Tensor] = []
        video_parts: list[torch.Tensor] = []
        clips: list[ClipId] = []
        with _evaluating(model.to(device)):
            for batch in progress(loader, len(loader), "test batches embedded", logger):
                output = model(**_to_device(batch, device, _dtype_of(model)))
                text_parts.append(output["pooled_text"].float().cpu())
                video_parts.append(output["pooled_video"].float().cpu())
                clips.extend(clip_ids(batch["video_id"]))
        if not clips:
            raise DataError("The test set is empty; check `dataset.test_path` and `dataset.vfeat_dir`.")
        text_ND, video_ND = torch.cat(text_parts), torch.cat(video_parts)
        assert len(text_ND) == len(video_ND) == len(clips), (len(text_ND), len(video_ND), len(clips))
        _check_finite(text_ND, video_ND)
        return RetrievalOutputs(
            scores=score_pairs(text_ND, video_ND).numpy(),
            pooled_text=text_ND.numpy(),
            pooled_video=video_ND.numpy(),
            clips=clips,
        )


def score_pairs(text_MD: torch.Tensor, video_ND: torch.Tensor) -> torch.Tensor:
    """Return float32 [M, N], the dot product of every caption with every clip, some captions at a time."""
    video_DN = video_ND.float().T
    return torch.cat([chunk.float() @ video_DN for chunk in text_MD.split(_CAPTIONS_PER_CHUNK)])


def clip_ids(collated: Sequence[Any]) -> list[ClipId]:
    """Return the ids of a batch from its collated `video_id`.

    Args:
        collated: a list of video ids, a list of (video, start, end), or those three transposed as torch's own
            collation leaves them: [ids, starts [B], ends [B]].
    """
    if len(collated) == 3 and isinstance(collated[1], torch.Tensor):
        videos, starts, ends = collated
        rows = zip(videos, starts.tolist(), ends.tolist(), strict=True)
        return [ClipId(str(video), start, end) for video, start, end in rows]
    return [ClipId(item) if isinstance(item, str) else ClipId(*item) for item in collated]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to eval mode without gradients, and give the model's mode back."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next((weight.dtype for weight in model.parameters()), torch.float32)


def _to_device(batch: ClipBatch, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the model's inputs on `device`, features in the model's dtype (they are stored as float16)."""
    return {
        "caps": batch["caps"].to(device),
        "cmasks": batch["cmasks"].to(device),
        "vfeats": batch["vfeats"].to(device, dtype),
        "vmasks": batch["vmasks"].to(device),
    }


def _check_finite(text_ND: torch.Tensor, video_ND: torch.Tensor) -> None:
    for what, rows in (("captions", text_ND), ("clips", video_ND)):
        bad = int((~rows.isfinite().all(dim=1)).sum())
        if bad:
            raise CheckpointError(
                f"The vectors of {bad} of {len(rows)} {what} are not finite, so the checkpoint has diverged or the "
                "features are damaged; evaluate an earlier checkpoint or check `dataset.vfeat_dir`."
            )
