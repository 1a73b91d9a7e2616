from .alignment import Alignment
from .mmptmodel import MMPTModel

__all__ = ["Alignment", "MMPTModel"]
