"""The retrieval predictor on a small two-tower model. Scores are compared with the release's in
tests/parity/, and with known answers in tests/endtasks/test_known_answers.py.
"""

import pytest
import torch
from torch import nn

from mmpt.batch import ClipBatch
from mmpt.config import DatasetConfig
from mmpt.errors import CheckpointError, DataError
from mmpt.evaluators import ClipId, RetrievalOutputs, RetrievalPredictor
from mmpt.evaluators.predictors import clip_ids


class TinyTwoTower(nn.Module):
    """Towers that sum embeddings and projected features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 6)
        self.video = nn.Linear(8, 6)
        self.num_calls = 0

    def forward(
        self,
        caps: torch.Tensor,
        cmasks: torch.Tensor,
        vfeats: torch.Tensor,
        vmasks: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        self.num_calls += 1
        text = self.words(caps).sum(dim=1)
        video = self.video(vfeats).sum(dim=1)
        return {"pooled_text": text, "pooled_video": video}


def predict(model: nn.Module, loader: list[ClipBatch]) -> RetrievalOutputs:
    return RetrievalPredictor(DatasetConfig())(model, loader, torch.device("cpu"))


def batches(num: int) -> list[ClipBatch]:
    """Batches of three pairs."""
    generator = torch.Generator().manual_seed(1)
    made: list[ClipBatch] = []
    for _ in range(num):
        caps = torch.randint(0, 50, (3, 7), generator=generator)
        vfeats = torch.randn(3, 5, 8, generator=generator).half()
        batch = ClipBatch(
            caps=caps,
            cmasks=torch.ones(3, 7, dtype=torch.bool),
            vfeats=vfeats,
            vmasks=torch.ones(3, 5, dtype=torch.bool),
            video_id=["a", "b", "c"],
        )
        made.append(batch)
    return made


def test_vectors_that_are_not_finite_are_refused() -> None:
    model = TinyTwoTower()
    with torch.no_grad():
        model.video.bias[0] = float("nan")
    with pytest.raises(
        CheckpointError, match="3 of 3 rows of `pooled_video` are not finite"
    ):
        predict(model, batches(1))


def test_an_empty_test_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        predict(TinyTwoTower(), [])


def test_clip_ids_are_read_from_every_form_of_a_batch() -> None:
    keys = torch.utils.data.default_collate([("a", 0, 4), ("b", 5, 9), ("c", 1, 2)])
    assert clip_ids(keys) == [ClipId("a", 0, 4), ClipId("b", 5, 9), ClipId("c", 1, 2)]
    assert clip_ids(["a", "b", "c"]) == [ClipId("a"), ClipId("b"), ClipId("c")]


def test_equal_captions_have_equal_vectors_in_all_batches() -> None:
    class Rounding(TinyTwoTower):
        """Changes vectors slightly in each call, as another batch size may do."""

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            output = super().forward(**inputs)
            output["pooled_text"] += 1e-7 * self.num_calls
            return output

    first, second = batches(2)
    second["caps"][1] = first["caps"][2]
    outputs = predict(Rounding(), [first, second])
    assert (outputs.pooled_text[4] == outputs.pooled_text[2]).all()
    assert (outputs.pooled_text[3] != outputs.pooled_text[2]).any()
