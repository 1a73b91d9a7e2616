"""Classification losses against their definitions, written out."""

import torch

from mmpt.config.schema import LossConfig
from mmpt.losses import BCE, CrossEntropy


def test_cross_entropy_skips_padded_seconds() -> None:
    logits = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 3.0], [9.0, 9.0, 0.0]]])
    # Targets have a leading axis of one video, as in a batch.
    targets = torch.tensor([[[0, 0], [2, -100]]])
    output = CrossEntropy(LossConfig())(logits=logits, targets=targets, video_len=3)
    probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = (
        -(
            probabilities[0, 0, 0].log()
            + probabilities[0, 1, 0].log()
            + probabilities[1, 0, 2].log()
        )
        / 3
    )
    torch.testing.assert_close(output.total, expected)
    torch.testing.assert_close(output.metrics["accuracy"], torch.tensor(2 / 3))


def test_bce_is_the_mean_over_seconds_and_steps() -> None:
    logits = torch.tensor([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]])
    targets = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    p = 1 / (1 + (-logits).exp())
    expected = -(targets[0] * p.log() + (1 - targets[0]) * (1 - p).log()).sum() / 6
    torch.testing.assert_close(BCE(LossConfig())(logits=logits, targets=targets).total, expected)
    assert BCE(LossConfig())(logits=logits.half(), targets=targets).total.dtype == torch.float32
