"""A contact sheet: several synthetic people side by side, each in several views, aligned as for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from latse.data.photographs.align import warp
from latse.data.synth.heads import Heads
from latse.data.synth.people import draw_person, draw_view
from latse.data.synth.render import render
from latse.files import replacing

# Kind of view and age (None: the person's own) of each column.
COLUMNS = [(kind, None) for kind in ("frontal", "plain", "plain", "plain", "any-pose", "profile")]
COLUMNS += [("plain", 16.0), ("plain", 75.0)]


def contact_sheet(heads: Heads, seed: int, people: int = 8) -> np.ndarray:
    """Return a row for each of the first `people` people, a column for each of COLUMNS: uint8 RGB."""
    rows = []
    for person in range(people):
        views = [draw_view(seed, person, image, *column) for image, column in enumerate(COLUMNS)]
        rows.append([warp(*render(heads, draw_person(seed, person), view)) for view in views])
    return grid(rows)


def grid(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Put images of one size into one, row by row; what a row lacks is white."""
    white, columns = np.full_like(rows[0][0], 255), max(map(len, rows))
    return np.vstack([np.hstack([*row, *[white] * (columns - len(row))]) for row in rows])


def write_sheet(path: Path, picture: np.ndarray) -> None:
    """Write a sheet as PNG in 256 colours; raise LatseError if that is impossible."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(picture).quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
