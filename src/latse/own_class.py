"""Classes by name: those that are shipped, and a user's own as `FILE.py:CLASS`."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Mapping

from latse.errors import MOST, LatseError, blaming, nearest


@dataclass(frozen=True)
class Registry:
    """The classes of one kind that recipes and commands name, such as margins.

    Attributes
    ----------
    title : str
        What errors call one, such as `margin`.
    shipped : mapping of str to type
        Name -> class.
    base : type
        What a class of a user's is a subclass of.
    needs : str
        The same in words, as they follow "has no class NAME".
    positional : tuple of str, default none
        Arguments of the class that are no parameters of a recipe, the first ones.
    others : tuple of str, default FILE.py:CLASS
        How names look that are not shipped.
    """

    title: str
    shipped: Mapping[str, type]
    base: type
    needs: str
    positional: tuple[str, ...] = ()
    others: tuple[str, ...] = ("FILE.py:CLASS",)

    def find(self, name: str) -> type:
        """Return a class: a shipped one, or the one of `FILE.py:CLASS`, whose file is run.

        Raises LatseError if there is none, the file cannot be run, or the class is of another kind.
        """
        path = source(name)
        if path is None:
            if name not in self.shipped:
                *known, last = *self.shipped, *self.others
                there = f"there are {', '.join(known)} and {last}" if known else f"write {last}"
                raise LatseError(f"unknown {self.title} '{name}'; {there}{nearest(name, self.shipped)}")
            return self.shipped[name]
        class_name = name.rpartition(":")[2]
        own = getattr(_module(path), class_name, None)
        if not (inspect.isclass(own) and issubclass(own, self.base)):
            raise LatseError(f"{path} has no class {class_name} {self.needs}")
        return own

    def parameters(self, name: str) -> Mapping[str, float]:
        """Return the parameters of a class with their defaults; raises as `find`, and if one is no number."""
        signature = inspect.signature(self.find(name)).parameters
        defaults = {key: value.default for key, value in signature.items() if key not in self.positional}
        for key, default in defaults.items():
            if not isinstance(default, (int, float)):
                missing = default is inspect.Parameter.empty
                wrong = "no default" if missing else f"the default {default!r}, not a number"
                raise LatseError(f"the parameter '{key}' of the {self.title} '{name}' has {wrong}")
        return defaults

    def create(self, name: str, *arguments: Any, **parameters: float) -> Any:
        """Return an object of a class.

        Parameters
        ----------
        name : str
            As of `find`.
        *arguments : object
            The arguments that `Registry.positional` names.
        **parameters : float
            Any of `Registry.parameters`; whole numbers become ints where the default is one.

        Raises
        ------
        LatseError
            As `find` and `parameters`; if a parameter is unknown, or the class refuses it.
        """
        known = self.parameters(name)
        for key, value in parameters.items():
            if key not in known:
                raise LatseError(
                    f"the {self.title} '{name}' has no parameter '{key}'; it has {', '.join(known) or 'none'}"
                )
            if type(known[key]) is int and value % 1:
                raise LatseError(f"{key} is {value}, must be a whole number as its default {known[key]} is")
            if type(known[key]) is int and abs(value) > MOST:
                raise LatseError(f"{key} is {value:.0f}, must be at most {MOST} in size")
        whole = {key: int(value) for key, value in parameters.items() if type(known[key]) is int}
        with blaming(f"the {self.title} '{name}' cannot be made"):
            return self.find(name)(*arguments, **{**parameters, **whole})


def source(name: str) -> Path | None:
    """Return the file of a name that is `FILE.py:CLASS`, None for any other."""
    path, colon, _ = name.rpartition(":")
    return Path(path) if colon and path.endswith(".py") else None


def _module(path: Path) -> ModuleType:
    """Run a file, once in a process unless it is edited, and return what it defines."""
    with blaming(f"cannot run {path}"):
        content = path.read_bytes()
        key = hashlib.blake2b(os.fsencode(path.resolve()) + content, digest_size=8).hexdigest()
        name = f"{path.stem}_{key}"
        if name in sys.modules:
            return sys.modules[name]
        module = sys.modules[name] = ModuleType(name)  # where dataclasses and pickle look for it
        module.__file__ = str(path)
        try:
            exec(compile(content, str(path), "exec", dont_inherit=True), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
        return module
