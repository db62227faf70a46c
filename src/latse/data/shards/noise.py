"""Known label noise: the paper's two kinds (§3.3) in a copy of a set, with the truth beside it.

*Mislabelled* images stand under another person of the set. *Distractors* show people who are not in the set.
The copy has `noise.npz`, a row for each image, and `noise.json`, what it was made with.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import MOST_SHARDS, ShardWriter
from latse.data.shards.staging import refuse_inside, refuse_set, staged
from latse.errors import LatseError, check_range
from latse.files import explained, read_json, replacing, write_json

CLEAN, MISLABELLED, DISTRACTOR = 0, 1, 2
KINDS = ("clean", "mislabelled", "distractor")
OUTSIDE = -1  # the true label of a distractor


class Truth(NamedTuple):
    """What each image of a noisy set is; all arrays (n,), in the order of `Shard.records`.

    Attributes
    ----------
    record : int64 array
        Number of the image in the noisy set, as in `Shard.records`.
    label : int64 array
        The person under whom it stands.
    kind : uint8 array
        CLEAN (0), MISLABELLED (1) or DISTRACTOR (2).
    true_label : int64 array
        The person whom it shows, OUTSIDE (-1) for a distractor.
    source : int64 array
        Number of the image in the set that it comes from: that of the distractors for a distractor, where
        another set was given for them, otherwise the original.
    """

    record: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    true_label: np.ndarray
    source: np.ndarray


class _Plan(NamedTuple):
    """What becomes of each image of the original; arrays (n,).

    Attributes: label and kind as in Truth; `replaced_by`, position in the other set, or -1; `left_out`, bool.
    """

    label: np.ndarray
    kind: np.ndarray
    replaced_by: np.ndarray
    left_out: np.ndarray


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

    Raises
    ------
    LatseError
        If an argument is out of range, the sets do not fit, or `out` cannot be written.
    """
    check_range("the seed", seed, 0)
    check_range("the number of shards", shards, 1, MOST_SHARDS)
    if not (mislabel >= 0 and distractor >= 0 and mislabel + distractor <= 1):
        raise LatseError(f"the fractions {mislabel} and {distractor} are not from 0 to 1, together at most 1")
    for original_folder in filter(None, (folder, distractors)):
        refuse_inside(out, original_folder)
    refuse_set(out)
    original, other = Shard(folder), None
    wrong, outside = (round(fraction * len(original)) for fraction in (mislabel, distractor))
    if distractors is None:
        plan = _hold_out(original.labels, wrong, outside, seed)
    else:
        other = Shard(distractors)
        _check_distractors(original, other, outside)
        plan = _replace(original.labels, wrong, outside, seed, len(other))
    counts = np.bincount(plan.kind[~plan.left_out], minlength=len(KINDS))
    made = {
        "source": str(Path(folder).resolve()),
        "source_digest": original.digest(),
        "distractors": other and str(Path(distractors).resolve()),
        "distractors_digest": other and other.digest(),
        "mislabel": mislabel,
        "distractor": distractor,
        "seed": seed,
        "images": int(counts.sum()),
        "counts": {kind: int(count) for kind, count in zip(KINDS, counts)},
        "images_left_out": int(plan.left_out.sum()),
    }
    _write(out, original, other, plan, shards, made)
    return made


def read_truth(folder: str | os.PathLike) -> Truth:
    """Read what the images of a noisy set are.

    Raises LatseError if `noise.npz` is missing or damaged, or the set is not the one it was written with.
    """
    path = Path(folder) / "noise.npz"
    if not path.exists():
        raise LatseError(f"{folder} has no noise.npz: it was not made by `latse data noise`")
    try:
        with explained(f"cannot read {path}"), np.load(path, allow_pickle=False) as file:
            truth = Truth(*(file[name] for name in Truth._fields))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LatseError(f"{path} is damaged") from error
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


def _replace(labels: np.ndarray, wrong: int, outside: int, seed: int, others: int) -> _Plan:
    """Plan with distractors from another set of so many images; labels int64 (n,)."""
    _check_counts(len(labels), wrong, outside)
    label, kind = labels.copy(), np.zeros(len(labels), np.uint8)
    order = _random(seed, "order").permutation(len(labels))
    _mislabel(label, kind, order[:wrong], np.unique(labels), seed)
    chosen = order[len(labels) - outside :][::-1]
    kind[chosen] = DISTRACTOR
    replaced_by = np.full(len(labels), -1)
    replaced_by[chosen] = _random(seed, "distractors").permutation(others)[:outside]
    return _Plan(label, kind, replaced_by, np.zeros(len(labels), bool))


def _hold_out(labels: np.ndarray, wrong: int, outside: int, seed: int) -> _Plan:
    """Plan with distractors from the set itself; labels int64 (n,)."""
    label, kind = labels.copy(), np.zeros(len(labels), np.uint8)
    people, counts = np.unique(labels, return_counts=True)
    held = _held_out(counts, outside, _random(seed, "people"))
    order = _random(seed, "order").permutation(len(labels))
    away = np.isin(labels, people[held])
    order_of_away, order_of_others = order[away[order]], order[~away[order]]
    _check_counts(len(order_of_others), wrong, 0)
    staying = np.delete(people, held)
    if outside and not len(staying):
        raise LatseError(f"{outside} distractors are too many: none of the {len(people)} people would stay")
    _mislabel(label, kind, order_of_others[:wrong], staying, seed)
    # Of the last person, who may have more images than are lacking, the first in the order are used.
    last = np.isin(labels[order_of_away], people[held[-1:]])
    used = np.concatenate([order_of_away[~last], order_of_away[last]])[:outside]
    kind[used] = DISTRACTOR
    if outside:
        label[used] = staying[_random(seed, "labels of distractors").integers(len(staying), size=outside)]
    return _Plan(label, kind, np.full(len(labels), -1), away & (kind != DISTRACTOR))


def _held_out(counts: np.ndarray, outside: int, random: np.random.Generator) -> np.ndarray:
    """Return places of people who have at least `outside` images together, without the last one fewer.

    They are drawn at random, but passed over where they have more images than are lacking; if none fits
    exactly, the one with the fewest images comes last.
    """
    held, lacking = [], outside
    order = random.permutation(len(counts))
    for person in order:
        if not lacking:
            break
        if counts[person] <= lacking:
            held.append(person)
            lacking -= counts[person]
    if lacking:
        rest = order[~np.isin(order, held)]
        held.extend(rest[np.argmin(counts[rest])][None] if len(rest) else [])
    return np.array(held, np.int64)


def _mislabel(label: np.ndarray, kind: np.ndarray, chosen: np.ndarray, people: np.ndarray, seed: int) -> None:
    """Give the images at the positions `chosen` the labels of others of `people`, in place."""
    if not len(chosen):
        return
    if len(people) < 2:
        raise LatseError(f"{len(people)} person stays: an image cannot get the label of another one")
    shift = _random(seed, "labels").integers(1, len(people), size=len(label))[chosen]
    label[chosen] = people[(np.searchsorted(people, label[chosen]) + shift) % len(people)]
    kind[chosen] = MISLABELLED


def _check_counts(images: int, wrong: int, outside: int) -> None:
    if wrong + outside > images:
        raise LatseError(f"{images} images are too few to mislabel {wrong} and replace {outside}")


def _random(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng((seed, *purpose.encode()))


def _write(
    out: str | os.PathLike,
    original: Shard,
    other: Shard | None,
    plan: _Plan,
    shards: int,
    made: dict[str, Any],
) -> None:
    """Write the set, and beside it what its images are and what it was made with."""
    order = np.flatnonzero(~plan.left_out)
    order = order[np.argsort(plan.label[order], kind="stable")]
    label, kind, replaced_by = plan.label[order], plan.kind[order], plan.replaced_by[order]
    with staged(out) as stage:
        with ShardWriter(stage, original.classes, original.image_size, shards, len(order)) as writer:
            bar = tqdm(zip(label, order, replaced_by), "noise", len(order), unit="image", leave=False)
            for person, position, place in bar:
                content = original.content(position) if place < 0 else other.content(place)
                writer.add(int(person), content.tobytes())
        source = original.records[order]
        if other is not None:
            source = np.where(replaced_by < 0, source, other.records[replaced_by])
        true = np.where(kind == DISTRACTOR, OUTSIDE, original.labels[order])
        noisy = Shard(stage)
        made["digest"] = noisy.digest()
        truth = Truth(noisy.records, label, kind, true, source)
        with replacing(stage / "noise.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **truth._asdict())
        write_json(stage / "noise.json", made)
