"""`latse compare` says of two photographs what `latse eval` would say of them as a pair."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from latse.cli import main
from latse.data import orl
from latse.data.pairs.pairs import write_pairs


@pytest.fixture(scope="module")
def house(tmp_path_factory, photograph_bytes, save_network, pairs_file):
    """A network, and what `latse eval` says of it and of pixels, on pairs with and without known people."""
    folder = tmp_path_factory.mktemp("compare")
    save_network(folder / "net" / "model")
    photographs = [photograph_bytes(n % 8, n // 8) for n in range(48)]
    write_pairs(str(folder / "nobody.bin"), photographs, [n % 3 == 0 for n in range(24)])
    order = "--model", folder / "net", "pixels", "--pairs", pairs_file, folder / "nobody.bin"
    assert main(["eval", *map(str, order), "--samples", "30", "--json", str(folder / "eval.json")]) == 0
    for person, number in ((0, 0), (0, 1), (5, 0)):
        (folder / f"{person}{number}.png").write_bytes(photograph_bytes(person, number))
    return folder


def compare(house, *order, status=0):
    assert main(["compare", *map(str, order), "--json", str(house / "it.json")]) == status
    return None if status else json.loads((house / "it.json").read_text())


@pytest.mark.parametrize("other", ["01", "50"])
def test_the_cosine_is_that_of_the_embeddings(house, other, tmp_path, capsys):
    faces = house / "00.png", house / f"{other}.png"
    said = compare(house, *faces, "--model", f"mine={house / 'net'}", "--aligned")
    assert main(["embed", *map(str, (house / "net", *faces, "--out", tmp_path / "f.npy"))]) == 0
    first, second = np.load(tmp_path / "f.npy").astype(np.float64)
    assert said["cosine"] == pytest.approx(first @ second, abs=1e-6)
    assert said["squared_distance"] == pytest.approx(np.sum((first - second) ** 2), abs=1e-6)
    text = f"cosine {said['cosine']:.4f}, squared distance {said['squared_distance']:.4f}, by mine\n"
    assert capsys.readouterr().out.startswith(text)
    assert said["verdicts"] == [] and said["photographs"] == list(map(str, faces))


@pytest.mark.parametrize("model", ["net", "pixels"])
@pytest.mark.parametrize("other", ["01", "50"])
def test_the_verdicts_are_those_of_the_calibration(house, model, other, capsys):
    what = house / "net" if model == "net" else model
    faces = house / "00.png", house / f"{other}.png"
    said = compare(house, *faces, "--model", what, "--aligned", "--calibration", house / "eval.json")
    lines = capsys.readouterr().out.splitlines()[3:]
    expected = []
    for name, judged in json.loads((house / "eval.json").read_text())["sets"].items():
        result = judged["results"][model]
        for far in [far for far in result["tar_at_far"] if far not in result["unresolved_far"]]:
            same = said["squared_distance"] < result["threshold_at_far"][far]
            bounds = result["intervals"] and result["intervals"]["cosine_at_far"][far]
            is_open = bounds and bounds[0] <= said["cosine"] <= bounds[1]
            answer = ("yes" if same else "no") + (", but within the interval" if is_open else "")
            threshold = result["threshold_at_far"][far], result["cosine_at_far"][far], bounds
            expected.append((answer, same, name, far, *threshold))
    assert [tuple(verdict.values()) for verdict in said["verdicts"]] == [row[1:] for row in expected]
    assert [line.split("  ")[-1].strip() for line in lines] == [row[0] for row in expected]
    assert len({row[2] for row in expected}) == 2


def test_photographs_are_aligned_unless_they_are(house, capsys):
    photographs = [orl.photograph_folder() / f"s{person}" / "1.pgm" for person in (1, 2)]
    assert -1 < compare(house, *photographs, "--model", "pixels")["cosine"] < 1
    compare(house, *photographs, "--model", "pixels", "--aligned", status=1)
    assert "1.pgm" in capsys.readouterr().err
    compare(house, photographs[0], photographs[0], "--model", "pixels")
    assert capsys.readouterr().out.startswith("cosine 1.0000, squared distance 0.0000")


def test_of_several_faces_it_says_which_one_it_took(house, tmp_path, capsys):
    one, other = (
        cv2.imread(str(orl.photograph_folder() / f"s{person}" / "1.pgm"), cv2.IMREAD_GRAYSCALE)
        for person in (1, 2)
    )
    both = np.hstack([np.pad(one, 20, "edge"), np.pad(other, 20, "edge"), np.full((152, 40), 128, np.uint8)])
    cv2.imwrite(str(tmp_path / "both.png"), both)
    photographs = tmp_path / "both.png", orl.photograph_folder() / "s2" / "1.pgm"
    said = compare(house, *photographs, "--model", "pixels")
    first, second = said["faces"]
    assert (first["faces"], second["faces"]) == (2, 1)
    x, y, width, height = first["box"]
    assert 132 < x + width / 2 < 264  # the middle of the second face, which is nearer to that of the picture
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f"{photographs[0]}: of 2 faces the one of {width:.0f}x{height:.0f} pixels at (")
    assert compare(house, house / "00.png", house / "01.png", "--model", "pixels", "--aligned")["faces"] == [
        None,
        None,
    ]
    compare(house, photographs[0], photographs[0], "--model", "pixels", "--aligned", status=1)
    assert capsys.readouterr().err.strip().endswith("faces are taken as they are: leave out --aligned")


def test_the_calibration_of_a_network_that_is_fed_otherwise_is_refused_as_such(house, capsys):
    what = f"{house / 'net'}?order=bgr"
    faces = house / "00.png", house / "01.png", "--aligned"
    compare(house, *faces, "--model", what, "--calibration", house / "eval.json", status=1)
    sentence = f"{house}/eval.json judges this {house}/net/model,0, but fed otherwise"
    assert capsys.readouterr().err == f"latse: {sentence}\n"


def test_a_calibration_of_another_model_without_a_file_is_not_called_one_fed_otherwise(house, people, capsys):
    faces = house / "00.png", house / "01.png", "--aligned"
    of_pixels = json.loads((house / "eval.json").read_text())
    of_pixels["models"] = {"pixels": of_pixels["models"]["pixels"]}
    (house / "pixels.json").write_text(json.dumps(of_pixels))
    model = "--model", "pca", "--train-data", people
    compare(house, *faces, *model, "--calibration", house / "pixels.json", status=1)
    assert capsys.readouterr().err == f"latse: {house}/pixels.json judges pixels, but not this pca\n"


def test_another_calibration_is_refused(house, tmp_path, save_network, capsys):
    faces = house / "00.png", house / "01.png", "--aligned"
    save_network(tmp_path / "other" / "model", seed=1)
    compare(house, *faces, "--model", tmp_path / "other", "--calibration", house / "eval.json", status=1)
    assert capsys.readouterr().err == (
        f"latse: {house}/eval.json judges {house}/net/model,0, pixels, "
        f"but not this {tmp_path}/other/model,0\n"
    )
    for content in ("{}", '{"kind": "embed"}', "[]", "{"):
        (tmp_path / "no.json").write_text(content)
        compare(house, *faces, "--model", "pixels", "--calibration", tmp_path / "no.json", status=1)
        assert f"{tmp_path}/no.json" in capsys.readouterr().err
    old = json.loads((house / "eval.json").read_text())
    del old["sets"]["nobody"]["results"]["pixels"]["threshold_at_far"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    compare(house, *faces, "--model", "pixels", "--calibration", tmp_path / "old.json", status=1)
    key = "sets.nobody.results.pixels.threshold_at_far"
    assert (
        capsys.readouterr().err
        == f"latse: {tmp_path}/old.json lacks the key {key}, which must be an object with keys\n"
    )
    assert not Path(tmp_path / "it.json").exists()


def test_features_are_no_model_here(house, capsys):
    np.save(house / "f.npy", np.ones((2, 3)))
    compare(house, house / "00.png", house / "01.png", "--model", house / "f.npy", status=1)
    assert (
        capsys.readouterr().err
        == f"latse: {house}/f.npy holds features already: name a model that makes them\n"
    )
