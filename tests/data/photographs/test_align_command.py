"""`latse data align`: single photographs, what is said of them, and what is refused."""

import json
import shutil

import cv2
import numpy as np
import pytest

from latse.cli import main
from latse.data.orl import photograph_folder
from latse.data.photographs.align import TEMPLATE, Aligner, open_photograph, warp


@pytest.fixture
def photographs(tmp_path):
    """A face, two of them and none, as files a.pgm, b.png, c.png."""
    source = photograph_folder() / "s1" / "1.pgm"
    shutil.copyfile(source, tmp_path / "a.pgm")
    face = open_photograph(source)
    small = cv2.copyMakeBorder(face, 100, 0, 0, 60, cv2.BORDER_CONSTANT, value=(90, 90, 90))
    large = cv2.resize(face, (174, 212), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "b.png"), np.hstack([small, large]))
    cv2.imwrite(str(tmp_path / "c.png"), np.full((90, 90, 3), 128, np.uint8))
    return [tmp_path / name for name in ("a.pgm", "b.png", "c.png")]


def align(out, *arguments):
    return main(["data", "align", "--out", str(out), *map(str, arguments)])


def test_writes_faces_and_says_what_it_found(photographs, tmp_path, capfd):
    out = tmp_path / "out"
    assert align(out, *photographs, "--json", tmp_path / "found.json") == 1
    said = capfd.readouterr()
    assert said.err.endswith(f"latse: 1 of 3 photographs give no face, first {photographs[2]}\n")
    first, second, third = said.out.splitlines()
    assert first.startswith(f"{photographs[0]} -> {out / 'a.png'}: face of ")
    assert second.startswith(f"{photographs[1]} -> {out / 'b.png'}: face of 2 of ")
    assert third == f"{photographs[2]}: no face"
    aligner = Aligner()
    for number, name in enumerate(("a", "b")):
        written = cv2.imread(str(out / f"{name}.png"))[:, :, ::-1]
        assert np.array_equal(written, aligner.align(open_photograph(photographs[number]), name))
    found = json.loads((tmp_path / "found.json").read_text())
    assert [entry.get("faces") for entry in found] == [1, 2, None]
    assert found[1]["box"][0] > 152  # the larger one
    assert found[2] == {"photograph": str(photographs[2]), "reason": "no face", "detail": ""}
    assert sorted(file.name for file in out.iterdir()) == ["a.png", "b.png"]


def test_given_points(photographs, tmp_path, capfd):
    lines = [",".join([str(photographs[2]), *map(repr, (TEMPLATE * 0.6 + 5).ravel().tolist())])]
    (tmp_path / "points.csv").write_text("\n".join(lines))
    assert align(tmp_path, photographs[0], "--landmarks", tmp_path / "points.csv") == 1
    assert f"{photographs[0]}: no landmarks" in capfd.readouterr().out
    assert align(tmp_path / "out", photographs[2], "--landmarks", tmp_path / "points.csv") == 0
    expected = warp(open_photograph(photographs[2]), TEMPLATE * 0.6 + 5)
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "c.png"))[:, :, ::-1], expected)
    again = photographs[2], "--landmarks", tmp_path / "points.csv", "--smallest", 70
    assert align(tmp_path / "other", *again) == 1
    assert f"{photographs[2]}: face too small (67 pixels)" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["a.pgm", "gone.png", "--out", "out"], "1 of 2 photographs give no face, first gone.png"),
        (["a.pgm", "b.png", "b/a.png", "--out", "out"], "of a.pgm and b/a.png would both become out/a.png"),
        (["b.png", "--out", "."], "the face of b.png would replace the photograph b.png"),
        (["a.pgm", "--out", "own"], "own/a.png is there already: remove it, or choose another name"),
        (["b.png", "--out", "out", "--json", "b.png"], "b.png is there and no JSON: choose another name"),
        (["b.png", "--out", "out", "--json", "out/b.png"], "--json out/b.png would replace a face"),
        (["a.pgm", "--out", "b.png"], "cannot make the folder b.png"),
        (["a.pgm", "--out", "out", "--detector", "x"], "unknown detector 'x'"),
    ],
)
def test_bad_input_is_one_sentence(photographs, monkeypatch, capfd, arguments, sentence):
    monkeypatch.chdir(photographs[0].parent)
    (photographs[0].parent / "own").mkdir()
    shutil.copyfile(photographs[1], "own/a.png")
    before = photographs[1].read_bytes()
    assert main(["data", "align", *arguments]) == 1
    complaint = capfd.readouterr().err
    assert sentence in complaint and complaint.count("\n") == 1
    assert photographs[1].read_bytes() == before
    assert (photographs[0].parent / "own" / "a.png").read_bytes() == before
