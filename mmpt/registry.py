"""Class names in YAML to classes: a registry per kind of part, and dotted paths for a user's own
classes.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from mmpt.errors import ConfigError

T = TypeVar("T")


def did_you_mean(name: str, known: list[str]) -> str:
    """Return " Did you mean `x`?" for the nearest of `known`, or an empty string when none is
    near.
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean `{near[0]}`?" if near else ""


class Registry(Generic[T]):
    """Classes of one kind by the name that YAMLs use.

    A class is registered when its module is imported, and its module is imported when its name is
    first looked up, so that a run imports only the classes that its YAML names.

    Args:
        kind: what messages call one of them, as in "aligner".
        base: the base class of all of them, including a user's own.
        packages: dotted names of the packages that hold such classes. A package lists its public
            names in `__all__`.
    """

    def __init__(self, kind: str, base: type[Any], *packages: str):
        self.kind = kind
        self.base = base
        self.packages = packages
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: type[T]) -> type[T]:
        """Register `cls` under its own name; a class decorator."""
        assert issubclass(cls, self.base), f"{cls.__name__} is no {self.kind}"
        assert cls.__name__ not in self._classes, f"two classes named {cls.__name__} in {self.kind}"
        self._classes[cls.__name__] = cls
        return cls

    def __iter__(self) -> Iterator[str]:
        for package_name in self.packages:
            package = importlib.import_module(package_name)
            for name in package.__all__:
                getattr(package, name)  # imports the module that defines it
        return iter(self._classes)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def get(self, name: str, key: str) -> type[T]:
        """Return the class called `name`; `package.module.Class` is imported, so that users can
        bring their own.

        Args:
            name: the value found in the YAML.
            key: the YAML key that holds it, for the message.
        Raises:
            ConfigError: no such class, its module cannot be imported, or it is not a subclass of
                `base`.
        """
        if known_class := self._find(name):
            return known_class
        if "." not in name:
            known = sorted(self)
            hint = did_you_mean(name, known)
            raise ConfigError(
                key, [f"no {self.kind} is called `{name}`.{hint} Known: {', '.join(known)}."]
            )
        module_name, _, class_name = name.rpartition(".")
        if os.getcwd() not in sys.path:  # a user's modules are where the commands run
            sys.path.append(os.getcwd())
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as err:
            raise ConfigError(key, [f"cannot import the {self.kind} `{name}`: {err}."]) from err
        if not (isinstance(found, type) and issubclass(found, self.base)):
            base = f"{self.base.__module__}.{self.base.__qualname__}"
            problem = f"the {self.kind} `{name}` must be a subclass of `{base}`, but is not."
            raise ConfigError(key, [problem])
        return found

    def _find(self, name: str) -> type[T] | None:
        """Return the class called `name`, importing its module if a package lists it; None if there
        is none.
        """
        for package_name in self.packages:
            package = importlib.import_module(package_name)
            if name in package.__all__:
                getattr(package, name)  # imports the module that defines the class
        return self._classes.get(name)
