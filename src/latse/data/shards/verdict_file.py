"""Verdicts of a teacher on every image of a data set and its mirror image, in one checked file.

A fixed teacher's verdict on an image does not change, so it may be made once and read by every later run.

Layout: the 8 bytes `LATSEKP2`; the length of a header, uint32 little-endian; the header, JSON in UTF-8; a
byte for each image in the order of `Shard.records`; the blake2b digest (32 bytes) of all before it. An
image's byte holds in its low four bits how many of the header's `ks` refuse it, in its high four bits how
many refuse its mirror image. While the file is made it ends in `.part`, has no digest, and 0xFF stands for an
image that has not been judged.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np

from latse.errors import LatseError
from latse.files import explained, replacing
from latse.form import COUNT, TEXT, Leaf, check

MAGIC, OLDER = b"LATSEKP2", b"LATSEKP1"
DIGEST = 32  # bytes
UNKNOWN = 0xFF
BINDING = ("teacher", "graph", "data", "preprocessing")
MOST_KS = 14  # so that no verdict looks like UNKNOWN
_KS = Leaf(
    f"a list of 1 to {MOST_KS} whole numbers of at least 1",
    lambda ks: (
        isinstance(ks, list) and 0 < len(ks) <= MOST_KS and all(type(k) is int and 0 < k < 2**63 for k in ks)
    ),
)
FORM = {"ks": _KS, "images": COUNT, **dict.fromkeys(BINDING, TEXT)}  # of the header
# What the header says of verdicts, by its keys.
TITLES = {
    "teacher": "the digest of the teacher's parameters",
    "graph": "the digest of the teacher's graph",
    "data": "the digest of the set",
    "preprocessing": "the digest of the decoded images",
    "ks": "k",
    "images": "the number of images",
}


class Verdicts(NamedTuple):
    """Verdicts and what they belong to.

    path : Path
        Their file.
    binding : dict
        What makes them another teacher's or another set's: digests of the teacher's parameters and graph, of
        the data and of their preprocessing.
    ks : tuple of int
        Ascending.
    packed : uint8 array (n,)
        How many of `ks` refuse each image in the low four bits, its mirror image in the high ones.
    """

    path: Path
    binding: dict
    ks: tuple[int, ...]
    packed: np.ndarray

    def check(self, k: int) -> None:
        """Raise LatseError if there are no verdicts for this k."""
        if k not in self.ks:
            known = ", ".join(map(str, self.ks))
            raise LatseError(f"{self.path}: there are verdicts for k = {known}, none for k = {k}")

    def keeps(self, k: int, positions: np.ndarray, mirrored: np.ndarray | bool) -> np.ndarray:
        """Return where the label is among the top k: bool (m,).

        Parameters
        ----------
        k : int
            LatseError if there are no verdicts for it.
        positions : int array (m,)
            Of the images, in the order of `Shard.records`.
        mirrored : bool array (m,), or one bool for all
            Whether the mirror image is asked for.
        """
        self.check(k)
        refusals = self.packed[positions] >> np.where(mirrored, 4, 0).astype(np.uint8) & 15
        return refusals <= self.ks.index(k)

    def refused(self, k: int) -> np.ndarray:
        """Return the positions of images that are refused both as they are and mirrored: int64, ascending.

        Raises LatseError if there are no verdicts for this k.
        """
        every = np.arange(len(self.packed))
        return np.flatnonzero(~self.keeps(k, every, False) & ~self.keeps(k, every, True))


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Return the different values of k, ascending; raise LatseError for fewer than one or more than 14."""
    ascending = tuple(sorted({int(k) for k in ks}))
    if not ascending or ascending[0] < 1 or len(ascending) > MOST_KS:
        raise LatseError(f"k = {', '.join(map(str, ks))}: one to {MOST_KS} numbers of at least 1 are needed")
    return ascending


def refuse_others(path: str | os.PathLike, made: dict, asked: dict) -> None:
    """Raise LatseError unless verdicts that were made are those asked for; it names what differs.

    Both have the keys of `TITLES`; a digest is told by its first eight digits.
    """
    others = [
        f"{TITLES[key]} is {_shown(made[key])}, not {_shown(asked[key])}"
        for key in TITLES
        if made[key] != asked[key]
    ]
    if others:
        advice = "remove it, or choose another name"
        raise LatseError(f"{path} holds other verdicts: {'; '.join(others)}: {advice}")


class VerdictWriter:
    """Collects verdicts in `PATH.part` and makes `PATH` of it; a killed run goes on where it was.

    `binding` is as of `Verdicts`, `images` is their number, at least 1. Raises LatseError if `PATH.part`
    belongs to something else, is of an older version or cannot be written.

    Attributes
    ----------
    ks : tuple of int
        Different ones, ascending.
    """

    def __init__(self, path: str | os.PathLike, binding: dict, ks: Sequence[int], images: int):
        self.path, self._part = Path(path), Path(f"{path}.part")
        self.ks = check_ks(ks)
        asked = {"ks": self.ks, "images": images, **binding}
        header = json.dumps(asked, sort_keys=True).encode()
        self._start = MAGIC + len(header).to_bytes(4, "little") + header
        with explained(f"cannot write {self._part}"):
            self._part.parent.mkdir(parents=True, exist_ok=True)
            if not self._part.exists():
                with replacing(self._part) as temporary:
                    temporary.write_bytes(self._start + bytes([UNKNOWN]) * images)
            self._file = self._part.open("r+b")
            content = self._file.read()
        _check_kind(self._part, content)
        made, packed = _parsed(self._part, content)
        refuse_others(self._part, made, asked)
        self._bytes = packed.copy()

    def open_images(self) -> np.ndarray:
        """Return the positions of images that have not been judged, int64, ascending."""
        return np.flatnonzero(self._bytes == UNKNOWN)

    def put(self, positions: np.ndarray, ranks: np.ndarray) -> None:
        """Write verdicts on ascending `positions` (m,), given the ranks (m, 2) of image and mirror image."""
        plain, mirrored = (ranks[..., None] >= self.ks).sum(-1).astype(np.uint8).T  # how many of `ks` refuse
        self._bytes[positions] = plain | mirrored << 4
        first, last = int(positions[0]), int(positions[-1])
        with explained(f"cannot write {self._part}"):
            self._file.seek(len(self._start) + first)
            self._file.write(self._bytes[first : last + 1].tobytes())
            self._file.flush()

    def finish(self) -> None:
        """Write `PATH` with its digest and remove `PATH.part`."""
        content = self._start + self._bytes.tobytes()
        with replacing(self.path) as temporary:
            temporary.write_bytes(content + _digest(content))
        self._file.close()
        self._part.unlink()


def read(path: str | os.PathLike) -> Verdicts:
    """Read a finished file of verdicts; raise LatseError if it is missing, damaged or something else."""
    path = Path(path)
    with explained(f"cannot read {path}"):
        content = path.read_bytes()
    _check_kind(path, content)
    if len(content) < len(MAGIC) + 4 + DIGEST or content[-DIGEST:] != _digest(content[:-DIGEST]):
        raise LatseError(f"{path} is damaged: its digest is not that of its content")
    header, packed = _parsed(path, content[:-DIGEST])
    return Verdicts(path, {key: header[key] for key in BINDING}, header["ks"], packed)


def _check_kind(path: Path, content: bytes) -> None:
    """Raise LatseError if a file does not begin as one of verdicts does."""
    if content.startswith(OLDER):
        raise LatseError(f"{path} is of an older version: remove it and make it again with `latse filter`")
    if not content.startswith(MAGIC):
        raise LatseError(f"{path} is not a file of verdicts")


def _parsed(path: Path, content: bytes) -> tuple[dict, np.ndarray]:
    """Return header and packed verdicts of a file without its digest; raise LatseError if one is wrong."""
    start = len(MAGIC) + 4 + int.from_bytes(content[len(MAGIC) : len(MAGIC) + 4], "little")
    packed = np.frombuffer(content[start:], np.uint8)
    try:
        header = json.loads(content[len(MAGIC) + 4 : start])
    except (ValueError, RecursionError) as error:
        raise LatseError(f"{path} has a header that no file of verdicts has: it is not JSON") from error
    check(path, header, FORM, "header")
    parsed = {**header, "ks": check_ks(header["ks"])}
    if parsed["images"] != len(packed):
        raise LatseError(f"{path} is damaged: its header promises another number of images")
    return parsed, packed


def _shown(value: str | int | Sequence[int]) -> str:
    """Return a value of the header in a sentence."""
    if isinstance(value, str):
        return value[:8]
    return str(value) if isinstance(value, int) else ", ".join(map(str, value))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
