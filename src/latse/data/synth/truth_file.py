"""What is known of the images of a synthetic set: X.truth.npz beside X.bin, train.truth.npz in a set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from latse.arrays import read_npz
from latse.errors import LatseError
from latse.files import replacing


class Truth(NamedTuple):
    """Of n images, in the order of the records or of the pairs, and of the p people on them.

    Attributes
    ----------
    person : int64 (n,)
        As labels or `X.people.npy` number them.
    yaw, pitch, roll : float32 (n,)
        Of the head, degrees; yaw and roll are positive towards the image's right, pitch with the chin up.
    light : float32 (n, 3)
        Where the main light comes from, of unit length: the image's right, up, the camera.
    age : float32 (n,)
        Years.
    smile : float32 (n,)
        0 none to 1.
    occlusion : str (n,)
        One of `people.OCCLUSIONS` that is drawn over the face.
    people : int64 (p,)
        The people, ascending.
    female : float32 (p,)
        0 male to 1 female.
    frontal : uint8 (p, 3, 112, 112)
        Each from the front, RGB: calm, evenly lit, at the person's own age, without glasses, and aligned as
        all images are.
    """

    person: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    light: np.ndarray
    age: np.ndarray
    smile: np.ndarray
    occlusion: np.ndarray
    people: np.ndarray
    female: np.ndarray
    frontal: np.ndarray

    @property
    def number(self) -> np.ndarray:
        """The place in `people` of the person on each image, int64 (n,)."""
        return np.searchsorted(self.people, self.person)


KINDS = dict(zip(Truth._fields, ("i", *6 * "f", "U", "i", "f", "u")))  # of the types
SHAPES = {"light": (3,), "frontal": (3, 112, 112)}  # after the first axis
OF_PEOPLE = ("people", "female", "frontal")


def truth_path(path: str | os.PathLike) -> Path:
    """Return where the truth of pairs X.bin or X.npz, or of the set in a folder, is."""
    path = Path(path)
    return path / "train.truth.npz" if path.is_dir() else path.with_suffix(".truth.npz")


def write(path: Path, truth: Truth) -> None:
    """Write the file; raise LatseError if it cannot be written."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **truth._asdict())


def read(path: str | os.PathLike, images: int) -> Truth:
    """Read the truth of pairs or of the set in a folder, `path`, which has so many images.

    Raises LatseError if there is none, or it is damaged or of another number of images.
    """
    file = truth_path(path)
    if not file.exists():
        raise LatseError(f"there is no {file}: `latse data synth-truth` writes it beside a synthetic set")
    truth = Truth(*read_npz(file, Truth._fields))
    lengths = {"images": images, "people": len(truth.people)}
    for name, array in truth._asdict().items():
        length = lengths["people" if name in OF_PEOPLE else "images"]
        shape = (length, *SHAPES.get(name, ()))
        if array.dtype.kind != KINDS[name] or array.shape != shape:
            raise LatseError(f"{file}: {name} is {array.dtype} {array.shape}, must be of shape {shape}")
    if not np.isin(truth.person, truth.people).all() or (np.diff(truth.people) <= 0).any():
        raise LatseError(f"{file}: the people of the images are not those of whom it tells")
    return truth
