from .alignment import Alignment
from .mmptmodel import MMPTModel
from .moment_index import MomentIndex
from .moments import Moment

__all__ = ["Alignment", "MMPTModel", "Moment", "MomentIndex"]
