"""Photograph to aligned face: five points, a similarity transform to insightface's template."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Iterator, NamedTuple

import cv2
import numpy as np
from skimage.transform import estimate_transform

from latse.data import images
from latse.data.photographs import detect
from latse.errors import LatseError

SIZE = 112
# Where insightface puts the eyes, the nose and the mouth's corners, left ones (in the image) first: (x, y).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
NO_IMAGE = "no image"  # the reason of what does not begin as an image
BORDER = cv2.BORDER_REPLICATE
SMALLEST = 28.0  # default of the smallest face, in pixels: it is enlarged four times


class NoFaceError(Exception):
    """Why a photograph gives no aligned face: a `reason` of few words, the same for many, and a `detail`."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason, self.detail = reason, detail


class Aligned(NamedTuple):
    """An aligned face, uint8 (112, 112, 3) RGB, where it was, and how many faces the photograph holds."""

    image: np.ndarray
    face: detect.Face
    faces: int


class Aligner:
    """Finds the face of a photograph and aligns it; of several, the one that `detect.choose` takes.

    Parameters
    ----------
    detector : detect.Detector, optional
        Default: MTCNN.
    smallest : float
        A face is too small if the square that is cut out for it has a side of fewer pixels.
    """

    def __init__(self, detector: detect.Detector | None = None, smallest: float = SMALLEST):
        self._detector = detector or detect.create()
        self._smallest = smallest

    def align(self, photograph: np.ndarray, name: str) -> np.ndarray:
        """Return the face of `photograph`, uint8 (height, width, 3) RGB, as uint8 (112, 112, 3) RGB.

        Raises LatseError, naming `name`, if no face is found or it is too small.
        """
        with naming(name):
            return self.cut_out(photograph).image

    def align_file(self, path: str | os.PathLike) -> np.ndarray:
        """Return the face of the photograph in a file as `align` does; LatseError if the file holds none."""
        with naming(path):
            return self.cut_out(open_photograph(path)).image

    def cut_out(self, photograph: np.ndarray, points: np.ndarray | None = None) -> Aligned:
        """Align the face of `photograph`, uint8 (height, width, 3) RGB; at `points` (5, 2) if they are given.

        Raises NoFaceError if none is found, it is too small, or the detector fails; LatseError if the
        detector returns something else than faces.
        """
        face, faces = self._find(photograph) if points is None else (_given(points), 1)
        side = SIZE * _shrinkage(face.points)
        if not side >= self._smallest:
            raise NoFaceError("face too small", f"{side:.0f} pixels")
        return Aligned(warp(photograph, face.points), face, faces)

    def _find(self, photograph: np.ndarray) -> tuple[detect.Face, int]:
        try:
            faces = self._detector.detect(photograph)
        except (MemoryError, LatseError):
            raise
        except Exception as error:  # of one photograph among millions, and perhaps in a user's detector
            refuse_lack_of_memory(error)
            raise NoFaceError("the detector failed", f"{type(error).__name__}: {error}") from error
        faces = [_checked(face) for face in faces]
        if not faces:
            raise NoFaceError("no face")
        return detect.choose(faces, photograph.shape), len(faces)


def open_photograph(path: str | os.PathLike) -> np.ndarray:
    """Read and decode a photograph, as `read_photograph` and `decode_photograph` do."""
    return decode_photograph(read_photograph(path))


def read_photograph(path: str | os.PathLike) -> bytes:
    """Return the bytes of a file; raise NoFaceError if it cannot be read."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise NoFaceError("unreadable", "not a file")  # to open a named pipe would wait for ever
        return path.read_bytes()
    except OSError as error:
        raise NoFaceError("unreadable", error.strerror or str(error)) from error


def decode_photograph(content: bytes) -> np.ndarray:
    """Decode what OpenCV can read (JPEG, PNG, WebP, TIFF, BMP, PNM, …) to uint8 (height, width, 3) RGB.

    It is turned as its EXIF data say; grey becomes three channels, CMYK RGB, 16 bits 8, and transparency is
    dropped. Raises NoFaceError if it is no image, or a truncated or damaged one.
    """
    if not content:
        raise NoFaceError("unreadable", "the file is empty")
    image, damage = None, ""
    try:
        if not images.is_cut_off(content):
            with images.noting_damage() as decode:
                image, damage = decode(content, cv2.IMREAD_COLOR)
    except cv2.error as error:
        refuse_lack_of_memory(error)
        raise NoFaceError("unreadable", error.err or str(error)) from error
    if image is None and not images.begins_as_image(content):
        raise NoFaceError(NO_IMAGE)
    if image is None:
        raise NoFaceError("unreadable", "not a whole image")
    if damage:
        raise NoFaceError("damaged", damage)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 (height, width, 3) RGB as PNG."""
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def warp(photograph: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Bring `points` (5, 2) as near to TEMPLATE as rotation, scaling and shift can; returns (112, 112, 3).

    Umeyama's least-squares estimate, as insightface aligns; but outside the photograph its border continues
    instead of black, which would tell where the head was in a tight photograph rather than whose it is
    (docs/orl.md). A face that is to shrink more than twice is halved first, by averages, as often as it
    takes: the linear interpolation would skip pixels.
    """
    points = np.asarray(points, float)
    while _shrinkage(points) > 2 and min(photograph.shape[:2]) > 1:
        photograph, points = _halved(photograph), (points + 0.5) / 2 - 0.5
    return cv2.warpAffine(
        photograph, _matrix(points)[:2], (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=BORDER
    )


@contextlib.contextmanager
def naming(name: str | os.PathLike) -> Iterator[None]:
    """Turn a NoFaceError of the body into a LatseError that names the photograph."""
    try:
        yield
    except NoFaceError as error:
        raise LatseError(f"{name}: {error}") from error


def refuse_lack_of_memory(error: Exception) -> None:
    """Raise MemoryError if that is what OpenCV's `error` says: no fault of the photograph."""
    if isinstance(error, cv2.error) and getattr(error, "code", 0) == cv2.Error.StsNoMem:
        raise MemoryError(str(error)) from error


def _matrix(points: np.ndarray) -> np.ndarray:
    return estimate_transform("similarity", points, TEMPLATE).params


def _shrinkage(points: np.ndarray) -> float:
    """Return how many pixels of the photograph become one; 0 for points that are no face."""
    matrix = _matrix(points)
    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    return 1 / scale if 0 < scale < np.inf else 0.0


def _halved(photograph: np.ndarray) -> np.ndarray:
    height, width = (side // 2 for side in photograph.shape[:2])
    return cv2.resize(photograph[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)


def _given(points: np.ndarray) -> detect.Face:
    points = np.asarray(points, float)
    corner = points.min(axis=0)
    return detect.Face(np.concatenate([corner, points.max(axis=0) - corner]), 1.0, points)


def _checked(face: detect.Face) -> detect.Face:
    try:
        box, points = np.asarray(face.box, float), np.asarray(face.points, float)
        confidence = float(face.confidence)
    except (AttributeError, TypeError, ValueError) as error:
        raise LatseError("the detector returned what is no Face of numbers") from error
    if box.shape != (4,) or points.shape != (5, 2) or not np.isfinite([*box, *points.flat, confidence]).all():
        raise LatseError("the detector returned a Face that has no box of 4 and points of 5x2 finite numbers")
    return detect.Face(box, confidence, points)
