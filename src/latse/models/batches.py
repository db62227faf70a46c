"""A function of a few images applied to many."""

from __future__ import annotations

from typing import Callable

import numpy as np
from tqdm import tqdm

from latse.errors import LatseError


def in_batches(
    function: Callable[[np.ndarray], np.ndarray], images: np.ndarray, batch_size: int, title: str
) -> np.ndarray:
    """Return the rows that `function` gives for runs of at most `batch_size` images, one below the other.

    The rows are in memory once: each batch's go straight to their place.

    Parameters
    ----------
    function
        Maps images (m, ...) to rows (m, ...), of the same shape and type for every batch.
    images
        (n, ...), n at least 1.
    batch_size
        At least 1.
    title
        Of the bar of progress.

    Returns
    -------
    ndarray
        (n, ...), of the type that the first batch has.

    Raises
    ------
    LatseError
        If there is no image, or the batch is empty.
    """
    if not len(images):
        raise LatseError("there is no image to embed")
    if batch_size < 1:
        raise LatseError(f"a batch of {batch_size} holds no image")
    starts = range(0, len(images), batch_size)
    bar = tqdm(starts, desc=title, unit="batch", leave=False, disable=None)
    found = None
    for start in bar:
        rows = function(images[start : start + batch_size])
        if found is None:
            found = np.empty((len(images), *rows.shape[1:]), rows.dtype)
        found[start : start + batch_size] = rows
    return found
