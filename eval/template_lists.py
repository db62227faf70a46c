"""The lists of IJB-B and IJB-C as insightface publishes them, and the photographs that they name.

A set is a folder with `meta/` and `loose_crop/`. The files in `meta/`, P being `ijbb` or `ijbc`:

| file | a line |
|---|---|
| `P_name_5pts_score.txt` | photograph, x y of five points, the detector's score |
| `P_face_tid_mid.txt` | photograph, number of its template, number of its media (an image or a video) |
| `P_template_pair_label.txt` | two templates, 1 for one person, 0 for two |
| `P_1N_gallery_G1.csv`, `…_G2.csv` (IJB-B: `S1`, `S2`) | a head, then template, subject, … |
| `P_1N_probe_mixed.csv` | likewise |

Source: recognition/_evaluation_/ijb of insightface, whose ijb_11.py and ijb_1n.py read them.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from skimage.transform import SimilarityTransform

from latse.data.photographs.align import SIZE, TEMPLATE, NoFaceError, read_photograph
from latse.errors import LatseError
from latse.files import NAMES, open_text, read_lines

SCORES = "_name_5pts_score.txt"
GALLERIES, PROBES = "_1N_gallery_*.csv", "_1N_probe_mixed.csv"


@dataclass(frozen=True)
class Faces:
    """The faces of a set, in the order of its lists.

    photographs : object (n,), names of files
    points : float32 (n, 5, 2), in pixels: the eyes, the nose, the mouth's corners
    scores : float32 (n,), how sure the detector was
    templates, media : int64 (n,)
    """

    photographs: np.ndarray
    points: np.ndarray
    scores: np.ndarray
    templates: np.ndarray
    media: np.ndarray


@dataclass(frozen=True)
class TemplatePairs:
    """Pairs of templates: `first`, `second` int64 (p,), numbers of templates; `issame` bool (p,)."""

    first: np.ndarray
    second: np.ndarray
    issame: np.ndarray


@dataclass(frozen=True)
class Subjects:
    """Who is in each template: `templates`, int64 (t,), ascending, each once; `subjects`, int64 (t,)."""

    templates: np.ndarray
    subjects: np.ndarray


@dataclass(frozen=True)
class TemplateSet:
    """A set's lists, under its `name`, such as `ijbc`.

    `pairs` are for 1:1, None if there are none. For 1:N are `galleries`, by name (`G1`), and the `probes` to
    search for: empty and None if there are none.
    """

    name: str
    faces: Faces
    pairs: TemplatePairs | None
    galleries: dict[str, Subjects]
    probes: Subjects | None


def read_set(folder: str | os.PathLike) -> TemplateSet:
    """Read the lists in `folder`/meta.

    Raises
    ------
    LatseError
        If a list is missing, damaged or at odds with another, or there is neither a list of pairs nor
        galleries with probes.
    """
    meta = Path(folder) / "meta"
    lists = sorted(meta.glob(f"*{SCORES}"))
    if len(lists) != 1:
        raise LatseError(f"{meta} holds {len(lists)} lists *{SCORES}: one is needed, as ijbc{SCORES}")
    name = lists[0].name[: -len(SCORES)]
    pairs, probes = meta / f"{name}_template_pair_label.txt", meta / f"{name}{PROBES}"
    galleries = sorted(meta.glob(f"{name}{GALLERIES}")) if probes.exists() else []
    if not pairs.exists() and not galleries:
        raise LatseError(f"{meta} holds neither {pairs.name} nor {name}{GALLERIES} with {probes.name}")
    faces = _read_faces(lists[0], meta / f"{name}_face_tid_mid.txt")
    read = TemplateSet(
        name,
        faces,
        _read_pairs(pairs) if pairs.exists() else None,
        {path.stem.rpartition("_")[2]: _read_subjects(path) for path in galleries},
        _read_subjects(probes) if galleries else None,
    )
    asked: dict[str, np.ndarray] = {}
    if read.pairs:
        asked["the pairs"] = np.concatenate([read.pairs.first, read.pairs.second])
    if read.probes:
        asked["the probes"] = read.probes.templates
    asked.update({f"gallery {key}": gallery.templates for key, gallery in read.galleries.items()})
    for title, numbers in asked.items():
        for template in np.setdiff1d(numbers, faces.templates)[:1]:
            raise LatseError(f"{meta}: template {template} of {title} has no line in {name}_face_tid_mid.txt")
    return read


def read_aligned(folder: str | os.PathLike, faces: Faces, start: int, stop: int) -> np.ndarray:
    """Read and align faces from the photographs in `folder`: uint8 (stop - start, 3, 112, 112), RGB.

    As insightface does for these sets: the similarity transform of the five points, linear interpolation,
    black outside of the photograph. Raises LatseError if a photograph is missing or is none, or its points
    are no face's.
    """
    numbers = range(start, min(stop, len(faces.photographs)))
    images = np.empty((len(numbers), 3, SIZE, SIZE), np.uint8)
    for image, number in zip(images, numbers):
        path = Path(folder) / faces.photographs[number]
        image[:] = _aligned(_decoded(path), faces.points[number], path).transpose(2, 0, 1)[::-1]
    return images


def _decoded(path: Path) -> np.ndarray:
    """Return a photograph, uint8 (height, width, 3) BGR."""
    try:
        content = np.frombuffer(read_photograph(path), np.uint8)
        photograph = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    except (NoFaceError, cv2.error) as error:
        raise LatseError(f"cannot read the photograph {path}: {error}") from error
    if photograph is None:
        raise LatseError(f"{path} is no photograph")
    return photograph


def _aligned(photograph: np.ndarray, points: np.ndarray, path: Path) -> np.ndarray:
    transform = SimilarityTransform()
    transform.estimate(points, TEMPLATE)
    if not np.isfinite(transform.params).all():
        raise LatseError(f"the five points of {path} are no face's")
    return cv2.warpAffine(photograph, transform.params[:2], (SIZE, SIZE), borderValue=0)


def _read_faces(scores: Path, templates: Path) -> Faces:
    points = _table(scores, {0: str, **dict.fromkeys(range(1, 12), np.float64)})
    numbers = _table(templates, {0: str, 1: np.int64, 2: np.int64})
    if len(points) != len(numbers):
        raise LatseError(f"{scores} has {len(points)} lines, {templates} {len(numbers)}")
    photographs, others = points[0].to_numpy(), numbers[0].to_numpy()
    if (photographs != others).any():
        row = (photographs != others).argmax()
        names = (
            f"{_line(scores, row)} is about {photographs[row]}, {_line(templates, row)} about {others[row]}"
        )
        raise LatseError(f"{names}: the lists must name the same photographs")
    values = points.loc[:, 1:].to_numpy(np.float32)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise LatseError(f"{_line(scores, finite.argmin())} holds a number that is not finite")
    return Faces(
        photographs=photographs,
        points=values[:, :10].reshape(-1, 5, 2),
        scores=values[:, 10],
        templates=numbers[1].to_numpy(),
        media=numbers[2].to_numpy(),
    )


def _read_pairs(path: Path) -> TemplatePairs:
    first, second, label = _table(path, dict.fromkeys(range(3), np.int64)).to_numpy().T
    broken = (label != 0) & (label != 1)
    if broken.any():
        row = broken.argmax()
        raise LatseError(f"{_line(path, row)} has the label {label[row]}, neither 0 nor 1")
    if label.all() or not label.any():
        raise LatseError(f"{path}: all pairs are of one kind: same and different ones are both needed")
    return TemplatePairs(first, second, label == 1)


def _read_subjects(path: Path) -> Subjects:
    """Read a list with a line for each image, of which a template's are many."""
    rows = _table(path, {0: np.int64, 1: np.int64}, sep=",", skiprows=1, usecols=[0, 1])
    rows = np.unique(rows.to_numpy(), axis=0)
    again = rows[1:, 0] == rows[:-1, 0]
    if again.any():
        raise LatseError(f"{path}: template {rows[again.argmax(), 0]} has two subjects")
    return Subjects(rows[:, 0], rows[:, 1])


def _table(path: Path, columns: dict[int, Any], sep: str = r"\s+", **options: Any) -> pd.DataFrame:
    """Read a list without a head as columns of the given types; LatseError if it has others."""
    options = {"header": None, "dtype": columns, "na_filter": False, "encoding_errors": NAMES, **options}
    try:
        with open_text(path, NAMES) as text:
            table = pd.read_csv(text, sep=sep, **options)
    except (ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors too
        raise LatseError(_fault(path, columns, sep, options)) from error
    if list(table.columns) != list(columns):
        raise LatseError(_fault(path, columns, sep, options))
    return table


def _fault(path: Path, columns: dict[int, Any], sep: str, options: dict[str, Any]) -> str:
    """Return the sentence on a list that cannot be read: its first line with a wrong value, and which."""
    few = len(columns)
    for number, line in itertools.islice(read_lines(path, NAMES), options.get("skiprows", 0), None):
        values = re.split(sep, line)
        if len(values) < few or (len(values) > few and "usecols" not in options):
            return f"{path}, line {number} has {len(values)} columns, must have {few}"
        for column, kind in columns.items():
            if not _is_of_kind(values[column], kind):
                must = "a whole number" if kind is np.int64 else "a number"
                return f"{path}, line {number}: column {column + 1} is {values[column]}, must be {must}"
    return f"{path} has no line with {few} columns"


def _is_of_kind(value: str, kind: type) -> bool:
    try:
        kind(value)
    except (ValueError, OverflowError):
        return False
    return True


def _line(path: Path, row: int) -> str:
    """Return how messages name the line of a row, from 0, of a list without a head."""
    number, _ = next(itertools.islice(read_lines(path, NAMES), int(row), None))
    return f"{path}, line {number}"
