"""Verification pairs in insightface's .bin format: a pickle of (2n encoded images, n booleans)."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from latse.data.records import decode
from latse.errors import LatseError
from latse.files import replacing

SIZE = (112, 112)


class Pairs(NamedTuple):
    """Decoded pairs: images 2i and 2i + 1 are the i-th pair.

    images : uint8 array (2n, 3, 112, 112), RGB; issame : bool array (n,).
    """

    images: np.ndarray
    issame: np.ndarray


def write_pairs(path: str | os.PathLike, encoded: Sequence[bytes], issame: Sequence[bool]) -> None:
    """Write 2n encoded JPEG or PNG images and n flags as an insightface .bin, atomically.

    Raises LatseError if the numbers do not match or the file cannot be written.
    """
    if not len(issame) or len(encoded) != 2 * len(issame):
        raise LatseError(f"{path}: {len(encoded)} images do not make {len(issame)} pairs")
    with replacing(path) as temporary:
        content = ([bytes(image) for image in encoded], [bool(same) for same in issame])
        # Protocol 3 is the oldest that stores bytes as they are, so any Python 3 can read the file.
        temporary.write_bytes(pickle.dumps(content, protocol=3))


def read_pairs(path: str | os.PathLike) -> Pairs:
    """Read an insightface .bin (also one written by Python 2 or with numpy arrays in it).

    Nothing in the file is executed: whatever is more than lists, numbers and bytes is refused.

    Raises
    ------
    LatseError
        If the file is missing, no such pickle, or an image cannot be decoded or is not 112x112.
    """
    path = Path(path)
    encoded, issame = _unpickle(path)
    images = np.empty((len(encoded), 3, *SIZE), np.uint8)
    for number, image in enumerate(tqdm(encoded, desc=path.name, unit="image", leave=False, delay=1)):
        images[number] = decode(_as_bytes(path, number, image), f"{path}: image {number}", SIZE).transpose(
            2, 0, 1
        )
    return Pairs(images, issame)


def _unpickle(path: Path) -> tuple[Sequence[Any], np.ndarray]:
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="bytes").load()
    except OSError as error:
        raise LatseError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise LatseError(f"{path} is not a file of pairs: {error or type(error).__name__}") from error
    try:
        encoded, issame = (_plain(part) for part in content)
        issame = np.array([bool(_plain(same)) for same in issame], dtype=bool)
        number = len(encoded)
    except (TypeError, ValueError) as error:
        raise LatseError(f"{path} is not a pickle of (images, issame)") from error
    if not len(issame) or number != 2 * len(issame):
        raise LatseError(f"{path}: {number} images do not make {len(issame)} pairs")
    return encoded, issame


def _as_bytes(path: Path, number: int, image: Any) -> np.ndarray:
    image = _plain(image)
    if isinstance(image, (bytes, bytearray)):
        return np.frombuffer(image, np.uint8)
    if isinstance(image, np.ndarray) and image.dtype.itemsize == 1:
        return np.ascontiguousarray(image).reshape(-1).view(np.uint8)
    raise LatseError(f"{path}: image {number} is a {type(image).__name__} instead of encoded bytes")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value


class _Dtype:
    """Stands in for numpy.dtype: only one-byte numbers and Python objects."""

    def __init__(self, name: str | bytes, *_: Any):
        self.name = name.decode("ascii") if isinstance(name, bytes) else name
        if self.name not in ("b1", "?", "u1", "i1", "O", "O8"):
            raise pickle.UnpicklingError(f"a numpy array of type {self.name!r} is refused")

    def __setstate__(self, state: Any):
        """Byte order and alignment do not matter to single bytes and objects."""


class _Array:
    """Stands in for numpy.ndarray, so that none of numpy's own unpickling runs on a stranger's bytes."""

    value: Any = None

    def __setstate__(self, state: tuple):
        _, shape, dtype, _, data = state
        if dtype.name.startswith("O"):
            self.value = list(data)
        else:
            self.value = np.frombuffer(_as_latin1(data), dtype.name).reshape(shape)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: bytes, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return np.frombuffer(_as_latin1(data), dtype.name)[0].item()


def _as_latin1(data: bytes | str = b"", encoding: str | bytes = "latin1") -> bytes:
    """Bytes as protocol 2 stores them: text that Python 3 encodes again on loading."""
    if encoding not in ("latin1", "latin-1", b"latin1", b"latin-1"):
        raise pickle.UnpicklingError(f"the encoding {encoding!r} is refused")
    if not isinstance(data, (str, bytes, bytearray)):
        raise pickle.UnpicklingError(f"bytes made of a {type(data).__name__} are refused")
    return data.encode("latin1") if isinstance(data, str) else data


_ALLOWED = {
    ("_codecs", "encode"): _as_latin1,
    ("builtins", "bytes"): _as_latin1,
    ("builtins", "bytearray"): _as_latin1,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module).replace("numpy._core", "numpy.core")
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return _ALLOWED[module, name]
