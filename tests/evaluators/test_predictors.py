"""The predictor against one pair at a time through a small two-tower model."""

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.batch import ClipBatch
from mmpt.config import DatasetConfig
from mmpt.errors import CheckpointError, DataError
from mmpt.evaluators import ClipId, RetrievalPredictor
from mmpt.evaluators.predictors import clip_ids

CPU = torch.device("cpu")


class TinyTwoTower(nn.Module):
    """Masked means of an embedding and of projected features, with dropout so that eval mode
    matters.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 6)
        self.video = nn.Linear(8, 6)
        self.dropout = nn.Dropout(0.5)
        self.calls: list[torch.dtype] = []

    def forward(
        self, caps: torch.Tensor, cmasks: torch.Tensor, vfeats: torch.Tensor, vmasks: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        self.calls.append(vfeats.dtype)
        assert not torch.is_grad_enabled()
        text, video = self.dropout(self.words(caps)), self.dropout(self.video(vfeats))
        return {
            "pooled_text": (text * cmasks[..., None]).sum(1) / cmasks.sum(1, keepdim=True),
            "pooled_video": (video * vmasks[..., None]).sum(1) / vmasks.sum(1, keepdim=True),
        }


def batches(sizes: list[int]) -> list[ClipBatch]:
    generator = torch.Generator().manual_seed(1)
    made: list[ClipBatch] = []
    first = 0
    for size in sizes:
        lengths = torch.randint(1, 5, (size, 1), generator=generator)
        made.append(
            ClipBatch(
                caps=torch.randint(0, 50, (size, 7), generator=generator),
                cmasks=torch.arange(7) < lengths + 2,
                vfeats=torch.randn(size, 5, 8, generator=generator).half(),
                vmasks=torch.arange(5) < lengths,
                video_id=[f"video{first + n}" for n in range(size)],
            )
        )
        first += size
    return made


def test_scores_equal_one_pair_at_a_time() -> None:
    model, loader = TinyTwoTower().train(), batches([4, 3])
    outputs = RetrievalPredictor(DatasetConfig())(model, loader, CPU)
    expected = np.zeros((7, 7))
    with torch.no_grad():
        texts = [
            cap[mask] for b in loader for cap, mask in zip(b["caps"], b["cmasks"], strict=True)
        ]
        clips = [
            feat[mask].float()
            for b in loader
            for feat, mask in zip(b["vfeats"], b["vmasks"], strict=True)
        ]
        for row, text in enumerate(texts):
            for column, clip in enumerate(clips):
                expected[row, column] = float(model.words(text).mean(0) @ model.video(clip).mean(0))
    assert outputs.scores.dtype == np.float32
    np.testing.assert_allclose(outputs.scores, expected, atol=1e-6)  # 2e-7
    assert outputs.clips == [ClipId(f"video{n}") for n in range(7)]
    assert outputs.pooled_text.shape == outputs.pooled_video.shape == (7, 6)


def test_the_model_keeps_its_mode_and_sees_each_batch_once_in_its_own_dtype() -> None:
    model = TinyTwoTower().train()
    RetrievalPredictor(DatasetConfig())(model, batches([2, 2]), CPU)
    assert model.training
    assert model.calls == [torch.float32, torch.float32]


def test_vectors_that_are_not_finite_are_refused() -> None:
    model = TinyTwoTower()
    with torch.no_grad():
        model.video.bias[0] = float("nan")
    with pytest.raises(CheckpointError, match="3 of 3 clips are not finite"):
        RetrievalPredictor(DatasetConfig())(model, batches([3]), CPU)


def test_an_empty_test_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        RetrievalPredictor(DatasetConfig())(TinyTwoTower(), [], CPU)


def test_clip_ids_of_every_collation() -> None:
    expected = [ClipId("a", 0, 4), ClipId("b", 5, 9), ClipId("c", 1, 2)]
    assert clip_ids([("a", 0, 4), ("b", 5, 9), ("c", 1, 2)]) == expected
    keys = torch.utils.data.default_collate([("a", 0, 4), ("b", 5, 9), ("c", 1, 2)])
    assert clip_ids(keys) == expected
    assert clip_ids(["a", "b", "c"]) == [ClipId("a"), ClipId("b"), ClipId("c")]


def test_equal_captions_have_equal_vectors_whatever_their_batch() -> None:
    class Rounding(TinyTwoTower):
        """Adds a little to every vector that depends on the call, as another batch size may."""

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            output = super().forward(**inputs)
            output["pooled_text"] += 1e-7 * len(self.calls)
            return output

    first, second = batches([3, 3])
    second["caps"][1], second["cmasks"][1] = first["caps"][2], first["cmasks"][2]
    outputs = RetrievalPredictor(DatasetConfig())(Rounding(), [first, second], CPU)
    assert (outputs.pooled_text[4] == outputs.pooled_text[2]).all()
    assert (outputs.pooled_text[3] != outputs.pooled_text[2]).any()
