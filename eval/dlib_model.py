"""dlib's face network as a baseline (Davis King, 2017: a ResNet of 29 convolutions, 128 numbers a face).

dlib finds five landmarks of its own in a photograph and cuts a square of 150 pixels around them. Faces here
are aligned already and their photographs gone, so all of them are moved into dlib's square by one similarity:
that which brings the eyes of insightface's template to those of dlib's mean face. The square ends 10 pixels
below the aligned image, whose border is continued there, as in alignment.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from skimage.transform import estimate_transform

from latse.data.photographs.align import TEMPLATE
from latse.errors import LatseError
from latse.models.runner import in_batches

WEIGHTS = "models/dlib_face_recognition_resnet_model_v1.dat"
SIZE = 150
# Where dlib's get_face_chip (150 pixels, padding 0.25) puts the eyes of its mean face: between their corners.
EYES = np.array([[47.733, 47.140], [100.281, 47.123]])
MOVE = estimate_transform("similarity", TEMPLATE[:2], EYES).params[:2]


class DlibNetwork:
    """dlib's 128 numbers for each aligned face, on the processor, `batch_size` (at least 1) at a time.

    Raises LatseError if the extra `baselines` is not installed.
    """

    def __init__(self, batch_size: int = 32):
        self.batch_size = batch_size
        try:
            import dlib  # pyright: ignore[reportMissingImports] an extra
        except ImportError as error:
            raise LatseError("dlib is not installed; pip install 'latse[baselines]'") from error
        # Found without importing the package, which needs a pkg_resources that newer setuptools lack.
        package = importlib.util.find_spec("face_recognition_models")
        if package is None:
            raise LatseError("dlib: face_recognition_models is not installed; pip install 'latse[baselines]'")
        self.path = Path(package.submodule_search_locations[0]) / WEIGHTS
        self._network = dlib.face_recognition_model_v1(str(self.path))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return float64 (n, 128) for uint8 (n, 3, 112, 112) RGB."""
        return in_batches(self._batch, images, self.batch_size, "dlib")

    def _batch(self, images: np.ndarray) -> np.ndarray:
        return np.array(self._network.compute_face_descriptor([chip(image) for image in images]))


def chip(image: np.ndarray) -> np.ndarray:
    """Cut dlib's square, uint8 (150, 150, 3), out of an aligned face, uint8 (3, 112, 112), both RGB."""
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    return cv2.warpAffine(pixels, MOVE, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
