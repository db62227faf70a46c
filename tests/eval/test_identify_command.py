import json

import cv2
import numpy as np
import pytest

from latse.cli import main
from latse.data.pairs import write_people
from latse.data.shard_writer import write_shard
from latse.eval import image_sets
from latse.eval.references import raw_pixels

KIT = ("probe-features", "probe-list", "distractor-features", "distractor-list")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory, photograph_bytes):
    """The folder of a shard of fifteen further people, one picture each."""
    folder = tmp_path_factory.mktemp("strangers")
    write_shard(folder, [(person, photograph_bytes(50 + person, 0)) for person in range(15)], 15)
    return folder


def pixel_scores(one, other):
    """Cosine similarities of pictures, (m, 112, 112, 3): mirrored and summed, as pixels are judged."""

    def unit(pictures):
        rows = np.stack(pictures).astype(np.float64)
        rows = (rows + rows[:, :, ::-1]).reshape(len(rows), -1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return unit(one) @ unit(other).T


def pictures(photograph_bytes, keys):
    return [cv2.imdecode(np.frombuffer(photograph_bytes(*key), np.uint8), 1) for key in keys]


def test_identify_images(tmp_path, capsys, shard_folder, strangers, photograph_bytes):
    out = tmp_path / "new" / "identification.json"
    figure = tmp_path / "cmc.png"
    given = ["--probes", str(shard_folder), "--distractors", str(strangers)]
    status = main(["identify", "--model", "pixels", *given, "--json", str(out), "--figure", str(figure)])
    assert status == 0
    assert "24 probes, 72 pairs of probe and mate, 15 distractors" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert (report["kind"], report["probes"], report["mates"], report["distractors"]) == (
        "identification",
        24,
        72,
        15,
    )
    assert report["provenance"]["command"].startswith("latse identify --model pixels")
    probes = pictures(photograph_bytes, [(person, number) for person in range(6) for number in range(4)])
    others = pictures(photograph_bytes, [(50 + person, 0) for person in range(15)])
    mates, scores = pixel_scores(probes, probes), pixel_scores(probes, others)
    ranks = [
        1 + (scores[i] >= mates[i, j]).sum()
        for i in range(24)
        for j in range(24)
        if i != j and i // 4 == j // 4
    ]
    found = report["models"]["pixels"]
    assert found["sizes"]["15"]["rank_1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    assert found["sizes"]["15"]["cmc"]["5"] == pytest.approx(np.mean(np.array(ranks) <= 5))
    assert found["sizes"]["15"]["cmc"]["16"] == 1
    assert set(found["sizes"]) == {"10", "15"}
    assert found["unresolved_far"] == ["0.0001", "1e-05", "1e-06"]
    assert cv2.imread(str(figure)).shape[2] == 3


def test_written_features_give_the_same(tmp_path, capsys, shard_folder, strangers, save_network):
    save_network(tmp_path / "model")
    given = ["--model", f"net={tmp_path / 'model'},0", "pixels", "--probes", str(shard_folder)]
    given += ["--distractors", str(strangers), "--sizes", "3", "12", "--seed", "7"]
    kit = tmp_path / "kit"
    assert main(["identify", *given, "--write-features", str(kit), "--json", str(tmp_path / "a.json")]) == 0
    table = capsys.readouterr().out
    back = ["--probe-features", str(kit / "probes"), "--probe-list", str(kit / "probes.json")]
    back += ["--distractor-features", str(kit / "distractors"), "--sizes", "12", "3", "--seed", "7"]
    back += ["--distractor-list", str(kit / "distractors.json"), "--ending", "_net.bin", "_pixels.bin"]
    assert main(["identify", *back, "--json", str(tmp_path / "b.json")]) == 0
    assert capsys.readouterr().out == table
    one, other = (json.loads((tmp_path / name).read_text())["models"] for name in ("a.json", "b.json"))
    for title in ("net", "pixels"):
        assert {**one[title], "origin": None} == {**other[title], "origin": None}


def test_images_are_embedded_in_parts_and_features_of_a_file_are_taken(
    tmp_path, capsys, monkeypatch, shard_folder, strangers
):
    given = ["--probes", str(shard_folder), "--distractors", str(strangers)]
    assert main(["identify", "--model", "pixels", *given]) == 0
    expected = capsys.readouterr().out
    monkeypatch.setattr(image_sets, "IMAGES_AT_ONCE", 7)
    assert main(["identify", "--model", "pixels", *given]) == 0
    assert capsys.readouterr().out == expected
    for path in (shard_folder, strangers):
        images = image_sets.open_images(path)
        np.save(tmp_path / f"f-{path.name}.npy", raw_pixels(images.read(images.picked)))
    assert main(["identify", "--model", f"{tmp_path}/f-{{set}}.npy", *given]) == 0
    assert "24 probes, 72 pairs of probe and mate, 15 distractors" in capsys.readouterr().out
    np.save(tmp_path / f"f-{strangers.name}.npy", np.ones((3, 2)))
    assert main(["identify", "--model", f"{tmp_path}/f-{{set}}.npy", *given]) == 1
    assert "holds 3 features, but" in capsys.readouterr().err


def test_noisy_entries_of_the_kit_are_left_out(tmp_path, capsys, shard_folder, strangers):
    kit = tmp_path / "kit"
    given = ["--model", "pixels", "--probes", str(shard_folder), "--distractors", str(strangers)]
    assert main(["identify", *given, "--write-features", str(kit)]) == 0
    back = ["--probe-features", str(kit / "probes"), "--probe-list", str(kit / "probes.json")]
    back += ["--distractor-features", str(kit / "distractors"), "--ending", "_pixels.bin"]
    back += ["--distractor-list", str(kit / "distractors.json")]
    (tmp_path / "distractors.txt").write_text("1\tdistractors/3.png\n")
    (tmp_path / "probes.txt").write_text("5.png\n")
    noise = ["--noisy-distractors", str(tmp_path / "distractors.txt")]
    noise += ["--noisy-probes", str(tmp_path / "probes.txt")]
    capsys.readouterr()
    assert main(["identify", *back, *noise]) == 0
    assert "23 probes, 66 pairs of probe and mate, 14 distractors" in capsys.readouterr().out
    assert main(["identify", *back, "--noisy-distractors", str(tmp_path / "probes.txt")]) == 1
    assert "none of 1 noisy entries" in capsys.readouterr().err
    (kit / "distractors" / "distractors" / "4.png_pixels.bin").unlink()
    assert main(["identify", *back]) == 1
    assert "4.png_pixels.bin: No such file" in capsys.readouterr().err


def test_pairs_with_people_and_their_other_people(tmp_path, capsys, pairs_file):
    pairs = tmp_path / "people.bin"
    pairs.write_bytes(pairs_file.read_bytes())
    assert main(["identify", "--model", "pixels", "--probes", str(pairs)]) == 1
    assert "people.people.npy is missing: nobody says who" in capsys.readouterr().err
    people = []
    for person in range(8):
        for second in (1, 2, 2):
            people += [person, person, person, (person + 1 + second) % 8]
    write_people(pairs, np.array(people))
    assert main(["identify", "--model", "pixels", "--probes", str(pairs)]) == 0
    out = capsys.readouterr().out
    assert "24 probes, 48 pairs of probe and mate, 21 distractors" in out
    assert "rank 1 @10  rank 1 @21" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--probe-features is missing"),
        (["--probes", "x"], "--probes needs a --model"),
        (["--probes", "x", "--model", "pixels", "--ending", "_a.bin"], "takes images, --ending features"),
        (
            ["--probes", "x", "--model", "pixels", "--noisy-probes", "y"],
            "--noisy-probes names entries of a --probe-list, which is missing",
        ),
        (
            ["--probes", "x", "--model", "pixels", "--distractors", "z", "--noisy-distractors", "y"],
            "--noisy-distractors names entries of a --distractor-list, which is missing",
        ),
        (
            ["--probes", "x", "--model", "pixels", "--distractor-list", "y"],
            "which --distractors must name",
        ),
        (["--probes", "x", "--model", "pixels", "--probe-list", "none.json"], "cannot read none.json"),
        (["--probes", "x", "--model", "pixels", "--write-features", "/dev/null/f"], "cannot make the folder"),
        (["--probes", "x", "--model", "pixels", "--sizes", "0"], "--sizes must be at least 1"),
        (
            [*(f"--{name}=x" for name in KIT), "--ending", "_a.bin", "a.bin"],
            "two of them name the same model",
        ),
        (["--probes", "none.bin", "--model", "pixels"], "cannot read none.bin"),
    ],
)
def test_what_does_not_fit_is_refused(capsys, arguments, sentence):
    assert main(["identify", *arguments]) == 1
    assert sentence in capsys.readouterr().err
