"""Alignment: the similarity transform, and MTCNN on faces of the installed package."""

import argparse
import contextlib
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.data.orl import photograph_folder
from latse.data.photographs.align import (
    NO_IMAGE,
    TEMPLATE,
    Aligner,
    NoFaceError,
    decode_photograph,
    encode_png,
    open_photograph,
    warp,
)
from latse.data.photographs.align_command import add_face_arguments
from latse.data.photographs.detect import Face, MtcnnOpenCV, choose
from latse.errors import LatseError

# The five points as insightface publishes them, (x, y): the eyes, the nose, the mouth's corners.
PUBLISHED = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


@pytest.fixture(scope="module")
def aligner():
    return Aligner()


def test_the_template_is_insightfaces():
    assert np.array_equal(TEMPLATE, PUBLISHED)


@pytest.mark.parametrize("side, taken", [(27.9, False), (28.1, True)])
def test_a_face_is_enlarged_four_times_at_most(aligner, side, taken):
    options = argparse.ArgumentParser()
    add_face_arguments(options)
    assert options.parse_args([]).smallest == 112 / 4
    with contextlib.nullcontext() if taken else pytest.raises(NoFaceError, match="face too small"):
        aligner.cut_out(np.zeros((60, 60, 3), np.uint8), PUBLISHED * side / 112)


def dots(points, side, width):
    """A black square image with a soft white dot, `width` wide, at each point (x, y)."""
    y, x = np.mgrid[:side, :side]
    image = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * width**2)) for px, py in points)
    return np.repeat((255 * image.clip(0, 1)).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize(
    "angle, scale, shift", [(0, 1, (0, 0)), (0.3, 1.4, (20, 5)), (-0.2, 0.8, (3, 9)), (0.1, 5.3, (40, 7))]
)
def test_points_of_a_turned_face_come_to_insightfaces(angle, scale, shift):
    """Also of a large one, which is halved first."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = PUBLISHED @ turn.T + shift + [30, 20]
    face = warp(dots(points, round(140 * scale) + 80, 2 * scale), points)[:, :, 0].astype(float)
    assert face.shape == (112, 112)
    y, x = np.mgrid[:112, :112]
    for px, py in PUBLISHED:
        weight = face * (((x - px) ** 2 + (y - py) ** 2) < 64)
        centre = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        # OpenCV looks at 32 places between two pixels, and a dot is cut off where it meets others.
        assert np.abs(centre - [px, py]).max() < 0.05


def test_the_border_continues_outside_the_photograph():
    """Of a photograph that begins 20 pixels within the face; neither black nor its mirror image."""
    photograph = np.repeat(np.arange(1, 93, dtype=np.uint8)[None, :, None], 112, axis=0).repeat(3, axis=2)
    face = warp(photograph, PUBLISHED - [20, 0])[:, :, 0].astype(int)
    assert (face[:, :20] == 1).all()
    assert np.abs(face[:, 20:] - np.arange(1, 93)).max() <= 1


def test_finds_points_where_they_are(aligner):
    """The same face shifted, or twice as large: the points follow."""
    photograph = open_photograph(photograph_folder() / "s1" / "1.pgm")
    points = aligner.cut_out(photograph).face.points
    assert points.shape == (5, 2)
    left, right, nose, *mouth = points
    assert left[0] < nose[0] < right[0] and left[1] < nose[1] < mouth[0][1]
    shifted = cv2.copyMakeBorder(photograph, 7, 0, 12, 0, cv2.BORDER_REPLICATE)
    assert np.abs(aligner.cut_out(shifted).face.points - points - [12, 7]).max() < 2
    large = cv2.resize(photograph, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert np.abs((aligner.cut_out(large).face.points + 0.5) / 2 - 0.5 - points).max() < 2


def test_what_mtcnn_sees_is_brought_back_to_the_photograph(monkeypatch):
    """It sees the photograph enlarged twice with 40 pixels around; half a pixel is cut off what it says."""
    detector = MtcnnOpenCV()

    class Network:
        def detect_faces(self, seen):
            assert seen.shape == (2 * 100 + 80, 2 * 120 + 80, 3)
            keypoints = {name: (140 + 2 * name, 100) for name in range(5)}
            return [{"box": [60, 80, 50, 30], "confidence": 0.9, "keypoints": keypoints}]

    monkeypatch.setattr(detector, "_network", Network())
    (face,) = detector.detect(np.zeros((100, 120, 3), np.uint8))
    assert face.box.tolist() == [10, 20, 25, 15] and face.confidence == 0.9
    assert face.points.tolist() == [[50, 30], [51, 30], [52, 30], [53, 30], [54, 30]]


def test_the_aligned_face_has_its_points_at_the_template(aligner):
    photograph = open_photograph(photograph_folder() / "s1" / "1.pgm")
    face = aligner.align(photograph, "it")
    assert face.shape == (112, 112, 3) and face.dtype == np.uint8
    assert np.abs(aligner.cut_out(face).face.points - TEMPLATE).mean() < 4


def test_no_face(aligner):
    with pytest.raises(LatseError, match="^the wall: no face$"):
        aligner.align(np.full((112, 92, 3), 128, np.uint8), "the wall")


@pytest.mark.parametrize("width, share", [(6000, 0.07), (6000, 0.5), (3000, 0.03), (250, 0.5), (700, 0.2)])
def test_points_in_photographs_of_any_size(aligner, width, share):
    """A face of `share` of the width: its points are right to 2 pixels of 92 in the mean."""
    face = open_photograph(photograph_folder() / "s9" / "1.pgm")
    true, scale = aligner.cut_out(face).face.points, share * width / face.shape[1]
    face = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    photograph = np.full((width * 2 // 3, width, 3), 110, np.uint8)
    photograph = cv2.resize(photograph, (width, max(width * 2 // 3, len(face))))
    corner = np.array([width // 3, 0])
    photograph[: len(face), corner[0] : corner[0] + face.shape[1]] = face
    found = aligner.cut_out(photograph).face.points
    error = (found - ((true + 0.5) * scale - 0.5 + corner)) / scale
    assert np.abs(error).mean() < 2


@pytest.mark.parametrize("scale", [2.1, 3, 10])
def test_a_large_face_shrinks_by_averages(scale):
    """Stripes of a pixel, black and white, become grey instead of a pattern."""
    stripes = np.zeros((1600, 1600, 3), np.uint8)
    stripes[:, ::2] = 255
    face = warp(stripes, PUBLISHED * scale + 100)
    assert np.abs(face.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("scale", [0.3, 1, 1.9, 2.1, 3.7, 9.3, 40])
def test_shrinking_keeps_the_place(scale):
    points = TEMPLATE * scale + [33, 21]
    size = int(130 * scale + 60)
    ramp = np.zeros((size, size, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, size)[None, :]
    ramp[..., 1] = np.linspace(0, 255, size)[:, None]
    face = warp(ramp, points).astype(float)
    expected = (np.arange(112) * scale + [[33], [21]]) * 255 / (size - 1)
    assert np.abs(face[56, :, 0] - expected[0]).max() < 2.5
    assert np.abs(face[:, 56, 1] - expected[1]).max() < 2.5


def test_the_rule_of_several_faces():
    def face(x, y, side):
        return Face(np.array([x, y, side, side], float), 0.9, TEMPLATE)

    small_middle, large_edge, large_near = face(90, 90, 20), face(0, 0, 60), face(60, 60, 60)
    shape = (200, 200, 3)
    assert choose([small_middle, large_edge, large_near], shape) is large_near
    assert choose([large_edge, small_middle], shape) is small_middle
    assert choose([large_edge], shape) is large_edge
    assert choose([large_near, face(60, 60, 60)], shape) is large_near
    # Twice the squared distance counts: 3600 - 2 * 35**2 is less than 40**2, 3600 - 35**2 is more.
    middle, off = face(79.5, 79.5, 40), face(104.5, 69.5, 60)
    assert choose([off, middle], shape) is middle


def test_points_that_are_no_face(aligner):
    for points in (np.ones((5, 2)), np.full((5, 2), 1e300), TEMPLATE * 0.1):
        with pytest.raises(NoFaceError, match="face too small"):
            aligner.cut_out(np.zeros((50, 50, 3), np.uint8), points)


@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF"]),
)
@settings(max_examples=200)
def test_any_bytes_are_an_image_or_refused(content, start):
    try:
        image = decode_photograph(start + content)
    except NoFaceError as error:
        assert error.reason in ("unreadable", NO_IMAGE)
    else:
        assert image.dtype == np.uint8 and image.shape[2:] == (3,)


def test_a_damaged_png_takes_no_gigabytes():
    """OpenCV would make room for the four gigabytes that the chunk claims; 2 GB are the limit here."""
    whole = encode_png(np.zeros((4, 4, 3), np.uint8))
    assert decode_photograph(whole).shape == decode_photograph(whole + b"more").shape == (4, 4, 3)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    try:
        for damaged in (whole[:33] + b"\xff" + whole[34:], whole[:-1], whole[:-12], whole[:20]):
            with pytest.raises(NoFaceError, match="not a whole image"):
                decode_photograph(damaged)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
