"""The downstream benchmarks, one folder each.

A folder holds everything that belongs to its benchmark: the reader of its files, its aligner,
predictor and metrics, the sections of its report, and the numbers that papers report. Removing the
folder removes the benchmark.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

_FOLDER_OF = {}
for _info in iter_modules(__path__):
    _folder = import_module(f"{__name__}.{_info.name}")
    # A folder's `__init__.pyi` lists its public names, so its modules are not imported here.
    _FOLDER_OF.update(dict.fromkeys(_folder.__all__, _folder))
__all__ = list(_FOLDER_OF)


def __getattr__(name: str) -> Any:
    """Returns a public name of a benchmark. Its module is imported when it is first used."""
    if name not in _FOLDER_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_FOLDER_OF[name], name)
