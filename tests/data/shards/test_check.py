"""`latse data check`: each kind of fault in a set that is otherwise good, its clean copy, hostile files."""

import io
import json
import os
import struct
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latse.cli import main
from latse.data.shards import check as checks
from latse.data.shards import check_command, scan
from latse.data.shards.check import check_set
from latse.data.shards.findings import DROPPED, FAULTS, REMARKS
from latse.data.shards.recordio import FRAME, HEADER, MAGIC, MAGIC_BYTES
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError

PEOPLE, IMAGES = 4, 3


def pixels(number, size=(112, 112)):
    """A smooth picture that tells its number."""
    coarse = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def picture(number, kind=".jpg", size=(112, 112)):
    """The same, encoded."""
    return cv2.imencode(kind, pixels(number, size))[1].tobytes()


def by_pillow(number, mode, kind="JPEG"):
    """The same in another mode."""
    file = io.BytesIO()
    Image.fromarray(pixels(number)).convert(mode).save(file, kind)
    return file.getvalue()


GOOD = [(person, picture(10 * person + number)) for person in range(PEOPLE) for number in range(IMAGES)]


@pytest.fixture
def folder(tmp_path):
    """Records 1 to 12 are the images of people 0 to 3, 13 to 16 their identity records, 0 is the header."""
    write_shard(tmp_path / "set", GOOD, PEOPLE)
    return tmp_path / "set"


def record(label, content=b"", number=0):
    """A framed record with a scalar label, or a vector."""
    vector = struct.pack(f"<{len(label)}f", *label) if isinstance(label, tuple) else b""
    flag = len(vector) // 4
    data = HEADER.pack(flag, 0 if flag else label, number, 0) + vector + content
    return FRAME.pack(MAGIC, len(data)) + data + b"\0" * (-len(data) % 4)


def write_plain(folder, records, text="4,112,112", stem="train"):
    """A set of {number: framed record} as they are."""
    folder.mkdir(exist_ok=True)
    lines, offset = [], 0
    for number, content in records.items():
        lines.append(f"{number}\t{offset}\n")
        offset += len(content)
    (folder / f"{stem}.rec").write_bytes(b"".join(records.values()))
    (folder / f"{stem}.idx").write_text("".join(lines))
    (folder / "property").write_text(text)


def offsets(folder):
    lines = (folder / "train.idx").read_text().splitlines()
    return dict(map(int, line.split()) for line in lines)


def records_of(folder):
    """{number: framed record} of a set."""
    data, starts = (folder / "train.rec").read_bytes(), offsets(folder)
    ends = sorted([*starts.values(), len(data)])
    return {number: data[start : ends[ends.index(start) + 1]] for number, start in starts.items()}


def change_records(folder, changed):
    """Rewrite a set with some records changed; None takes a record away from file and index."""
    records = {**records_of(folder), **changed}
    write_plain(folder, {number: content for number, content in records.items() if content is not None})


def change_bytes(folder, number, place, content):
    """Overwrite bytes of a record, counted from its frame."""
    data, start = bytearray((folder / "train.rec").read_bytes()), offsets(folder)[number] + place
    data[start : start + len(content)] = content
    (folder / "train.rec").write_bytes(data)


def change_line(folder, number, line):
    lines = (folder / "train.idx").read_text().splitlines()
    lines[number] = line
    (folder / "train.idx").write_text("".join(f"{line}\n" for line in lines if line is not None))


def set_property(folder, text):
    (folder / "property").write_text(text)


def truncate(folder, size):
    os.truncate(folder / "train.rec", size)


def cut(folder, number, length):
    """Shorten the content of an image but keep its frame."""
    content = records_of(folder)[number][FRAME.size + HEADER.size :]
    change_records(folder, {number: record(0, content[:length])})


def image(content, label=1.0):
    """A changed record 4, the first image of person 1."""
    return lambda folder: change_records(folder, {4: record(label, content)})


def line(text):
    """A changed line of record 4 in the index."""
    return lambda folder: change_line(folder, 4, text)


def past(size):
    """A file that ends so many bytes after the start of record 12."""
    return lambda folder: truncate(folder, offsets(folder)[12] + size)


def label(value):
    return image(GOOD[3][1], value)


def spoilt(data, content):
    """Bytes whose middle is overwritten."""
    data = bytearray(data)
    data[len(data) // 2 : len(data) // 2 + len(content)] = content
    return bytes(data)


def corrupt():
    """A JPEG that libjpeg decodes with a complaint."""
    return spoilt(GOOD[3][1], b"\xff\xd3")


def split_person(folder):
    """Person 1's three images in two identity records."""
    records = records_of(folder)
    more = {14: record((4.0, 5.0)), 17: record((5.0, 7.0)), 0: record((13.0, 18.0))}
    write_plain(folder, {**records, **more})


# name -> (change, kinds that are found, images left of the twelve in the clean copy)
DAMAGES = {
    "no property": (lambda f: (f / "property").unlink(), {"property"}, 12),
    "property of words": (lambda f: set_property(f, "four"), {"property"}, 12),
    "property of another set": (lambda f: set_property(f, "2,112,112"), {"property"}, 12),
    "property of quite another set": (lambda f: set_property(f, "1,112,112"), {"property"}, 12),
    "property that counts from 0": (lambda f: set_property(f, "3,112,112"), {"property"}, 12),
    "property of a hostile set": (lambda f: set_property(f, "999999999999,112,112"), {"property"}, 12),
    "property of another size": (lambda f: set_property(f, "4,96,112"), {"property"}, 12),
    "no index": (lambda f: (f / "train.idx").unlink(), {"files", "no-images", "unnamed"}, 12),
    "empty index": (lambda f: (f / "train.idx").write_text(""), {"no-images", "unnamed"}, 12),
    "line that is none": (line("4 x"), {"index-line", "unnamed", "identity"}, 12),
    "line with one number": (line("4"), {"index-line", "unnamed", "identity"}, 12),
    "negative number": (line("-4\t0"), {"index-line", "unnamed", "identity"}, 12),
    "number out of range": (line(f"{2**48 + 1}\t0"), {"index-line", "unnamed", "identity"}, 12),
    "hostile line": (line("4\t" + "9" * 50), {"index-order", "past-end", "unnamed"}, 12),
    "line lacking": (line(None), {"unnamed", "identity"}, 12),
    "offset past the end": (line("4\t99999999"), {"index-order", "past-end", "unnamed"}, 12),
    "offset below 0": (line("4\t-8"), {"index-order", "past-end", "unnamed"}, 12),
    "offset of -1": (line("4\t-1"), {"index-order", "past-end", "unnamed"}, 12),
    "offset of no multiple of 4": (
        lambda f: change_line(f, 4, f"4\t{offsets(f)[4] + 2}"),
        {"misaligned", "unnamed"},
        12,
    ),
    "offset inside a record": (
        lambda f: change_line(f, 4, f"4\t{offsets(f)[4] + 40}"),
        {"no-magic", "unnamed"},
        12,
    ),
    "number that stands twice": (
        lambda f: change_line(f, 4, f"3\t{offsets(f)[4]}"),
        {"index-twice", "identity", "identity-several"},
        12,
    ),
    "magic number lost": (lambda f: change_bytes(f, 4, 0, b"\0\0\0\0"), {"no-magic", "stray"}, 11),
    "middle part as a start": (
        lambda f: change_bytes(f, 4, 4, struct.pack("<I", 2 << 29 | 40)),
        {"inside", "stray"},
        11,
    ),
    "length into the next record": (
        lambda f: change_bytes(f, 5, 4, struct.pack("<I", 2 * len(records_of(f)[5]))),
        {"cut-off", "stray"},
        11,
    ),
    "length of half a gigabyte": (
        lambda f: change_bytes(f, 4, 4, struct.pack("<I", (1 << 29) - 1)),
        {"cut-off", "stray"},
        11,
    ),
    "length below the header's": (
        lambda f: change_bytes(f, 4, 4, struct.pack("<I", 20)),
        {"short", "stray"},
        11,
    ),
    "more labels than bytes": (lambda f: change_bytes(f, 4, 8, b"\xff\xff\xff\xff"), {"short"}, 11),
    "truncated in a record": (past(52), {"cut-off", "past-end", "stray"}, 11),
    "truncated in a frame": (past(5), {"cut-off", "length", "past-end", "stray"}, 11),
    "bytes after the last record": (
        lambda f: (f / "train.rec").write_bytes((f / "train.rec").read_bytes() + b"rubbish"),
        {"length", "stray"},
        12,
    ),
    "header of one number": (lambda f: change_records(f, {0: record((13.0,))}), {"header"}, 12),
    "header of NaN": (lambda f: change_records(f, {0: record((float("nan"), 17.0))}), {"header"}, 12),
    "header that promises more": (lambda f: change_records(f, {0: record((13.0, 19.0))}), {"header"}, 12),
    "header that promises less": (lambda f: change_records(f, {0: record((13.0, 16.0))}), {"header"}, 12),
    "header into the images": (lambda f: change_records(f, {0: record((12.0, 17.0))}), {"identity"}, 12),
    "hostile header": (lambda f: change_records(f, {0: record((13.0, 1e18))}), {"header", "rounded"}, 12),
    "no header but identities": (lambda f: change_records(f, {0: None}), {"header"}, 12),
    "identity of one number": (
        lambda f: change_records(f, {14: record(1.0)}),
        {"identity", "outside", "empty"},
        12,
    ),
    "identity that ends before it starts": (
        lambda f: change_records(f, {14: record((7.0, 4.0))}),
        {"identity", "outside"},
        12,
    ),
    "identity past the records": (
        lambda f: change_records(f, {16: record((10.0, 40.0))}),
        {"identity", "identity-others"},
        12,
    ),
    "label within a person": (
        lambda f: change_records(f, {5: record(2.0, GOOD[4][1])}),
        {"identity-mixed"},
        12,
    ),
    "label NaN": (label(float("nan")), {"label", "identity-several"}, 11),
    "label infinite": (label(float("inf")), {"label", "identity-several"}, 11),
    "label of a fraction": (label(1.5), {"label", "identity-several"}, 11),
    "label below 0": (label(-1.0), {"label", "identity-several"}, 11),
    "label next to the last": (label(4.0), {"property", "identity-several", "single"}, 12),
    "label beyond": (label(9.0), {"label", "identity-several"}, 11),
    "label of a hostile set": (label(1e30), {"label", "identity-several"}, 11),
    "labels from 1": (
        lambda f: write_plain(f, {n: record(1.0 + who, data) for n, (who, data) in enumerate(GOOD)}),
        {"property", "no-header", "gap"},
        12,
    ),
    "no content": (image(b""), {"empty"}, 11),
    "no image": (image(b"no image at all"), {"no-image"}, 11),
    "GIF": (image(by_pillow(99, "P", "GIF")), {"no-image"}, 11),
    "two bytes of a JPEG": (image(b"\xff\xd8"), {"no-image"}, 11),
    "half a JPEG": (image(GOOD[3][1][:-900]), {"cut-image"}, 11),
    "JPEG without its end": (image(GOOD[3][1][:-2]), {"cut-image"}, 11),
    "half a PNG": (image(picture(99, ".png")[:-900]), {"cut-image"}, 11),
    "PNG header alone": (image(picture(99, ".png")[:30]), {"cut-image"}, 11),
    "PNG of wrong bits": (image(spoilt(picture(99, ".png"), b"\xff")), {"undecodable"}, 11),
    "JPEG of wrong bits": (image(corrupt()), {"damaged"}, 11),
    "other size": (image(picture(99, size=(96, 112))), {"size"}, 11),
    "other way round": (image(picture(99, size=(112, 96))), {"size"}, 11),
    "bomb of a PNG": (
        image(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", 1 << 31, 1 << 31, 8, 2) + b"\0" * 40),
        {"size"},
        11,
    ),
    "bomb of a JPEG": (
        image(b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + b"\0" * 40 + b"\xff\xd9"),
        {"size"},
        11,
    ),
    "picture of two people": (image(GOOD[0][1]), {"duplicate-across"}, 10),
    "picture of two people, encoded anew": (
        lambda f: change_records(f, {1: record(0.0, picture(99, ".png")), 4: record(1.0, by_pillow_png(99))}),
        {"duplicate-across"},
        10,
    ),
}


def by_pillow_png(number):
    """The picture of cv2 by another encoder: other bytes, the same pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels(number)[:, :, ::-1]).save(file, "PNG", compress_level=1)
    return file.getvalue()


def shuffled(folder):
    """What a script that shuffles leaves: no header, and numbers in the order of no offset."""
    order = np.random.default_rng(0).permutation(len(GOOD)).tolist()
    write_plain(folder, {n: record(float(GOOD[n][0]), GOOD[n][1]) for n in order})


def listed(folder, numbers):
    """No header, and an index of these records only."""
    write_plain(folder, {n: record(float(who), data) for n, (who, data) in enumerate(GOOD)})
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[n] for n in numbers))


def with_two_in_one(folder):
    """Records 4 and 5 at one place."""
    change_line(folder, 5, f"5\t{offsets(folder)[4]}")


# name -> (change, remarks that are found, images in the clean copy)
ODDITIES = {
    "nothing": (lambda f: None, set(), 12),
    "person with one image": (
        lambda f: write_shard(f, [image for n, image in enumerate(GOOD) if n not in (4, 5)], PEOPLE),
        {"single"},
        10,
    ),
    "class without image": (lambda f: set_property(f, "9,112,112"), {"gap"}, 12),
    "picture twice": (image(GOOD[4][1]), {"duplicate-within"}, 12),
    "grey JPEG": (image(by_pillow(99, "L")), {"grey"}, 12),
    "grey PNG": (image(by_pillow(99, "L", "PNG")), {"grey"}, 12),
    "CMYK": (image(by_pillow(99, "CMYK")), {"cmyk"}, 12),
    "palette": (image(by_pillow(99, "P", "PNG")), {"palette"}, 12),
    "transparency": (image(by_pillow(99, "RGBA", "PNG")), {"alpha"}, 12),
    "16 bits": (image(cv2.imencode(".png", pixels(99).astype(np.uint16) * 257)[1].tobytes()), {"16-bit"}, 12),
    "vector": (lambda f: change_records(f, {4: record((1.0, 7.0, 8.0), GOOD[3][1])}), {"vector"}, 12),
    "no header": (lambda f: listed(f, range(12)), {"no-header"}, 12),
    "shuffled, no header": (shuffled, {"index-order", "no-header"}, 12),
    "index of some records": (lambda f: listed(f, (0, 1, 3, 4, 6, 7, 9, 10)), {"no-header", "unnamed"}, 8),
    "index without its file": (lambda f: (f / "train-00000.idx").write_text(""), {"index-alone"}, 12),
    "lines out of order": (
        lambda f: (f / "train.idx").write_text("\n".join((f / "train.idx").read_text().splitlines()[::-1])),
        {"index-order"},
        12,
    ),
    "two numbers for one record": (with_two_in_one, {"offset-twice", "unnamed"}, 12),
    "words after the last record": (
        lambda f: (f / "train.rec").write_bytes((f / "train.rec").read_bytes() + b"rubbish!"),
        {"stray"},
        12,
    ),
    "identity of two people": (
        lambda f: change_records(f, {14: record((4.0, 8.0))}),
        {"identity-several", "named-twice"},
        12,
    ),
    "identity too short": (lambda f: change_records(f, {14: record((4.0, 6.0))}), {"outside"}, 12),
    "identity into the header": (
        lambda f: change_records(f, {13: record((0.0, 4.0))}),
        {"identity-others"},
        12,
    ),
    "person in two ranges": (split_person, {"identity-split"}, 12),
}
# What training takes and learns something wrong from: pixels that libjpeg makes up, one picture as two
# people, bytes of another record.
WRONG = {
    "JPEG of wrong bits",
    "picture of two people",
    "picture of two people, encoded anew",
    "length into the next record",
}


def run(folder, tmp_path, *options):
    """Exit status and what the JSON file holds."""
    status = main(
        ["data", "check", str(folder), "--json", str(tmp_path / "r.json"), "--processes", "1", *options]
    )
    return status, json.loads((tmp_path / "r.json").read_text())


def kinds(found):
    return {kind["kind"] for kind in found}


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def trained(folder):
    """{(label, content)} as training's reader takes the set; None if it refuses it or an image."""
    try:
        shard = Shard(folder)
        return {(shard.read(at)[1], bytes(shard.content(at))) for at in range(len(shard))}
    except LatseError:
        return None


@pytest.mark.parametrize("name", [*DAMAGES, *ODDITIES])
def test_a_fault_is_what_training_refuses_or_learns_wrong(folder, tmp_path, name):
    """Whatever is found: the status tells whether the set trains, and its clean copy does."""
    change, expected, left = {**DAMAGES, **ODDITIES}[name]
    change(folder)
    before, out = contents(folder), tmp_path / "out"
    taken = trained(folder)
    status, found = run(folder, tmp_path, "--repair", str(out))
    assert kinds(found["faults"]) | kinds(found["remarks"]) == expected
    assert status == (name in DAMAGES) == bool(kinds(found["faults"]))
    assert (taken is None) == (name in set(DAMAGES) - WRONG)
    assert taken is None or len(taken - set(GOOD)) <= (2 if name in WRONG else 1)
    assert found["sound_images"] == left
    assert contents(folder) == before
    status, again = run(out, tmp_path)
    assert (status, again["faults"]) == (0, [])
    repair = json.loads((out / "repair.json").read_text())
    assert repair["images"] == left == len(Shard(out))
    assert all(place["reason"] in DROPPED for place in repair["dropped"])
    assert len(trained(out) - set(GOOD)) <= (12 if name == "labels from 1" else 1)


def test_all_kinds_have_a_test():
    faults = set().union(*(expected for _, expected, _ in DAMAGES.values())) & set(FAULTS)
    assert set(FAULTS) - faults == {"too-long", "joined", "repeated"}  # of which see below
    remarks = set().union(*(expected for _, expected, _ in ODDITIES.values()))
    assert set(REMARKS) - remarks == {"rounded"}


BEYOND = "label 9 of 4 classes, whose labels are 0 to 3"


def test_all_faults_of_a_set_are_reported_with_their_places(folder, tmp_path, capsys):
    changed = {2: record(9.0, GOOD[1][1]), 5: record(1.0), 6: record(1.0, b"x"), 7: record(2.0, GOOD[0][1])}
    change_records(folder, changed)
    status, found = run(folder, tmp_path)
    places = {kind["kind"]: kind["places"] for kind in found["faults"]}
    assert status == 1
    assert places["label"] == [{"file": "train.rec", "record": 2, "detail": BEYOND}]
    assert places["empty"] == [{"file": "train.rec", "record": 5}]
    assert places["no-image"] == [{"file": "train.rec", "record": 6}]
    assert [place["record"] for place in places["duplicate-across"]] == [1, 7]
    assert places["duplicate-across"][1]["detail"] == "person 2, same as train.rec record 1"
    assert found["people_by_images"] == {"1": 2, "2": 1, "3": 1}
    printed = capsys.readouterr().out
    assert "12 images, 7 of them sound, of 4 people; 4 classes, 112x112 pixels" in printed
    assert "1  images whose label is no whole number from 0 to classes - 1 (label)" in printed
    assert f"train.rec, record 2: {BEYOND}\n" in printed
    assert "2-3          2 people" in printed


def test_examples_are_few_but_json_has_all(tmp_path, capsys):
    write_plain(tmp_path / "set", {n: record(0.0, picture(n) if n < 20 else b"") for n in range(30)})
    _, found = run(tmp_path / "set", tmp_path)
    assert [len(kind["places"]) for kind in found["faults"]] == [10]
    assert capsys.readouterr().out.count("train.rec, record 2") == check_command.SHOWN


def test_a_set_that_lost_its_identity_records_is_not_taken_for_one_without(folder, tmp_path):
    truncate(folder, offsets(folder)[13])
    _, found = run(folder, tmp_path)
    assert kinds(found["faults"]) == {"past-end"} and found["remarks"] == []
    assert (found["images"], found["sound_images"]) == (12, 12)


def test_images_are_not_turned_by_exif_data(tmp_path):
    """Shard does not either."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(1, (96, 80))).save(file, "JPEG", exif=exif)
    write_shard(tmp_path / "set", [(0, file.getvalue()), (0, picture(2, size=(96, 80)))], 1, (96, 80))
    assert Shard(tmp_path / "set").read(0)[0].shape[:2] == (96, 80)
    assert run(tmp_path / "set", tmp_path)[1]["faults"] == []


def test_several_files(tmp_path):
    out, folder = tmp_path / "out", tmp_path / "set"
    write_shard(folder, GOOD, PEOPLE, shards=2)
    assert run(folder, tmp_path)[0] == 0
    data = bytearray((folder / "train-00001.rec").read_bytes())
    start = dict(map(int, line.split()) for line in (folder / "train-00001.idx").read_text().splitlines())[2]
    data[start : start + 4] = b"gone"
    (folder / "train-00001.rec").write_bytes(data)
    status, found = run(folder, tmp_path, "--repair", str(out))
    assert found["files"] == ["train-00000.rec", "train-00001.rec"]
    assert [kind["kind"] for kind in found["faults"]] == ["no-magic"]
    assert found["faults"][0]["places"] == [{"file": "train-00001.rec", "record": 2}]
    assert len(Shard(out)) == 11 and (out / "train-00001.rec").exists()
    (folder / "train-00000.rec").unlink()
    (folder / "train-00000.idx").unlink()
    places = {kind["kind"]: kind["places"] for kind in run(folder, tmp_path)[1]["faults"]}
    assert places["files"] == [{"file": "train-00000.rec", "detail": "is missing"}]


def test_two_sets_in_one_folder_are_a_fault_that_repair_refuses(tmp_path, capsys):
    """Both numbered from 0: a copy would keep strangers under one label."""
    folder, out = tmp_path / "set", tmp_path / "out"
    for number in range(2):
        records = {1: record(0.0, picture(number)), 0: record((2.0, 3.0)), 2: record((1.0, 2.0))}
        write_plain(folder, dict(sorted(records.items())), stem=f"train-0000{number}")
    assert trained(folder) is None
    status, found = run(folder, tmp_path)
    assert status == 1 and kinds(found["faults"]) == {"joined"}
    assert found["faults"][0]["places"] == [{"person": 0, "detail": "train-00000.rec, train-00001.rec"}]
    assert "`latse data merge SET… OUT`" in capsys.readouterr().out
    assert main(["data", "check", str(folder), "--repair", str(out), "--processes", "1"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"latse: {folder} holds two sets") and "`latse data merge SET… OUT`" in error
    assert not out.exists()


def test_files_without_identity_records_may_share_people(tmp_path):
    """So a shuffled list is split."""
    for number in range(2):
        write_plain(tmp_path / "set", {0: record(0.0, picture(number))}, "1,112,112", f"train-0000{number}")
    status, found = run(tmp_path / "set", tmp_path)
    assert (status, found["faults"], len(trained(tmp_path / "set"))) == (0, [], 2)


def test_ascending_files_without_identity_records_are_two_sets_or_repaired_as_one(tmp_path, capsys):
    folder, out = tmp_path / "set", tmp_path / "out"
    for number in range(2):
        records = {label: record(float(label), picture(2 * label + number)) for label in range(2)}
        write_plain(folder, records, "2,112,112", f"train-0000{number}")
    assert trained(folder) is None
    status, found = run(folder, tmp_path)
    both = "train-00000.rec, train-00001.rec"
    assert status == 1 and kinds(found["faults"]) == {"repeated"}
    assert found["faults"][0]["places"] == [{"person": person, "detail": both} for person in range(2)]
    assert "`latse data merge SET… OUT`" in capsys.readouterr().out
    assert main(["data", "check", str(folder), "--repair", str(out), "--processes", "1"]) == 1
    assumed = "assumed: a label that several files without identity records share is one person"
    assert assumed in capsys.readouterr().out.splitlines()
    assert trained(out) == {(number // 2, picture(number)) for number in range(4)}


LARGE = 2**24


def write_large(folder, people, header=None):
    """Images of `people` (label and number of images each) from record 2**24 on, ranges in float32 only."""
    images = [person for person, count in people for _ in range(count)]
    after = LARGE + len(images)
    records = {0: record(header or (float(after), float(after + len(people))))}
    for number, person in enumerate(images):
        records[LARGE + number] = record(float(person), picture(number))
    first = LARGE
    for number, (_, count) in enumerate(people):
        records[after + number] = record((float(first), float(first + count)))
        first += count
    write_plain(folder, records)


@pytest.mark.parametrize("sizes", [(3, 3, 2, 2), (1, 1, 1, 1), (1, 3, 5, 3), (2, 1, 2, 1), (4, 3, 3, 2)])
def test_ranges_that_float32_rounds_are_not_mixed(folder, tmp_path, sizes):
    """The shape of a set of 17 million images by insightface: the labels of the images count."""
    write_large(folder, list(enumerate(sizes)))
    assert trained(folder) == {
        (person, picture(number)) for number, person in enumerate(np.repeat(range(4), sizes))
    }
    status, found = run(folder, tmp_path)
    assert (status, found["faults"]) == (0, [])
    assert kinds(found["remarks"]) - {"single"} == {"rounded"}


def test_what_rounding_does_not_explain_is_still_found(folder, tmp_path):
    """An image in the middle has another label; the second identity record names the third one's images."""
    write_large(folder, [(0, 8), (1, 6), (2, 2)])
    moved = {LARGE + 4: record(2.0, picture(4)), LARGE + 17: record((LARGE + 14.0, LARGE + 16.0))}
    change_records(folder, moved)
    assert trained(folder) is None
    _, found = run(folder, tmp_path)
    places = {kind["kind"]: kind["places"] for kind in (*found["faults"], *found["remarks"])}
    mixed = {"file": "train.rec", "record": LARGE + 4, "detail": "label 2 between 0"}
    assert kinds(found["faults"]) == {"identity-mixed"} and places["identity-mixed"] == [mixed]
    assert [place["record"] - LARGE for place in places["outside"]] == [9, 10, 11, 12]


def test_a_rounded_header_is_read(folder, tmp_path):
    """From the header's odd numbers float32 makes even ones; identity records tell themselves there."""
    sizes = (1, 2, 2, 2)  # the first identity record is 2**24 + 7, the last one 2**24 + 10
    write_large(folder, list(enumerate(sizes)), (LARGE + 8.0, LARGE + 12.0))
    assert len(trained(folder)) == sum(sizes)
    status, found = run(folder, tmp_path, "--repair", str(tmp_path / "out"))
    assert (status, found["images"], len(Shard(tmp_path / "out"))) == (0, 7, 7)
    assert {"file": "train.rec", "record": 0} in found["remarks"][-1]["places"]


def test_exact_ranges_stand_in_the_ids(folder, tmp_path):
    """Two images whose numbers are the same as float32."""
    large = 2**24
    records = {
        0: exact(large + 2, large + 4),
        large: record(0.0, picture(0)),
        large + 1: record(1.0, picture(1)),
        large + 2: exact(large, large + 1),
        large + 3: exact(large + 1, large + 2),
    }
    write_plain(folder, records)
    _, found = run(folder, tmp_path)
    assert found["faults"] == [] and "rounded" not in kinds(found["remarks"])


def exact(first, last):
    data = HEADER.pack(2, 0, first, last) + struct.pack("<2f", first, last)
    return FRAME.pack(MAGIC, len(data)) + data


@pytest.mark.parametrize("times", [1, 5])
def test_content_that_holds_the_magic_number(folder, tmp_path, times):
    """A record in parts; the last comment of the JPEG holds the magic number at a multiple of 4."""
    jpeg = GOOD[3][1]
    for shift in range(4):
        comment = b"\xff\xfe" + struct.pack(">H", 2 + shift + 4 * times) + b"\0" * shift + MAGIC_BYTES * times
        content = jpeg[:2] + comment + jpeg[2:]
        data = HEADER.pack(0, 1.0, 4, 0) + content
        if data.find(MAGIC_BYTES) % 4 == 0:
            break
    parts = data.split(MAGIC_BYTES)
    flags = [1] + [2] * (len(parts) - 2) + [3]
    framed = b""
    for flag, part in zip(flags, parts):
        framed += FRAME.pack(MAGIC, flag << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    change_records(folder, {4: framed})
    assert Shard(folder).content(3).tobytes() == content
    assert run(folder, tmp_path, "--repair", str(tmp_path / "out"))[1]["faults"] == []
    assert Shard(tmp_path / "out").content(3).tobytes() == content


def test_more_than_an_image_can_hold_is_not_read(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "LARGEST_RECORD", 1000)
    status, found = run(folder, tmp_path)
    assert (status, kinds(found["faults"])) == (1, {"too-long"})


def test_claimed_lengths_cost_nothing(tmp_path):
    """First parts of half the file each, without a second: four times as much takes four times as long."""

    def seconds(half):
        write_plain(tmp_path, {0: FRAME.pack(MAGIC, 1 << 29 | half) * (2 * half // FRAME.size)})
        (tmp_path / "train.idx").write_text("")
        started = time.process_time()
        report = check_set(tmp_path)
        assert [place["detail"] for place in report.remarks["stray"]] == [
            f"{2 * half} bytes before {2 * half}"
        ]
        return time.process_time() - started

    seconds(1 << 10)
    assert seconds(1 << 20) < 10 * seconds(1 << 18)


def test_few_bytes_that_claim_many_pixels_are_not_decoded():
    encoded = bytearray(picture(0))
    at = encoded.index(b"\xff\xc0") + 5  # height and width in the frame header
    assert struct.unpack_from(">HH", encoded, at) == (112, 112)
    struct.pack_into(">HH", encoded, at, 4000, 4000)

    def decode(*_):
        raise AssertionError("it was decoded")

    assert scan.judge(bytes(encoded), decode)["state"] == scan.RecordState.CUT_IMAGE


def test_processes_find_the_same(folder):
    change_records(folder, {4: record(1.0, corrupt()), 5: record(9.0, b"x")})
    change_line(folder, 7, "7\t4")
    alone, others = check_set(folder, 1), check_set(folder, 2)
    assert alone.as_json() == others.as_json()
    assert np.array_equal(alone.rows, others.rows)


def test_decoders_do_not_write_to_the_terminal(folder, capfd):
    change_records(folder, {4: record(1.0, corrupt())})
    check_set(folder)
    assert "Corrupt" not in capfd.readouterr().err


@pytest.mark.parametrize("out", ["set", "set/below", "elsewhere/../set", "link"])
def test_no_set_is_repaired_in_place(folder, tmp_path, capsys, out):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(folder)
    before = contents(folder)
    assert main(["data", "check", str(folder), "--repair", str(tmp_path / out), "--processes", "1"]) == 1
    assert "lies in" in capsys.readouterr().err
    assert contents(folder) == before


def test_repair_drops_only_what_is_broken_and_says_so(folder, tmp_path):
    change_records(folder, {4: record(1.0, b"x"), 9: record(2.0, picture(9, size=(50, 40)))})
    change_line(folder, 12, None)
    out = tmp_path / "out"
    assert run(folder, tmp_path, "--repair", str(out))[0] == 1
    repair = json.loads((out / "repair.json").read_text())
    assert repair["dropped"] == [
        {"file": "train.rec", "record": 4, "reason": "no-image"},
        {"file": "train.rec", "record": 9, "reason": "size", "detail": "50x40"},
    ]
    start = (folder / "train.rec").read_bytes().find(GOOD[11][1]) - FRAME.size - HEADER.size
    assert repair["unnamed_records_that_came_back"] == [{"file": "train.rec", "offset": start}]
    shard = Shard(out)
    assert shard.classes == 4 and shard.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    kept = [GOOD[n][1] for n in (0, 1, 2, 4, 5, 6, 7, 9, 10, 11)]
    assert [bytes(shard.content(position)) for position in range(10)] == kept


def set_of(folder, labels, text):
    """No header; each label's image is another picture."""
    write_plain(folder, {n: record(float(label), picture(n)) for n, label in enumerate(labels)}, text)


# name -> (labels and property, what is said of property, records of bad labels, classes and labels of the
# clean copy, what it assumes)
CONTRADICTIONS = {
    "too few classes": (
        ([0, 1, 1, 2, 2, 4, 4, 9, 9], "2,112,112"),
        "says 2 classes, that is labels from 0 to 1, but there are labels up to 9; people beyond: 3, "
        "their images: 6",
        [],
        (10, [0, 1, 1, 2, 2, 4, 4, 9, 9]),
        "the labels are right and `property` is not: 10 classes instead of 2",
    ),
    "labels from 1": (
        ([1, 1, 2, 2, 3], "3,112,112"),
        "says 3 classes, that is labels from 0 to 2, but there are labels up to 3; people beyond: 1, "
        "their images: 1; labels begin with 1",
        [],
        (4, [1, 1, 2, 2, 3]),
        "people keep their numbers",
    ),
    "people of one image": (
        ([0, 1, 2, 3, 4, 5], "2,112,112"),
        "says 2 classes, that is labels from 0 to 1, but there are labels up to 5; people beyond: 4, "
        "their images: 4",
        [],
        (6, [0, 1, 2, 3, 4, 5]),
        "6 classes instead of 2",
    ),
    "people of one image, far between": (
        ([0, 20, 40, 60, 80], "1,112,112"),
        "says 1 classes, that is labels from 0 to 0, but there are labels up to 80; people beyond: 4, "
        "their images: 4",
        [],
        (81, [0, 20, 40, 60, 80]),
        "81 classes instead of 1",
    ),
    "one wild label": (
        ([0, 0, 1, 1, 2, 2, 5000], "3,112,112"),
        None,
        [6],
        (3, [0, 0, 1, 1, 2, 2]),
        "on one image alone, with no other person's number next to it, is damage",
    ),
    "no numbers": (
        ([0, 0, 1, -3, 1e9, float("nan"), 0.5, 1], "2,112,112"),
        None,
        [3, 4, 5, 6],
        (2, [0, 0, 1, 1]),
        None,
    ),
    "a wild label, and too few classes": (
        ([0, 0, 1, 1, 2, 2, 5000, 7.5], "2,112,112"),
        "says 2 classes, that is labels from 0 to 1, but there are labels up to 2; people beyond: 1, "
        "their images: 2",
        [6, 7],
        (3, [0, 0, 1, 1, 2, 2]),
        "3 classes instead of 2",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_labels_against_property(tmp_path, capsys, name):
    """A repaired copy keeps every image that a right reading keeps, and says what it assumes."""
    contents, said, bad, (classes, labels), assumed = CONTRADICTIONS[name]
    folder, out = tmp_path / "set", tmp_path / "out"
    set_of(folder, *contents)
    status, found = run(folder, tmp_path, "--repair", str(out))
    printed, repair = capsys.readouterr().out, json.loads((out / "repair.json").read_text())
    places = {kind["kind"]: kind["places"] for kind in found["faults"]}
    assert status == 1
    assert [place["detail"] for place in places.get("property", [])] == ([said] if said else [])
    assert [place["record"] for place in places.get("label", [])] == bad
    assert (Shard(out).classes, Shard(out).labels.tolist()) == (classes, labels)
    assert [place["record"] for place in repair["dropped"]] == bad
    assert found["assumptions"] == repair["assumptions"]
    assert assumed is None or any(assumed in line for line in repair["assumptions"])
    assert all(f"assumed: {line}\n" in printed for line in repair["assumptions"])


def test_a_right_index_leaves_records_out_and_a_wrong_one_loses_them(tmp_path):
    """Of a picture under two people the index names one; then a line is damaged."""
    folder, out = tmp_path / "set", tmp_path / "out"
    write_plain(folder, {n: record(float(n % 2), picture(min(n, 4))) for n in range(6)}, "2,112,112")
    change_line(folder, 5, None)
    status, found = run(folder, tmp_path, "--repair", str(out))
    assert (status, len(Shard(out))) == (0, 5)
    stay = (
        "records of train.rec that its index does not name stay out (1), as it is right in all that it names"
    )
    assert found["assumptions"] == [stay]
    change_line(folder, 0, "0 x")
    status, found = run(folder, tmp_path, "--repair", str(tmp_path / "again"))
    assert (status, kinds(found["faults"])) == (1, {"index-line", "duplicate-across"})
    back = "records of train.rec that its index does not name come back (2), as it is at fault elsewhere"
    assert found["assumptions"][0] == back and len(Shard(tmp_path / "again")) == 4


def test_each_kind_is_counted_in_its_unit(folder, tmp_path):
    """People, lines and bytes, not the places where they show."""
    split_person(folder)
    data = (folder / "train.rec").read_bytes()
    (folder / "train.rec").write_bytes(data + b"rubbish!" * 3)
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[::-1]))
    _, found = run(folder, tmp_path)
    counts = {kind["kind"]: kind["count"] for kind in found["remarks"]}
    assert counts == {"identity-split": 1, "stray": 24, "index-order": len(lines) - 1}
    split = next(kind["places"] for kind in found["remarks"] if kind["kind"] == "identity-split")
    assert split == [{"file": "train.rec", "person": 1, "detail": "records 14, 17"}]


def test_a_header_without_some_identity_records_is_one_fault(folder, tmp_path):
    change_records(folder, {0: record((13.0, 15.0))})
    _, found = run(folder, tmp_path)
    detail = "names 13 to 14; 2 identity records are others, the first is 15"
    assert found["faults"][0]["places"] == [{"file": "train.rec", "record": 0, "detail": detail}]


def test_people_keep_their_numbers(folder, tmp_path, capsys):
    """Person 1 loses all images; 2 and 3 stay 2 and 3."""
    change_records(folder, {n: record(1.0, b"x") for n in (4, 5, 6)})
    run(folder, tmp_path, "--repair", str(tmp_path / "out"))
    shard = Shard(tmp_path / "out")
    assert shard.classes == 4 and sorted(set(shard.labels.tolist())) == [0, 2, 3]
    printed = capsys.readouterr().out
    assert "assumed:" not in printed and "\n\n" not in printed


def test_nothing_left_to_repair_with(tmp_path, capsys):
    write_plain(tmp_path / "set", {0: record(0.0, b"x")})
    assert main(["data", "check", str(tmp_path / "set"), "--repair", str(tmp_path / "out")]) == 1
    assert "holds no sound image to repair" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_file_that_changes_before_the_repair(folder, tmp_path, monkeypatch, capsys):
    """It shrinks after the check: one sentence, and nothing is written."""

    original, out = checks.check_set, tmp_path / "out"

    def changing(*arguments):
        report = original(*arguments)
        truncate(folder, 3000)
        return report

    monkeypatch.setattr(checks, "check_set", changing)
    assert main(["data", "check", str(folder), "--repair", str(out), "--processes", "1"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("train.rec has changed while it was read")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("what", ["missing", "empty", "file", "two sets"])
def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path, capsys, what):
    folder = tmp_path / "set"
    if what == "file":
        folder.write_text("")
    elif what != "missing":
        folder.mkdir()
    if what == "two sets":
        (folder / "train.rec").write_bytes(b"")
        (folder / "train-00000.rec").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("latse: ") and str(folder) in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["train.rec", "train.idx", "property"])
def test_a_pipe_is_one_sentence(folder, name):
    """To open a pipe would wait for ever: a process of its own, which can be ended."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    code = f"from latse.data.shards.check import check_set; check_set({str(folder)!r})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.stderr.endswith(f"LatseError: {folder / name} is not a regular file\n")


def test_empty_files(tmp_path):
    write_plain(tmp_path / "set", {})
    status, found = run(tmp_path / "set", tmp_path)
    assert status == 1 and kinds(found["faults"]) == {"length", "no-images"}


def test_a_record_that_is_gone_when_it_is_read(folder):
    """The file shrinks between the look at its size and the reading."""
    size = (folder / "train.rec").stat().st_size
    start = offsets(folder)[12]
    with (folder / "train.rec").open("rb", buffering=0) as file:
        truncate(folder, start + 100)
        with pytest.raises(scan.RecordError) as error:
            scan.read_record(file.fileno(), start, size)
    assert error.value.args == (scan.RecordState.CUT_OFF,)


def test_processes_that_decode_do_not_load_mxnet():
    subprocess.run(
        [sys.executable, "-c", "import latse.data.shards.scan, sys; sys.exit('mxnet' in sys.modules)"],
        check=True,
    )


EDIT = st.tuples(
    st.sampled_from(["train.rec", "train.idx", "property"]), st.floats(0, 1), st.binary(max_size=12)
)


@given(st.lists(EDIT, min_size=1, max_size=6), st.floats(0.5, 2))
@settings(max_examples=150)
def test_any_damage_is_reported_and_repaired(tmp_path_factory, edits, size):
    """Whatever is overwritten or cut off: no exception, what has no fault trains, and so does the copy."""
    folder = tmp_path_factory.mktemp("any")
    write_shard(folder / "set", GOOD[:5], 2)
    for name, place, content in edits:
        file = folder / "set" / name
        data = bytearray(file.read_bytes())
        start = int(place * len(data))
        data[start : start + len(content)] = content
        file.write_bytes(data)
    whole = (folder / "set" / "train.rec").stat().st_size
    truncate(folder / "set", int(whole * min(1, size)))
    report = check_set(folder / "set")
    status, _ = run(folder / "set", folder, *(["--repair", str(folder / "out")] if len(report.kept) else []))
    assert status == (0 if report.sound else 1)
    assert trained(folder / "set") is not None or not report.sound
    if len(report.kept):
        assert run(folder / "out", folder)[0] == 0
