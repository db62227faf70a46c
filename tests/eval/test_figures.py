import json

import cv2
import numpy as np
import pytest

from latse.errors import LatseError
from latse.eval import figures


def pictures(values):
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 3, 8, 8), np.uint8)


def test_one_image_of_each_person_is_found():
    # Images 1-2-3 are linked through pairs, 4-5 by one; 6 and 7 are only ever said to be different.
    images = pictures([1, 2, 1, 4, 3, 2, 5, 4, 6, 7, 6, 6])
    issame = np.array([True, False, True, True, False, True])
    assert figures.one_image_per_person(images, issame).tolist() == [0, 3, 8, 9]
    assert figures.one_image_per_person(images, issame, people=2).tolist() == [0, 3]


def test_generated_values_become_pixels():
    found = figures.to_pixels(np.array([-7.0, -1.0, 0.0, 1.0, 7.0]))
    assert found.tolist() == [0, 0, 128, 255, 255]


def read(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


def colours(image):
    """The set of colours that fill a good part of a picture."""
    values, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(value) for value in values[counts > 500].tolist()}


def test_faces_show_input_generated_and_difference(tmp_path):
    images = pictures([200, 100])
    images[1, 0] = 10
    generated = np.full((2, 3, 8, 8), 2 * 60 / 255 - 1)
    figures.faces(tmp_path / "deep" / "faces.png", images, generated)
    assert colours(read(tmp_path / "deep" / "faces.png")) == {
        (255, 255, 255),  # paper
        (200, 200, 200),
        (10, 100, 100),
        (60, 60, 60),
        (140, 140, 140),
        (50, 40, 40),
    }


def test_generated_faces_hold_nothing_else(tmp_path):
    shades = np.arange(13) * 16
    generated = np.ones((13, 3, 8, 8)) * (2 * shades / 255 - 1)[:, None, None, None]
    figures.generated_faces(tmp_path / "faces.png", generated, columns=5)
    assert colours(read(tmp_path / "faces.png")) == {(s, s, s) for s in shades} | {(255, 255, 255)}


def write_metrics(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_training_curves_are_drawn(tmp_path):
    teacher = write_metrics(
        tmp_path / "t", [{"iteration": i, "dloss": 20 / (i + 1), "lr": 0.1} for i in range(5)]
    )
    student = write_metrics(
        tmp_path / "s",
        [{"iteration": i, "dloss": 9.0, "l1": 0.5, "ssim": 0.4, "kept": 0.9, "lr": 0.1} for i in range(5)],
    )
    figures.training_curves(tmp_path / "curves.png", {"teacher": teacher, "student": student})
    image = read(tmp_path / "curves.png")
    blue, orange = (image == [31, 119, 180]).all(axis=2), (image == [255, 127, 14]).all(axis=2)
    assert blue.sum() > 200
    assert orange.sum() > 200


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no record"),
        ('{"iteration": 1}\n{"iterat', "line 2 is no JSON"),
        ('{"loss": 1}', "line 1 lacks the key iteration, which must be a number"),
        ("[1]", r"line 1: it is \[1\], must be an object with keys"),
    ],
)
def test_damaged_metrics_are_named(tmp_path, content, sentence):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    with pytest.raises(LatseError, match=rf"metrics\.jsonl.*{sentence}"):
        figures.training_curves(tmp_path / "curves.png", {"student": path})
    assert not (tmp_path / "curves.png").exists()


def test_missing_metrics_are_named(tmp_path):
    with pytest.raises(LatseError, match=r"cannot read .*none\.jsonl"):
        figures.read_metrics(tmp_path / "none.jsonl")


def test_an_unwritable_picture_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LatseError, match="cannot write"):
        figures.generated_faces(tmp_path / "file" / "faces.png", np.zeros((1, 3, 8, 8)))
