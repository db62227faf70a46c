"""Arrays of numpy in files."""

from __future__ import annotations

from types import SimpleNamespace
from typing import BinaryIO

import numpy as np


def save(file: BinaryIO, array: np.ndarray) -> None:
    """Write an array of numbers as .npy; an OSError says why it cannot be written."""
    np.save(SimpleNamespace(write=file.write), array)  # into a file itself numpy writes without the reason
