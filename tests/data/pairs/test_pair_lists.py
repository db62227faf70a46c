"""Which pairs a verification set has: drawn, or of a list as LFW's; and the commands that write it."""

import hashlib
import itertools
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from latse.cli import main
from latse.data import orl
from latse.data.pairs import pair_lists
from latse.data.pairs.pairs import people_path, read_encoded, read_pairs, read_people, write_people
from latse.data.photographs import faces
from latse.errors import LatseError


def picture(number, size=(112, 112), ending=".png"):
    pixels = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return cv2.imencode(ending, cv2.resize(pixels, size))[1].tobytes()


PEOPLE = {"Ann": 5, "Bob": 1, "Cid_Ray": 3, "Dee": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four people with 5, 1, 3 and 4 photographs, named as LFW's."""
    folder = tmp_path_factory.mktemp("photos")
    for at, (name, count) in enumerate(PEOPLE.items()):
        (folder / name).mkdir()
        for number in range(1, count + 1):
            (folder / name / f"{name}_{number:04d}.png").write_bytes(picture(10 * at + number))
    return folder


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    number=st.integers(1, 20).map(lambda half: 2 * half),
    folds=st.integers(1, 5),
    seed=st.integers(0, 2**64),
)
@settings(max_examples=100)
def test_drawn_pairs(counts, number, folds, seed):
    person = np.repeat(np.arange(len(counts)), counts)
    every = list(itertools.combinations(range(len(person)), 2))
    same = [pair for pair in every if person[pair[0]] == person[pair[1]]]
    assume(number >= 2 * folds)
    there = {"one person": len(same), "two people": len(every) - len(same)}
    short = [kind for kind, total in there.items() if number // 2 > total]
    if short:
        none = [f"there are no pairs of {kind}" for kind, total in there.items() if not total]
        asked = f"{number // 2} pairs of {short[0]} are asked for, there are {there[short[0]]}"
        with pytest.raises(LatseError, match=f"^{[*none, asked][0]}: "):
            pair_lists.draw_pairs(person, number // 2, number // 2, folds, seed)
        return
    pairs, issame = pair_lists.draw_pairs(person, number // 2, number // 2, folds, seed)
    assert pairs.shape == (number, 2) and issame.sum() == number // 2
    assert len({tuple(pair) for pair in pairs.tolist()} & set(every)) == number
    assert ((person[pairs[:, 0]] == person[pairs[:, 1]]) == issame).all()
    ends = np.arange(folds + 1) * number / folds
    for start, end in zip(ends[:-1], ends[1:]):
        fold = issame[int(np.ceil(start)) : int(np.floor(end))]
        assert abs(fold.sum() - len(fold) / 2) <= 1.5
    again, _ = pair_lists.draw_pairs(person, number // 2, number // 2, folds, seed)
    assert np.array_equal(pairs, again)


def test_each_pair_is_as_likely():
    person = np.repeat([0, 1, 2], [4, 2, 1])
    drawn = np.concatenate([pair_lists.draw_pairs(person, 1, 1, 1, seed)[0] for seed in range(2000)])
    same, different = drawn[::2], drawn[1::2]
    for pairs, kinds in ((same, 7), (different, 14)):
        _, counts = np.unique(pairs, axis=0, return_counts=True)
        assert len(counts) == kinds and abs(counts - 2000 / kinds).max() < 5 * np.sqrt(2000 / kinds)


def test_a_million_photographs_make_no_list_of_all_pairs():
    person = np.repeat(np.arange(50_000), 20)
    pairs, issame = pair_lists.draw_pairs(person, 3000, 3000, 10, 0)
    assert ((person[pairs[:, 0]] == person[pairs[:, 1]]) == issame).all()
    assert pairs[~issame].max() > 990_000 and pairs[~issame].min() < 10_000


@pytest.mark.parametrize(
    "people, seed, digest",
    [(2, 0, "86d6e642818f8d42"), (10, 0, "37151254db01f605"), (7, 5, "760117334902a2c7")],
)
def test_the_pairs_of_orl_stay_as_they_were(people, seed, digest):
    pairs, issame = orl.orl_pairs(people, seed)
    assert hashlib.sha256(pairs.astype("<i8").tobytes() + issame.tobytes()).hexdigest()[:16] == digest


def test_seed_0_draws_the_same_in_every_version():
    pairs, _ = pair_lists.draw_pairs(np.repeat([0, 1, 2], 4), 4, 4, 2, 0)
    assert pairs.tolist() == [[8, 9], [8, 10], [4, 8], [3, 11], [0, 2], [1, 3], [3, 5], [2, 7]]


LIST = "1\t2\nAnn\t1\t5\nCid_Ray\t3\t1\nBob\t1\tDee\t2\nAnn\t1\tBob\t1\n"


def test_a_list_as_lfw(photos, tmp_path):
    (tmp_path / "pairs.txt").write_text(LIST)
    found = pair_lists.read_pair_list(tmp_path / "pairs.txt", photos)
    named = [[found.files[number].name for number in pair] for pair in found.pairs]
    assert named == [
        ["Ann_0001.png", "Ann_0005.png"],
        ["Cid_Ray_0003.png", "Cid_Ray_0001.png"],
        ["Bob_0001.png", "Dee_0002.png"],
        ["Ann_0001.png", "Bob_0001.png"],
    ]
    assert found.issame.tolist() == [True, True, False, False]
    assert len(found.files) == 6
    who = {file.parent.name: person for file, person in zip(found.files, found.person)}
    assert len(who) == len(set(who.values())) == 4
    assert all(who[file.parent.name] == person for file, person in zip(found.files, found.person))


@pytest.mark.parametrize("text", ["2\n", "2 1\n"])
def test_spaces_other_headers_and_an_empty_line_at_the_end(photos, tmp_path, text):
    lines = "Ann 1 2\nAnn 1 3\nAnn 1 Bob 1\nDee 4 Bob 1\n\n"
    (tmp_path / "pairs.txt").write_text(text + lines)
    assert pair_lists.read_pair_list(tmp_path / "pairs.txt", photos).issame.tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_names_with_spaces_and_other_endings(tmp_path):
    (tmp_path / "José Ángel").mkdir()
    for name in ("José Ángel_0001.jpg", "José Ángel_0001.txt", "José Ángel_0001.png", "José Ángel_0002.JPEG"):
        (tmp_path / "José Ángel" / name).write_bytes(b"")
    (tmp_path / "list").write_text("1\nJosé Ángel\t1\t2\nJosé Ángel\t2\t1\n", "utf-8")
    found = pair_lists.read_pair_list(tmp_path / "list", tmp_path)
    assert [file.name for file in found.files] == ["José Ángel_0001.jpg", "José Ángel_0002.JPEG"]


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        (
            "1\t2\n",
            "x\n",
            "line 1: 'x' has no format that is understood: LFW's NAME N M and .*; PATH PATH 0.1",
        ),
        ("1\t2\n", "0\n", "promises 0 pairs in its first line, but 4 follow"),
        ("1\t2\n", "1\t2\t3\n", "line 1: there is no photograph .*1/1_0002.jpg"),
        ("1\t2\n", "Ann/1.png\tAnn/2.png\t1\n", "line 2 is LFW's .*, the lines above are PATH PATH"),
        ("1\t2\n", "999999999\n", "promises 1999999998 pairs in its first line, but 4 follow"),
        ("1\t2\n", "1000000000\n", "line 1: '1000000000' has no format"),
        ("1\t2\n", "10\t300\n", "promises 6000 pairs in its first line, but 4 follow"),
        ("Ann\t1\t5", "Ann\t1", r"line 2: 'Ann\\t1' has no format that is understood: LFW's"),
        ("Ann\t1\t5", "Ann\t1\tx", "line 2: .* has no format"),
        ("Ann\t1\t5", "Ann\t1\t\t5", "line 2: .* has no format"),
        ("Ann\t1\t5", "Ann\t1\t-5", "line 2: .* has no format"),
        ("Ann\t1\t5", "Ann\t1\t5\tBob\t1", "line 2: .* has no format"),
        ("Ann\t1\t5", "Ann/1.png Ann/2.png 1", "line 2: .* has no format"),
        ("Ann\t1\t5", "Ann\t2\t2", "line 2 pairs a photograph with itself"),
        ("Ann\t1\t5", "Ann\t1\t6", "line 2: there is no photograph .*Ann/Ann_0006.jpg"),
        ("Dee", "Eve", "line 4: there is no photograph .*Eve/Eve_0002.jpg"),
        ("Dee\t2", "Bob\t1", "line 4 names Bob as two people"),
        ("Dee", "../photos/Dee/../../x", "line 4: ../photos/Dee/../../x leads out of "),
        ("Dee", "D\0e", "line 4: there is no photograph"),
        ("Dee", "\udcff", "line 4: there is no photograph"),
    ],
)
def test_damaged_lists(photos, tmp_path, old, new, complaint):
    assert old in LIST
    (tmp_path / "pairs.txt").write_bytes(LIST.replace(old, new).encode("utf-8", "surrogateescape"))
    with pytest.raises(LatseError, match=rf"pairs\.txt.*{complaint}"):
        pair_lists.read_pair_list(tmp_path / "pairs.txt", photos)


def test_a_missing_list(tmp_path):
    with pytest.raises(LatseError, match=r"cannot read .*pairs\.txt: No such file"):
        pair_lists.read_pair_list(tmp_path / "pairs.txt", tmp_path)


def test_draw_and_write_and_convert(photos, tmp_path, capfd):
    command = [
        "data",
        "pairs",
        str(photos),
        str(tmp_path / "a.bin"),
        "--pairs",
        "12",
        "--folds",
        "3",
        "--seed",
        "4",
    ]
    assert main(command) == 0
    assert "a.bin: 6 pairs of one person, 6 of two, " in capfd.readouterr().out
    first = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").unlink()
    assert main(command) == 0 and (tmp_path / "a.bin").read_bytes() == first
    drawn = pair_lists.draw(photos, 6, 6, 3, 4)
    bins, issame = pickle.loads(first)
    assert bins == [drawn.files[number].read_bytes() for number in drawn.pairs.ravel()]
    assert issame == drawn.issame.tolist() == [True, True, False, False] * 3
    assert {file.parent.name for file in drawn.files} == set(PEOPLE) and len(drawn.files) == 13
    assert main(["data", "bin-to-npz", str(tmp_path / "a.bin"), str(tmp_path / "b.npz")]) == 0
    people = [list(PEOPLE).index(drawn.files[number].parent.name) for number in drawn.pairs.ravel()]
    assert read_people(tmp_path / "a.bin").tolist() == read_people(tmp_path / "b.npz").tolist() == people
    used = len(set(drawn.pairs.ravel().tolist()))
    assert f"b.npz: 12 pairs of {used} images" in capfd.readouterr().out
    one, other = read_pairs(tmp_path / "a.bin"), read_pairs(tmp_path / "b.npz")
    assert np.array_equal(one.images, other.images) and np.array_equal(one.issame, other.issame)
    assert main([*command[:3], str(tmp_path / "c.npz"), *command[4:]]) == 0
    assert (tmp_path / "c.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert len(read_encoded(tmp_path / "c.npz").images) == used


def test_what_is_no_image_is_passed_over_and_said(photos, tmp_path, capfd):
    expected = pair_lists.draw(photos, 6, 6, 3, 4)
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for name in PEOPLE:
        (folder / name / "notes.txt").write_text("none")
        (folder / name / "0.jpg").write_bytes(b"")
        (folder / name / "gone.jpg").symlink_to("nowhere.jpg")
        os.mkfifo(folder / name / "pipe.jpg")
    found = pair_lists.draw(folder, 6, 6, 3, 4)
    assert [file.relative_to(folder) for file in found.files] == [
        f.relative_to(photos) for f in expected.files
    ]
    assert np.array_equal(found.pairs, expected.pairs)
    assert main(["data", "pairs", str(folder), str(tmp_path / "a.bin"), "--pairs", "38", "--folds", "1"]) == 0
    said = f"{4 * len(PEOPLE)} files are no images that OpenCV reads, first {folder / min(PEOPLE)}/0.jpg\n"
    assert said in capfd.readouterr().out


def test_a_pipe_in_a_list_is_no_wait(photos, tmp_path, capfd):
    shutil.copytree(photos, tmp_path / "photos")
    pipe = tmp_path / "photos" / "Ann" / "Ann_0001.jpg"
    os.mkfifo(pipe)
    (tmp_path / "pairs.txt").write_text(LIST)
    order = ["data", "pairs", str(tmp_path / "photos"), str(tmp_path / "a.bin"), "--list"]
    assert main([*order, str(tmp_path / "pairs.txt")]) == 1
    assert f"{pipe}: unreadable (not a file)" in capfd.readouterr().err


def test_names_in_any_encoding(photos, tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/ob\xe9lix"))
    shutil.copytree(photos, folder)
    assert len(pair_lists.draw(folder, 6, 6, 3).files) == 13


def test_pairs_of_a_list(photos, tmp_path):
    (tmp_path / "pairs.txt").write_text(LIST)
    out = tmp_path / "lfw.bin"
    assert main(["data", "pairs", str(photos), str(out), "--list", str(tmp_path / "pairs.txt")]) == 0
    bins, issame = pickle.loads(out.read_bytes())
    assert issame == [True, True, False, False]
    assert bins[5] == (photos / "Dee" / "Dee_0002.png").read_bytes()
    assert read_people(out).tolist() == [0, 0, 1, 1, 2, 3, 0, 2]


def test_a_list_as_lfw_without_its_first_line(photos, tmp_path, capfd):
    (tmp_path / "pairs.txt").write_text(LIST)
    (tmp_path / "bare.txt").write_text(LIST.partition("\n")[2])
    for name in ("pairs", "bare"):
        order = ["data", "pairs", str(photos), str(tmp_path / f"{name}.bin"), "--list"]
        assert main([*order, str(tmp_path / f"{name}.txt")]) == 0
        assert f"{name}.txt is read as LFW's NAME N M and NAME N OTHER M\n" in capfd.readouterr().out
    assert (tmp_path / "bare.bin").read_bytes() == (tmp_path / "pairs.bin").read_bytes()
    assert read_people(tmp_path / "bare.bin").tolist() == read_people(tmp_path / "pairs.bin").tolist()


@pytest.mark.parametrize("separator", ["\t", " ", ",", ", ", "  \t"])
def test_a_list_of_paths(photos, tmp_path, capfd, separator):
    """The pairs of LIST in the other format; an absolute path is as good as one in the folder."""
    rows = [
        ("Ann/Ann_0001.png", "Ann/Ann_0005.png", "1"),
        ("Cid_Ray/Cid_Ray_0003.png", f"{photos}/Cid_Ray/Cid_Ray_0001.png", "1"),
        ("Bob/Bob_0001.png", "Dee/Dee_0002.png", "0"),
        ("Ann/Ann_0001.png", "Bob/Bob_0001.png", "0"),
    ]
    (tmp_path / "pairs.txt").write_text(LIST)
    (tmp_path / "paths.txt").write_text("".join(separator.join(row) + "\n" for row in rows))
    for name in ("pairs", "paths"):
        order = ["data", "pairs", str(photos), str(tmp_path / f"{name}.bin"), "--list"]
        assert main([*order, str(tmp_path / f"{name}.txt")]) == 0
    assert f"{tmp_path}/paths.txt is read as PATH PATH 0|1\n" in capfd.readouterr().out
    assert (tmp_path / "paths.bin").read_bytes() == (tmp_path / "pairs.bin").read_bytes()
    assert read_people(tmp_path / "paths.bin").tolist() == read_people(tmp_path / "pairs.bin").tolist()


def test_people_are_unknown_where_folders_and_flags_differ(photos, tmp_path):
    (tmp_path / "pairs.txt").write_text(
        "Ann/Ann_0001.png Bob/Bob_0001.png 1\nAnn/Ann_0001.png Ann/Ann_0002.png 1"
    )
    out = tmp_path / "a.bin"
    assert main(["data", "pairs", str(photos), str(out), "--list", str(tmp_path / "pairs.txt")]) == 0
    assert read_pairs(out).issame.tolist() == [True, True]
    assert read_people(out) is None


@pytest.mark.parametrize("separator", ["\t", ","])
def test_paths_with_spaces(photos, tmp_path, separator):
    shutil.copytree(photos, tmp_path / "my photos")
    rows = [("my photos/Ann/Ann_0001.png", "my photos/Ann/Ann_0002.png", "1")]
    (tmp_path / "pairs.txt").write_text("".join(separator.join(row) for row in rows))
    found = pair_lists.read_pair_list(tmp_path / "pairs.txt", tmp_path)
    assert found.files == [tmp_path / path for path in rows[0][:2]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "pairs.txt is empty"),
        ("a.png b.png 2\n", "line 1: 'a.png b.png 2' has no format that is understood"),
        ("a.png b.png\n", "line 1: 'a.png b.png' has no format"),
        ("Ann/Ann_0001.png Ann/Ann_0001.png 1", "line 1 pairs a photograph with itself"),
        ("\n\nAnn/Ann_0001.png Ann/Ann_0009.png 1", "line 3: there is no photograph .*/Ann/Ann_0009.png"),
        ("Ann/Ann_0001.png ../Ann_0002.png 1", "line 1: .*/../Ann_0002.png leads out of "),
        ("Ann/Ann_0001.png /etc/Ann_0002.png 1", "line 1: /etc/Ann_0002.png leads out of "),
        (
            "Ann/Ann_0001.png Ann/Ann_0002.png 1\nAnn 1 2",
            "line 2 is LFW's NAME N M and .*, the lines above are PATH",
        ),
        (
            "Ann 1 2\nAnn/Ann_0001.png Ann/Ann_0002.png 1",
            "line 2 is PATH PATH 0.1, the lines above are LFW's",
        ),
        ("Ann 2 1\nBob 3 1", "can be read as LFW's .* and as PATH PATH 0.1: names with an ending"),
    ],
)
def test_damaged_lists_of_paths(photos, tmp_path, text, complaint):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(LatseError, match=complaint):
        pair_lists.read_pair_list(tmp_path / "pairs.txt", photos)


def test_people_of_an_earlier_set_go(photos, tmp_path, monkeypatch):
    """Neither a set after a kill in the midst nor one of unknown people has them beside it."""
    out = tmp_path / "a.bin"
    order = ["data", "pairs", str(photos), str(out), "--pairs", "12", "--folds", "3"]
    assert main(order) == 0
    out.unlink()
    with monkeypatch.context() as patched:
        patched.setattr("latse.data.pairs.pairs.write_encoded", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            main(order)
    write_people(out, np.zeros((12, 2)))
    assert main(order) == 0
    assert len({*read_people(out).tolist()}) > 1
    people_path(out).unlink()
    write_people(tmp_path / "b.npz", np.zeros((12, 2)))
    assert main(["data", "bin-to-npz", str(out), str(tmp_path / "b.npz")]) == 0
    assert read_people(tmp_path / "b.npz") is None


def test_pairs_are_not_replaced(photos, tmp_path, capfd):
    """X.bin and X.npz share X.people.npy, so neither is made where the other is of other pairs."""
    bin_, npz, other = (str(tmp_path / name) for name in ("a.bin", "a.npz", "b.bin"))
    order = ["data", "pairs", str(photos), "--pairs", "12", "--folds", "3"]
    assert main([*order, bin_]) == main([*order, other, "--seed", "1"]) == 0
    assert main(["data", "bin-to-npz", bin_, npz]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capfd.readouterr()
    for again, there in (
        ([*order, bin_], bin_),
        ([*order, npz], bin_),
        (["data", "bin-to-npz", bin_, npz], npz),
        (["data", "bin-to-npz", other, npz], bin_),
    ):
        assert main(again) == 1
        assert f"{there} is there already: remove it, or choose another name" in capfd.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("counts", "number", "folds", "cure"),
    [
        ([5, 5, 2], 600, 10, "300 pairs of one person are asked for, there are 21: give --pairs 42 at most"),
        ([2, 2, 2], 20, 10, "there are 3: give --pairs 6 at most, --folds 3 at most"),
        ([9], 20, 10, "there are no pairs of two people: all show one person"),
        ([1, 1], 20, 10, "there are no pairs of one person: no person has two photographs"),
    ],
)
def test_the_number_that_is_possible_is_named(counts, number, folds, cure):
    person = np.repeat(np.arange(len(counts)), counts)
    with pytest.raises(LatseError, match=f"{cure}$"):
        pair_lists.draw_pairs(person, number // 2, number // 2, folds, 0)
    named = dict(re.findall(r"--(pairs|folds) (\d+)", cure))
    if named:
        most = int(named["pairs"])
        half = most // 2
        assert len(pair_lists.draw_pairs(person, half, half, int(named.get("folds", folds)), 0)[1]) == most


@pytest.mark.parametrize("shares", [(10, 50), (19, 10), (13, 27)])
def test_other_shares_lie_in_each_fold_and_are_judged(photos, tmp_path, capfd, shares):
    out = str(tmp_path / "a.bin")
    same, different = shares
    order = ["data", "pairs", str(photos), out, "--same", str(same), "--different", str(different)]
    assert main(order) == 0
    said = capfd.readouterr().out
    assert said == f"{out}: {same} pairs of one person, {different} of two, 13 photographs\n"
    people, issame = read_people(out).reshape(-1, 2), read_encoded(out).issame
    assert ((people[:, 0] == people[:, 1]) == issame).all()
    assert (issame.sum(), len(issame)) == (same, same + different)
    ends = [-(-number * same // 10) + number * different // 10 for number in range(11)]
    for start, end in zip(ends, ends[1:]):
        assert issame[start:end].sum() in (same // 10, -(-same // 10))
        assert (~issame[start:end]).sum() in (different // 10, -(-different // 10))
    assert main(["eval", "--model", "pixels", "--pairs", out, "--json", str(tmp_path / "it.json")]) == 0
    result = json.loads((tmp_path / "it.json").read_text())["sets"]["a"]["results"]["pixels"]
    assert len(result["fold_accuracies"]) == 10 and result["auc"] is not None


def test_as_many_are_drawn_as_there_are_unless_a_number_is_given(photos, tmp_path, capfd):
    order = ["data", "pairs", str(photos), str(tmp_path / "a.bin")]
    assert main(order) == 0
    first, second = capfd.readouterr().out.splitlines()
    assert first.endswith("a.bin: 19 pairs of one person, 19 of two, 13 photographs")
    assert second == "the usual 6000, 3000 of each kind, would need more photographs"
    assert main([*order[:-1], str(tmp_path / "b.bin"), "--different", "40"]) == 0
    assert capfd.readouterr().out.endswith("b.bin: 19 pairs of one person, 40 of two, 13 photographs\n")
    with pytest.raises(
        LatseError, match="10 pairs of one person are asked for, there are 3: give --pairs 6 at"
    ):
        pair_lists.draw_pairs(np.repeat([0, 1, 2], 2), None, None, 10, 0)


def test_what_a_set_left_is_replaced_with_a_word(photos, tmp_path, capfd):
    write_people(tmp_path / "a.bin", np.zeros(2))
    order = ["data", "pairs", str(photos), str(tmp_path / "a.bin")]
    assert main(order) == 0
    said = capfd.readouterr().err
    assert f"{people_path(tmp_path / 'a.bin')} stands beside no pairs and is replaced" in said
    assert main(["data", "bin-to-npz", str(tmp_path / "a.bin"), str(tmp_path / "a.npz")]) == 0
    assert capfd.readouterr().err == ""


def test_no_set_is_turned_into_itself(photos, tmp_path, capfd):
    assert main(["data", "pairs", str(photos), str(tmp_path / "a.npz")]) == 0
    (tmp_path / "b.npz").symlink_to("a.npz")
    (tmp_path / "c.npz").symlink_to("nowhere")
    before = (tmp_path / "a.npz").read_bytes()
    for name in ("a.npz", "b.npz", "c.npz"):
        assert main(["data", "bin-to-npz", str(tmp_path / "a.npz"), str(tmp_path / name)]) == 1
        assert f"{name} is there already" in capfd.readouterr().err
    assert (tmp_path / "a.npz").read_bytes() == before and not (tmp_path / "nowhere").exists()


def test_a_folder_without_people_is_named(tmp_path, capfd):
    order = ["data", "pairs", str(tmp_path), str(tmp_path / "a.bin")]
    sentence = f"no photographs in {tmp_path}/PERSON: put them into one folder for each person"
    assert main(order) == 1 and sentence in capfd.readouterr().err
    (tmp_path / "1.png").write_bytes(picture(1))
    assert main(order) == 1 and sentence in capfd.readouterr().err


def test_aligned(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    for person in (1, 2):
        (folder / f"p{person}").mkdir(parents=True)
        for number in (1, 2):
            photograph = cv2.imread(str(orl.photograph_folder() / f"s{person}" / f"{number}.pgm"))
            cv2.imwrite(str(folder / f"p{person}" / f"{number}.jpg"), photograph)
    out, other = tmp_path / "a.bin", tmp_path / "b.bin"
    monkeypatch.setattr(faces, "AT_ONCE", 1)
    order = ["data", "pairs", str(folder), "--pairs", "4", "--folds", "2", "--align", "--processes"]
    assert main([*order, "1", str(out)]) == main([*order, "2", str(other)]) == 0
    assert out.read_bytes() == other.read_bytes()
    pairs = read_pairs(out)
    assert pairs.issame.tolist() == [True, False, True, False]
    assert pairs.images.std() > 20


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["a.bin", "--pairs", "40"], "photos0: 20 pairs of one person are asked for, there are 19"),
        (["a.bin", "--pairs", "7", "--folds", "2"], "--pairs 7 is odd: half of the pairs are of one person"),
        (
            ["a.bin", "--pairs", "12"],
            "photos0: 6 pairs of one person do not make 10 folds: give --pairs 20 at least, or fewer --folds",
        ),
        (
            ["a.bin", "--same", "12", "--different", "9"],
            "9 pairs of two people do not make 10 folds: give --different 10 at least, or fewer --folds",
        ),
        (
            ["a.bin", "--same", "20", "--different", "30"],
            "photos0: 20 pairs of one person are asked for, there are 19: give --same 19 at most",
        ),
        (
            ["a.bin", "--different", "60", "--same", "-1"],
            "photos0: -1 pairs of one person do not make 10 folds",
        ),
        (
            ["a.bin", "--same", "9", "--pairs", "20"],
            "--same and --different stand in the place of --pairs or",
        ),
        (
            ["a.bin", "--different", "9", "--list", "x"],
            "--same and --different stand in the place of --pairs",
        ),
        (["a.bin", "--processes", "0"], "--processes is 0, must be 1 to 4096"),
        (["a.bin", "--pairs", "12", "--folds", "0"], "photos0: the number of folds is 0, must be at least 1"),
        (["a.bin", "--seed", "-1"], "photos0: the seed is -1, must be at least 0"),
        (["a.pkl"], "a.pkl ends neither in .bin nor in .npz"),
        (["nowhere/a.bin", "--list", "none.txt"], "cannot read none.txt: No such file or directory"),
    ],
)
def test_bad_orders_are_one_sentence(photos, tmp_path, monkeypatch, capfd, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "pairs", str(photos), *arguments]) == 1
    said = capfd.readouterr().err
    assert complaint in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_photographs_are_one_sentence(tmp_path, capfd):
    folder, out = tmp_path / "photos", str(tmp_path / "a.bin")
    order = ["data", "pairs", str(folder), out, "--pairs", "2", "--folds", "1"]
    assert main(order) == 1
    assert f"{folder} is not a folder" in capfd.readouterr().err
    for name, number, content in (
        ("a", 1, picture(1)),
        ("a", 2, picture(2)),
        ("b", 1, picture(3, (96, 112))),
    ):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{number}.png").write_bytes(content)
    assert main(order) == 1
    assert f"{folder}/b/1.png is 112x96 pixels instead of 112x112" in capfd.readouterr().err
    (folder / "b" / "1.png").write_bytes(picture(3)[:100])
    assert main(order) == 1
    assert f"{folder}/b/1.png is not an image that can be decoded" in capfd.readouterr().err
    assert main([*order, "--align"]) == 1
    assert f"{folder}/" in capfd.readouterr().err
    (folder / "b" / "1.png").write_bytes(b"no image")
    assert main(order) == 1
    assert "there are no pairs of two people: all show one person" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_bad_conversions_are_one_sentence(tmp_path, capfd):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(([b"x"] * 2, [True])))
    assert main(["data", "bin-to-npz", str(tmp_path / "a.bin"), str(tmp_path / "b.bin")]) == 1
    assert "b.bin does not end in .npz" in capfd.readouterr().err
    (tmp_path / "a.bin").write_bytes(b"cos\nsystem\n(S'touch victim'\ntR.")
    assert main(["data", "bin-to-npz", str(tmp_path / "a.bin"), str(tmp_path / "b.npz")]) == 1
    assert "a.bin is not a file of pairs: it asks for os.system, which is refused" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
