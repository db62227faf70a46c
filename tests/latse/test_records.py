"""Shards: insightface's layout, and every way in which one can be broken."""

import errno
import os
import struct
import tempfile
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.data import records
from latse.data.records import Shard, staged, write_shard
from latse.errors import LatseError


def picture(number, size=(112, 112)):
    """A PNG whose pixels tell its number, different in each channel."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return pixels, cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


LABELS = [2, 0, 0, 3, 2, 0]  # class 1 of 4 has no image


@pytest.fixture
def folder(tmp_path):
    write_shard(tmp_path, [(label, picture(n)[1]) for n, label in enumerate(LABELS)], classes=4)
    return tmp_path


def write_plain(folder, entries, prop="4,112,112"):
    """A set in which all records are (key, label, content), written by MXNet's own writer."""
    output = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    for key, label, content in entries:
        output.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, label, key, 0), content))
    output.close()
    (folder / "property").write_text(prop)


def test_reads_back_what_was_written(folder):
    shard = Shard(folder)
    assert (shard.classes, shard.image_size, len(shard)) == (4, (112, 112), 6)
    order = [1, 2, 5, 0, 4, 3]  # by label, otherwise as given
    assert shard.labels.dtype == shard.records.dtype == np.int64
    assert shard.labels.tolist() == [0, 0, 0, 2, 2, 3]
    assert shard.records.tolist() == [1, 2, 3, 4, 5, 6]
    for position, number in enumerate(order):
        image, label, record = shard.read(position)
        assert np.array_equal(image, picture(number)[0])
        assert (label, record) == (LABELS[number], position + 1)


def test_layout_is_insightfaces(folder):
    """The steps by which insightface's FaceImageIter reads a set, with MXNet's reader."""
    reader = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "r")
    header, content = mx.recordio.unpack(reader.read_idx(0))
    assert header.flag == 2 and header.label.tolist() == [7, 10] and content == b""
    ranges = {}
    for identity in range(7, 10):
        header, content = mx.recordio.unpack(reader.read_idx(identity))
        assert header.flag == 2 and content == b""
        ranges[identity] = [int(number) for number in header.label]
    assert ranges == {7: [1, 4], 8: [4, 6], 9: [6, 7]}
    labels = []
    for number in range(1, 7):
        header, content = mx.recordio.unpack(reader.read_idx(number))
        labels.append(header.label)
        expected = Shard(folder).read(number - 1)[0]
        assert np.array_equal(mx.image.imdecode(content).asnumpy(), expected)
    assert labels == [0, 0, 0, 2, 2, 3]
    assert sorted(reader.keys) == list(range(10))
    assert (folder / "property").read_text().strip().split(",") == ["4", "112", "112"]


def test_jpeg_decodes_as_by_mxnet(tmp_path):
    encoded = cv2.imencode(".jpg", cv2.GaussianBlur(picture(5)[0], (0, 0), 3))[1].tobytes()
    write_shard(tmp_path, [(0, encoded)], classes=1)
    assert np.array_equal(Shard(tmp_path).read(0)[0], mx.image.imdecode(encoded).asnumpy())


def test_without_header_every_record_is_an_image(tmp_path):
    entries = [(key, float(label), picture(key)[1]) for key, label in ((9, 1), (0, 3), (4, 1))]
    write_plain(tmp_path, entries)
    shard = Shard(tmp_path)
    assert shard.records.tolist() == [0, 4, 9] and shard.labels.tolist() == [3, 1, 1]
    assert np.array_equal(shard.read(2)[0], picture(9)[0])


def test_vector_label_counts_by_its_first_element(tmp_path):
    write_plain(tmp_path, [(0, [3.0, 77.0], picture(0)[1]), (1, [1.0, 78.0, 5.0], picture(1)[1])])
    shard = Shard(tmp_path)
    assert shard.labels.tolist() == [3, 1]
    assert np.array_equal(shard.read(1)[0], picture(1)[0])


@pytest.mark.parametrize("times", [1, 2, 5])
def test_content_that_holds_the_magic_number_is_joined(tmp_path, times):
    magic = struct.pack("<I", records.MAGIC)
    content = (picture(1)[1] + b"\0\0\0")[: len(picture(1)[1]) // 4 * 4 + 4] + magic * times + b"end"
    write_plain(tmp_path, [(0, 0.0, picture(0)[1]), (1, 1.0, content), (2, 2.0, picture(2)[1])])
    assert (tmp_path / "train.rec").read_bytes().count(magic) > 3  # frames of parts came in
    shard = Shard(tmp_path)
    assert [shard.read(position)[1] for position in range(3)] == [0, 1, 2]
    start = int(shard._starts[1])
    joined = records._content(tmp_path, 1, shard._words, start).tobytes()
    assert joined[records.HEADER :] == content


@given(st.lists(st.tuples(st.integers(0, 6), st.binary(max_size=40)), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_any_labels_and_contents(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder, images, classes=7)
    shard = Shard(folder)
    assert shard.labels.tolist() == sorted(label for label, _ in images)
    contents = [
        (int(label), records._content(folder, 0, shard._words, int(start))[records.HEADER :].tobytes())
        for label, start in zip(shard.labels, shard._starts)
    ]
    assert contents == sorted(images, key=lambda image: image[0])


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property"])
def test_missing_and_empty_files(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(LatseError, match=name):
        Shard(folder)
    (folder / name).unlink()
    with pytest.raises(LatseError, match=f"cannot read .*{name}: No such file"):
        Shard(folder)


@pytest.mark.parametrize("missing", [1, 2, 3, 4, 40, 1000, 30000])
def test_truncated_rec(folder, missing):
    content = (folder / "train.rec").read_bytes()
    (folder / "train.rec").write_bytes(content[:-missing])
    with pytest.raises(LatseError, match=r"train\.rec"):
        Shard(folder)


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("3\t99999999", "record 3 lies past the end"),
        ("3\t-4", "record 3 lies past the end"),
        ("3\t50", "record 3 starts at no multiple of 4"),
        ("3\t52", "record 3 does not start with RecordIO's magic"),
        ("4\t48", "record 4 stands twice"),
        ("3", "record number and an offset"),
        ("3\tx", "record number and an offset"),
        ("3\t1.5", "record number and an offset"),
        ("3\t99999999999999999999", "record number and an offset"),
        ("\xff", "not a text file"),
        ("", "lacks some of the records 1 to 3"),
    ],
)
def test_broken_index(folder, line, complaint):
    lines = (folder / "train.idx").read_text().splitlines()
    assert lines[3].startswith("3\t")
    lines[3] = line
    (folder / "train.idx").write_text("\n".join(lines), "latin1")
    with pytest.raises(LatseError, match=complaint):
        Shard(folder)


@pytest.mark.parametrize(
    "text", ["", "4", "4,112", "4,112,112,3", "a,112,112", "0,112,112", "4,112,-1", "\xff"]
)
def test_malformed_property(folder, text):
    (folder / "property").write_text(text, "latin1")
    with pytest.raises(LatseError, match="property"):
        Shard(folder)


@pytest.mark.parametrize("label", [4.0, -1.0, 1.5, float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("vector", [False, True])
def test_label_outside_the_classes(tmp_path, label, vector):
    entries = [(1, 3.0, picture(1)[1]), (5, [label, 0.0] if vector else label, picture(5)[1])]
    write_plain(tmp_path, entries)
    with pytest.raises(LatseError, match=r"train\.rec: record 5 has the label .* 4 classes"):
        Shard(tmp_path)


@pytest.mark.parametrize(
    "header",
    [[2.0], [5.0, 2.0], [float("nan"), 3.0], [-1.0, 3.0], [2.0, float("inf")], [2.0, 9.0], [2.0, 2.0]],
)
def test_header_record_without_a_range_of_identities(tmp_path, header):
    write_plain(tmp_path, [(0, header, b""), (1, 3.0, picture(1)[1]), (2, [1.0, 2.0], b"")])
    with pytest.raises(LatseError, match=r"train\.(rec|idx)"):
        Shard(tmp_path)


def test_identity_record_that_is_none(tmp_path):
    write_plain(tmp_path, [(0, [2.0, 3.0], b""), (1, 3.0, picture(1)[1]), (2, 1.0, b"")])
    with pytest.raises(LatseError, match="record 2 does not hold a range"):
        Shard(tmp_path)


def test_record_shorter_than_its_labels(tmp_path):
    write_plain(tmp_path, [(1, [1.0, 2.0], b"")])
    content = bytearray((tmp_path / "train.rec").read_bytes())
    content[8:12] = struct.pack("<I", 3)
    (tmp_path / "train.rec").write_bytes(content)
    with pytest.raises(LatseError, match="record 1 is shorter than its labels"):
        Shard(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", picture(1)[1][:30]])
def test_undecodable_image(tmp_path, content):
    write_plain(tmp_path, [(1, 0.0, picture(1)[1]), (2, 0.0, content)])
    shard = Shard(tmp_path)
    assert shard.read(0)[2] == 1
    with pytest.raises(LatseError, match=r"train\.rec: record 2 is not an image"):
        shard.read(1)


def test_image_of_another_size(tmp_path):
    write_plain(tmp_path, [(7, 0.0, picture(1, (96, 80))[1])])
    with pytest.raises(LatseError, match="record 7 is 96x80 pixels instead of 112x112"):
        Shard(tmp_path).read(0)


@pytest.mark.parametrize("images", [[], [(4, b"x")], [(-1, b"x"), (0, b"x")]])
def test_refuses_to_write_what_could_not_be_read(tmp_path, images):
    with pytest.raises(LatseError, match=str(tmp_path)):
        write_shard(tmp_path, images, classes=4)
    assert list(tmp_path.iterdir()) == []


def test_failure_while_staging_leaves_the_older_files(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(RuntimeError), staged(folder) as stage:
        (stage / "train.rec").write_bytes(b"half of")
        raise RuntimeError
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with staged(folder) as stage:
        (stage / "train.rec").write_bytes(b"new")
    assert (folder / "train.rec").read_bytes() == b"new"
    assert sorted(file.name for file in folder.iterdir()) == ["property", "train.idx", "train.rec"]


def test_publishing_that_stops_midway_never_mixes_two_sets(folder, monkeypatch):
    replace, calls = Path.replace, []

    def breaking(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("the power went")
        return replace(self, target)

    with pytest.raises(LatseError, match="the power went"), staged(folder) as stage:
        for name in ("property", "train.idx", "train.rec"):
            (stage / name).write_bytes(b"new")
        monkeypatch.setattr(Path, "replace", breaking)
    assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("property", b"new")]


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LatseError, match="cannot make the folder"), staged(tmp_path / "file" / "below"):
        pass


def test_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sentence = f"^cannot write into {tmp_path}: No space left on device$"
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        with pytest.raises(LatseError, match=sentence), staged(tmp_path):
            pytest.fail("there is no folder to write into")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(LatseError, match=f"^cannot write into {tmp_path}"):
        write_shard(tmp_path, [(0, picture(1)[1])], classes=1)
    assert list(tmp_path.iterdir()) == []


def test_what_the_body_raises_passes_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), staged(tmp_path):
        (tmp_path / "elsewhere").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_go(tmp_path):
    left = tmp_path / ".staged-killed"
    left.mkdir()
    (left / "train.rec").write_bytes(b"half of")
    with staged(tmp_path) as stage:
        (stage / "train.rec").write_bytes(b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("train.rec", b"new")]


def test_two_at_once_do_not_remove_each_others_files(tmp_path):
    with staged(tmp_path) as stage:
        (stage / "train.rec").write_bytes(b"new")
        with pytest.raises(LatseError, match="another process is at work"), staged(tmp_path):
            pytest.fail("two in one folder")
    assert (tmp_path / "train.rec").read_bytes() == b"new"
