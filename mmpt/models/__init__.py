"""Models: the two towers, their heads, and their checkpoints."""

from typing import Any

import lazy_loader

# `__init__.pyi` lists the public names. A name's module is imported when the name is first used.
_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "MMPTModel":  # published under this package, defined in `mmpt.inference`
        from mmpt.inference.mmptmodel import MMPTModel

        return MMPTModel
    return _get(name)
