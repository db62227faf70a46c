"""`latse embed` gives the embeddings that `latse eval` compares, in files that say of what and how."""

import json
import os
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest

from latse.cli import main
from latse.data import orl
from latse.data.pairs.pairs import write_pairs
from latse.eval import candidates, embed_command
from latse.files import digest

COUNT = 24


@pytest.fixture
def faces(tmp_path, photograph_bytes, monkeypatch):
    """Aligned faces in a folder, numbered as they come, with what is no image among them."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "faces"
    (folder / "more").mkdir(parents=True)
    for number in range(COUNT):
        place = folder if number < 10 else folder / "more"
        (place / f"{number:02d}.png").write_bytes(photograph_bytes(number // 4, number % 4))
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.png").write_bytes(photograph_bytes(0, 0))
    return folder


@pytest.fixture
def network(tmp_path, save_network):
    save_network(tmp_path / "run" / "model")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def photographs():
    """Twelve photographs of two people, which are to be aligned."""
    return [
        str(orl.photograph_folder() / f"s{person}" / f"{n}.pgm") for person in (1, 2) for n in range(1, 7)
    ]


def embed(*order, status=0):
    assert main(["embed", *map(str, order)]) == status


def read(name="f"):
    return np.load(f"{name}.npy"), json.loads(Path(f"{name}.json").read_text())


def expected(network, faces):
    """What `latse eval` makes of the faces, not yet normalised."""
    images = [cv2.imread(str(path))[:, :, ::-1].transpose(2, 0, 1) for path in sorted(faces.rglob("[0-9]*"))]
    return candidates.open_model(str(network)).embed(np.stack(images), "faces")


def test_a_row_is_what_eval_compares(network, faces, capsys):
    embed(network, faces, "--out", "f.npy")
    rows, record = read()
    how = "each the image's plus its mirror image's, divided by its length"
    others = f"1 file is no image that OpenCV reads, first {faces}/notes.txt\n"
    assert capsys.readouterr().out == f"{others}f.npy: 24 embeddings of 512 numbers, {how}\n"
    features = expected(network, faces)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert rows.dtype == np.float32 and np.array_equal(rows, unit.astype(np.float32))
    assert [Path(path).name for path in record["photographs"]] == [f"{n:02d}.png" for n in range(COUNT)]
    assert record["model"]["origin"]["digest"] == digest(network / "model-0000.params")
    said = {key: record[key] for key in ("images", "dimensions", "aligned", "mirror_added", "normalised")}
    assert list(said.values()) == [24, 512, False, True, True]
    assert record["left_out"] == [] and record["provenance"]["command"].startswith("latse embed ")


def test_eval_judges_the_file_as_it_judges_the_model(network, faces, photograph_bytes):
    write_pairs(
        "it.bin", [photograph_bytes(n // 4, n % 4) for n in range(COUNT)], [n % 3 > 0 for n in range(12)]
    )
    embed(network, faces, "--out", "f.npy")
    order = ["--model", str(network), "f.npy", "--pairs", "it.bin", "--json", "it.json"]
    assert main(["eval", *order]) == 0
    model, file = json.loads(Path("it.json").read_text())["sets"]["it"]["results"].values()
    assert (file["accuracy"], file["auc"]) == (model["accuracy"], model["auc"])
    np.testing.assert_allclose(file["exact"]["threshold"], model["exact"]["threshold"], atol=1e-5)


def test_without_mirror_image_and_length(network, faces, capsys):
    embed(network, faces, "--out", "f.npy", "--no-normalise")
    np.testing.assert_allclose(read()[0], expected(network, faces), rtol=1e-6)
    said = capsys.readouterr().out
    assert f"1 file is no image that OpenCV reads, first {faces}/notes.txt\n" in said
    assert "plus its mirror image's, not normalised" in said
    embed(network, faces, "--out", "g.npy", "--no-normalise", "--no-mirror")
    alone, record = read("g")
    assert "each the image's alone, not normalised" in capsys.readouterr().out
    assert (record["mirror_added"], record["normalised"]) == (False, False)
    mirrored = Path("mirrored")
    mirrored.mkdir()
    for path in sorted(faces.rglob("[0-9]*")):
        cv2.imwrite(str(mirrored / path.name), cv2.imread(str(path))[:, ::-1])
    embed(network, mirrored, "--out", "h.npy", "--no-normalise", "--no-mirror")
    np.testing.assert_allclose(alone + read("h")[0], read()[0], atol=1e-4)


def test_parts_of_the_photographs_make_the_same_rows(network, faces, monkeypatch):
    embed(network, faces, "--out", "f.npy")
    monkeypatch.setattr(embed_command, "AT_ONCE", 7)
    embed(network, faces, "--out", "g.npy")
    np.testing.assert_allclose(read("g")[0], read()[0], atol=1e-6)


@pytest.mark.parametrize("what", ["pixels", "pca", "net.onnx"])
def test_any_model_embeds(what, network, faces, shard_folder):
    if what == "net.onnx":
        assert main(["export", str(network), "--onnx", what]) == 0
    embed(what, faces, "--out", "f.npy", "--train-data", shard_folder)
    rows, record = read()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(COUNT), atol=1e-6)
    assert record["model"]["origin"]["source"] == what


def test_a_full_disk_leaves_nothing(faces, capsys):
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), {*Path().iterdir()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the pixels of 24 faces are 1.2 MB
    try:
        embed("pixels", faces, "--out", "f.npy", status=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err == f"latse: cannot write {Path.cwd()}/f.npy: File too large\n"
    assert {*Path().iterdir()} == before


@pytest.mark.parametrize("name", [b"ob\xe9lix", b"two\nlines", b" {set},1=,0 "])
def test_names_of_any_kind(network, faces, capsys, name):
    folder = Path(os.fsdecode(os.fsencode(faces.parent) + b"/" + name))
    faces.rename(folder)
    embed(network, folder, "--out", folder / "f.npy")
    assert "f.npy: 24 embeddings" in capsys.readouterr().out
    record = json.loads((folder / "f.json").read_bytes())
    assert all(Path(path).is_file() for path in record["photographs"])
    assert len(np.load(folder / "f.npy")) == len(record["photographs"]) == COUNT


def test_photographs_are_aligned_as_data_align_does(network, photographs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    embed(network, *photographs, "--out", "f.npy", "--align", "--processes", "1")
    assert read()[1]["aligned"] is True and read()[1]["photographs"] == photographs
    assert main(["data", "align", *photographs[:6], "--out", "aligned"]) == 0
    embed(network, *(f"aligned/{n}.png" for n in range(1, 7)), "--out", "g.npy")
    np.testing.assert_allclose(read("g")[0], read()[0][:6], atol=1e-6)


def test_the_number_of_processes_changes_nothing(network, photographs, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("latse.data.photographs.faces.AT_ONCE", 5)
    for processes, name in ((1, "f"), (2, "g")):
        embed("pixels", *photographs, "--out", f"{name}.npy", "--align", "--processes", processes)
    assert Path("f.npy").read_bytes() == Path("g.npy").read_bytes()


def test_what_gives_no_face_ends_the_command_or_is_left_out(network, photographs, faces, capsys):
    flat = faces / "05.png"  # noise, in which there is nobody
    order = [network, photographs[0], flat, photographs[1], "--out", "f.npy", "--align", "--processes", "1"]
    before = sorted(Path().iterdir())
    embed(*order, status=1)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"latse: {flat}: no face (--skip leaves it out)"
    assert sorted(Path().iterdir()) == before
    embed(*order, "--skip")
    assert f"left out: 1 of 3 photographs, first {flat}: no face" in capsys.readouterr().out
    rows, record = read()
    assert len(rows) == 2 and record["photographs"] == photographs[:2]
    assert record["left_out"] == [f"{flat}: no face"]
    (faces / "05.png").write_bytes(b"\x89PNG no image")
    embed(network, faces, "--out", "g.npy", "--skip")
    assert len(read("g")[0]) == COUNT - 1


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ("pixels faces --out f.bin", "f.bin does not end in .npy"),
        ("pixels nowhere --out f.npy", "there is no file or folder nowhere"),
        (f"pixels {'x' * 5000} --out f.npy", "xxx: File name too long"),
        ("pixels empty --out f.npy", "the folder empty holds no image"),
        (
            "pixels faces/notes.txt --out f.npy",
            "faces/notes.txt is not an image that can be decoded: only aligned JPEG or PNG faces are taken ",
        ),
        (
            "pixels faces/notes.txt --skip --out f.npy",
            "no photograph gives a face, first faces/notes.txt is ",
        ),
        (
            "pixels black.png faces --out f.npy",
            "pixels: the embedding of black.png is zero, which has no dir",
        ),
        ("there.npy faces --out f.npy", "there.npy holds features already: name a model that makes them"),
        ("nobody faces --out f.npy", "'nobody' is no model, for there is no nobody-0000.params: WHAT is one"),
        ("pca faces --out f.npy", "pca is fitted to training people: name their shard with --train-data"),
        ("pixels faces --out f.npy --processes 0", "--processes is 0, must be 1 to 4096"),
        ("pixels faces --out there.npy", "there.npy is there already: remove it, or choose another name"),
        ("pixels faces --out named.npy", "named.json is there already: remove it, or choose another name"),
        ("pixels faces --out there.npy/f.npy", "there.npy"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(faces, capsys, order, sentence):
    cv2.imwrite("black.png", np.zeros((112, 112, 3), np.uint8))
    Path("empty").mkdir()
    np.save("there.npy", np.ones((2, 3)))
    Path("named.json").write_text("{}")
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    embed(*order.split(), status=1)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("latse: ") and sentence in error
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
