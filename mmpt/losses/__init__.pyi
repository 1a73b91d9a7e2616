from .base import LOSSES, Loss, LossOutput, NonFiniteLossError
from .classification import BCE, CrossEntropy
from .nce import MMContraLoss, T2VContraLoss, V2TContraLoss
from .sequence import SequenceContrastLoss

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
