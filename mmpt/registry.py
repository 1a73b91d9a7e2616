"""Finds the classes that a YAML names.

There is a registry for each kind of class, such as aligners or losses. A user's own class is named
by its dotted path.
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
    """Returns " Did you mean `x`?" for the most similar known name.

    Returns an empty string if no known name is similar.
    """
    similar = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean `{similar[0]}`?" if similar else ""


class Registry(Generic[T]):
    """A collection of classes of one kind, by name.

    A class is registered when its module is imported. The module is imported when the class is
    looked up for the first time. A run therefore imports only the classes that its YAML names.

    Args:
        kind: name of the kind in messages, such as "aligner".
        base: base class of all classes of the kind, including a user's own.
        packages: dotted names of the packages that define such classes. Each must list its public
            names in `__all__`.
    """

    def __init__(self, kind: str, base: type[Any], *packages: str):
        self.kind = kind
        self.base = base
        self.packages = packages
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: type[T], name: str | None = None) -> type[T]:
        """Registers `cls`, and returns it. Used as a class decorator.

        Args:
            name: a second name of a registered class. Default: the class's own name.
        """
        name = name or cls.__name__
        assert issubclass(cls, self.base), (
            f"{cls.__name__} is not a subclass of {self.base}"
        )
        assert name not in self._classes, f"two classes named {name} in {self.kind}"
        self._classes[name] = cls
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
        """Returns the class called `name`.

        Args:
            name: name of a registered class, or `package.module.Class` for a user's own.
            key: the YAML key that has this value, for messages.
        Raises:
            ConfigError: there is no such class, its module cannot be imported, or it is not a
                subclass of `base`.
        """
        known_class = self._find(name)
        if known_class is not None:
            return known_class
        if "." in name:
            return self._import_custom(name, key)
        known = sorted(self)
        hint = did_you_mean(name, known)
        listed = ", ".join(known)
        problem = f"no {self.kind} is called `{name}`.{hint} Known: {listed}."
        raise ConfigError(key, [problem])

    def _import_custom(self, name: str, key: str) -> type[T]:
        """Returns a user's own class; arguments and errors as for `get`."""
        folder = os.getcwd()
        if folder not in sys.path:  # a user's modules are in the working directory
            sys.path.append(folder)
        module_name, _, class_name = name.rpartition(".")
        try:
            module = importlib.import_module(module_name)
            found = getattr(module, class_name)
        except (ImportError, AttributeError) as err:
            problem = f"cannot import the {self.kind} `{name}`: {err}."
            raise ConfigError(key, [problem]) from err
        if not isinstance(found, type) or not issubclass(found, self.base):
            base = f"{self.base.__module__}.{self.base.__qualname__}"
            problem = (
                f"the {self.kind} `{name}` must be a subclass of `{base}`, but is not."
            )
            raise ConfigError(key, [problem])
        return found

    def _find(self, name: str) -> type[T] | None:
        """Returns the class called `name`, or None. Imports its module if a package lists it."""
        for package_name in self.packages:
            package = importlib.import_module(package_name)
            if name in package.__all__:
                getattr(package, name)  # imports the module that defines the class
        return self._classes.get(name)
