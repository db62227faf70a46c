"""Pictures in a training set and in test sets: a change is seen through, another photograph is another."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_changes import CHANGES, changed, found_in

from latse.data.images import encode
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.paper import overlap_pictures
from latse.paper.near_pictures import gradients, gray, likeness, relief
from latse.paper.overlap_pictures import BYTES, FLOOR, KEPT, PIXELS, digest
from latse.paper.overlap_sets import by_digest

TOO_FAR = list(CHANGES)[-1]


def taken(person, number):
    """The `number`-th photograph of a made-up person, uint8 (112, 112, 3): features have moved."""
    draw = np.random.default_rng(person)
    face = sum(
        cv2.GaussianBlur(draw.normal(size=(112, 112, 3)), (0, 0), sigma) * sigma**1.2 for sigma in (2, 5, 12)
    )
    place = np.mgrid[:112, :112].astype(np.float32)
    waves = np.random.default_rng((person, number)).uniform(6, 10, (2, 1, 1))
    place += 2 * number * np.sin(place[::-1] / waves + number).astype(np.float32)
    face = cv2.remap(face.astype(np.float32), place[1], place[0], cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)
    return np.clip(128 + 35 * face / face.std(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A set of seven people, three photographs of one minute each."""
    folder = tmp_path_factory.mktemp("session")
    write_shard(folder, [(person, encode(taken(person, at))) for person in range(7) for at in range(3)], 7)
    return Shard(folder)


@pytest.mark.parametrize("name", [name for name in CHANGES if name != TOO_FAR])
def test_a_change_is_seen_through_and_no_other_photograph_is_taken_for_it(session, name):
    positions = np.arange(0, len(session), 2)
    images = [changed(image, name) for image in session.batch(positions).image]
    assert found_in(session, images) == {(image, position) for image, position in enumerate(positions)}


def test_photographs_of_one_minute_are_alike_but_not_one(session):
    """So the test above tests something: their sketches pass, and they agree in most of the picture."""
    reliefs = [relief(gray(image)) for image in session.batch(np.arange(3)).image]
    assert 0.6 < likeness(*reliefs[:2]) < overlap_pictures.ALIKE
    assert likeness(reliefs[0], reliefs[0]) == pytest.approx(1)


def test_equal_bytes_and_equal_pixels_are_told_apart_from_near(session):
    images = session.batch(np.array([4, 9, 12])).image
    pictures = np.stack([gray(image) for image in images])
    encodings = by_digest([(digest(session.content(4)), 0), (b"of another", 1)])
    pixels = by_digest([(digest(image), number) for number, image in enumerate(images[:2])])
    found = overlap_pictures.find(session, pictures, encodings, pixels)
    assert [match[:3] for match in found] == [(BYTES, 0, 4), (PIXELS, 1, 9), ("near", 2, 12)]
    assert [match.likeness for match in found] == pytest.approx([1, 1, 1])


def test_all_equal_ones_are_found_however_many(tmp_path, session):
    """Also those beyond the likest ones that are looked at."""
    same = session.content(0).tobytes()
    write_shard(tmp_path / "many", [(0, same)] * (2 * KEPT + 1) + [(1, session.content(5))], 2)
    shard, image = Shard(tmp_path / "many"), session.batch(np.array([0])).image[0]
    found = overlap_pictures.find(shard, gray(image)[None], {digest(same): [0]}, {})
    assert [match.position for match in found if match.kind == BYTES] == list(range(2 * KEPT + 1))
    assert shard.labels[[match.position for match in found]].max() == 0


@pytest.mark.parametrize("count", [1, 2])
def test_the_smallest_sets_have_near_pictures_too(tmp_path, session, count):
    write_shard(tmp_path / "small", [(0, session.content(at)) for at in range(count)], 1)
    shard = Shard(tmp_path / "small")
    assert found_in(shard, [changed(session.batch(np.array([0])).image[0], "JPEG of quality 50")]) == {(0, 0)}


def test_a_picture_without_any_structure_is_no_error(tmp_path, session):
    black = encode(np.zeros((112, 112, 3), np.uint8))
    write_shard(tmp_path / "black", [(0, black), (1, session.content(0))], 2)
    images = [np.zeros((3, 112, 112), np.uint8), session.batch(np.array([0])).image[0]]
    assert (1, 1) in found_in(Shard(tmp_path / "black"), images)


@given(rows=st.integers(1, 5), columns=st.integers(1, 40), part=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_nearest_are_the_same_however_they_come(rows, columns, part, seed):
    draw = np.random.default_rng(seed)
    one, other = draw.normal(size=(2, max(rows, columns), 3)).astype(np.float32)
    one, other = (some / np.linalg.norm(some, axis=1)[:, None] for some in (one[:rows], other[:columns]))
    nearest = overlap_pictures._Nearest(one, FLOOR)
    for start in range(0, columns, part):
        nearest.add(other[start : start + part], np.arange(start, min(start + part, columns)))
    cosines = one @ other.T
    expected = {
        (row, column)
        for row in range(rows)
        for column in np.argsort(-cosines[row])[:KEPT]
        if cosines[row, column] >= FLOOR
    }
    assert {*zip(nearest.row.tolist(), nearest.position.tolist())} == expected


def test_sketches_are_white(session):
    """Over the sample that they are fitted to, no direction varies more than another can."""
    sample = gradients(np.stack([gray(image) for image in session.batch(np.arange(len(session))).image]))
    sketch = overlap_pictures.Sketch.of(sample)
    variances = np.linalg.eigvalsh(np.cov(((sample - sketch.mean) @ sketch.whitening).T, bias=True))
    assert variances.max() <= 1 + 1e-3
    assert np.linalg.norm(sketch(sample), axis=1) == pytest.approx(1, abs=1e-4)
