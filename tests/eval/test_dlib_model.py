import importlib.util

import cv2
import numpy as np
import pytest

from latse.eval import candidates as models
from latse.eval.dlib_model import EYES, DlibNetwork, chip

dlib = pytest.importorskip("dlib")
if importlib.util.find_spec("face_recognition_models") is None:
    pytest.skip("its weights are in the extra baselines", allow_module_level=True)


def brightest(picture):
    """Middle of a bright spot, (x, y)."""
    weight = np.clip(picture.astype(float) - picture.max() / 2, 0, None)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def spot(x, y, side):
    picture = np.zeros((side, side, 3), np.uint8)
    cv2.circle(picture, (round(x * 16), round(y * 16)), 48, (255,) * 3, -1, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(picture, (0, 0), 2)


@pytest.mark.parametrize("eye, place", enumerate([(38.2946, 51.6963), (73.5318, 51.5014)]))
def test_the_eyes_of_insightfaces_template_come_to_those_of_dlib(eye, place):
    picture = spot(*place, 112).transpose(2, 0, 1)
    found = chip(picture)
    assert found.shape == (150, 150, 3)
    np.testing.assert_allclose(brightest(found[..., 0]), EYES[eye], atol=0.3)


@pytest.mark.parametrize("scale", [67, 100, 133])
def test_dlib_itself_puts_eyes_there(scale):
    """Of a face whose five points, corners of the eyes and the nose, are those of dlib's mean face."""
    mean = [[0.8596, 0.2135], [0.6461, 0.2290], [0.1206, 0.2137], [0.3341, 0.2291], [0.4901, 0.6278]]
    points = np.round(100 + scale * np.array(mean))
    box = dlib.rectangle(100, 100, 100 + scale, 100 + scale)
    face = dlib.full_object_detection(box, [dlib.point(int(x), int(y)) for x, y in points])
    for eye, (one, other) in enumerate(((2, 3), (0, 1))):
        x, y = (points[one] + points[other]) / 2
        found = dlib.get_face_chip(spot(x, y, 400), face, size=150, padding=0.25)
        np.testing.assert_allclose(brightest(found[..., 0]), EYES[eye], atol=0.7)


def test_colours_keep_their_order():
    picture = np.zeros((3, 112, 112), np.uint8)
    picture[0] = 200
    assert chip(picture).reshape(-1, 3).mean(axis=0).tolist() == [200, 0, 0]


def test_dlib_maps_each_face_alone_and_mirrors_are_added():
    images = np.random.default_rng(4).integers(0, 256, (3, 3, 112, 112), np.uint8)
    images = np.stack([cv2.GaussianBlur(image.transpose(1, 2, 0), (0, 0), 5) for image in images])
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    network = DlibNetwork(batch_size=2)
    plain = network(images)
    assert plain.shape == (3, 128)
    np.testing.assert_allclose(network(images[2:]), plain[2:], atol=1e-5)
    model = models.open_model("dlib", batch_size=3)
    assert set(model.origin) == {"source", "digest"}
    expected = plain + network(images[..., ::-1])
    np.testing.assert_allclose(model.embed(images, "three"), expected, atol=1e-5)
