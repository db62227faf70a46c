"""Arrays of numpy in files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, Sequence

import numpy as np

from latse.errors import LatseError
from latse.files import explained


def read_npz(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Return the arrays of these names in an .npz, none of them pickled; LatseError if they are not there."""
    try:
        with explained(f"cannot read {path}"), np.load(path, allow_pickle=False) as content:
            return [content[name] for name in names]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LatseError(f"{path} is damaged") from error


def save(file: BinaryIO, array: np.ndarray) -> None:
    """Write an array of numbers as .npy; an OSError says why it cannot be written."""
    np.save(SimpleNamespace(write=file.write), array)  # into a file itself numpy writes without the reason
