"""A data set that a class of a user's shows: what it is made into is in tests/base/test_extending.py."""

import json

import pytest

from latse.cli import main
from latse.data.pairs.pairs import read_people
from latse.data.shards.records import Shard

FILE = """
import numpy as np
from latse.data.face_set import FaceSet


class Own(FaceSet):
    aligned = True

    def people(self):
        return ["ann", "bob", "cy"]

    def photographs(self, person):
        return {}
"""
RANDOM = "[np.random.default_rng(n).integers(0, 256, (112, 112, 3), np.uint8) for n in range(6)]"


@pytest.fixture
def make(tmp_path, capsys):
    """`latse data make` of a class with these photographs; return the exit status and what it says."""

    def make(photographs, *options, text=FILE, name="Own"):
        (tmp_path / "own.py").write_text(text.format(photographs))
        status = main(["data", "make", f"{tmp_path}/own.py:{name}", str(tmp_path / "out"), *options])
        output = capsys.readouterr()
        return status, output.out + output.err.splitlines()[-1] if status else output.out

    return make


def test_aligned_faces_are_taken_as_they_are_and_others_left_out(make, tmp_path):
    status, said = make(RANDOM + " + [np.zeros((9, 9, 3), np.uint8)]", "--test-people", "2", "--pairs", "20")
    assert status == 0
    assert said == (
        f"{tmp_path}/out: 18 images; 1 people to train on, 2 to verify\n"
        f"3 photographs were left out; {tmp_path}/out/faces.json names them\n"
    )
    assert len(Shard(tmp_path / "out")) == 6
    assert set(read_people(tmp_path / "out/own.bin")) == {0, 1}
    report = json.loads((tmp_path / "out/faces.json").read_text())
    assert report["left_out"][0] == ["ann", 6, "wrong size (9x9, not 112x112)"]
    assert (report["people"], report["test_people"]) == (["ann"], ["bob", "cy"])
    assert make(RANDOM)[1].endswith("out holds a set already: remove it, or choose another folder")


@pytest.mark.parametrize(
    "photographs, options, sentence",
    [
        ("[]", (), "own.py:Own: no photograph of ann gives a face"),
        (
            "[np.zeros((112, 112), np.uint8)]",
            (),
            "photograph 0 of ann is uint8 (112, 112), not uint8 (height,",
        ),
        ("[np.zeros((112, 112, 3))]", (), "photograph 0 of ann is float64 (112, 112, 3), not uint8"),
        ("1 / 0", (), "own.py:Own, photographs of ann: ZeroDivisionError: division by zero"),
        (RANDOM, ("--test-people", "3"), "3 people to be held out, of 3 in"),
        (RANDOM, ("--test-people", "2"), "3000 pairs of one person are asked for, there are 30"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_left(make, tmp_path, photographs, options, sentence):
    status, said = make(photographs, *options)
    assert status == 1 and sentence in said
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_other_classes_and_names_are_refused(make, capsys):
    assert "has no class Other over latse.data.face_set.FaceSet" in make("[]", name="Other")[1]
    assert "Own must say who its people are" in make("", text=FILE.replace("def people", "def nobody"))[1]
    assert main(["data", "make", "orl", "out"]) == 1
    assert "unknown face set 'orl'; write FILE.py:CLASS" in capsys.readouterr().err


def test_photographs_are_aligned_where_they_are_not_said_to_be(make, tmp_path):
    status, said = make("[np.zeros((200, 200, 3), np.uint8)]", text=FILE.replace("aligned = True", ""))
    assert status == 1 and "no photograph of ann gives a face" in said
