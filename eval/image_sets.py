"""Sets of images, embedded a part at a time: a shard, pairs, or the pictures that a list of the kit names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from tqdm import tqdm

from latse.data.images import decode
from latse.data.pairs.pairs import SIZE, check_people, read_pairs, read_people
from latse.data.shards.records import Shard
from latse.errors import LatseError
from latse.eval.candidates import IMAGE, FaceModel, FeatureFile
from latse.eval.identification import Gallery, UnitRows
from latse.eval.megaface import ImageList, Refined, people_of
from latse.eval.verification import distinct_images
from latse.files import explained
from latse.models.features import Called, unit
from latse.models.runner import in_batches

# Images that are in memory at once: 77 MB.
IMAGES_AT_ONCE = 2048


class ImageSet(NamedTuple):
    """Images of a file or folder, read as they are needed.

    Attributes
    ----------
    stored : int
        How many there are.
    picked : int64 (n,)
        Ascending: which of them count. Of pairs, the first of those that are byte-identical; of a list, those
        that are no noise.
    read : callable
        Maps int64 (m,), positions among the stored, to uint8 (m, 3, 112, 112), RGB.
    people : int64 (n,) or None
        Of those that count; None if nobody says.
    listed : ImageList or None
        What a list of the kit calls those that count.
    called : callable
        Maps a position among the stored to what the sentence of an error calls the image.
    """

    name: str
    stored: int
    picked: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]
    people: np.ndarray | None
    listed: ImageList | None
    called: Called


def open_images(path: str | os.PathLike, refined: Refined | None = None) -> ImageSet:
    """Open a shard, the distinct images of a file of pairs, or the pictures of a refined list.

    The pictures are aligned, JPEG or PNG of 112x112 pixels, and lie in the folder `path` under the paths of
    the list. Raises LatseError if what is named is missing or damaged, or the people beside pairs contradict
    them; of a picture that cannot be decoded or has another size, only `read` says so.
    """
    if refined:
        return _open_listed(path, refined)
    if Path(path).is_dir():
        shard = Shard(path)
        labels, every = shard.labels.astype(np.int64), np.arange(len(shard))
        read = Path(path).name, len(shard), every, lambda at: shard.batch(at).image
        return ImageSet(*read, labels, None, shard.name)
    pairs, people = read_pairs(path), read_people(path)
    check_people(path, people, pairs.issame)
    first, _ = distinct_images(pairs.images)
    people = None if people is None else people[first]
    return ImageSet(Path(path).stem, len(pairs.images), first, pairs.images.__getitem__, people, None, IMAGE)


def _open_listed(folder: str | os.PathLike, refined: Refined) -> ImageSet:
    paths = [Path(folder) / path for path in refined.listed.paths]
    bar = tqdm(refined.kept.tolist(), desc=f"looking into {folder}", unit="file", leave=False, delay=1)
    missing = next((number for number in bar if not paths[number].is_file()), None)
    if missing is not None:  # better known now than after hours of embedding
        raise LatseError(f"the picture {paths[missing]} is missing")

    def picture(path: Path) -> np.ndarray:
        with explained(f"cannot read {path}"):
            return decode(path.read_bytes(), f"the picture {path}", SIZE).transpose(2, 0, 1)

    def read(positions: np.ndarray) -> np.ndarray:
        return np.stack([picture(paths[position]) for position in positions])

    images = refined.images
    _, people = np.unique(people_of(images), return_inverse=True)
    people = people.astype(np.int64)
    return ImageSet(
        Path(folder).name, len(paths), refined.kept, read, people, images, lambda at: str(paths[at])
    )


def embed(model: FaceModel, images: ImageSet) -> Gallery:
    """Return a model's features of the images that count, each divided by its norm: float32 (n, d).

    Those of a file, which holds a row for each stored image, are `UnitRows`, not yet in memory. Raises
    LatseError as `FaceModel.embed`, or if an image cannot be read or a feature is zero.
    """
    if isinstance(model, FeatureFile):
        rows = model.rows(images.stored, images.name)
        return UnitRows(rows, model.naming(images.name, images.called), images.picked)

    def directions(positions: np.ndarray) -> np.ndarray:
        def called(row: int) -> str:
            return images.called(int(positions[row]))

        features = model.embed(images.read(positions), images.name, called)
        return unit(features, called).astype(np.float32)

    title = f"{model.title} on {images.name}"
    return in_batches(directions, images.picked, IMAGES_AT_ONCE, title, logged=True)
