"""Classification losses against plain implementations of their definitions."""

import torch

from mmpt.config.schema import LossConfig
from mmpt.losses import BCE, CrossEntropy


def test_cross_entropy_skips_padded_seconds() -> None:
    first_window = [[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    second_window = [[0.0, 0.0, 3.0], [9.0, 9.0, 0.0]]
    logits = torch.tensor([first_window, second_window])
    # Targets have a leading axis of one video, as in a batch.
    targets = torch.tensor([[[0, 0], [2, -100]]])
    output = CrossEntropy(LossConfig())(logits=logits, targets=targets, video_len=3)

    exponentials = logits.exp()
    probabilities = exponentials / exponentials.sum(-1, keepdim=True)
    of_targets = torch.stack(
        [
            probabilities[0, 0, 0],
            probabilities[0, 1, 0],
            probabilities[1, 0, 2],
        ]
    )
    torch.testing.assert_close(output.total, -of_targets.log().mean())
    torch.testing.assert_close(output.metrics["accuracy"], torch.tensor(2 / 3))


def test_bce_is_the_mean_over_seconds_and_steps() -> None:
    loss = BCE(LossConfig())
    logits = torch.tensor([[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    output = loss(logits=logits, targets=targets[None])

    p = 1 / (1 + (-logits).exp())
    log_likelihood = targets * p.log() + (1 - targets) * (1 - p).log()
    torch.testing.assert_close(output.total, -log_likelihood.sum() / 6)
    half_output = loss(logits=logits.half(), targets=targets[None])
    assert half_output.total.dtype == torch.float32
