"""`latse data merge`: every image of every set once, and no two people under one label."""

import json

import cv2
import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import picture, write_people

from latse.cli import main
from latse.data.shards.check import check_set
from latse.data.shards.records import Shard


def pack(folder, out, photographs):
    """Pack pictures of 112x112, {name: numbers of the pictures}, as they are."""
    for name, numbers in photographs.items():
        (folder / name).mkdir(parents=True)
        for number in numbers:
            cv2.imwrite(str(folder / name / f"{number:03d}.jpg"), cv2.imdecode(*decodable(number)))
    assert main(["data", "pack", str(folder), str(out), "--aligned", "--processes", "1"]) == 0
    return out


def decodable(number):
    return np.frombuffer(picture(number, (112, 112)), np.uint8), cv2.IMREAD_COLOR


def merge(*arguments):
    return main(["data", "merge", *map(str, arguments)])


def images(folder):
    """(label, bytes) of each image of a set, in its order."""
    shard = Shard(folder)
    return [(int(label), bytes(shard.content(at))) for at, label in enumerate(shard.labels)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def manifest(folder):
    return json.loads((folder / "merge.json").read_text())


def becomes(part):
    """{old label: new label} of what merge.json says of a set."""
    return {run["label"] + step: run["new"] + step for run in part["labels"] for step in range(run["count"])}


PEOPLE = st.lists(st.integers(0, 3), min_size=1, max_size=5).filter(any)


@given(st.lists(st.tuples(PEOPLE, st.integers(1, 2)), min_size=2, max_size=4), st.integers(1, 3))
@settings(max_examples=12)
def test_any_sets(tmp_path_factory, sets, shards):
    folder = tmp_path_factory.mktemp("merge")
    parts = [
        write_people(folder / str(number), people, 100 * number, files)
        for number, (people, files) in enumerate(sets)
    ]
    before = [contents(part) for part in parts]
    assert merge(*parts, folder / "out", "--shards", shards) == 0
    assert [contents(part) for part in parts] == before
    expected, start = [], 0
    for part, (people, _) in zip(parts, sets):
        expected += [(start + label, content) for label, content in images(part)]
        start += len(people)
    assert images(folder / "out") == expected
    shard, made = Shard(folder / "out"), manifest(folder / "out")
    assert shard.classes == start == made["classes"] and made["images"] == len(expected)
    assert made["people"] is None
    told = [becomes(part) for part in made["sets"]]
    assert [new for one in told for new in one.values()] == [*range(start)]
    assert [[*one] for one in told] == [[*range(len(people))] for people, _ in sets]
    assert not check_set(folder / "out").faults


def test_a_set_without_header_gets_one(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    output = mx.recordio.MXIndexedRecordIO(str(plain / "train.idx"), str(plain / "train.rec"), "w")
    for key, label in enumerate((1, 0, 1)):
        header = mx.recordio.IRHeader(0, float(label), key, 0)
        output.write_idx(key, mx.recordio.pack(header, picture(70 + key)))
    output.close()
    (plain / "property").write_text("2,8,6")
    one = write_people(tmp_path / "one", [1])
    assert merge(one, plain, tmp_path / "out") == 0
    numbers = (0, 0), (1, 71), (2, 70), (2, 72)  # each label with the picture that stands under it
    assert images(tmp_path / "out") == [(label, picture(number)) for label, number in numbers]
    assert not check_set(tmp_path / "out").remarks.keys() & {"no-header"}


def test_sets_of_other_commands(tmp_path, capsys):
    one = write_people(tmp_path / "one", [4, 3, 5])
    assert main(["data", "noise", str(one), str(tmp_path / "noisy"), "--mislabel", "0.5"]) == 0
    other = write_people(tmp_path / "other", [2, 2], first=50)
    capsys.readouterr()
    assert merge(one, other, tmp_path / "both") == 0
    assert (
        capsys.readouterr().out == f"{tmp_path}/both: 16 images, 5 classes, which were 5 classes in 2 sets\n"
    )
    assert merge(tmp_path / "noisy", tmp_path / "both", tmp_path / "all") == 0
    both = [(3 + label, content) for label, content in images(one)]
    assert images(tmp_path / "all") == [
        *images(tmp_path / "noisy"),
        *both,
        *((6 + label, content) for label, content in images(other)),
    ]
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        *("merge.json", "property", "train.idx", "train.rec")
    }


def test_people_are_matched_by_name(tmp_path, capsys):
    """As if all photographs had been packed together; names are carried on, as far as they are known."""
    one = pack(tmp_path / "p1", tmp_path / "one", {"bea": [1, 2], "eva": [3]})
    two = pack(tmp_path / "p2", tmp_path / "two", {"ann": [11], "bea": [12, 13], "zoe": [14]})
    capsys.readouterr()
    assert merge(one, two, tmp_path / "out", "--by-name") == 0
    said = capsys.readouterr().out
    assert said == f"{tmp_path}/out: 7 images, 4 classes, which were 5 classes in 2 sets\n"
    first, second = images(one), images(two)
    expected = [second[0], *first[:2], *second[1:3], first[2], second[3]]
    labels = [0, 1, 1, 1, 1, 2, 3]
    assert images(tmp_path / "out") == [(label, image[1]) for label, image in zip(labels, expected)]
    made = manifest(tmp_path / "out")
    assert made["people"] == ["ann", "bea", "eva", "zoe"]
    assert [becomes(part) for part in made["sets"]] == [{0: 1, 1: 2}, {0: 0, 1: 1, 2: 3}]
    assert made["sets"][1]["labels"] == [
        {"label": 0, "count": 2, "new": 0},
        {"label": 2, "count": 1, "new": 3},
    ]
    # What was merged by name can be merged by name again.
    three = pack(tmp_path / "p3", tmp_path / "three", {"eva": [21], "kim": [22]})
    assert merge(three, tmp_path / "out", tmp_path / "again", "--by-name") == 0
    assert manifest(tmp_path / "again")["people"] == ["ann", "bea", "eva", "kim", "zoe"]
    assert [label for label, _ in images(tmp_path / "again")] == [0, 1, 1, 1, 1, 2, 2, 3, 4]


def test_strangers_of_one_name_stay_apart(tmp_path, capsys):
    one = pack(tmp_path / "p1", tmp_path / "one", {"ann": [1], "bea": [2]})
    two = pack(tmp_path / "p2", tmp_path / "two", {"ann": [3]})
    nameless = write_people(tmp_path / "nameless", [1, 1], first=60, size=(112, 112))
    assert merge(one, two, nameless, tmp_path / "out") == 0
    assert manifest(tmp_path / "out")["people"] == ["ann", "bea", "ann", None, None]
    assert Shard(tmp_path / "out").labels.tolist() == [0, 1, 2, 3, 4]
    capsys.readouterr()
    for sets, complaint in (
        (
            (one, nameless),
            f"{nameless} has no name for label 0: only what `latse data pack`, `merge` and `clean` make",
        ),
        ((one, tmp_path / "out"), f"{tmp_path}/out has no name for label 3: "),
    ):
        assert merge(*sets, tmp_path / "named", "--by-name") == 1
        assert complaint in capsys.readouterr().err
    assert merge(one, two, tmp_path / "named") == 0
    assert merge(tmp_path / "named", two, tmp_path / "more", "--by-name") == 1
    assert (
        f"{tmp_path}/named has 2 people called ann: names do not tell who is who" in capsys.readouterr().err
    )
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(("line", "number"), [("1\t1.jpg\t3", "3"), ("1.jpg\t03", "03")])
def test_labels_of_lists_are_no_names(tmp_path, capsys, line, number):
    """Label 3 of one list and label 3 of another are strangers."""
    one, other = tmp_path / "one", write_people(tmp_path / "other", [1], size=(112, 112))
    cv2.imwrite(str(tmp_path / "1.jpg"), cv2.imdecode(*decodable(1)))
    (tmp_path / "list").write_text(line)
    assert main(["data", "pack", str(tmp_path / "list"), str(one), "--aligned", "--processes", "1"]) == 0
    capsys.readouterr()
    assert merge(one, other, tmp_path / "named", "--by-name") == 1
    error = capsys.readouterr().err
    assert f"{one} calls a person {number}, a number: " in error and error.count("\n") == 1
    assert merge(one, other, tmp_path / "both") == 0
    assert Shard(tmp_path / "both").labels.tolist() == [0, 1]


def test_names_beside_another_set_are_refused(tmp_path, capsys):
    one = pack(tmp_path / "p1", tmp_path / "one", {"ann": [1], "bea": [2]})
    other = write_people(tmp_path / "other", [1, 1], first=60, size=(112, 112))
    names = json.loads((one / "pack.json").read_text())
    for people, complaint in (
        (names["people"], " tells of another set than the one beside it: remove that file"),
        (["ann"], " tells of another set"),
        (["ann", 7], ": people[1] is 7, must be null or a name"),
        (["ann", "\ud800"], ': people[1] is "\\ud800", must be null or a name'),
        ("ab", ': people is "ab", must be null or a list'),
    ):
        (other / "pack.json").write_text(json.dumps({**names, "people": people}))
        assert merge(one, other, tmp_path / "out") == 1
        assert f"{other}/pack.json{complaint}" in capsys.readouterr().err
    (other / "pack.json").write_text("{")
    assert merge(one, other, tmp_path / "out") == 1
    assert f"{other}/pack.json is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_one_sentence(tmp_path, capsys):
    one, other = write_people(tmp_path / "one", [2, 2]), write_people(tmp_path / "other", [1, 3], first=50)
    wide = write_people(tmp_path / "wide", [1], first=90, size=(6, 8))
    out = tmp_path / "out"
    before = contents(other)
    for arguments, complaint in (
        ((one, wide, out), f"the images of {wide} are 6x8 pixels instead of 8x6, as in {one}"),
        ((one, other, one, out), f"{one} and {one} are the same set"),
        ((one, tmp_path / "nowhere", out), f"{tmp_path}/nowhere is no training set"),
        ((one, other), f"{one} alone is nothing to merge: name two sets or more, and then OUT"),
        ((one, wide, other), f"{other} holds a set already: remove it, or choose another folder"),
        ((one, other, one / "out"), f"{one}/out lies in {one}"),
        ((one, other, out, "--shards", 0), "the number of shards"),
    ):
        assert merge(*arguments) == 1
        complaints = capsys.readouterr().err
        assert complaint in complaints and complaints.count("\n") == 1
    assert not out.exists() and contents(other) == before
    with pytest.raises(SystemExit):
        merge(one)


def test_a_failure_leaves_no_set(tmp_path, capsys):
    one, other = write_people(tmp_path / "one", [2, 2]), write_people(tmp_path / "other", [1, 3], first=50)
    data = bytearray((other / "train.rec").read_bytes())
    start = dict(map(int, line.split()) for line in (other / "train.idx").read_text().splitlines())[3]
    data[start + 12 : start + 16] = np.float32(7).tobytes()  # the label, in the midst of a person
    (other / "train.rec").write_bytes(data)
    assert merge(one, other, tmp_path / "out") == 1
    assert f"{other}/train.rec: record 3 has the label 7" in capsys.readouterr().err
    assert not [*(tmp_path / "out").glob("[!.]*")] and not [*(tmp_path / "out").glob(".staged*")]
