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
from latse.eval.candidates import FaceModel, FeatureFile
from latse.eval.identification import Gallery, UnitRows
from latse.eval.megaface import ImageList, Refined, people_of
from latse.eval.verification import distinct_images
from latse.files import explained

# Images that are in memory at once: 77 MB.
IMAGES_AT_ONCE = 2048


class ImageSet(NamedTuple):
    """Images, read as they are needed.

    Attributes
    ----------
    name : str
        Of its file or folder.
    stored : int
        How many images that holds.
    picked : int64 (n,)
        Ascending: which of them count. Of pairs, the first of those that are byte-identical; of a list, those
        that are no noise.
    read : callable
        Maps int64 (m,), positions among the stored, to uint8 (m, 3, 112, 112), RGB.
    people : int64 (n,)
        None if nobody says.
    listed : ImageList or None
        What a list of the kit calls those that count, None without a list.
    """

    name: str
    stored: int
    picked: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]
    people: np.ndarray | None
    listed: ImageList | None


def open_images(path: str | os.PathLike) -> ImageSet:
    """Open a shard, or read the distinct images of a file of pairs.

    Raises
    ------
    LatseError
        If it is missing or damaged, or the people beside pairs contradict them.
    """
    if Path(path).is_dir():
        shard = Shard(path)

        def read(positions: np.ndarray) -> np.ndarray:
            return shard.batch(positions).image

        labels = shard.labels.astype(np.int64)
        return ImageSet(Path(path).name, len(shard), np.arange(len(shard)), read, labels, None)
    pairs, people = read_pairs(path), read_people(path)
    check_people(path, people, pairs.issame)
    first, _ = distinct_images(pairs.images)
    people = None if people is None else people[first]
    return ImageSet(Path(path).stem, len(pairs.images), first, pairs.images.__getitem__, people, None)


def open_listed(folder: str | os.PathLike, refined: Refined) -> ImageSet:
    """Open aligned pictures, JPEG or PNG of 112x112 pixels, that lie in a folder under the paths of a list.

    Raises
    ------
    LatseError
        If one is missing; later, from `read`, if one cannot be decoded or has another size.
    """
    paths = [Path(folder) / path for path in refined.listed.paths]
    bar = tqdm(refined.kept.tolist(), desc=f"looking into {folder}", unit="file", leave=False, delay=1)
    missing = next((number for number in bar if not paths[number].is_file()), None)
    if missing is not None:  # better known now than after hours of embedding
        raise LatseError(f"the picture {paths[missing]} is missing")

    def encoded(path: Path) -> tuple[bytes, str]:
        with explained(f"cannot read {path}"):
            return path.read_bytes(), f"the picture {path}"

    def read(positions: np.ndarray) -> np.ndarray:
        return np.stack(
            [decode(*encoded(paths[position]), SIZE).transpose(2, 0, 1) for position in positions]
        )

    images = refined.images
    _, people = np.unique(people_of(images), return_inverse=True)
    return ImageSet(Path(folder).name, len(paths), refined.kept, read, people.astype(np.int64), images)


def embed(model: FaceModel, images: ImageSet) -> Gallery:
    """Return a model's features of the images that count, each divided by its norm.

    Returns
    -------
    ndarray or UnitRows
        float32 (n, d); of a file that holds a row for each stored image, `UnitRows`, not yet in memory.

    Raises
    ------
    LatseError
        As `FaceModel.embed`, or if an image cannot be read or a feature is zero.
    """
    if isinstance(model, FeatureFile):
        rows = model.rows(images.stored, images.name)
        return UnitRows(rows, f"{model.title} on {images.name}", images.picked)
    count = len(images.picked)
    features = np.empty((0, 0))
    with tqdm(total=count, desc=f"{model.title} on {images.name}", unit="image", leave=False) as bar:
        for start in range(0, count, IMAGES_AT_ONCE):
            part = images.picked[start : start + IMAGES_AT_ONCE]
            name = images.name + (f" from image {start} on" if start else "")
            rows = UnitRows(model.embed(images.read(part), name), f"{model.title} on {name}")[:]
            if not start:  # the dimensions are known: room for all, so that there is never a second copy
                features = np.empty((count, rows.shape[1]), np.float32)
            features[start : start + len(part)] = rows
            bar.update(len(part))
    return features
