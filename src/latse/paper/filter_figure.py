"""The paper's Figure 4: of the images under one label, those that a filter kept and those that it refused."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from typing import Sequence

import mxnet as mx
import numpy as np
from matplotlib.axes import Axes
from tqdm import tqdm

from latse.data.shards.names import read_names
from latse.data.shards.noise import CLEAN, DISTRACTOR, Truth, read_truth
from latse.data.shards.records import Batch, Shard
from latse.errors import LatseError
from latse.eval.canvas import grid, plain, save, show
from latse.train.verdicts import Judge, Stored, TopK

KEPT, REFUSED = 3, 7  # columns
# Okabe and Ito's blue and vermilion, told apart by colour-blind eyes too; a wrong verdict is dashed besides.
FRAMES = {True: ("#0072B2", "-"), False: ("#D55E00", (0, (3, 2)))}


@dataclass(frozen=True)
class FilteredImages:
    """Images of a set and a filter's verdicts on them; arrays (n,).

    Attributes
    ----------
    position : int64 (n,)
        Places in the set, ascending.
    label : int64 (n,)
        The person under whom each stands.
    kept : bool (n,)
        Whether the filter keeps it.
    truth : Truth or None, optional
        What each image is, where that is known; its arrays are (n,) too.
    """

    position: np.ndarray
    label: np.ndarray
    kept: np.ndarray
    truth: Truth | None = None

    def of(self, label: int, kept: bool) -> np.ndarray:
        """Return which of the n images stand under a label and are kept, or refused, int64, ascending."""
        return np.flatnonzero((self.label == label) & (self.kept == kept))

    def right(self, index: int) -> bool | None:
        """Tell whether the verdict is right: a clean image kept, another refused; None if that is unknown."""
        return None if self.truth is None else bool(self.kept[index] == (self.truth.kind[index] == CLEAN))

    def note(self, index: int) -> str:
        """Say who is shown where that is another than the label says, '' where it is right or unknown."""
        if self.truth is None or self.truth.kind[index] == CLEAN:
            return ""
        return "outsider" if self.truth.kind[index] == DISTRACTOR else f"is {self.truth.true_label[index]}"

    def counts(self) -> dict[str, int]:
        """Count `images`, `refused`, and where the truth is known `noisy` images and `noisy_refused`."""
        numbers = {"images": len(self.kept), "refused": int((~self.kept).sum())}
        if self.truth is not None:
            noisy = self.truth.kind != CLEAN
            numbers.update(noisy=int(noisy.sum()), noisy_refused=int((noisy & ~self.kept).sum()))
        return numbers


def stored_verdicts(path: str, k: int, shard: Shard) -> FilteredImages:
    """Return the verdicts that `latse filter` stored on all images of a set."""
    batch = Batch(np.empty(0, np.uint8), shard.labels, shard.records, np.zeros(len(shard), bool))
    return _judged(shard, np.arange(len(shard)), Stored(path, k, shard).keep(batch))


def asked_verdicts(
    teacher: str, k: int, shard: Shard, images: int, contexts: list[mx.Context], batch_size: int
) -> FilteredImages:
    """Ask the `teacher` of a checkpoint, `PREFIX,N`, about all images of some labels.

    Labels are drawn evenly until they have about so many `images`, or there is none left. An image is kept
    whose label is among the `k` likeliest people, at least 1; `batch_size` images are looked at at a time.
    Raises LatseError if the teacher is missing, damaged or knows another number of people, or an image
    cannot be read.
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


def choose_people(judged: FilteredImages, people: int) -> np.ndarray:
    """Return the labels with the most refused images, int64 (up to `people`,), most refused first.

    A label of whose images none is kept has nothing to compare with and is passed over. Ties go to the lower
    label; where nothing is refused, these are the lowest labels.
    """
    labels, place = np.unique(judged.label, return_inverse=True)
    kept, refused = (
        np.bincount(place, weights=side, minlength=len(labels)) for side in (judged.kept, ~judged.kept)
    )
    order = np.argsort(-refused, kind="stable")
    return labels[order[kept[order] > 0]][:people]


def draw(path: str | os.PathLike, shard: Shard, judged: FilteredImages, labels: Sequence[int]) -> None:
    """Draw a row of a PNG for each label: up to three kept images, then up to seven refused ones.

    A row has the person's name, where the set knows it. Both kinds come in the set's order. Where nothing is
    refused, up to ten kept images take the whole row. Where the truth is known, a frame tells right verdicts
    from wrong ones, and below an image whose label is wrong stands whom it shows. Raises LatseError if there
    is no label, an image cannot be read, or the picture cannot be written.
    """
    if not len(labels):
        raise LatseError(f"{shard.folder}: the filter keeps no image, so that there is nothing to show")
    refused = min(REFUSED, max(len(judged.of(label, False)) for label in labels))
    most_kept = max(len(judged.of(label, True)) for label in labels)
    kept = min(KEPT if refused else KEPT + REFUSED, most_kept)
    # A narrow empty column parts the two sides.
    widths = [1] * kept + [0.25, *[1] * refused] * bool(refused)
    figure, axes = grid(len(labels), len(widths), (1.1 * sum(widths) + 1.5, 1.3 * len(labels) + 0.7))
    axes[0, 0].get_gridspec().set_width_ratios(widths)
    for cell in axes.flat:
        cell.set_axis_off()
    names = read_names(shard.folder, shard.classes)
    for row, label in zip(axes, labels):
        keeps, refuses = judged.of(label, True), judged.of(label, False)
        called = textwrap.wrap(names[label] or "", 18, max_lines=2, placeholder="…") or [f"label {label}"]
        title = plain("\n".join([*called, f"{len(keeps)} kept", f"{len(refuses)} refused"]))
        place = {"ha": "right", "va": "center", "transform": row[0].transAxes}
        row[0].text(-0.1, 0.5, title, fontsize=10, **place)
        for cell, index in [*zip(row[:kept], keeps), *zip(row[kept + 1 :], refuses)]:
            _image(cell, shard, judged, index)
    for side, column in {"kept": 0, **({"refused": kept + 1} if refused else {})}.items():
        axes[0, column].text(0, 1.06, side, transform=axes[0, column].transAxes, fontsize=12)
    if judged.truth is not None:
        figure.supxlabel("frame solid: verdict right; dashed: verdict wrong", fontsize=11)
    save(figure, path)


def caption(judged: FilteredImages, k: int) -> str:
    """Say in sentences what the filter did with all images, and which labels a drawing shows."""
    counts = judged.counts()
    images, refused = counts["images"], counts["refused"]
    sentences = [f"Of {images:,} images the teacher refuses {refused:,} (k = {k})"]
    if judged.truth is not None:
        noisy, wrong = counts["noisy"], counts["noisy_refused"]
        sentences.append(
            f"Of the {noisy:,} whose label is wrong it refuses {wrong:,}, of the {images - noisy:,} whose "
            f"label is right {refused - wrong:,}; solid frames mark right verdicts, dashed ones wrong ones"
        )
    if refused:
        sentences.append("Shown are the labels with the most refused images")
    return ". ".join(sentences) + "."


def _image(cell: Axes, shard: Shard, judged: FilteredImages, index: int) -> None:
    cell.set_axis_on()
    show(cell, shard.batch(judged.position[[index]]).image[0])
    cell.set_xlabel(judged.note(index), fontsize=9, labelpad=2)
    right = judged.right(index)
    if right is not None:
        colour, style = FRAMES[right]
        for spine in cell.spines.values():
            spine.set(visible=True, color=colour, linestyle=style, linewidth=2.5)
