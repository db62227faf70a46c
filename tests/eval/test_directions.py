"""A feature of zeros or of no number has no direction: every command that judges refuses it, by one rule."""

import json

import cv2
import numpy as np
import pytest

from latse.cli import main
from latse.data.pairs.pairs import write_pairs, write_people
from latse.data.shards.shard_writer import write_shard

FAULTS = [(0, "is zero, which has no direction"), (np.nan, "is not finite"), (np.inf, "is not finite")]


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Write 24 features of which one row has a value throughout; return their file."""
    monkeypatch.chdir(tmp_path)

    def write(row, value):
        features = np.random.default_rng(0).normal(size=(24, 6))
        features[row] = value
        np.save("mine.npy", features)
        return "mine.npy"

    return write


def refused(capsys, *order):
    assert main([*map(str, order)]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]  # perhaps after a bar


@pytest.mark.parametrize(("value", "fault"), FAULTS)
def test_eval_and_identify_name_the_image(faulty, photograph_bytes, capsys, value, fault):
    images = [photograph_bytes(number // 4, number % 4) for number in range(24)]
    write_pairs("it.bin", images, [True] * 12)
    write_people("it.bin", np.arange(24) // 4)
    file = faulty(7, value)
    sentence = f"latse: mine.npy for it: the embedding of image 7 {fault}"
    assert refused(capsys, "eval", "--model", file, "--pairs", "it.bin") == sentence
    assert refused(capsys, "identify", "--model", file, "--probes", "it.bin") == sentence


@pytest.mark.parametrize(("value", "fault"), FAULTS)
@pytest.mark.parametrize(
    ("shards", "record"), [(1, "train.rec: record 14"), (2, "train-00001.rec: record 2")]
)
def test_a_record_of_a_shard_is_named(faulty, photograph_bytes, capsys, value, fault, shards, record):
    pictures = [(number // 4, photograph_bytes(number // 4, number % 4)) for number in range(24)]
    write_shard("set", pictures, 6, shards=shards)
    said = refused(capsys, "identify", "--model", faulty(13, value), "--probes", "set")
    assert said == f"latse: mine.npy for set: the embedding of set/{record} {fault}"


def test_a_picture_that_a_network_sees_is_named(tmp_path, photograph_bytes, capsys):
    """The grey pixels of a black picture, less their mean, are zeros."""
    black = cv2.imencode(".png", np.zeros((112, 112, 3), np.uint8))[1].tobytes()
    pictures = [(person, photograph_bytes(person, number)) for person in range(3) for number in range(2)]
    write_shard(tmp_path / "set", [*pictures, (2, black)], 3)
    said = refused(capsys, "identify", "--model", "pixels", "--probes", tmp_path / "set")
    record = f"{tmp_path}/set/train.rec: record 7"
    assert said == f"latse: pixels on set: the embedding of {record} is zero, which has no direction"


@pytest.mark.parametrize(("value", "fault"), FAULTS)
def test_a_feature_of_the_kit_is_named_by_its_file(tmp_path, shard_folder, capsys, value, fault):
    order = ["identify", "--probes", shard_folder, "--distractors", shard_folder, "--model", "pixels"]
    assert main([*map(str, order), "--write-features", str(tmp_path)]) == 0
    lists = [word for key in ("probe", "distractor") for word in (f"--{key}-list", tmp_path / f"{key}s.json")]
    places = [word for key in ("probe", "distractor") for word in (f"--{key}-features", tmp_path / f"{key}s")]
    path = (
        tmp_path
        / "distractors"
        / (json.loads((tmp_path / "distractors.json").read_text())["path"][5] + "_pixels.bin")
    )
    content = path.read_bytes()
    path.write_bytes(content[:16] + np.full((len(content) - 16) // 4, value, "<f4").tobytes())
    capsys.readouterr()
    said = refused(capsys, "identify", *lists, *places, "--ending", "_pixels.bin")
    assert said == f"latse: the feature {path} {fault}"


@pytest.fixture
def templates(tmp_path):
    """24 faces, two media of two faces for each of six templates; of the last template no face counts."""
    meta = tmp_path / "set" / "meta"
    meta.mkdir(parents=True)
    points = "38 51 73 51 56 71 41 92 70 92"
    scores = [f"{face}.png {points} {1 if face < 20 else 0}\n" for face in range(24)]
    (meta / "x_name_5pts_score.txt").write_text("".join(scores))
    faces = [f"{face}.png {100 + face // 4} {face // 2}\n" for face in range(24)]
    (meta / "x_face_tid_mid.txt").write_text("".join(faces))
    (meta / "x_template_pair_label.txt").write_text("100 101 1\n102 103 0\n104 105 0\n")
    return tmp_path / "set"


@pytest.mark.parametrize(("value", "fault"), FAULTS)
def test_templates_name_the_photograph(faulty, templates, capsys, value, fault):
    said = refused(capsys, "templates", "--data", templates, "--model", faulty(7, value))
    assert said == f"latse: mine.npy for x: the embedding of the face in 7.png {fault}"


def test_templates_name_a_template_that_is_zero(faulty, templates, capsys):
    order = ["templates", "--data", templates, "--model", faulty(slice(0, 0), 0)]
    sentence = "latse: mine on x: the feature of template 105 is zero, which has no direction"
    assert refused(capsys, *order) == sentence
    assert main([*map(str, order), "--no-detector-score"]) == 0
