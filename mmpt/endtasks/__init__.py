"""The downstream benchmarks, one package each. A class of any of them is an attribute of this
package.
"""

import importlib
import pkgutil
from typing import Any

# Maps each public class to the package of its benchmark. The packages themselves import nothing
# yet.
_PACKAGES = {
    name: package
    for package in (
        f"{__name__}.{found.name}" for found in pkgutil.iter_modules(__path__) if found.ispkg
    )
    for name in importlib.import_module(package).__all__
}
__all__ = sorted(_PACKAGES)


def __getattr__(name: str) -> Any:
    if name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PACKAGES[name]), name)
