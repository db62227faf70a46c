"""JPEG and PNG: what their bytes say before they are decoded, decoding and encoding."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from latse.errors import LatseError

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG's markers of the segment that holds the size
ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # JPEG's markers without a length
PNG_HEADER = struct.Struct(">8xI4sIIBB")  # signature; the first chunk's length, type and first fields
PNG_FRAME = 12  # bytes of a PNG's chunk besides its data: length, type, checksum
# 8-bit colour, whatever it was; not turned by Exif data, as MXNet does not: faces are upright
AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# libjpeg's words on data that it decodes nevertheless; OpenCV passes them on to stderr only.
DAMAGE = ("Corrupt JPEG data", "Premature end")
Decode = Callable[[bytes, int], Tuple[Optional[np.ndarray], str]]  # what `noting_damage` yields


class Announced(NamedTuple):
    """What an image says it is.

    is_png : bool; height, width : int, pixels; bits : int, of a sample; kind : int, a JPEG's number of
    components or a PNG's colour type (0 grey, 2 RGB, 3 palette, 4 and 6 with transparency).
    """

    is_png: bool
    height: int
    width: int
    bits: int
    kind: int


def announced(encoded: bytes) -> Announced | None:
    """Return what an image says it is; None if it is neither JPEG nor PNG.

    A few bytes can announce gigabytes, which OpenCV would reserve before it looks at them.
    """
    if encoded.startswith(PNG) and len(encoded) >= PNG_HEADER.size:
        _, _, width, height, bits, colour = PNG_HEADER.unpack_from(encoded)
        return Announced(True, height, width, bits, colour)
    place = encoded.find(b"\xff", 2) if encoded.startswith(JPEG) else -1
    while 0 <= place < len(encoded) - 9:
        marker, length = struct.unpack_from(">BH", encoded, place + 1)
        if marker in FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", encoded, place + 4)
            return Announced(False, height, width, bits, components)
        step = 1 if marker == 0xFF else 2 if marker in ALONE else 2 + length
        place = encoded.find(b"\xff", place + step)  # what stands between two segments libjpeg skips too
    return None


def is_cut_off(encoded: bytes) -> bool:
    """Tell whether this is a PNG with a chunk that reaches past its end, or that ends before any pixels.

    OpenCV makes room for as many bytes as a chunk claims, up to four gigabytes, before it finds that out; it
    looks for pixels beyond the end.
    """
    if not encoded.startswith(PNG):
        return False
    at, kind, has_pixels = len(PNG), b"", False
    while at < len(encoded) and kind != b"IEND":
        kind = encoded[at + 4 : at + 8]
        has_pixels |= kind == b"IDAT"
        at += PNG_FRAME + int.from_bytes(encoded[at : at + 4], "big")
    return at > len(encoded) or not has_pixels


def is_image_file(path: str | os.PathLike) -> bool:
    """Tell whether this file begins as an image that OpenCV reads, whatever its name ends in."""
    try:
        if not Path(path).is_file():
            return False  # to open a named pipe would wait for ever
        with Path(path).open("rb") as file:
            # By its handle, as OpenCV takes no name that is not UTF-8.
            return cv2.haveImageReader(f"/dev/fd/{file.fileno()}")
    except OSError:
        return False


def begins_as_image(content: bytes) -> bool:
    """Tell whether these bytes begin as an image that OpenCV reads."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return cv2.haveImageReader(f"/dev/fd/{file.fileno()}")


def decode(encoded: bytes | memoryview | np.ndarray, name: str, size: tuple[int, int]) -> np.ndarray:
    """Decode a JPEG or PNG (bytes, a view of them, or uint8 array (n,)) to uint8 (height, width, 3) RGB.

    Grey, CMYK and 16-bit images become 8-bit RGB. Raises LatseError, beginning with `name`, if it is no image
    or not one of `size` (height, width); one that announces another size is not decoded, whatever its size.
    """
    try:
        return cv2.cvtColor(decode_bgr(bytes(encoded), tuple(size)), cv2.COLOR_BGR2RGB)
    except ValueError as error:
        raise LatseError(f"{name} {error}") from error


def decode_bgr(encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """Return an image as OpenCV has it, BGR; raise ValueError, saying what is wrong with it."""
    header = announced(encoded)
    if header and (header.height, header.width) != size:
        raise ValueError(f"is {header.height}x{header.width} pixels instead of {size[0]}x{size[1]}")
    readable = header and not is_cut_off(encoded)
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), AS_STORED) if readable else None
    if image is None:
        raise ValueError("is not an image that can be decoded")
    return image


@contextlib.contextmanager
def noting_damage() -> Iterator[Decode]:
    """Yield a function that decodes and sees when libjpeg makes up what is missing.

    It takes encoded bytes and OpenCV's flags and returns the image as OpenCV has it, None if there is none,
    and libjpeg's words on the damage, empty if there is none; cv2.error passes. Meanwhile stderr is a file,
    as decoders complain there and nowhere else.
    """
    stderr = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)

            def decode_noting(encoded: bytes, flags: int) -> tuple[np.ndarray | None, str]:
                before = os.fstat(file.fileno()).st_size
                image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
                if os.fstat(file.fileno()).st_size == before:
                    return image, ""
                said = os.pread(file.fileno(), 1 << 16, before).decode("utf-8", "replace").splitlines()
                return image, next((line for line in said if any(word in line for word in DAMAGE)), "")

            yield decode_noting
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def encode(image: np.ndarray, quality: int = 100) -> bytes:
    """Encode uint8 (height, width, 3) RGB as JPEG of `quality` 1 to 100."""
    return cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
