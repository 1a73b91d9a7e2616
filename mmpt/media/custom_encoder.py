"""Opens an encoder that the user has written, and describes the exceptions of its code."""

import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from mmpt.errors import DataError, first_line
from mmpt.utils.io import file_hash

METHODS = ("sampling", "prepare", "encode")
_PACKAGE = Path(__file__).parents[1]


def load_custom_encoder(name: str) -> tuple[Any, str]:
    """Returns an instance of a class in a module, and a hash of the file of the class.

    The module may be in the working directory.

    Args:
        name: `module.Class`.
    Raises:
        DataError: there is no such class, it lacks a method, or its code raises an exception.
    """
    module_name, _, class_name = name.rpartition(".")
    module = _import(name, module_name)
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        raise DataError(
            f"`--encoder {name}` must be a class, but {module.__file__} has no class {class_name}."
        )
    missing = [method for method in METHODS if not callable(getattr(cls, method, None))]
    if missing:
        raise DataError(
            f"`--encoder {name}` must have the methods {', '.join(METHODS)}, but has no "
            f"{', '.join(missing)}."
        )
    try:
        encoder = cls()
    except Exception as err:
        raise DataError(
            f"`--encoder {name}` must be a class that can be called without arguments, but raises "
            f"{describe(err)}. Correct it, or give the arguments of `__init__` defaults."
        ) from err
    return encoder, f"sha256 {file_hash(inspect.getfile(cls))}"


def _import(name: str, module_name: str) -> ModuleType:
    """Returns a module, which may be in the working directory."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as err:
        raise DataError(
            f"`--encoder {name}` cannot be imported: {describe(err)}. Correct the name or the "
            "module."
        ) from err


def describe_briefly(error: BaseException) -> str:
    """Returns the type and the first line of the message of an exception."""
    text = type(error).__name__
    if str(error).strip():
        text += f": {first_line(error)}"
    return text


def describe(error: BaseException) -> str:
    """Returns the type, the message and the place of an exception that an encoder has raised.

    The place is the innermost line of the code in the working directory. If there is none, it is
    the innermost line of all code outside of this package.
    """
    text = describe_briefly(error)
    if isinstance(error, SyntaxError):  # its message has the file and the line
        return text
    own = others = None  # the innermost line so far
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        is_ours = path.is_relative_to(_PACKAGE) or "importlib" in frame.filename
        if is_ours or frame.lineno is None:
            continue
        others = f"{path}, line {frame.lineno}"
        if path.is_relative_to(Path.cwd()) and "site-packages" not in path.parts:
            own = others
    place = own or others
    return f"{text} ({place})" if place else text
