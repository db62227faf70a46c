"""What a feature must be to be compared: finite, and where its direction counts, not zero either."""

from __future__ import annotations

from typing import Callable

import numpy as np

from latse.errors import LatseError

Called = Callable[[int], str]  # what the sentence of an error calls a row, by its position


def finite(rows: np.ndarray, called: Called) -> np.ndarray:
    """Return rows, float (n, d); raise LatseError, `called(row)`, for the first that is not finite."""
    _refuse(~np.isfinite(rows).all(axis=1), called, "not finite")
    return rows


def lengths(rows: np.ndarray, called: Called) -> np.ndarray:
    """Return the Euclidean norms of rows, float (n, d), as float64 (n,).

    Raises LatseError, `called(row)`, for the first that is not finite, or else zero: it has no direction.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    _refuse(~np.isfinite(norms), called, "not finite")
    _refuse(norms == 0, called, "zero, which has no direction")
    return norms


def unit(rows: np.ndarray, called: Called) -> np.ndarray:
    """Return rows, numbers (n, d), divided by their norms, in their own precision, float32 or more.

    Raises LatseError as `lengths`.
    """
    rows = rows.astype(np.result_type(rows, np.float32), copy=False)  # whole numbers have no fractions
    return rows / lengths(rows, called)[:, None].astype(rows.dtype)


def _refuse(wrong: np.ndarray, called: Called, fault: str) -> None:
    if wrong.any():
        raise LatseError(f"{called(int(wrong.argmax()))} is {fault}")
