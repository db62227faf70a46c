"""Known label noise: the paper's two kinds (§3.3) in a copy of a set, with the truth beside it.

*Mislabelled* images stand under another person of the set. *Distractors* show people who are not in the set.
The copy has `noise.npz`, a row for each image, and `noise.json`, what it was made with.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from latse.arrays import read_npz
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import MOST_SHARDS, write_images
from latse.data.shards.staging import refuse_set, staged
from latse.errors import LatseError, check_range
from latse.files import read_json, replacing, write_json

CLEAN, MISLABELLED, DISTRACTOR = 0, 1, 2
KINDS = ("clean", "mislabelled", "distractor")
LEFT_OUT = 3  # as a kind: of someone held out, and not in the copy
OUTSIDE = -1  # the true label of a distractor


class Truth(NamedTuple):
    """What each image of a noisy set is; all arrays (n,), in the order of `Shard.records`.

    record : int64, its number, as in `Shard.records`
    label : int64, the person under whom it stands
    kind : uint8, CLEAN (0), MISLABELLED (1) or DISTRACTOR (2)
    true_label : int64, the person whom it shows, OUTSIDE (-1) for a distractor
    source : int64, its number in the set that it comes from: that of the distractors for a distractor, where
        another set was given for them, otherwise the original
    """

    record: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    true_label: np.ndarray
    source: np.ndarray


def add_noise(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    mislabel: float,
    distractor: float,
    seed: int,
    distractors: str | os.PathLike | None = None,
    shards: int = 1,
) -> dict[str, Any]:
    """Write a noisy copy of a set.

    With n images in the set, round(mislabel * n) of them get the label of another person, drawn evenly, and
    round(distractor * n) show people outside the set:

    - With `distractors`, the pictures of that many other images are replaced by pictures from that set; the
      labels stay.
    - Without, people are held out, drawn at random, and their images get the labels of people who stay, drawn
      evenly. Of the last of them only as many images are used as are lacking; the others are left out.

    People keep their numbers. With the same seed, more noise contains less noise of the same kind, as far as
    the same people stay.

    Raises LatseError if an argument is out of range, the sets do not fit, or `out` cannot be written.

    Parameters
    ----------
    folder : path
        The original, which is left as it is.
    out : path
        Outside of both sets; holds no set.
    mislabel, distractor : float
        Fractions of the images, from 0, together at most 1.
    seed : int
        At least 0.
    distractors : path, optional
        A set of people who are not in `folder`, with images of the same size.
    shards : int
        Number of files, as for `ShardWriter`.

    Returns
    -------
    dict
        What `noise.json` holds.
    """
    check_range("the seed", seed, 0)
    check_range("the number of shards", shards, 1, MOST_SHARDS)
    if not (mislabel >= 0 and distractor >= 0 and mislabel + distractor <= 1):
        raise LatseError(f"the fractions {mislabel} and {distractor} are not from 0 to 1, together at most 1")
    refuse_set(out, *filter(None, (folder, distractors)))
    original, other = Shard(folder), None
    wrong, outside = (round(fraction * len(original)) for fraction in (mislabel, distractor))
    plan = _Plan(original.labels, seed)
    if distractors is None:
        plan.hold_out(wrong, outside)
    else:
        other = Shard(distractors)
        _check_distractors(original, other, outside)
        plan.replace(wrong, outside, len(other))
    *counts, left_out = np.bincount(plan.kind, minlength=LEFT_OUT + 1).tolist()
    made = {
        "source": str(Path(folder).resolve()),
        "source_digest": original.digest(),
        "distractors": other and str(Path(distractors).resolve()),
        "distractors_digest": other and other.digest(),
        "mislabel": mislabel,
        "distractor": distractor,
        "seed": seed,
        "images": sum(counts),
        "counts": dict(zip(KINDS, counts)),
        "images_left_out": left_out,
    }
    with staged(out) as stage:
        _write(stage, original, other, plan, shards)
        made["digest"] = Shard(stage).digest()
        write_json(stage / "noise.json", made)
    return made


def read_truth(folder: str | os.PathLike) -> Truth:
    """Read what the images of a noisy set are.

    Raises LatseError if `noise.npz` is missing or damaged, or the set is not the one it was written with.
    """
    path = Path(folder) / "noise.npz"
    if not path.exists():
        raise LatseError(f"{folder} has no noise.npz: it was not made by `latse data noise`")
    truth = Truth(*read_npz(path, Truth._fields))
    shapes = {array.shape for array in truth}
    if len(shapes) > 1 or len(shapes.pop()) != 1 or any(array.dtype.kind not in "iu" for array in truth):
        raise LatseError(f"{path} is damaged")
    made = read_json(path.with_suffix(".json"))
    if not isinstance(made, dict) or made.get("digest") != Shard(folder).digest():
        raise LatseError(f"{path} tells of another set than the one in {folder}")
    return truth


def _check_distractors(original: Shard, other: Shard, outside: int) -> None:
    if other.digest() == original.digest():
        raise LatseError(f"{other.folder} is the set itself: distractors are people outside of it")
    if other.image_size != original.image_size:
        sizes = "{}x{} pixels instead of {}x{}".format(*other.image_size, *original.image_size)
        raise LatseError(f"the images of {other.folder} are {sizes}")
    if len(other) < outside:
        raise LatseError(f"{other.folder} has {len(other)} images, too few for {outside} distractors")


class _Plan:
    """What becomes of each image of a set; arrays (n,).

    Attributes: label; kind, also LEFT_OUT; replaced_by, the place in the set of distractors, or -1.
    """

    def __init__(self, labels: np.ndarray, seed: int):
        self._seed = seed
        self.label, self.kind = labels.copy(), np.zeros(len(labels), np.uint8)
        self.replaced_by = np.full(len(labels), -1)
        self._order = self._random("order").permutation(len(labels))

    def replace(self, wrong: int, outside: int, others: int) -> None:
        """Plan with distractors from another set of so many images."""
        self._mislabel(self._order, wrong, outside, np.unique(self.label))
        chosen = self._order[::-1][:outside]
        self.kind[chosen] = DISTRACTOR
        self.replaced_by[chosen] = self._random("distractors").permutation(others)[:outside]

    def hold_out(self, wrong: int, outside: int) -> None:
        """Plan with distractors from the set itself."""
        people, counts = np.unique(self.label, return_counts=True)
        held = _held_out(counts, outside, self._random("people"))
        staying, shown = np.delete(people, held), self.label[self._order]
        is_away, is_last = np.isin(shown, people[held]), np.isin(shown, people[held[-1:]])
        self._mislabel(self._order[~is_away], wrong, 0, staying)
        if outside and not len(staying):
            raise LatseError(
                f"{outside} distractors are too many: none of the {len(people)} people would stay"
            )
        # Of the last person, who may have more images than are lacking, the first in the order are used.
        away = np.concatenate([self._order[is_away & ~is_last], self._order[is_last]])
        used, random = away[:outside], self._random("labels of distractors")
        self.kind[away], self.kind[used] = LEFT_OUT, DISTRACTOR
        self.label[used] = staying[random.integers(len(staying), size=outside)]

    def _mislabel(self, order: np.ndarray, wrong: int, outside: int, people: np.ndarray) -> None:
        """Give the first `wrong` images of `order` the labels of others of `people`."""
        if wrong + outside > len(order):
            raise LatseError(f"{len(order)} images are too few to mislabel {wrong} and replace {outside}")
        if wrong and len(people) < 2:
            raise LatseError(f"{len(people)} person stays: an image cannot get the label of another one")
        if wrong:
            chosen = order[:wrong]
            shift = self._random("labels").integers(1, len(people), size=len(self.label))[chosen]
            own = np.searchsorted(people, self.label[chosen])
            self.label[chosen], self.kind[chosen] = people[(own + shift) % len(people)], MISLABELLED

    def _random(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng((self._seed, *purpose.encode()))


def _held_out(counts: np.ndarray, outside: int, random: np.random.Generator) -> np.ndarray:
    """Return places of people who have at least `outside` images together, without the last one fewer.

    They are drawn at random, but passed over where they have more images than are lacking; if none fits
    exactly, the one with the fewest images comes last.
    """
    held, lacking = [], outside
    order = random.permutation(len(counts))
    for person in order:
        if counts[person] <= lacking:
            held.append(person)
            lacking -= counts[person]
    rest = order[~np.isin(order, held)]
    if lacking and len(rest):
        held.append(rest[np.argmin(counts[rest])])
    return np.array(held, np.int64)


def _write(folder: Path, original: Shard, other: Shard | None, plan: _Plan, shards: int) -> None:
    """Write the set, and beside it what its images are."""
    order = np.flatnonzero(plan.kind != LEFT_OUT)
    order = order[np.argsort(plan.label[order], kind="stable")]
    label, kind, replaced_by = plan.label[order], plan.kind[order], plan.replaced_by[order]
    is_other = replaced_by >= 0
    sets, place = [original] + [other] * (other is not None), np.where(is_other, replaced_by, order)
    write_images(folder, sets, is_other.astype(int), place, label, original.classes, shards, "noise")
    source = original.records[order]
    if other is not None:
        source = np.where(is_other, other.records[replaced_by], source)
    true = np.where(kind == DISTRACTOR, OUTSIDE, original.labels[order])
    truth = Truth(Shard(folder).records, label, kind, true, source)
    with replacing(folder / "noise.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **truth._asdict())
