"""Verification pairs: insightface's .bin, a pickle of (2n encoded images, n flags), and a plain .npz.

The .npz holds each image once, in four arrays as numpy.savez stores them:
images uint8 (bytes,), all encoded images one after the other; offsets int64 (m + 1,), where each begins and
the last ends; pairs int64 (n, 2), the numbers of the two images of each pair; issame bool (n,).

Neither says who is who. Where that is known, it stands in X.people.npy beside X.bin or X.npz: int64 (2n,),
for each image a number of the person, the same number for the same person.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from latse import arrays
from latse.data.images import decode
from latse.data.pairs.safe_pickle import Array, PickleError, described, load_pickle
from latse.errors import LatseError
from latse.files import explained, refuse_existing, replacing

SIZE = (112, 112)
# Member of the .npz -> its type as .npy names it, and its number of dimensions.
MEMBERS = {"images": ("|u1", 1), "offsets": ("<i8", 1), "pairs": ("<i8", 2), "issame": ("|b1", 1)}
NPY_MAGIC = b"\x93NUMPY\x01\x00"


class Pairs(NamedTuple):
    """Decoded pairs: images 2i and 2i + 1 are the i-th pair.

    images : uint8 array (2n, 3, 112, 112), RGB; issame : bool array (n,).
    """

    images: np.ndarray
    issame: np.ndarray


class EncodedPairs(NamedTuple):
    """Pairs as a file holds them.

    images : list of m memoryviews, the distinct encoded images; pairs : int64 array (n, 2), numbers of
    images; issame : bool array (n,).
    """

    images: list[memoryview]
    pairs: np.ndarray
    issame: np.ndarray


def write_pairs(
    path: str | os.PathLike,
    encoded: Sequence[bytes],
    issame: Sequence[bool],
    people: np.ndarray | None = None,
) -> None:
    """Write 2n encoded JPEG or PNG images and n flags, atomically: as .npz if `path` ends so, else as .bin.

    `people` is what `write_people` puts beside them. Raises LatseError if the numbers do not match or a file
    cannot be written; then neither is there.
    """
    if not len(issame) or len(encoded) != 2 * len(issame):
        raise LatseError(f"{path}: {len(encoded)} images do not make {len(issame)} pairs")
    content = _distinct([memoryview(bytes(image)) for image in encoded], issame)
    write_encoded(path, content, people)


def write_encoded(path: str | os.PathLike, content: EncodedPairs, people: np.ndarray | None = None) -> None:
    """Write pairs as `read_encoded` returns them, as `write_pairs` does."""
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            (_write_npz if Path(path).suffix == ".npz" else _write_bin)(file, content)
        write_people(path, people)  # before the pairs have their name: where there are pairs, they are whole


def _write_npz(file: BinaryIO, content: EncodedPairs) -> None:
    lengths = [len(image) for image in content.images]
    np.savez(
        file,
        images=np.frombuffer(b"".join(content.images), np.uint8),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        pairs=np.asarray(content.pairs, np.int64),
        issame=np.asarray(content.issame, bool),
    )


def _write_bin(file: BinaryIO, content: EncodedPairs) -> None:
    images = [bytes(image) for image in content.images]
    flags = [bool(same) for same in content.issame]
    # Protocol 3 is the oldest that stores bytes as they are, so any Python 3 can read the file.
    pickle.dump(([images[number] for number in content.pairs.ravel()], flags), file, protocol=3)


def refuse_pairs(path: str | os.PathLike, source: str | os.PathLike = "") -> None:
    """Raise LatseError if there are X.bin or X.npz, which share X.people.npy, but for `source` beside `path`.

    An X.people.npy that a set has left is to be replaced, which is said on stderr.
    """
    files = [Path(path).with_suffix(suffix) for suffix in (".bin", ".npz")]
    refuse_existing(*(file for file in files if file == Path(path) or not _is_same(file, source)))
    if people_path(path).exists() and not any(map(os.path.lexists, files)):
        print(f"latse: {people_path(path)} stands beside no pairs and is replaced", file=sys.stderr)


def _is_same(file: Path, other: str | os.PathLike) -> bool:
    return file.exists() and Path(other).exists() and file.samefile(other)


def people_path(path: str | os.PathLike) -> Path:
    """Return the file that says who is on the images of pairs: X.people.npy for X.bin and X.npz."""
    return Path(path).with_suffix(".people.npy")


def write_people(path: str | os.PathLike, people: np.ndarray | None) -> None:
    """Write who is on each image, int (n, 2) or (2n,), beside the pairs `path`, atomically.

    None removes what an earlier set of the same name left. Raises LatseError if it cannot be written.
    """
    if people is None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            people_path(path).unlink()
        return
    with replacing(people_path(path)) as temporary, temporary.open("wb") as file:
        arrays.save(file, np.asarray(people, np.int64).ravel())


def read_people(path: str | os.PathLike) -> np.ndarray | None:
    """Read who is on each image of the pairs `path`: int64 (2n,); None if no file says so.

    Raises LatseError if the file is damaged, or holds anything but one row of whole numbers.
    """
    path = people_path(path)
    if not path.exists():
        return None
    try:
        with explained(f"cannot read {path}"), path.open("rb") as file:
            people = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise LatseError(f"{path} is damaged: it is no .npy of numbers") from error
    if people.dtype.kind not in "iu" or people.ndim != 1:
        raise LatseError(f"{path} holds {people.dtype} {people.shape} instead of one row of whole numbers")
    return people.astype(np.int64)


def check_people(path: str | os.PathLike, people: np.ndarray | None, issame: np.ndarray) -> None:
    """Raise LatseError unless the people of the pairs `path` fit their flags, `issame`, bool (n,).

    `people` is int (2n,), as of `read_people`, or None, which fits everything.
    """
    if people is None:
        return
    beside = people_path(path)
    if len(people) != 2 * len(issame):
        raise LatseError(f"{beside} names {len(people)} people, but {path} has {2 * len(issame)} images")
    wrong = np.flatnonzero((people[0::2] == people[1::2]) != issame)
    if len(wrong):
        said, other = ("one person", "two") if issame[wrong[0]] else ("two people", "one")
        raise LatseError(f"{path}: pair {wrong[0]} shows {said}, but by {beside} it shows {other}")


def read_pairs(path: str | os.PathLike) -> Pairs:
    """Read and decode a .bin (insightface's, of Python 2 or 3) or .npz; which one, its first bytes tell.

    Memory: 37,632 bytes for each image of a pair, and the file's size once. Raises LatseError if the file is
    missing or neither, or an image cannot be decoded or is not 112x112.
    """
    path = Path(path)
    content = read_encoded(path)
    order = content.pairs.ravel().tolist()
    # A few bytes in a .bin can refer to an image again; numpy would reserve what no machine has.
    needed = len(order) * 3 * SIZE[0] * SIZE[1]
    if needed > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise LatseError(f"{path}: its {len(order)} images need {needed >> 20} MB, more memory than there is")
    images = np.empty((len(order), 3, *SIZE), np.uint8)
    first: dict[int, int] = {}
    for position, number in enumerate(tqdm(order, desc=path.name, unit="image", leave=False, delay=1)):
        if first.setdefault(number, position) < position:
            images[position] = images[first[number]]
        else:
            name = f"{path}: image {position}"
            images[position] = decode(content.images[number], name, SIZE).transpose(2, 0, 1)
    return Pairs(images, content.issame)


def read_encoded(path: str | os.PathLike) -> EncodedPairs:
    """Read a .bin or .npz without decoding its images.

    Nothing in the file is executed: whatever is more than lists, numbers and bytes is refused. Memory is the
    file's size and a little; a hostile .bin can take 20 MB and some twenty times its size.

    Raises LatseError if the file is missing or damaged or its numbers do not match.
    """
    path = Path(path)
    if path.is_dir():
        raise LatseError(f"{path} is a folder: `latse data pairs {path} FILE.bin` draws pairs of its people")
    try:
        # A buffer would make a second copy of it all.
        with explained(f"cannot read {path}"), path.open("rb", buffering=0) as file:
            if file.read(2) == b"PK":
                return _read_npz(path, file)
            file.seek(0)
            return _from_pickle(path, file.read())
    except (PickleError, _DamagedError) as error:
        raise LatseError(f"{path} is not a file of pairs: {error}") from error


# What the package zipfile raises for damaged archives.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error)


class _DamagedError(Exception):
    """The file is no .npz of pairs; its text says why."""


def _from_pickle(path: Path, content: bytes) -> EncodedPairs:
    value = load_pickle(content)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise LatseError(f"{path} is not a pickle of (images, issame)")
    encoded, issame = (part.tolist() if isinstance(part, Array) else part for part in value)
    if not isinstance(encoded, (list, tuple)) or not isinstance(issame, (list, tuple)):
        raise LatseError(f"{path} is not a pickle of (images, issame)")
    if not len(issame) or len(encoded) != 2 * len(issame):
        raise LatseError(f"{path}: {len(encoded)} images do not make {len(issame)} pairs")
    for number, same in enumerate(issame):
        if same not in (0, 1):
            raise LatseError(f"{path}: flag {number} is {described(same)}, must be 0 or 1")
    images = [_bytes(image) for image in encoded]
    for number, image in enumerate(images):
        if not isinstance(image, memoryview):
            raise LatseError(f"{path}: image {number} is {described(image)} instead of encoded bytes")
    return _distinct(images, [bool(same) for same in issame])


def _bytes(image: object) -> object:
    """Return the bytes of an array of bytes, and all else as it is."""
    return image.data if isinstance(image, Array) and image.dtype.itemsize == 1 else image


def _distinct(encoded: list[memoryview], issame: Sequence[bool]) -> EncodedPairs:
    # Each object is compared once: a pickle can refer to one long string any number of times.
    objects = {id(image): image for image in encoded}
    numbers: dict[memoryview, int] = {}
    number = {key: numbers.setdefault(image, len(numbers)) for key, image in objects.items()}
    order = [number[id(image)] for image in encoded]
    return EncodedPairs(list(numbers), np.array(order, np.int64).reshape(-1, 2), np.array(issame, dtype=bool))


def _read_npz(path: Path, file: BinaryIO) -> EncodedPairs:
    try:
        with zipfile.ZipFile(file) as archive:
            images, offsets, pairs, issame = (
                _read_member(archive, f"{name}.npy", *kind) for name, kind in MEMBERS.items()
            )
    except (*_ZIP_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a place before the file's start
            raise
        raise _DamagedError("it is a damaged .npz") from error  # their text quotes the file's bytes
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(images) or (np.diff(offsets) < 0).any():
        raise _DamagedError("its offsets do not fit its images")
    if pairs.shape[1] != 2 or not len(pairs) or pairs.min() < 0 or pairs.max() >= len(offsets) - 1:
        raise _DamagedError("its pairs do not fit its images")
    if len(issame) != len(pairs):
        raise LatseError(f"{path}: {2 * len(pairs)} images do not make {len(issame)} pairs")
    view, ends = memoryview(images).toreadonly(), offsets.tolist()
    encoded = [view[start:end] for start, end in zip(ends, ends[1:])]
    return EncodedPairs(encoded, pairs, issame.view(np.uint8) != 0)


def _read_member(archive: zipfile.ZipFile, name: str, kind: str, dimensions: int) -> np.ndarray:
    """Read an array that numpy.savez wrote; nothing is believed of sizes before they fit the file."""
    if name not in archive.namelist():
        raise _DamagedError(f"it lacks {name}")
    information = archive.getinfo(name)
    if information.compress_type != zipfile.ZIP_STORED:
        raise _DamagedError(f"{name} is compressed, which is refused")
    with archive.open(information) as member:
        start = member.read(len(NPY_MAGIC) + 2)
        header = member.read(int.from_bytes(start[len(NPY_MAGIC) :], "little"))
        fields = re.fullmatch(
            rb"\{'descr': '(.{3})', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n", header
        )
        shape = [int(size) for size in re.findall(rb"\d{1,18}", fields[2])] if fields else []
        if not start.startswith(NPY_MAGIC) or len(shape) != dimensions or fields[1] != kind.encode():
            raise _DamagedError(f"{name} is not an array of type {kind} with {dimensions} dimensions")
        data = bytearray()
        while part := member.read(1 << 20):
            data += part
    return np.frombuffer(data, kind).reshape(shape)
