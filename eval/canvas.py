"""Grids of face images on canvases of their own: without pyplot no display and no global state is needed."""

from __future__ import annotations

import os
from typing import Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from latse.files import replacing

# Of matplotlib's constrained layout, in inches and in shares of a cell.
TOUCHING = {"w_pad": 0.02, "h_pad": 0.02, "wspace": 0, "hspace": 0}


def blank(size: Tuple[float, float], **layout: float) -> Figure:
    """Make an empty figure of `size`, width and height in inches, at 120 dots an inch, with pads `layout`."""
    figure = Figure(figsize=size, dpi=120, constrained_layout=layout or True)
    FigureCanvasAgg(figure)
    return figure


def grid(rows: int, columns: int, size: Tuple[float, float]) -> Tuple[Figure, np.ndarray]:
    """Make a figure of `size`, inches, with axes (rows, columns) that nearly touch."""
    figure = blank(size, **TOUCHING)
    return figure, figure.subplots(rows, columns, squeeze=False)


def show(cell: Axes, picture: np.ndarray) -> None:
    """Show an image, uint8 (3, H, W) RGB, without ticks or frame."""
    cell.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
    cell.set(xticks=[], yticks=[])
    for spine in cell.spines.values():
        spine.set_visible(False)


def title_row(cell: Axes, text: str) -> None:
    """Write `text` to the left of the first cell of a row."""
    cell.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=12, labelpad=8)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Write a figure as PNG, atomically; raise LatseError if that is impossible."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
