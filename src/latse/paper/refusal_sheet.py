"""A sheet of refused images, each between those of its label and of the person that it looks like."""

from __future__ import annotations

import os
import textwrap

import numpy as np
from matplotlib.axes import Axes

from latse.data.shards.names import read_names
from latse.data.shards.records import Shard
from latse.data.shards.refusals import NOBODY, Refusals
from latse.eval.canvas import grid, plain, save, show

LIKE, UNLIKE = 8, 4  # how many refused images that look like another person, and like nobody
BESIDE = 3  # images of each of the two people
GAP = 0.3  # width of the empty column after the refused image, in images


def draw(path: str | os.PathLike, shard: Shard, refusals: Refusals) -> None:
    """Draw a PNG with a row for each of the refusals that `shown` picks.

    A row has the refused image, up to three kept images of its label, and up to three of the likeliest other
    one, all in the set's order. Beside it stand record and rank; the two people have label, name and the
    cosine with the image. Where nothing is refused it says so, and draws nothing. Raises LatseError if an
    image cannot be read, or the picture cannot be written.
    """
    picked = shown(refusals)
    if not len(picked.position):
        print(f"no image is refused: {path} would show nothing and is not drawn")
        return
    is_kept = np.ones(len(shard), bool)
    is_kept[refusals.position] = False
    widths = [1, GAP, *[1] * BESIDE, GAP, *[1] * BESIDE]
    rows = len(picked.position)
    figure, axes = grid(rows, len(widths), (1.1 * sum(widths) + 1.3, 1.45 * rows + 0.3))
    axes[0, 0].get_gridspec().set_width_ratios(widths)
    for cell in axes.flat:
        cell.set_axis_off()
    names = read_names(shard.folder, shard.classes)
    for row, refusal in zip(axes, zip(*picked)):
        position, rank, other, own, best, looks_like = refusal
        label = shard.labels[position]
        place = {"ha": "right", "va": "center", "transform": row[0].transAxes}
        row[0].text(-0.08, 0.5, f"record {shard.records[position]}\nrank {rank}", fontsize=10, **place)
        show(row[0], shard.batch(np.array([position])).image[0])
        verdict = "looks like" if looks_like == other else "no, not like"
        for cells, what, person, cosine in (
            (row[2 : 2 + BESIDE], "under", label, own),
            (row[3 + BESIDE :], verdict, other, best),
        ):
            if person != NOBODY:
                title = f"{what} {_called(names[person], person)}: {cosine:.2f}"
                _person(cells, shard, np.flatnonzero((shard.labels == person) & is_kept)[:BESIDE], title)
    save(figure, path)


def shown(refusals: Refusals) -> Refusals:
    """Return the first 8 that look like another person, then the first 4 that look like nobody.

    Where one kind has fewer, more of the other fill the 12.
    """
    is_nobody = refusals.looks_like == NOBODY
    like, unlike = np.flatnonzero(~is_nobody), np.flatnonzero(is_nobody)
    most = LIKE + UNLIKE
    rows = like[: max(LIKE, most - len(unlike))], unlike[: max(UNLIKE, most - len(like))]
    return refusals.at(np.concatenate(rows))


def _called(name: str | None, label: int) -> str:
    return f"label {label}" + (f" ({textwrap.shorten(name, 18, placeholder='…')})" if name else "")


def _person(cells: np.ndarray, shard: Shard, positions: np.ndarray, title: str) -> None:
    """Show images of one person under a title."""
    first: Axes = cells[0]
    text = first.text(0, 1.03, plain(title), fontsize=10, transform=first.transAxes)
    text.set_in_layout(False)  # it may stand above all images of the person
    for cell, image in zip(cells, shard.batch(positions).image):
        show(cell, image)
