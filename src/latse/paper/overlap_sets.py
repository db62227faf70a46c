"""Sets of verification pairs whose images are looked for: each image once, and who is on it."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from latse.data.images import decode
from latse.data.pairs.pairs import SIZE, check_people, read_encoded, read_people
from latse.eval import image_sets
from latse.eval.candidates import IMAGE, FaceModel
from latse.eval.figures import linked
from latse.eval.image_sets import ImageSet
from latse.eval.verification import distinct_images
from latse.paper.near_pictures import gray
from latse.paper.overlap_pictures import digest


class PairSet(NamedTuple):
    """A file of n pairs of m distinct pictures.

    Attributes
    ----------
    path : str
        Of the file.
    images : uint8 array (m, 3, 112, 112)
        RGB.
    number : int64 array (2n,)
        Which of them each image of a pair is.
    people : int64 array (m,)
        Who is on each.
    is_told : bool
        Whether a file beside the pairs says so; otherwise `eval.figures.linked` does.
    encodings : list of (bytes, int)
        The digest of each encoded image, and which picture it is.
    """

    path: str
    images: np.ndarray
    number: np.ndarray
    people: np.ndarray
    is_told: bool
    encodings: list[tuple[bytes, int]]

    def places(self, image: int) -> list[int]:
        """Return where a picture stands among the images of the pairs."""
        return np.flatnonzero(self.number == image).tolist()

    def grey(self) -> np.ndarray:
        """Return the pictures in grey, uint8 (m, 112, 112)."""
        return np.stack([gray(image) for image in self.images])

    def touched(self, people: set[int]) -> int:
        """Return how many pairs show one of these people."""
        return int(np.isin(self.people, [*people])[self.number].reshape(-1, 2).any(axis=1).sum())

    def embeddings(self, model: FaceModel) -> np.ndarray:
        """Return the embedding of each picture, float32 (m, d) of length 1, as `latse eval` makes it.

        Raises LatseError as `image_sets.embed`.
        """
        first = np.unique(self.number, return_index=True)[1]

        def read(positions: np.ndarray) -> np.ndarray:
            return self.images[self.number[positions]]

        name, stored = Path(self.path).stem, len(self.number)
        return image_sets.embed(model, ImageSet(name, stored, first, read, None, None, IMAGE))[:]


def read_set(path: str | os.PathLike) -> PairSet:
    """Read a file of pairs; raise LatseError as `read_pairs`, or if the people beside it do not fit."""
    content, people = read_encoded(path), read_people(path)
    check_people(path, people, content.issame)
    order = content.pairs.ravel()
    at = dict(zip(order[::-1].tolist(), range(len(order) - 1, -1, -1)))  # where each image stands first
    used = sorted(at, key=at.__getitem__)
    images = np.empty((len(used), 3, *SIZE), np.uint8)
    for place, image in enumerate(tqdm(used, Path(path).name, unit="image", leave=False, delay=1)):
        name = f"{path}: image {at[image]}"
        images[place] = decode(content.images[image], name, SIZE).transpose(2, 0, 1)
    first, same = distinct_images(images)
    number = np.empty(len(content.images), np.int64)
    number[used] = same
    encodings = [(digest(content.images[image]), int(number[image])) for image in used]
    number = number[order]
    known = linked(number, content.issame) if people is None else people
    people_of = known[np.unique(number, return_index=True)[1]]
    return PairSet(str(path), images[first], number, people_of, people is not None, encodings)


def by_digest(digests: Sequence[tuple[bytes, int]]) -> dict[bytes, list[int]]:
    """Return which images have a digest: those of several sets may be equal."""
    numbers = defaultdict(list)
    for its, image in digests:
        numbers[its].append(image)
    return dict(numbers)
