"""Shards: insightface's layout, and every way in which one can be broken."""

import contextlib
import errno
import gc
import io
import os
import resource
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latse.data.images import decode, encode
from latse.data.shards import recordio, shard_writer
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import ShardWriter, write_shard
from latse.data.shards.staging import staged
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


def test_a_batch_is_what_was_written(folder):
    shard, numbers = Shard(folder), [0, 1, 5]  # of the pictures at the positions 3, 0 and 2
    batch = shard.batch(np.array([3, 0, 2]), np.array([1, 0, 1]))
    assert (batch.image.dtype, batch.label.dtype, batch.record.dtype) == (np.uint8, np.float32, np.int64)
    assert batch.label.tolist() == [2, 0, 0] and batch.record.tolist() == [4, 1, 3]
    assert batch.mirrored.dtype == bool and batch.mirrored.tolist() == [True, False, True]
    for image, number, mirrored in zip(batch.image, numbers, batch.mirrored):
        pixels = picture(number)[0].transpose(2, 0, 1)
        assert np.array_equal(image, pixels[:, :, ::-1] if mirrored else pixels)
    plain = shard.batch(np.array([3, 0, 2]))
    assert np.array_equal(plain.image[:, :, :, ::-1][[0, 2]], batch.image[[0, 2]])
    assert not plain.mirrored.any()


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
    magic = struct.pack("<I", recordio.MAGIC)
    content = (picture(1)[1] + b"\0\0\0")[: len(picture(1)[1]) // 4 * 4 + 4] + magic * times + b"end"
    write_plain(tmp_path, [(0, 0.0, picture(0)[1]), (1, 1.0, content), (2, 2.0, picture(2)[1])])
    assert (tmp_path / "train.rec").read_bytes().count(magic) > 3  # frames of parts came in
    shard = Shard(tmp_path)
    assert [shard.read(position)[1] for position in range(3)] == [0, 1, 2]
    assert shard.content(1).tobytes() == content


@given(st.lists(st.tuples(st.integers(0, 6), st.binary(max_size=40)), min_size=1, max_size=12))
@settings(max_examples=25)
def test_any_labels_and_contents(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("shard")
    write_shard(folder, images, classes=7)
    shard = Shard(folder)
    assert shard.labels.tolist() == sorted(label for label, _ in images)
    contents = [(int(label), shard.content(row).tobytes()) for row, label in enumerate(shard.labels)]
    assert contents == sorted(images, key=lambda image: image[0])


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property"])
def test_missing_and_empty_files(folder, name):
    (folder / name).write_bytes(b"")
    empty = r"train\.rec is empty \(0 bytes\)" if name == "train.rec" else name
    with pytest.raises(LatseError, match=empty):
        Shard(folder)
    (folder / name).unlink()
    rec = f"{folder} is no training set: there is no train.rec "
    with pytest.raises(
        LatseError, match=rec if name == "train.rec" else f"cannot read .*{name}: No such file"
    ):
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
        ("3\t99999999999999999999", "record 3 lies past the end"),
        ("99999999999999999999\t52", "number out of range"),
        ("-1\t52", "record -1 has a number out of range"),
        ("3\t1 2", "record number and an offset"),
        ("\xff", "line 4: the byte 0xff is no text in UTF-8"),
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
    "text",
    ["", "4", "4,112", "4,112,112,3", "a,112,112", "0,112,112", "4,112,-1", "\xff", f"{2**24 + 1},112,112"],
)
def test_malformed_property(folder, text):
    (folder / "property").write_text(text, "latin1")
    with pytest.raises(LatseError, match="property"):
        Shard(folder)


@pytest.mark.parametrize("text", ["3" * 3000 + ",112,112", "-" + "3" * 3000 + ",112,112"])
def test_a_number_without_end_is_cut_short_in_the_sentence(folder, text):
    (folder / "property").write_text(text)
    with pytest.raises(LatseError, match="property is -?333") as caught:
        Shard(folder)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("label", [4.0, -1.0, 1.5, float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("vector", [False, True])
def test_label_outside_the_classes(tmp_path, label, vector):
    entries = [(1, 3.0, picture(1)[1]), (5, [label, 0.0] if vector else label, picture(5)[1])]
    write_plain(tmp_path, entries)
    with pytest.raises(
        LatseError, match=r"train\.rec: record 5 has the label .* 4 classes, whose labels are 0 to 3"
    ):
        Shard(tmp_path)


@pytest.mark.parametrize(
    "header",
    [[2.0], [5.0, 2.0], [float("nan"), 3.0], [-1.0, 3.0], [2.0, float("inf")], [2.0, 9.0]],
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
    assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("train.idx", b"new")]


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


def written_by_mxnet(folder, images):
    """The same set by MXNet's own packer and writer, as insightface's scripts use them."""
    folder.mkdir()
    output = mx.recordio.MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")

    def write(record, label, content=b""):
        output.write_idx(record, mx.recordio.pack(mx.recordio.IRHeader(0, label, record, 0), content))

    labels = [label for label, _ in images]
    write(0, [len(images) + 1, len(images) + 1 + len(set(labels))])
    for record, (label, content) in enumerate(images, start=1):
        write(record, float(label), content)
    for record, label in enumerate(sorted(set(labels)), start=len(images) + 1):
        first = labels.index(label) + 1
        write(record, [first, first + labels.count(label)])
    output.close()
    return folder


MAGIC = struct.pack("<I", recordio.MAGIC)
CONTENT = st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9)), max_size=8).map(b"".join)


@given(st.lists(st.tuples(st.integers(0, 5), CONTENT), min_size=1, max_size=9))
@settings(max_examples=60)
def test_files_are_mxnets_to_the_byte(tmp_path_factory, images):
    images.sort(key=lambda image: image[0])
    ours = tmp_path_factory.mktemp("ours")
    write_shard(ours, images, classes=6)
    theirs = written_by_mxnet(tmp_path_factory.mktemp("theirs") / "set", images)
    for name in ("train.rec", "train.idx"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    shard = Shard(ours)
    assert [(int(label), shard.content(row).tobytes()) for row, label in enumerate(shard.labels)] == images


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    shards=st.integers(2, 7),
)
@settings(max_examples=60)
def test_several_files_are_balanced_and_read_as_one_set(tmp_path_factory, sizes, shards):
    images = [(label, bytes([label, n])) for label, size in enumerate(sizes) for n in range(size)]
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder, images, classes=30, shards=shards)
    shard = Shard(folder)
    assert [(int(label), shard.content(row).tobytes()) for row, label in enumerate(shard.labels)] == images
    assert (np.diff(shard.records) > 0).all()
    files = sorted(folder.glob("*.rec"))
    assert [file.name for file in files] == [f"train-{number:05d}.rec" for number in range(len(files))]
    assert len(files) == min(shards, len(files))
    people, counts, start = [], [], 0
    for file in files:  # each is a set by itself
        alone = folder / file.stem
        alone.mkdir()
        file.rename(alone / "train.rec")
        file.with_suffix(".idx").rename(alone / "train.idx")
        (alone / "property").write_text("30,112,112")
        part = Shard(alone)
        assert (part.records + start == shard.records[sum(counts) :][: len(part)]).all()
        start += int((alone / "train.idx").read_text().split()[-2]) + 1
        people += sorted(set(part.labels))
        counts.append(len(part))
    assert people == list(range(len(sizes)))
    if len(sizes) >= 5 * shards and len(set(sizes)) == 1:
        assert len(files) == shards and max(counts) - min(counts) <= sizes[0]


def test_balance_of_equal_people(tmp_path):
    with ShardWriter(tmp_path, 100, shards=3, images=1000) as writer:
        for label in range(100):
            for _ in range(10):
                writer.add(label, b"x")
    sizes = [len((tmp_path / f"train-{n:05d}.idx").read_text().splitlines()) for n in range(3)]
    assert [size - 1 for size in sizes] == [330 + 33, 330 + 33, 340 + 34]


def test_another_number_of_files_replaces_the_older_set(tmp_path):
    images = [(label, picture(label)[1]) for label in range(4)]
    for shards in (4, 1, 2):
        write_shard(tmp_path, images, classes=4, shards=shards)
        assert len(list(tmp_path.glob("*.rec"))) == len(list(tmp_path.glob("*.idx"))) == shards
        assert len(Shard(tmp_path)) == 4


def test_a_set_that_lacks_a_file_or_has_two_layouts(tmp_path):
    write_shard(tmp_path, [(label, b"x") for label in range(4)], classes=4, shards=3)
    (tmp_path / "train-00001.rec").rename(tmp_path / "kept.rec")
    with pytest.raises(LatseError, match=r"lacks train-00001\.rec, but holds train-00002\.rec"):
        Shard(tmp_path)
    (tmp_path / "train.rec").write_bytes(b"")
    with pytest.raises(LatseError, match=r"both train\.rec and train-00000\.rec"):
        Shard(tmp_path)


def write_joined(folder, *files):
    """A file for each of `files`: (whether it has header and identity records, the labels of its images)."""
    for number, (is_named, labels) in enumerate(files):
        if is_named:
            write_shard(folder / "one", [(label, b"x") for label in labels], classes=9)
        else:
            write_plain(folder / "one", [(key, float(label), b"x") for key, label in enumerate(labels)])
        for suffix in ("rec", "idx"):
            (folder / "one" / f"train.{suffix}").rename(folder / f"train-{number:05d}.{suffix}")
    (folder / "property").write_text("9,112,112")


@pytest.mark.parametrize(
    ("files", "which", "labels"),
    [
        (((True, [0, 1]), (True, [0, 1])), (0, 1), "0, 1"),
        (((True, [0, 1]), (True, [1, 2])), (0, 1), "1"),
        (((True, [3]), (True, [4]), (True, [0, 1, 2, 3, 5])), (0, 2), "3"),
        (((True, range(6)), (True, [2, 3, 4]), (True, [0, 5])), (0, 2), "0, 5"),
        (((True, range(6)), (True, range(1, 8))), (0, 1), "1, 2, 3, … (5 in all)"),
        (((True, [0, 1]), (False, [2, 0])), (0, 1), "0"),
        (((False, [2, 0]), (True, [0, 1])), (0, 1), "0"),
        (((False, [2, 0]), (False, [3, 0]), (True, [0, 1])), (0, 2), "0"),
    ],
)
def test_a_person_whom_identity_records_name_stands_in_one_file(tmp_path, files, which, labels):
    """Otherwise the files are two sets in one folder, whose people are strangers."""
    (tmp_path / "one").mkdir()
    write_joined(tmp_path, *files)
    with pytest.raises(LatseError) as error:
        Shard(tmp_path)
    first, second = (f"train-0000{number}.rec" for number in which)
    assert str(error.value).startswith(f"{tmp_path / first} and {second} share the labels {labels}: two sets")


def test_labels_of_any_size_take_memory_by_their_number():
    """A damaged label is as large as a float32."""
    first, second = np.array([2**60, 3]), np.array([2**60])
    assert recordio.shared_people([first, second], [True, False]).tolist() == [2**60]
    assert recordio.shared_people([first], [True]).tolist() == []
    assert recordio.shared_people([second[:0], first], [False, True]).tolist() == []
    assert recordio.repeated_people([second[:0], second, second], [False] * 3).tolist() == []


def test_files_without_identity_records_may_share_people(tmp_path):
    """So im2rec splits a shuffled list."""
    (tmp_path / "one").mkdir()
    write_joined(tmp_path, (False, [0, 2, 1, 0]), (False, [1, 0, 2]), (True, [3]))
    assert Shard(tmp_path).labels.tolist() == [0, 2, 1, 0, 1, 0, 2, 3]


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        ([[0, 0, 1, 2], [0, 1, 1]], "0, 1"),
        ([[0, 1], [2, 3], [0, 1, 2]], "0, 1"),
        ([[0, 2, 4], [0, 2, 5], [1, 3]], "0, 2"),
        ([[0, 2], [2, 3]], None),
        ([[2, 3], [0, 2]], None),  # files in another order than the list
        ([[0, 1], [1], [1, 2]], None),  # a person over three files
        ([[0], [0]], None),
        ([[0, 1, 0], [0, 1]], None),
        ([[0, 1, 2], [3, 4]], None),
    ],
)
def test_ascending_files_without_identity_records_share_no_more_than_their_ends(tmp_path, files, labels):
    """So an ascending list is cut into files; what two sets in one folder share is more."""
    (tmp_path / "one").mkdir()
    write_joined(tmp_path, *((False, part) for part in files))
    if labels is None:
        assert Shard(tmp_path).labels.tolist() == [label for part in files for label in part]
        return
    with pytest.raises(LatseError) as error:
        Shard(tmp_path)
    assert f" share the labels {labels}: two sets in one folder" in str(error.value)
    assert str(error.value).endswith(f"`latse data check {tmp_path} --repair OUT` makes one set of it")


def test_a_shuffled_list_with_its_own_numbers_may_be_split(tmp_path):
    """So im2rec writes it: by their numbers the labels ascend, as they stand in the files they do not."""
    (tmp_path / "one").mkdir()
    write_joined(tmp_path, (False, [2, 0, 1]), (False, [1, 2, 0]))
    for index, keys in (("train-00000.idx", (8, 0, 4)), ("train-00001.idx", (5, 9, 1))):
        lines = (tmp_path / index).read_text().splitlines()
        text = "".join(f"{key}\t{line.split()[1]}\n" for key, line in zip(keys, lines))
        (tmp_path / index).write_text(text)
    assert Shard(tmp_path).labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_errors_in_several_files_name_file_and_its_own_record(tmp_path):
    write_shard(tmp_path, [(0, picture(0)[1]), (1, b"no image")], classes=2, shards=2)
    with pytest.raises(LatseError, match=r"train-00001\.rec: record 1 is not an image"):
        Shard(tmp_path).read(1)


def test_numbers_beyond_float32_are_exact(tmp_path):
    """A set whose records are numbered from 2**24 + 1 on: float32 would merge neighbours."""
    first = 2**24 + 1
    output = shard_writer._RecordOutput(tmp_path / "train")
    output._next = first
    for label in range(3):
        output.begin_person()
        for number in range(3):
            output.add(label, bytes([label, number]))
    output.close()
    (tmp_path / "property").write_text("3,112,112")
    shard = Shard(tmp_path)
    assert shard.records.tolist() == list(range(first, first + 9))
    assert shard.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    reader = mx.recordio.MXIndexedRecordIO(str(tmp_path / "train.idx"), str(tmp_path / "train.rec"), "r")
    header, _ = mx.recordio.unpack(reader.read_idx(0))
    assert (header.id, header.id2) == (first + 9, first + 12)
    assert header.label.tolist() == [np.float32(first + 9), np.float32(first + 12)]


@given(first=st.integers(0, 2**40), count=st.integers(0, 2**30))
def test_packed_ranges_are_exact(first, count):
    packed = recordio.packed_range(7, first, first + count)
    flag, _, low, high = recordio.HEADER.unpack_from(packed)
    labels = np.frombuffer(packed, "<f4", offset=recordio.HEADER.size)
    assert flag == 2 and labels.tolist() == [np.float32(first), np.float32(first + count)]
    if (low, high) != (first, first + count):
        assert (low, high) == (7, 0) and labels.tolist() == [first, first + count]


@pytest.mark.parametrize(
    "labels, settings, complaint",
    [
        ([1, 0], {}, "label 0 comes after 1"),
        ([4], {}, "label 4 is none of 0 to 3, the labels of"),
        ([-1], {}, "label -1 is none of 0 to 3"),
        ([], {}, "no image to write"),
        ([0], {"classes": 0}, "the number of people is 0, must be 1 to 16777216"),
        ([0], {"classes": 2**24 + 1}, "the number of people is 16777217"),
        ([0], {"shards": 0}, "number of shards is 0"),
        ([0], {"shards": 2}, "number of images must be known"),
    ],
)
def test_the_writer_refuses(tmp_path, labels, settings, complaint):
    def write(stage):
        with ShardWriter(stage, **{"classes": 4, **settings}) as writer:
            for label in labels:
                writer.add(label, b"x")

    with pytest.raises(LatseError, match=complaint), staged(tmp_path) as stage:
        write(stage)
    assert list(tmp_path.iterdir()) == []


def test_encoded_images_decode_again(tmp_path):
    smooth = cv2.GaussianBlur(picture(5)[0], (0, 0), 5)
    write_shard(tmp_path, [(0, encode(smooth)), (0, encode(smooth, 60))], classes=1)
    shard = Shard(tmp_path)
    assert np.abs(shard.read(0)[0].astype(int) - smooth).mean() < 1
    assert len(shard.content(1)) < len(shard.content(0)) / 2


def starts_of(folder, stem="train"):
    """Where each record starts, by its number."""
    numbers = np.array((folder / f"{stem}.idx").read_text().split(), int).reshape(-1, 2)
    return dict(numbers.tolist())


def overwrite(folder, record, offset, content):
    """Change some bytes of train.rec, counted from the start of a record's frame."""
    data = bytearray((folder / "train.rec").read_bytes())
    at = starts_of(folder)[record] + offset
    data[at : at + len(content)] = content
    (folder / "train.rec").write_bytes(data)


SMOOTH = cv2.normalize(cv2.GaussianBlur(picture(8)[0], (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def by_opencv(pixels, extension=".png"):
    return cv2.imencode(extension, pixels)[1].tobytes()


def by_pillow(mode, extension, **settings):
    written = io.BytesIO()
    Image.fromarray(SMOOTH).convert(mode).save(written, extension, **settings)
    return written.getvalue()


@pytest.mark.parametrize(
    "encoded, expected, difference",
    [
        (by_opencv(SMOOTH[:, :, ::-1]), SMOOTH, 0),
        (by_opencv(SMOOTH[:, :, 0]), SMOOTH[:, :, :1], 0),
        (by_opencv(SMOOTH[:, :, 0], ".jpg"), SMOOTH[:, :, :1], 2),
        (by_opencv(SMOOTH[:, :, ::-1].astype(np.uint16) * 256 + 99), SMOOTH, 0),
        (by_opencv(SMOOTH[:, :, 0].astype(np.uint16) * 256 + 99), SMOOTH[:, :, :1], 0),
        (by_pillow("RGBA", "PNG"), SMOOTH, 0),
        (by_pillow("CMYK", "JPEG", quality=95), SMOOTH, 2),
        (by_pillow("RGB", "JPEG", quality=95, progressive=True), SMOOTH, 3),
    ],
    ids=[
        "png",
        "grey png",
        "grey jpeg",
        "16-bit png",
        "16-bit grey png",
        "rgba png",
        "cmyk jpeg",
        "progressive",
    ],
)
def test_other_kinds_of_images_are_read_as_8_bit_rgb(tmp_path, encoded, expected, difference):
    write_shard(tmp_path, [(0, encoded)], classes=1)
    image = Shard(tmp_path).read(0)[0]
    assert (image.shape, image.dtype) == ((112, 112, 3), np.uint8)
    assert np.abs(image.astype(int) - expected).mean() <= difference


def announcing(encoded, marker, offset, size):
    """An image whose first bytes say that it has another size."""
    at = encoded.find(marker) + offset
    return encoded[:at] + size + encoded[at + len(size) :]


@pytest.mark.parametrize(
    "encoded",
    [
        announcing(by_opencv(SMOOTH, ".jpg"), b"\xff\xc0", 5, struct.pack(">HH", 30000, 30000)),
        announcing(by_opencv(SMOOTH), b"IHDR", 4, struct.pack(">II", 30000, 30000)),
    ],
    ids=["jpeg", "png"],
)
def test_an_image_that_announces_gigabytes_is_not_decoded(encoded, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(LatseError, match="^it is 30000x30000 pixels instead of 112x112$"):
        decode(encoded, "it", (112, 112))


@pytest.mark.parametrize(
    "encoded", [b"\xff", b"\xff\xd8", b"\xff\xd8" + b"\xff" * 50, b"\xff\xd8" + bytes(50)]
)
def test_a_jpeg_without_a_size(encoded):
    with pytest.raises(LatseError, match="^it is not an image that can be decoded$"):
        decode(encoded, "it", (112, 112))


def test_bytes_between_the_segments_of_a_jpeg_are_skipped():
    plain = by_opencv(SMOOTH, ".jpg")
    odd = plain[:2] + b"\xff\xff\xff" + plain[3:]  # fill bytes before the first marker
    assert np.array_equal(decode(odd, "", (112, 112)), decode(plain, "", (112, 112)))


def test_an_image_on_its_side_is_not_turned_as_mxnet_does_not(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    written = io.BytesIO()
    Image.fromarray(SMOOTH[:, :80]).save(written, "JPEG", quality=95, exif=exif)
    write_shard(tmp_path, [(0, written.getvalue())], classes=1, image_size=(112, 80))
    assert np.array_equal(Shard(tmp_path).read(0)[0], mx.image.imdecode(written.getvalue()).asnumpy())


def test_a_file_that_shrinks_while_it_is_read(folder):
    shard = Shard(folder)
    stream = BatchStream(shard, 2)
    os.truncate(folder / "train.rec", starts_of(folder)[4] + 1000)
    assert shard.read(2)[2] == 3
    for position, record in ((3, 4), (5, 6)):
        with pytest.raises(
            LatseError, match=rf"train\.rec: record {record} is cut off: the file is truncated"
        ):
            shard.read(position)
    with pytest.raises(LatseError, match="is cut off"):
        list(stream.prefetch(0, 3))


def test_the_order_of_the_index_does_not_matter(folder):
    expected = [Shard(folder).read(position) for position in range(6)]
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(np.random.default_rng(0).permutation(lines)))
    shard = Shard(folder)
    for position, (image, label, record) in enumerate(expected):
        found = shard.read(position)
        assert np.array_equal(found[0], image) and found[1:] == (label, record)


@pytest.mark.parametrize("record", [0, 1, 2, 3, 4, 7, 9])
def test_wrong_magic_is_found_at_the_latest_when_the_record_is_read(folder, record):
    overwrite(folder, record, 0, b"\0")
    with pytest.raises(
        LatseError, match=rf"train\.rec: record {record} does not start with RecordIO's magic"
    ):
        shard = Shard(folder)
        for position in range(len(shard)):
            shard.read(position)


@pytest.mark.parametrize("record", [1, 2, 3])
@pytest.mark.parametrize("label", [float("nan"), 4.0, 1.0])
def test_a_label_unlike_its_identitys(folder, record, label):
    """At the edge of its identity it counts, or is refused; in between, it shows when the image is read."""
    overwrite(folder, record, 12, struct.pack("<f", label))
    if record != 2 and label == 1:
        assert Shard(folder).labels[record - 1] == 1
    elif record != 2:
        with pytest.raises(LatseError, match=f"record {record} has the label .* property has 4 classes"):
            Shard(folder)
    else:
        with pytest.raises(LatseError, match=f"record 2 has the label {label:g}; its identity has 0"):
            Shard(folder).read(1)


def test_the_property_of_another_set(folder):
    (folder / "property").write_text("3,112,112")
    with pytest.raises(LatseError, match="record 6 has the label 3; property has 3 classes"):
        Shard(folder)
    (folder / "property").write_text("4,96,112")
    with pytest.raises(LatseError, match="record 1 is 112x112 pixels instead of 96x112"):
        Shard(folder).read(0)


def test_a_header_without_identities(tmp_path):
    write_plain(tmp_path, [(0, [3.0, 3.0], b""), (1, 3.0, picture(1)[1]), (2, 1.0, picture(2)[1])])
    shard = Shard(tmp_path)
    assert (shard.records.tolist(), shard.labels.tolist()) == ([1, 2], [3, 1])


@pytest.mark.parametrize("ranges", [([1, 4], [4, 6]), ([1, 3], [3, 6]), ([1, 5], [2, 6]), ([1, 1], [2, 4])])
def test_each_image_counts_once_whatever_the_identity_records_say(tmp_path, ranges):
    """Vector labels, and ranges that fit, cut identities in two, overlap, or leave images out."""
    labels = [0, 0, 0, 2, 2]
    images = [(n, [labels[n - 1], 9.0], picture(n)[1]) for n in range(1, 6)]
    write_plain(tmp_path, [(0, [6, 8], b""), *images, (6, ranges[0], b""), (7, ranges[1], b"")])
    shard = Shard(tmp_path)
    assert shard.records.tolist() == [1, 2, 3, 4, 5] and shard.labels.tolist() == labels
    assert all(np.array_equal(shard.read(row)[0], picture(row + 1)[0]) for row in range(5))


def test_large_images_and_a_sparse_index(tmp_path):
    images = [(label, bytes([label]) * 150_000) for label in range(4)]
    write_shard(tmp_path, images, classes=4)
    lines = (tmp_path / "train.idx").read_text().splitlines()
    (tmp_path / "train.idx").write_text("\n".join([lines[1], lines[4]]))
    shard = Shard(tmp_path)
    assert [shard.content(row).tobytes() for row in range(2)] == [images[0][1], images[3][1]]


def test_opening_reads_two_records_of_each_identity(tmp_path, monkeypatch):
    write_shard(tmp_path, [(label, b"x") for label in range(10) for _ in range(100)], classes=10)
    reads, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *arguments: reads.append(0) or pread(*arguments))
    assert len(Shard(tmp_path)) == 1000
    assert len(reads) == 10 * 3 + 2  # identity, first and last image; the header, the last of the file


def test_no_handle_is_left_open(folder):
    def handles():
        links = [os.readlink(handle) for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
        return [link for link in links if link.startswith(str(folder))]

    for text in ("4,112,112", "2,112,112"):  # the second is refused
        (folder / "property").write_text(text)
        with contextlib.suppress(LatseError):
            shard = Shard(folder)
            assert len(handles()) == 1
            del shard
    gc.collect()
    assert handles() == []


def test_digest_stands_for_the_content(tmp_path, folder):
    before = Shard(folder).digest()
    assert Shard(folder).digest() == before
    overwrite(folder, 3, 1000, b"\0\1\2\3")
    assert Shard(folder).digest() != before


@contextlib.contextmanager
def largest_file(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_file_that_may_not_grow_leaves_the_older_set(folder, shards):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    images = [(label, bytes(100_000)) for label in range(40)]
    with pytest.raises(LatseError, match=f"^cannot write into {folder}.*: File too large$"), largest_file(
        10**6
    ):
        write_shard(folder, images, classes=40, shards=shards)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 1 MB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "latse", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("kilobytes", [900, 980, 1000, 1010, 1016, 1030, 3000])
def test_a_full_disk_leaves_the_older_set(small_disk, kilobytes):
    write_shard(small_disk, [(0, b"older")], classes=1)
    before = {file.name: file.read_bytes() for file in small_disk.iterdir()}
    images = [(label, bytes(1000)) for label in range(kilobytes)]
    try:
        write_shard(small_disk, images, classes=5000)
    except LatseError as error:
        assert str(error).startswith(f"cannot write into {small_disk}")
        assert str(error).endswith("No space left on device")
        assert {file.name: file.read_bytes() for file in small_disk.iterdir()} == before
    else:
        assert len(Shard(small_disk)) == kilobytes <= 1000


@given(st.data())
@settings(max_examples=150)
def test_damaged_bytes_are_sentences(tmp_path_factory, data):
    """Whatever a few changed bytes do, reading ends with the images or with a sentence."""
    folder = tmp_path_factory.mktemp("damaged")
    jpeg = by_opencv(SMOOTH[:8, :8], ".jpg")
    write_shard(folder, [(label // 2, jpeg) for label in range(6)], classes=3, image_size=(8, 8))
    name = data.draw(st.sampled_from(["train.rec", "train.rec", "train.idx", "property"]))
    content = bytearray((folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(LatseError):
        shard = Shard(folder)
        for position in range(len(shard)):
            with contextlib.suppress(LatseError):
                shard.read(position)


def test_a_disk_that_fails_is_a_sentence(folder, monkeypatch):
    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    shard = Shard(folder)
    monkeypatch.setattr(os, "pread", failing)
    for read in (lambda: shard.read(0), lambda: Shard(folder)):
        with pytest.raises(LatseError, match=r"^cannot read .*train\.rec: Input/output error$"):
            read()


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property"])
def test_a_named_pipe_is_refused_and_not_waited_for(folder, tmp_path, name):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(LatseError, match=f"{name} is not a regular file"):
        Shard(copy)


def test_an_image_too_large_for_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "LENGTH", 1000)
    with pytest.raises(LatseError, match="an image of 976 bytes is too large"):
        write_shard(tmp_path, [(0, bytes(976))], classes=1)


def test_the_writer_takes_what_a_shard_gives(folder, tmp_path_factory):
    shard, copy = Shard(folder), tmp_path_factory.mktemp("copy")
    with ShardWriter(copy, shard.classes) as writer:
        for position, label in enumerate(shard.labels):
            writer.add(label, shard.content(position))
    assert (copy / "train.rec").read_bytes() == (folder / "train.rec").read_bytes()
