"""Alignment: the similarity transform, and MTCNN on faces of the installed package."""

import cv2
import numpy as np
import pytest

from latse.data.align import TEMPLATE, Aligner, warp
from latse.data.orl import photograph_folder, read_photograph
from latse.errors import LatseError


@pytest.fixture(scope="module")
def aligner():
    return Aligner()


def dots(points, size):
    """A black image with a soft white dot at each point (x, y)."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in points)
    return np.repeat((255 * image.clip(0, 1)).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("angle, scale, shift", [(0, 1, (0, 0)), (0.3, 1.4, (20, 5)), (-0.2, 0.8, (3, 9))])
def test_points_of_a_turned_face_come_to_the_template(angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE @ turn.T + shift + [30, 20]
    face = warp(dots(points, (220, 220)), points)[:, :, 0].astype(float)
    assert face.shape == (112, 112)
    y, x = np.mgrid[:112, :112]
    for px, py in TEMPLATE:
        weight = face * (((x - px) ** 2 + (y - py) ** 2) < 64)
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        assert np.abs(centre - [px, py]).max() < 0.5


def test_no_black_corner_outside_the_photograph():
    face = warp(np.full((60, 60, 3), 90, np.uint8), TEMPLATE * 0.5 + 2)
    assert (face == 90).all()


def test_finds_points_where_they_are(aligner):
    """The same face shifted, or twice as large: the points follow."""
    photograph = read_photograph(photograph_folder() / "s1" / "1.pgm")
    points = aligner.find_points(photograph, "it")
    assert points.shape == (5, 2)
    left, right, nose, *mouth = points
    assert left[0] < nose[0] < right[0] and left[1] < nose[1] < mouth[0][1]
    shifted = cv2.copyMakeBorder(photograph, 7, 0, 12, 0, cv2.BORDER_REPLICATE)
    assert np.abs(aligner.find_points(shifted, "it") - points - [12, 7]).max() < 2
    large = cv2.resize(photograph, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert np.abs((aligner.find_points(large, "it") + 0.5) / 2 - 0.5 - points).max() < 2


def test_the_aligned_face_has_its_points_at_the_template(aligner):
    photograph = read_photograph(photograph_folder() / "s1" / "1.pgm")
    face = aligner.align(photograph, "it")
    assert face.shape == (112, 112, 3) and face.dtype == np.uint8
    assert np.abs(aligner.find_points(face, "it") - TEMPLATE).mean() < 4


def test_no_face(aligner):
    with pytest.raises(LatseError, match="^the wall: no face$"):
        aligner.align(np.full((112, 92, 3), 128, np.uint8), "the wall")
