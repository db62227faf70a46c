"""Pictures that stand in a training set and in test sets, also re-encoded, resized, lit or aligned anew."""

from __future__ import annotations

from hashlib import blake2b
from typing import Collection, Iterator, Mapping, NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from latse import runtime
from latse.data.images import decode
from latse.data.shards.records import Shard
from latse.data.workers import in_threads
from latse.paper.near_pictures import Sketch, gradients, gray, likeness, relief
from latse.train import means

BYTES, PIXELS, NEAR = "same bytes", "same picture", "near"
ALIKE = 0.955  # the likeness from which on two pictures are one
KEPT = 8  # training images that a test image, or its mirror image, is laid on
FLOOR = 0.45  # the cosine of sketches below which none is, unless the training set is as small as that
SAMPLE = 1024  # images of either side that the sketches are fitted to
Places = Mapping[bytes, Sequence[int]]  # digest -> numbers of test images


class Match(NamedTuple):
    """A picture in both: the number of a test image, the position of a training image, and how alike.

    `likeness` is that of `near_pictures`, 1 for what is equal; `mirrored` tells whether one is the mirror
    image of the other.
    """

    kind: str
    image: int
    position: int
    likeness: float
    mirrored: bool


class _Part(NamedTuple):
    """Training images that were read together: int64 (n,), digests of each, float32 (n, 192)."""

    positions: np.ndarray
    encodings: list[bytes]
    pixels: list[bytes]
    histograms: np.ndarray


def digest(content: bytes | memoryview | np.ndarray) -> bytes:
    """Return 16 bytes that stand for a content: of an array, uint8 (…), its numbers."""
    return blake2b(content.tobytes() if isinstance(content, np.ndarray) else content, digest_size=16).digest()


def find(shard: Shard, pictures: np.ndarray, encodings: Places, pixels: Places) -> list[Match]:
    """Find the test images that a training set has; the set is read once, and a little for the likely ones.

    Equal ones are all found. Of the others, at most `KEPT` for a test image and as many for its mirror image
    are looked at, those with the likest sketches.

    Parameters
    ----------
    shard : Shard
        The training set, of images of 112x112.
    pictures : uint8 array (m, 112, 112)
        The test images in grey.
    encodings, pixels : mapping of bytes to sequence of int
        The digests of their encoded bytes and of their decoded pixels, uint8 (3, 112, 112) -> which they are.

    Returns
    -------
    list of Match
        By test image, then by position.
    """
    plain = gradients(pictures)
    rows = np.concatenate([plain, gradients(np.ascontiguousarray(pictures[:, :, ::-1]))])
    sketch = Sketch.of(np.concatenate([plain[_even(len(plain))], _sampled(shard)]))
    nearest = _Nearest(sketch(rows), FLOOR if len(shard) > KEPT else -np.inf)
    found: dict[tuple[int, int], Match] = {}
    for part in _read(shard, len(rows)):
        for kind, known, digests in ((PIXELS, pixels, part.pixels), (BYTES, encodings, part.encodings)):
            for position, its in zip(part.positions.tolist(), digests):
                for image in known.get(its, ()):
                    found[image, position] = Match(kind, image, position, 1.0, False)
        nearest.add(sketch(part.histograms), part.positions)
    for match in _alike(shard, pictures, nearest, {*found}):
        known = found.setdefault((match.image, match.position), match)
        if known.likeness < match.likeness:  # the mirror image is even more alike
            found[match.image, match.position] = match
    return [found[key] for key in sorted(found)]


def _even(count: int) -> np.ndarray:
    """Return up to `SAMPLE` positions at even distances, int64."""
    return np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.int64)


def _sampled(shard: Shard) -> np.ndarray:
    """Return the histograms of a sample of a set, float32 (n, 192)."""
    return np.concatenate([gradients(_grey(shard, positions[None])) for positions in _even(len(shard))])


def _grey(shard: Shard, positions: np.ndarray) -> np.ndarray:
    return np.stack([gray(image) for image in shard.batch(positions).image])


def _read(shard: Shard, rows: int) -> Iterator[_Part]:
    """Read a set in parts whose cosines with so many rows are in memory at once."""

    def read(part: slice) -> _Part:
        positions = np.arange(part.start, part.stop)
        contents = [shard.content(position) for position in positions]
        images = [
            decode(content, shard.name(position), shard.image_size).transpose(2, 0, 1)
            for content, position in zip(contents, positions)
        ]
        histograms = gradients(np.stack([gray(image) for image in images]))
        return _Part(positions, [*map(digest, contents)], [*map(digest, images)], histograms)

    with tqdm(total=len(shard), desc="compare pictures", unit="image") as progress:
        for part in in_threads(read, ((part,) for part in means.parts(len(shard), rows)), runtime.threads()):
            yield part
            progress.update(len(part.positions))


class _Nearest:
    """For each row the positions of the `KEPT` likest sketches whose cosine is at least `floor`."""

    def __init__(self, rows: np.ndarray, floor: float):
        self._rows, self._floor = rows, np.full(len(rows), floor)
        self.row, self.position = np.empty((2, 0), np.int64)
        self._cosine = np.empty(0, np.float32)

    def add(self, sketches: np.ndarray, positions: np.ndarray) -> None:
        """Look at sketches, float32 (n, 192), of the images at `positions`."""
        cosines = self._rows @ sketches.T
        row, column = np.nonzero(cosines >= self._floor[:, None])
        row = np.concatenate([self.row, row])
        position = np.concatenate([self.position, positions[column]])
        cosine = np.concatenate([self._cosine, cosines[row[len(self.row) :], column]])
        order = np.lexsort((-cosine, row))
        row, position, cosine = row[order], position[order], cosine[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        last = rank == KEPT - 1
        self._floor[row[last]] = cosine[last]
        self.row, self.position, self._cosine = (of[rank < KEPT] for of in (row, position, cosine))


def _alike(
    shard: Shard, pictures: np.ndarray, nearest: _Nearest, equal: Collection[tuple[int, int]]
) -> Iterator[Match]:
    """Lay the likely pictures one on the other; iterate those that are one, but for the `equal` ones."""
    order = np.argsort(nearest.position, kind="stable")
    positions, starts = np.unique(nearest.position[order], return_index=True)
    rows = np.split(nearest.row[order], starts[1:])

    def compared(position: int, rows: np.ndarray) -> list[Match]:
        of_training, matches = relief(_grey(shard, np.array([position]))[0]), []
        for mirrored, image in zip(*map(np.ndarray.tolist, np.divmod(rows, len(pictures)))):
            if (image, position) not in equal:
                picture = pictures[image][:, ::-1] if mirrored else pictures[image]
                alike = likeness(relief(np.ascontiguousarray(picture)), of_training)
                matches.append(Match(NEAR, image, position, alike, bool(mirrored)))
        return matches

    with tqdm(total=len(positions), desc="lay on", unit="image", leave=False) as progress:
        for matches in in_threads(compared, zip(positions.tolist(), rows), runtime.threads()):
            yield from (match for match in matches if match.likeness >= ALIKE)
            progress.update()
