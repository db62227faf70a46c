"""What the paper's figures are drawn from: a run's record, people in pairs, a filter's verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from tqdm import tqdm

from latse.data.pairs.pairs import check_people, read_pairs, read_people
from latse.data.shards.noise import Truth, read_truth
from latse.data.shards.records import Batch, Shard
from latse.eval.figures import find_people
from latse.eval.results import reading
from latse.eval.verification import distinct_images
from latse.files import read_object
from latse.paper.filter_figure import FilteredImages
from latse.train.verdicts import Judge, Stored, TopK


class People(NamedTuple):
    """The distinct images of a set of pairs, and whom they show.

    Attributes
    ----------
    name : str
        Of the set.
    images : uint8 (m, 3, 112, 112)
        RGB, as they come.
    person : int64 (m,)
        The number of each image's person, from 0 on as they come.
    """

    name: str
    images: np.ndarray
    person: np.ndarray

    def first_images(self, people: int) -> np.ndarray:
        """Return the first image of each of the first people, uint8 (up to `people`, 3, 112, 112)."""
        return self.images[np.unique(self.person, return_index=True)[1][:people]]

    def most_images(self) -> int:
        """Return the first of those people who have the most images."""
        return int(np.bincount(self.person).argmax())


def student_record(folder: Path) -> dict[str, Any]:
    """Return the run.json in a student's folder; LatseError if it is missing or lacks settings."""
    path = folder / "run.json"
    record = read_object(path)
    with reading(path):
        for section, key in (("decoder", "enabled"), ("filter", "k"), ("margin", "name")):
            _ = record["settings"][section][key]
    return record


def people_in_pairs(path: str) -> People:
    """Read pairs and who is on them, from the file beside them, else from what the pairs say themselves.

    Raises LatseError if one of the two is missing or damaged, or they do not fit.
    """
    pairs = read_pairs(path)
    known = read_people(path)
    check_people(path, known, pairs.issame)
    numbers = find_people(pairs.images, pairs.issame) if known is None else known
    distinct = distinct_images(pairs.images)[0]
    _, first, person = np.unique(numbers[distinct], return_index=True, return_inverse=True)
    return People(Path(path).stem, pairs.images[distinct], np.argsort(np.argsort(first))[person])


def stored_verdicts(path: str, k: int, shard: Shard) -> FilteredImages:
    """Return the verdicts that `latse filter` stored on all images of a set."""
    position = np.arange(len(shard))
    batch = Batch(np.empty(0, np.uint8), shard.labels, shard.records, np.zeros(len(shard), bool))
    return _judged(shard, position, Stored(path, k, shard).keep(batch))


def asked_verdicts(
    teacher: str, k: int, shard: Shard, images: int, contexts: list[mx.Context], batch_size: int
) -> FilteredImages:
    """Ask a teacher about all images of some labels.

    Parameters
    ----------
    teacher : str
        Checkpoint, `PREFIX,N`.
    k : int
        The label must be among so many likeliest people, at least 1.
    shard : Shard
        The set.
    images : int
        About how many: labels are drawn evenly until they have so many images, or there is none left.
    contexts, batch_size : list of mx.Context, int
        Devices, and how many images are looked at at a time.

    Raises
    ------
    LatseError
        If the teacher is missing, damaged or knows another number of people, or an image cannot be read.
    """
    judge = TopK(Judge(teacher, shard.classes, batch_size, contexts), k)
    position = _some_labels(shard.labels, images)
    keep = np.empty(len(position), np.float32)
    for start in tqdm(range(0, len(position), batch_size), "teacher", unit="batch", leave=False):
        part = position[start : start + batch_size]
        keep[start : start + batch_size] = judge.keep(shard.batch(part))
    return _judged(shard, position, keep)


def _judged(shard: Shard, position: np.ndarray, keep: np.ndarray) -> FilteredImages:
    truth = None
    if (shard.folder / "noise.npz").exists():
        truth = Truth(*(array[position] for array in read_truth(shard.folder)))
    return FilteredImages(position, shard.labels[position], keep > 0, truth)


def _some_labels(labels: np.ndarray, images: int) -> np.ndarray:
    """Return the positions of all images of labels drawn evenly that have `images` together, ascending."""
    people, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng(0).permutation(len(people))
    needed = int(np.searchsorted(np.cumsum(counts[order]), images)) + 1
    return np.flatnonzero(np.isin(labels, people[order[:needed]]))
