"""Losses: `nn.Module`s from the batch and the model's output to named terms; `LOSSES` knows them by name."""

from mmpt.losses.base import LOSSES, Loss, LossOutput, NonFiniteLossError
from mmpt.losses.classification import BCE, CrossEntropy
from mmpt.losses.nce import MMContraLoss, T2VContraLoss, V2TContraLoss
from mmpt.losses.sequence import SequenceContrastLoss

__all__ = [
    "BCE",
    "LOSSES",
    "CrossEntropy",
    "Loss",
    "LossOutput",
    "MMContraLoss",
    "NonFiniteLossError",
    "SequenceContrastLoss",
    "T2VContraLoss",
    "V2TContraLoss",
]
