"""Grids of face images on canvases of their own: without pyplot no display and no global state is needed."""

from __future__ import annotations

import os
from typing import Any, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from latse.files import replacing

# Of matplotlib's constrained layout, in inches and in shares of a cell.
TOUCHING = {"w_pad": 0.02, "h_pad": 0.02, "wspace": 0, "hspace": 0}


def blank(size: tuple[float, float], dpi: int = 120, **layout: float) -> Figure:
    """Make an empty figure of `size` (width, height in inches) at `dpi` dots an inch, with pads `layout`."""
    figure = Figure(figsize=size, dpi=dpi, constrained_layout=layout or True)
    FigureCanvasAgg(figure)
    return figure


def grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """Make a figure of `size`, inches, with axes (rows, columns) that nearly touch."""
    figure = blank(size, **TOUCHING)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(cell: Axes, picture: np.ndarray) -> None:
    """Show an image, uint8 (3, H, W) RGB, without ticks or frame."""
    cell.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
    cell.set(xticks=[], yticks=[])
    for spine in cell.spines.values():
        spine.set_visible(False)


def plain(text: str) -> str:
    """Return a text as matplotlib shows it: it takes $ for a formula, and nothing that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("$", r"\$")


def draw_rows(path: str | os.PathLike, rows: Mapping[str, np.ndarray], height: float, titles: float) -> None:
    """Write rows of images as PNG, the title of each on its left.

    Parameters
    ----------
    path : path
        Of the PNG.
    rows : mapping of str to ndarray
        Title -> images, uint8 (n, 3, H, W) RGB, as many in each row.
    height, titles : float
        Inches of a row, and of the titles' width.
    """
    columns = len(next(iter(rows.values())))
    figure, axes = grid(len(rows), columns, (1.1 * columns + titles, height * len(rows)))
    for cells, (title, images) in zip(axes, rows.items()):
        cells[0].set_ylabel(plain(title), rotation=0, ha="right", va="center", fontsize=12, labelpad=8)
        for cell, image in zip(cells, images):
            show(cell, image)
    save(figure, path)


def save(figure: Figure, path: str | os.PathLike, kind: str = "png", **options: Any) -> None:
    """Write a figure atomically, as a file of a `kind` and with `options` that matplotlib knows.

    Raises LatseError if that is impossible.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, **options)
