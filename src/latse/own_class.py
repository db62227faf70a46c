"""Classes of a user's own, named as `FILE.py:CLASS`: margins and detectors."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Optional

from latse.errors import LatseError


def source(name: str) -> Optional[Path]:
    """Return the file of a name that is `FILE.py:CLASS`, None for any other."""
    path, colon, _ = name.rpartition(":")
    return Path(path) if colon and path.endswith(".py") else None


def load(name: str) -> object:
    """Run the file of `FILE.py:CLASS` and return what CLASS stands for in it; None if it has no such name.

    Raises LatseError if the file cannot be run.
    """
    path = source(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file may raise
        raise LatseError(f"cannot run {path}: {type(error).__name__}: {error}") from error
    return getattr(module, name.rpartition(":")[2], None)
