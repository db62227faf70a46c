"""Pictures: the paper's Figure 1, generated faces alone, and the curves of a training run."""

from __future__ import annotations

import json
import math
import os
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from latse.errors import LatseError
from latse.eval.canvas import blank, draw_rows, grid, plain, save, show
from latse.eval.verification import distinct_images
from latse.files import read_lines
from latse.form import NUMBER, Maybe, check

PANELS = (
    ("discrimination loss", ("dloss",)),
    ("generation loss", ("l1", "ssim")),
    ("fraction kept by the filter", ("kept",)),
    ("learning rate", ("lr",)),
)
LINE_STYLES = ("-", "--")
# What is drawn of a line of metrics.jsonl.
METRICS = {"iteration": NUMBER, **{f"{key}?": Maybe(NUMBER) for _, keys in PANELS for key in keys}}


def find_people(images: np.ndarray, issame: np.ndarray) -> np.ndarray:
    """Tell the people of pairs apart, which do not say who is who: int (2n,), the person of each image.

    Byte-identical images show one person, and so do the two of a same pair; what is connected in this way is
    taken for a person. Where no same pair links two images of somebody, he or she can come up twice.

    Parameters
    ----------
    images : uint8 (2n, 3, H, W)
        Images 2i and 2i + 1 are pair i.
    issame : bool (n,)
        Whether both images of a pair show one person.
    """
    return linked(distinct_images(images)[1], issame)


def linked(image: np.ndarray, issame: np.ndarray) -> np.ndarray:
    """Tell people apart as `find_people` does, given `image`, int (2n,), the number of each distinct image.

    Numbers begin at 0; `issame` is bool (n,). Returns int (2n,).
    """
    left, right = image[0::2][issame], image[1::2][issame]
    links = coo_matrix((np.ones(len(left)), (left, right)), shape=(image.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][image]


def one_image_per_person(images: np.ndarray, issame: np.ndarray, people: int = 10) -> np.ndarray:
    """Find images of different people in pairs, as `find_people` tells them apart.

    Returns int64 (up to `people`,), the position of each person's first image, ascending.
    """
    return np.sort(np.unique(find_people(images, issame), return_index=True)[1])[:people]


def faces(path: str | os.PathLike, images: np.ndarray, generated: np.ndarray) -> None:
    """Draw Figure 1 of the paper: input, generated frontal face, absolute difference, a column per image.

    Parameters
    ----------
    path : path
        Of the PNG to write.
    images : uint8 (n, 3, H, W)
        RGB.
    generated : float (n, 3, H, W)
        The decoder's faces for `images`, in -1..1.
    """
    generated = to_pixels(generated)
    difference = np.abs(images.astype(np.int16) - generated).astype(np.uint8)
    draw_rows(path, {"input": images, "generated": generated, "difference": difference}, 3.5 / 3, 1.2)


def generated_faces(path: str | os.PathLike, generated: np.ndarray, columns: int = 10) -> None:
    """Draw generated faces, float (n, 3, H, W) in -1..1, in rows of `columns`, and no photograph."""
    columns = min(columns, len(generated))
    count = math.ceil(len(generated) / columns)
    figure, axes = grid(count, columns, (1.1 * columns, 1.1 * count))
    for cell, picture in zip(axes.flat, to_pixels(generated)):
        show(cell, picture)
    for cell in axes.flat[len(generated) :]:
        cell.set_axis_off()
    save(figure, path)


def to_pixels(generated: np.ndarray) -> np.ndarray:
    """Map float -1..1 to uint8 0..255, values outside clipped."""
    return np.clip(np.rint((generated + 1) * 127.5), 0, 255).astype(np.uint8)


def training_curves(path: str | os.PathLike, metrics: Mapping[str, str | os.PathLike]) -> None:
    """Plot losses, kept fraction and learning rate of runs against the iteration, as PNG.

    By the title of a run, `metrics` names its `metrics.jsonl`: a JSON object per line with `iteration` and
    any of `dloss`, `l1`, `ssim`, `kept`, `lr`. What a run does not have is left out. Raises LatseError if a
    file is missing, empty or damaged.
    """
    runs = {title: read_metrics(name) for title, name in metrics.items()}
    figure = blank((10, 6))
    for cell, (title, keys) in zip(figure.subplots(2, 2).flat, PANELS):
        for run, number, label, points in training_lines(runs, keys):
            look = {"color": f"C{list(runs).index(run)}", "linestyle": LINE_STYLES[number]}
            cell.plot(*zip(*points), linewidth=1.2, label=plain(label), **look)
        cell.set(title=title, xlabel="iteration")
        cell.grid(alpha=0.3)
        if cell.lines:
            cell.legend(frameon=False)
    save(figure, path)


def training_lines(
    runs: Mapping[str, list[dict[str, Any]]], keys: Sequence[str]
) -> Iterator[tuple[str, int, str, list[tuple[int, float]]]]:
    """Iterate the curves of a panel: run, number of the key, name of the line, and its points.

    Runs are title -> records, as `read_metrics` reads them. What a run does not have is left out.
    """
    for run, records in runs.items():
        for number, key in enumerate(keys):
            points = [(record["iteration"], record[key]) for record in records if record.get(key) is not None]
            if points:
                yield run, number, run if len(keys) == 1 else f"{run}: {key}", points


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a `metrics.jsonl`; LatseError if it is missing, empty or has a line that is no such record."""
    records = []
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LatseError(f"{path}, line {number} is no JSON") from error
        check(f"{path}, line {number}", record, METRICS)
        records.append(record)
    if not records:
        raise LatseError(f"{path} holds no record")
    return records
