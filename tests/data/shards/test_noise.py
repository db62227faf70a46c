"""`latse data noise`: exact counts, a truth that is the difference between the two sets, nothing touched."""

import json
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import SIZE, picture, write_people

from latse.cli import main
from latse.data.shards.noise import CLEAN, DISTRACTOR, MISLABELLED, OUTSIDE, add_noise, read_truth
from latse.data.shards.records import Shard
from latse.errors import LatseError


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def images(folder):
    """{number: (label, bytes)} of a set."""
    shard = Shard(folder)
    rows = zip(shard.records.tolist(), shard.labels.tolist())
    return {record: (label, bytes(shard.content(at))) for at, (record, label) in enumerate(rows)}


def check_truth(original, out, other=None):
    """What the truth says of each image is what the sets show; returns it."""
    truth, before, after = read_truth(out), images(original), images(out)
    outside = before if other is None else images(other)
    assert truth.record.tolist() == list(after)
    assert truth.label.tolist() == [label for label, _ in after.values()]
    for record, label, kind, true, source in zip(*(column.tolist() for column in truth)):
        was = outside[source] if kind == DISTRACTOR else before[source]
        assert after[record] == (label, was[1])
        assert true == (OUTSIDE if kind == DISTRACTOR else was[0])
        assert kind in (CLEAN, MISLABELLED, DISTRACTOR)
        assert (label == true) == (kind == CLEAN)
    for where in (truth.kind == DISTRACTOR, truth.kind != DISTRACTOR):
        assert len(set(truth.source[where])) == where.sum()  # no image is used twice
    return truth


PEOPLE = st.lists(st.integers(0, 5), min_size=3, max_size=8).filter(
    lambda people: np.sum(np.sign(people)) >= 3
)


@given(PEOPLE, st.integers(1, 2), st.floats(0, 0.6), st.floats(0, 0.4), st.booleans(), st.integers(0, 9))
@settings(max_examples=80)
def test_any_noise(tmp_path_factory, people, shards, mislabel, distractor, with_others, seed):
    folder = tmp_path_factory.mktemp("noise")
    original, out, other = folder / "set", folder / "out", folder / "other" if with_others else None
    write_people(original, people, shards=shards)
    if with_others:
        write_people(other, [30, 20], first=1000)
    before, count = contents(original), sum(people)
    try:
        made = add_noise(original, out, mislabel, distractor, seed, other, shards)
    except LatseError as error:
        assert "too few" in str(error) or "too many" in str(error) or "stays" in str(error)
        assert not out.exists()
        return
    finally:
        assert contents(original) == before
    truth = check_truth(original, out, other)
    wrong, outside = round(mislabel * count), round(distractor * count)
    assert np.bincount(truth.kind, minlength=3).tolist() == [
        len(truth.kind) - wrong - outside,
        wrong,
        outside,
    ]
    assert made["images"] == len(truth.kind) == count - made["images_left_out"]
    assert made["counts"]["mislabelled"] == wrong and made["counts"]["distractor"] == outside
    if with_others:
        assert made["images_left_out"] == 0
        held = truth.kind == DISTRACTOR
        assert len(set(truth.source[~held])) == count - outside
    else:
        assert made["images_left_out"] < max(people)
        origin = {record: label for record, (label, _) in images(original).items()}
        away = {origin[source] for source in truth.source[truth.kind == DISTRACTOR].tolist()}
        assert not away & set(truth.label.tolist())  # who is held out is nobody's label
    assert Shard(out).classes == len(people)


def test_labels_of_replaced_pictures_stay(tmp_path):
    write_people(tmp_path / "set", [4, 4, 4])
    write_people(tmp_path / "other", [9, 9], first=100)
    add_noise(tmp_path / "set", tmp_path / "out", 0.0, 0.5, 3, tmp_path / "other")
    assert Shard(tmp_path / "out").labels.tolist() == Shard(tmp_path / "set").labels.tolist()
    truth = check_truth(tmp_path / "set", tmp_path / "out", tmp_path / "other")
    same = truth.kind == CLEAN
    assert same.sum() == 6 and np.array_equal(truth.source[same], truth.record[same])


def test_labels_are_drawn_evenly(tmp_path):
    """Of 900 images, each label that is not the true one comes about as often."""
    write_people(tmp_path / "set", [300] * 3, size=(1, 1))
    add_noise(tmp_path / "set", tmp_path / "out", 1.0, 0.0, 0)
    truth = read_truth(tmp_path / "out")
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (truth.true_label, truth.label), 1)
    assert (counts.diagonal() == 0).all()
    assert (abs(counts[~np.eye(3, dtype=bool)] - 150) < 45).all()  # over five standard deviations


def test_the_seed_decides_everything(tmp_path):
    write_people(tmp_path / "set", [5] * 8)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        add_noise(tmp_path / "set", tmp_path / name, 0.2, 0.2, seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")["noise.npz"] != contents(tmp_path / "c")["noise.npz"]


def test_more_noise_contains_less(tmp_path):
    write_people(tmp_path / "set", [5] * 8)
    write_people(tmp_path / "other", [40], first=100)
    less, more = {}, {}
    for found, fraction in ((less, 0.1), (more, 0.3)):
        out = tmp_path / str(fraction)
        add_noise(tmp_path / "set", out, fraction, fraction, 7, tmp_path / "other")
        truth = read_truth(out)
        rows = zip(truth.kind.tolist(), truth.source.tolist(), truth.label.tolist())
        found.update({(kind, source): label for kind, source, label in rows if kind != CLEAN})
    assert less.items() <= more.items() and (len(less), len(more)) == (8, 24)


def test_the_command(tmp_path, capsys):
    write_people(tmp_path / "set", [5] * 8)
    status = main(
        ["data", "noise", str(tmp_path / "set"), str(tmp_path / "out"), "--mislabel", "0.25"]
        + ["--distractor", "0.125", "--seed", "4", "--shards", "2"]
    )
    assert status == 0
    assert "40 images, 25 clean, 10 mislabelled, 5 distractor; 0 left out" in capsys.readouterr().out
    check_truth(tmp_path / "set", tmp_path / "out")
    made = json.loads((tmp_path / "out" / "noise.json").read_text())
    assert (made["seed"], made["mislabel"], made["distractor"]) == (4, 0.25, 0.125)
    assert made["source_digest"] == Shard(tmp_path / "set").digest()
    assert (tmp_path / "out" / "train-00001.rec").exists()
    assert main(["data", "check", str(tmp_path / "out"), "--processes", "1"]) == 0


def test_what_a_held_out_person_has_too_much_is_left_out(tmp_path):
    write_people(tmp_path / "set", [10, 10, 10])
    made = add_noise(tmp_path / "set", tmp_path / "out", 0.0, 4 / 30, 0)
    assert (made["images"], made["images_left_out"]) == (24, 6)
    truth = check_truth(tmp_path / "set", tmp_path / "out")
    assert len(set(truth.label.tolist())) == 2


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--mislabel", "1.2"], "fractions 1.2 and 0.0"),
        (["--mislabel", "nan"], "fractions nan"),
        (["--distractor", "-0.1"], "fractions 0.0 and -0.1"),
        (["--mislabel", "0.6", "--distractor", "0.6"], "fractions 0.6 and 0.6"),
        (["--seed", "-1"], "seed is -1"),
        (["--distractor", "1"], "none of the 3 people would stay"),
        (["--mislabel", "0.3", "--distractor", "0.6"], "1 person stays"),
        (["--distractor", "0.5", "--distractors", "{}/set"], "is the set itself"),
        (["--distractor", "0.5", "--distractors", "{}/copy"], "is the set itself"),
        (["--distractor", "0.5", "--distractors", "{}/few"], "has 1 images, too few for 6 distractors"),
        (["--distractor", "0.5", "--distractors", "{}/large"], "are 9x9 pixels instead of 8x6"),
        (["--distractor", "0.5", "--distractors", "{}/nothing"], "nothing is no training set"),
        (["--shards", "0"], "latse: the number of shards is 0"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, options, complaint):
    for name, people, first, size in (
        ("set", [4, 4, 4], 0, SIZE),
        ("copy", [4, 4, 4], 0, SIZE),
        ("few", [1], 50, SIZE),
        ("large", [9], 60, (9, 9)),
    ):
        write_people(tmp_path / name, people, first, size=size)
    before, out = contents(tmp_path / "set"), tmp_path / "out"
    options = [option.format(tmp_path) for option in options]
    assert main(["data", "noise", str(tmp_path / "set"), str(out), *options]) == 1
    error = capsys.readouterr().err
    assert error.count("latse: ") == 1
    with pytest.raises(LatseError, match=complaint):
        raise LatseError(error)
    assert contents(tmp_path / "set") == before
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("out", ["set", "set/below", "other", "other/below"])
def test_out_lies_outside_of_both_sets(tmp_path, out):
    write_people(tmp_path / "set", [4, 4])
    write_people(tmp_path / "other", [4, 4], first=20)
    before = contents(tmp_path / "set"), contents(tmp_path / "other")
    with pytest.raises(LatseError, match="lies in"):
        add_noise(tmp_path / "set", tmp_path / out, 0.1, 0.1, 0, tmp_path / "other")
    assert (contents(tmp_path / "set"), contents(tmp_path / "other")) == before


def test_a_damaged_original_leaves_nothing(tmp_path):
    write_people(tmp_path / "set", [4, 4])
    data = bytearray((tmp_path / "set" / "train.rec").read_bytes())
    place = data.find(picture(2)) - 32
    data[place : place + 4] = b"gone"
    (tmp_path / "set" / "train.rec").write_bytes(data)
    with pytest.raises(LatseError, match="record 3 does not start"):
        add_noise(tmp_path / "set", tmp_path / "out", 0.1, 0.0, 0)
    assert not (tmp_path / "out").exists()


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    write_people(tmp_path / "set", [4, 4])
    monkeypatch.setattr(Shard, "digest", lambda self: "")
    content = Shard.content

    def failing(self, position):
        if position == 5:
            raise LatseError("the disk broke")
        return content(self, position)

    monkeypatch.setattr(Shard, "content", failing)
    with pytest.raises(LatseError, match="the disk broke"):
        add_noise(tmp_path / "set", tmp_path / "out", 0.1, 0.0, 0)
    assert list((tmp_path / "out").iterdir()) == []


def test_truth_that_is_none(tmp_path):
    with pytest.raises(LatseError, match="was not made by"):
        read_truth(tmp_path)
    path = tmp_path / "noise.npz"
    columns = {name: np.zeros(2, int) for name in ("record", "label", "kind", "true_label", "source")}
    for changed in ({"kind": np.zeros(3, int)}, {"kind": np.zeros(2)}, {"kind": np.array([None, None])}):
        np.savez(path, **{**columns, **changed})
        with pytest.raises(LatseError, match="noise.npz is damaged"):
            read_truth(tmp_path)
    np.savez(path, record=columns["record"])
    whole = path.read_bytes()
    for content in (b"", b"x", whole, whole[:-30], whole[:40]):
        path.write_bytes(content)
        with pytest.raises(LatseError, match="noise.npz is damaged"):
            read_truth(tmp_path)
    with zipfile.ZipFile(path, "w") as file:
        for name in columns:
            file.writestr(f"{name}.npy", b"\x93NUMPY\x01\0\x10\0{'descr': 1/0}   \n")
    with pytest.raises(LatseError, match="noise.npz is damaged"):
        read_truth(tmp_path)


def test_truth_of_another_set_is_refused(tmp_path):
    write_people(tmp_path / "set", [4, 4])
    made = add_noise(tmp_path / "set", tmp_path / "out", 0.5, 0.0, 0)
    assert made == json.loads((tmp_path / "out" / "noise.json").read_text())
    assert made["digest"] == Shard(tmp_path / "out").digest()
    for path in (tmp_path / "set").iterdir():
        shutil.copy(path, tmp_path / "out")
    with pytest.raises(LatseError, match="noise.npz tells of another set"):
        read_truth(tmp_path / "out")
    (tmp_path / "out" / "noise.json").write_text("[]")
    with pytest.raises(LatseError, match="noise.npz tells of another set"):
        read_truth(tmp_path / "out")
