"""A data set of one's own in one file: a class says who there is and shows their photographs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from latse.data.images import encode
from latse.data.pairs.pair_lists import draw_pairs
from latse.data.pairs.pairs import write_pairs, write_people
from latse.data.photographs.align import SIZE, Aligner, NoFaceError
from latse.data.shards.shard_writer import ShardWriter
from latse.data.shards.staging import refuse_set, staged
from latse.errors import LatseError, blaming
from latse.files import digest, write_json
from latse.own_class import Registry

MANIFEST = "faces.json"
FOLDS = 10


class FaceSet:
    """Where the faces of a set come from: one of your own overrides both methods and takes no arguments.

    Attributes
    ----------
    aligned : bool, default False
        Whether the photographs are aligned faces of 112x112 pixels already.
    """

    aligned = False

    def people(self) -> Sequence[Any]:
        """Return the people, in the order of their labels."""
        raise NotImplementedError(f"{type(self).__name__} must say who its people are")

    def photographs(self, person: Any) -> Iterable[np.ndarray]:
        """Return the photographs of one of the people, uint8 (height, width, 3) RGB."""
        raise NotImplementedError(f"{type(self).__name__} must show its photographs")


_REGISTRY = Registry(
    "face set", {}, lambda own: issubclass(own, FaceSet), "over latse.data.face_set.FaceSet"
)  # fmt: skip


def make_set(
    name: str, out: str | os.PathLike, test_people: int = 0, pairs: int = 6000, seed: int = 0
) -> dict[str, Any]:
    """Make the shards of a face set, and pairs of the people that are held out.

    Parameters
    ----------
    name : str
        FILE.py:CLASS, a class over `FaceSet`.
    out : path
        Receives `train.rec`, `train.idx`, `property`, `faces.json` and, of the people held out,
        `<class>.bin` and `<class>.people.npy`. It must not hold a set.
    test_people : int, default 0
        How many of the people, the last ones, are held out for the pairs.
    pairs, seed : int
        How many pairs, half of them of one person, and what draws them.

    Returns
    -------
    dict
        What `faces.json` says.

    Raises
    ------
    LatseError
        If the class fails or returns something else, a person has no face, or the pairs cannot be drawn.
    """
    refuse_set(out)
    source, file = _REGISTRY.create(name), name.rpartition(":")[0]
    with blaming(name):
        people = list(source.people())
    if not 0 <= test_people < len(people):
        raise LatseError(f"{test_people} people to be held out, of {len(people)} in {name}")
    faces = _Faces(name, source)
    split = len(people) - test_people
    with staged(out) as stage:
        with ShardWriter(stage, split) as writer:
            for label, face in faces.of(people[:split]):
                writer.add(label, face)
        if test_people:
            _write_pairs(
                stage / f"{type(source).__name__.lower()}.bin", faces.of(people[split:]), pairs, seed
            )
        report = {
            "source": f"{Path(file).name}:{type(source).__name__}",
            "digest": digest(file),
            "people": [str(person) for person in people[:split]],
            "test_people": [str(person) for person in people[split:]],
            "images": faces.count,
            "left_out": faces.left_out,
        }
        write_json(stage / MANIFEST, report)
    return report


class _Faces:
    """The encoded faces of a set's people, and which photographs were left out, by person and place."""

    def __init__(self, name: str, source: FaceSet):
        self._name, self._source = name, source
        self._aligner = None if source.aligned else Aligner()
        self.count, self.left_out = 0, []

    def of(self, people: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
        """Yield each person's number and faces; LatseError where a person has none."""
        for number, person in enumerate(tqdm(people, desc="align", unit="person", delay=1)):
            with blaming(f"{self._name}, photographs of {person}"):
                photographs = list(self._source.photographs(person))
            before = self.count
            for place, photograph in enumerate(photographs):
                try:
                    face = self._face(_checked(photograph, f"{self._name}: photograph {place} of {person}"))
                except NoFaceError as error:
                    self.left_out.append([str(person), place, str(error)])
                    continue
                self.count += 1
                yield number, encode(face)
            if self.count == before:
                raise LatseError(f"{self._name}: no photograph of {person} gives a face")

    def _face(self, photograph: np.ndarray) -> np.ndarray:
        if self._aligner:
            return self._aligner.cut_out(photograph).image
        if photograph.shape[:2] != (SIZE, SIZE):
            raise NoFaceError("wrong size", f"{photograph.shape[1]}x{photograph.shape[0]}, not {SIZE}x{SIZE}")
        return photograph


def _checked(photograph: Any, title: str) -> np.ndarray:
    array = np.asarray(photograph)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise LatseError(f"{title} is {array.dtype} {array.shape}, not uint8 (height, width, 3)")
    return array


def _write_pairs(path: Path, faces: Iterator[tuple[int, bytes]], number: int, seed: int) -> None:
    people, encoded = zip(*faces)
    person = np.array(people)
    pairs, issame = draw_pairs(person, number, FOLDS, seed)
    write_pairs(path, [encoded[photograph] for photograph in pairs.ravel()], issame)
    write_people(path, person[pairs])
