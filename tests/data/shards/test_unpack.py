"""`latse data unpack`: the images of a set as files, of which `pack` makes the same set again."""

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.cli import main
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.data.shards.unpack import folder_names
from latse.files import locked


def jpeg(number, size=(112, 112)):
    """A JPEG that tells its number."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(pixels, (0, 0), 3))[1].tobytes()


def unpack(*arguments):
    return main(["data", "unpack", *map(str, arguments)])


def pack(photographs, out):
    assert main(["data", "pack", str(photographs), str(out), "--aligned", "--processes", "1"]) == 0
    return out


def images(folder):
    """(label, bytes) of each image of a set, in the order of labels."""
    shard = Shard(folder)
    order = np.argsort(shard.labels, kind="stable")
    return [(int(shard.labels[at]), bytes(shard.content(at))) for at in order]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=12), st.integers(1, 3))
@settings(max_examples=3)
def test_pack_makes_the_same_set_again(tmp_path_factory, people, shards):
    folder = tmp_path_factory.mktemp("unpack")
    labels = [person for person, images in enumerate(people) for _ in range(images)]
    write_shard(
        folder / "set", [(label, jpeg(n)) for n, label in enumerate(labels)], len(people), shards=shards
    )
    assert unpack(folder / "set", folder / "photographs") == 0
    again = pack(folder / "photographs", folder / "again")
    assert images(again) == images(folder / "set")
    assert (again / "property").read_bytes() == (folder / "set" / "property").read_bytes()


def test_names_and_bytes_come_back(tmp_path, capsys):
    """What was packed of photographs, unpacked and packed again is the same to the byte."""
    for person, numbers in {"Åse": (1, 2), "Li Wei": (3,), "o'neil\n": (4, 5)}.items():
        (tmp_path / "mine" / person).mkdir(parents=True)
        for number in numbers:
            (tmp_path / "mine" / person / f"{number}.jpeg").write_bytes(jpeg(number))
    one = pack(tmp_path / "mine", tmp_path / "one")
    capsys.readouterr()
    assert unpack(one, tmp_path / "photographs") == 0
    assert capsys.readouterr().out == f"{tmp_path}/photographs: 5 images of 3 people\n"
    assert files(tmp_path / "photographs") == {
        "Li Wei/1.jpg": jpeg(3),
        "o'neil\n/2.jpg": jpeg(4),
        "o'neil\n/3.jpg": jpeg(5),
        "Åse/4.jpg": jpeg(1),
        "Åse/5.jpg": jpeg(2),
    }
    two = pack(tmp_path / "photographs", tmp_path / "two")
    for name in ("train.rec", "train.idx", "property"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    people = [json.loads((folder / "pack.json").read_text())["people"] for folder in (one, two)]
    assert people[0] == people[1] == ["Li Wei", "o'neil\n", "Åse"]


def test_a_merged_set_keeps_its_labels(tmp_path):
    """Two strangers of one name, and a person without a name."""
    for folder, numbers in (("p1", (1, 2)), ("p2", (3,))):
        (tmp_path / folder / "eva").mkdir(parents=True)
        for number in numbers:
            (tmp_path / folder / "eva" / f"{number}.jpg").write_bytes(jpeg(number))
        pack(tmp_path / folder, tmp_path / f"{folder}.set")
    write_shard(tmp_path / "plain", [(0, jpeg(4))], 1)
    sets = (tmp_path / "p1.set", tmp_path / "plain", tmp_path / "p2.set")
    assert main(["data", "merge", *map(str, sets), str(tmp_path / "merged")]) == 0
    assert unpack(tmp_path / "merged", tmp_path / "out") == 0
    assert {*files(tmp_path / "out")} == {"0 eva/1.jpg", "0 eva/2.jpg", "1/3.jpg", "2 eva/4.jpg"}
    assert images(pack(tmp_path / "out", tmp_path / "again")) == images(tmp_path / "merged")


def test_images_keep_their_kind_and_people_without_one_get_no_folder(tmp_path):
    png = cv2.imencode(".png", np.zeros((9, 7, 3), np.uint8))[1].tobytes()
    write_shard(tmp_path / "set", [(10, png), (2, jpeg(1, (9, 7)))], 12, (9, 7))
    assert unpack(tmp_path / "set", tmp_path / "new" / "out") == 0
    assert files(tmp_path / "new" / "out") == {"02/1.jpg": jpeg(1, (9, 7)), "10/2.png": png}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("people", "folders"),
    [
        ([None, None], ["0", "1"]),
        ([None] * 11, [f"{label:02d}" for label in range(11)]),
        (["ann", "bea"], ["ann", "bea"]),
        (["bea", "ann"], ["0 bea", "1 ann"]),
        (["ann", "ann"], ["0 ann", "1 ann"]),
        (["ann", None], ["0 ann", "1"]),
        ([".ann", "a/b\0c", "b.c"], ["%2Eann", "a%2Fb%00c", "b.c"]),
        (["a.", "a/"], ["0 a.", "1 a%2F"]),  # what a slash becomes comes before a dot
        ([".", ".."], ["%2E", "%2E."]),
        (["x" * 300, "y" * 300], ["x" * 200, "y" * 200]),
        (["é" * 300 + "1", "é" * 300 + "2"], ["0 " + "é" * 100, "1 " + "é" * 100]),
        (["a\udcff"], ["a\udcff"]),
    ],
)
def test_names_of_folders(tmp_path, people, folders):
    assert folder_names(people) == folders
    assert sorted(folders) == folders and len({*folders}) == len(people)
    for folder in folders:
        (tmp_path / folder).mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == folders


def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    write_shard(tmp_path / "set", [(0, jpeg(1)), (1, b"BM no image")], 2)
    write_shard(tmp_path / "good", [(0, jpeg(1))], 1)
    (tmp_path / "full" / "mine").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"mine")
    out, before = tmp_path / "out", files(tmp_path)
    for arguments, complaint in (
        ((tmp_path / "set", out), "set/train.rec: record 2 is neither JPEG nor PNG: `latse data check`"),
        ((tmp_path / "good", tmp_path / "full"), "full is not empty: choose another folder"),
        ((tmp_path / "good", tmp_path / "file"), "cannot read"),
        ((tmp_path / "good", tmp_path / "file" / "out"), "cannot make the folder"),
        ((tmp_path / "good", tmp_path / "good" / "out"), "lies in"),
        ((tmp_path / "good", tmp_path / "set"), "holds a set already"),
        ((tmp_path / "nowhere", out), "nowhere is no training set"),
    ):
        assert unpack(*arguments) == 1
        complaints = capsys.readouterr().err
        assert complaint in complaints and complaints.count("\n") == 1

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert unpack(tmp_path / "good", out) == 1
    assert f"cannot write into {out}: No space left on device" in capsys.readouterr().err
    assert files(tmp_path) == before and not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"set", "good", "full", "file"}


def test_an_empty_folder_is_filled_and_what_a_killed_process_left_goes(tmp_path, capsys):
    write_shard(tmp_path / "set", [(0, jpeg(1))], 1)
    (tmp_path / "out").mkdir()
    left = tmp_path / ".out.part" / "7"
    left.mkdir(parents=True)
    (left / "9.jpg").write_bytes(b"half")
    with locked(tmp_path / ".out.part"):
        assert unpack(tmp_path / "set", tmp_path / "out") == 1
        assert f"another process is at work in {tmp_path}/.out.part" in capsys.readouterr().err
    assert unpack(tmp_path / "set", tmp_path / "out") == 0
    assert files(tmp_path / "out") == {"0/1.jpg": jpeg(1)}
    assert {path.name for path in tmp_path.iterdir()} == {"set", "out"}
