import argparse
import functools
import json
import tracemalloc

import cv2
import numpy as np
import pytest
from tqdm import tqdm

from latse.cli import main
from latse.data.pairs.pairs import read_pairs, write_people
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.eval import identify_command, image_sets
from latse.eval.confidence import share_interval
from latse.eval.references import raw_pixels
from latse.files import digest
from latse.models import runner

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
    first, person = np.array(ranks) == 1, np.arange(72) // 12
    assert found["sizes"]["15"]["rank_1_interval"] == share_interval(first, person)
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
    write_people(pairs, people_of_pairs())
    assert main(["identify", "--model", "pixels", "--probes", str(pairs)]) == 0
    out = capsys.readouterr().out
    assert "24 probes, 48 pairs of probe and mate, 21 distractors" in out
    assert "rank 1 @10  rank 1 @21" in out


@pytest.fixture
def listed(tmp_path, photograph_bytes):
    """Pictures of six people and fifteen others under the paths of lists, and lists of noise among them."""
    faces = {f"Face_{p}/Face_{p}_{n}.png": (p, n) for p in range(6) for n in range(4)}
    others = {f"{p}/7@N0{p}/1.png": (50 + p, 0) for p in range(15)}
    for name, keys in (("faces", faces), ("others", others)):
        for path, key in keys.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(photograph_bytes(*key))
        (tmp_path / f"{name}.json").write_text(json.dumps({"path": list(keys)}))
    (tmp_path / "faces.txt").write_text("# names\nFace_0_0.png\nFace_3_2.png\n")
    (tmp_path / "others.txt").write_text("9\t4/7@N04/1.png\n")
    given = ["--probes", "faces", "--probe-list", "faces.json", "--noisy-probes", "faces.txt"]
    given += ["--distractors", "others", "--distractor-list", "others.json"]
    given += ["--noisy-distractors", "others.txt"]
    return [str(tmp_path / word) if (tmp_path / word).exists() else word for word in given]


def without_noise(listed):
    return [word for word in listed if "noisy" not in word and not word.endswith(".txt")]


def test_pictures_of_lists_give_what_a_shard_gives(tmp_path, shard_folder, strangers, listed):
    def models(*arguments):
        assert main(["identify", "--model", "pixels", *arguments, "--json", str(tmp_path / "it.json")]) == 0
        report = json.loads((tmp_path / "it.json").read_text())
        return report["left_out"], report["models"]

    shards = ["--probes", str(shard_folder), "--distractors", str(strangers)]
    nothing = {"probes": None, "distractors": None}
    assert models(*without_noise(listed)) == models(*shards) == (nothing, models(*shards)[1])
    assert models(*listed[:6])[0] == {"probes": 2, "distractors": None}  # among the other people's pictures


def test_noise_of_lists_is_left_out_and_counted(tmp_path, capsys, listed, photograph_bytes):
    out, kit = tmp_path / "it.json", tmp_path / "kit"
    given = ["--model", "pixels", *listed, "--write-features", str(kit)]
    assert main(["identify", *given, "--json", str(out)]) == 0
    assert "22 probes, 60 pairs of probe and mate, 14 distractors" in capsys.readouterr().out
    report = json.loads(out.read_text())
    assert report["left_out"] == {"probes": 2, "distractors": 1}
    keys = [(p, n) for p in range(6) for n in range(4) if (p, n) not in ((0, 0), (3, 2))]
    probes = pictures(photograph_bytes, keys)
    others = pictures(photograph_bytes, [(50 + p, 0) for p in range(15) if p != 4])
    mates, scores = pixel_scores(probes, probes), pixel_scores(probes, others)
    ranks = [
        1 + (scores[i] >= mates[i, j]).sum()
        for i in range(22)
        for j in range(22)
        if i != j and keys[i][0] == keys[j][0]
    ]
    assert report["models"]["pixels"]["sizes"]["14"]["rank_1"] == np.mean(np.array(ranks) == 1)
    # The kit finds the features under the paths of the lists.
    written = json.loads((kit / "probes.json").read_text())["path"]
    assert len(written) == 22 and (kit / "probes" / "Face_5" / "Face_5_3.png_pixels.bin").is_file()
    back = ["--probe-features", str(kit / "probes"), "--probe-list", str(tmp_path / "faces.json")]
    back += ["--distractor-features", str(kit / "distractors"), "--ending", "_pixels.bin"]
    back += [*listed[4:6], *listed[8:]]
    assert main(["identify", *back, "--json", str(tmp_path / "kit.json")]) == 0
    again = json.loads((tmp_path / "kit.json").read_text())
    assert again["left_out"] == report["left_out"]
    assert again["models"]["pixels"]["sizes"] == report["models"]["pixels"]["sizes"]


def test_features_of_a_list_are_a_row_for_each_entry_noise_or_not(tmp_path, listed):
    given = ["--json", str(tmp_path / "it.json"), *listed]
    assert main(["identify", "--model", "pixels", *given]) == 0
    expected = json.loads((tmp_path / "it.json").read_text())["models"]["pixels"]["sizes"]
    for name in ("faces", "others"):
        paths = json.loads((tmp_path / f"{name}.json").read_text())["path"]
        images = [cv2.imread(str(tmp_path / name / path))[:, :, ::-1].transpose(2, 0, 1) for path in paths]
        both = raw_pixels(np.stack(images)) + raw_pixels(np.stack(images)[..., ::-1])
        np.save(tmp_path / f"{name}.npy", both)
    assert main(["identify", "--model", f"mine={tmp_path}/{{set}}.npy", *given]) == 0
    assert json.loads((tmp_path / "it.json").read_text())["models"]["mine"]["sizes"] == expected


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "Face_2_1.png is missing"),
        (b"no picture", "Face_2_1.png is not an image that can be decoded"),
        (cv2.imencode(".png", np.zeros((112, 96, 3)))[1].tobytes(), "is 112x96 pixels instead of 112x112"),
    ],
)
def test_a_bad_picture_of_a_list_is_named(tmp_path, capsys, listed, content, sentence):
    path = tmp_path / "faces" / "Face_2" / "Face_2_1.png"
    path.unlink() if content is None else path.write_bytes(content)
    assert main(["identify", "--model", "pixels", *listed, "--json", str(tmp_path / "it.json")]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "it.json").exists()


def people_of_pairs():
    return np.array(
        [
            number
            for person in range(8)
            for second in (1, 2, 2)
            for number in (person, person, person, (person + 1 + second) % 8)
        ]
    )


@pytest.mark.parametrize(
    ("people", "sentence"),
    [
        (people_of_pairs()[:-1], "it.people.npy names 95 people, but"),
        (np.append(people_of_pairs(), 0), "it.people.npy names 97 people, but"),
        (np.zeros(96), "pair 1 shows two people, but by"),
    ],
)
def test_people_that_contradict_the_pairs_are_refused(tmp_path, capsys, pairs_file, people, sentence):
    (tmp_path / "it.bin").write_bytes(pairs_file.read_bytes())
    write_people(tmp_path / "it.bin", people)
    for option in (["--probes"], ["--probes", str(tmp_path / "it.bin"), "--distractors"]):
        assert main(["identify", "--model", "pixels", *option, str(tmp_path / "it.bin")]) == 1
        assert sentence in capsys.readouterr().err


def test_one_file_of_features_serves_eval_and_identify(tmp_path, capsys, pairs_file):
    (tmp_path / "it.bin").write_bytes(pairs_file.read_bytes())
    write_people(tmp_path / "it.bin", people_of_pairs())
    images = read_pairs(pairs_file).images
    np.save(tmp_path / "mine.npy", raw_pixels(images) + raw_pixels(images[..., ::-1]))
    mine = ["--model", str(tmp_path / "mine.npy")]
    given = ["identify", "--json", str(tmp_path / "it.json"), "--probes", str(tmp_path / "it.bin")]
    assert main([*given, "--model", "pixels"]) == 0
    expected = json.loads((tmp_path / "it.json").read_text())
    assert main([*given, *mine]) == 0
    found = json.loads((tmp_path / "it.json").read_text())
    assert found["models"]["mine"]["sizes"] == expected["models"]["pixels"]["sizes"]
    assert found["models"]["mine"]["origin"]["digest"] == digest(tmp_path / "mine.npy")
    assert main(["eval", *mine, "--samples", "0", "--pairs", str(tmp_path / "it.bin")]) == 0
    np.save(tmp_path / "mine.npy", raw_pixels(images)[:24])
    assert main([*given, *mine]) == 1
    assert "holds 24 features, but it has 96 images" in capsys.readouterr().err


def test_a_gallery_is_in_memory_once_and_gone_before_the_next(monkeypatch, shard_folder):
    """Two models on 20,000 images of 256 dimensions: 20 MB a gallery, and the peak is hardly more."""
    monkeypatch.setattr(image_sets, "IMAGES_AT_ONCE", 500)

    class Model:
        origin = {}

        def __init__(self, title):
            self.title = title

        def embed(self, images, name, called):
            return np.random.default_rng(len(images)).normal(size=(len(images), 256))

    probes = image_sets.open_images(shard_folder)
    gallery = image_sets.ImageSet("many", 20_000, np.arange(20_000), lambda part: part, None, None, str)
    args = argparse.Namespace(write_features=None, seed=0, sizes=[10])
    monkeypatch.setattr(identify_command, "identify", lambda *given: None)
    tracemalloc.start()
    try:
        for title in "ab":
            identify_command._judge(Model(title), probes, gallery, args)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.4 * 20_000 * 256 * 4


def test_a_log_says_how_many_images_are_embedded(monkeypatch, capsys, shard_folder):
    class Model:
        title = "mine"

        def embed(self, images, name, called):
            return np.ones((len(images), 4))

    monkeypatch.setattr(image_sets, "IMAGES_AT_ONCE", 10)
    monkeypatch.setattr(runner, "tqdm", functools.partial(tqdm, mininterval=0))
    images = image_sets.open_images(shard_folder)
    assert image_sets.embed(Model(), images).shape == (24, 4)
    said = capsys.readouterr().err
    assert f"mine on {images.name}" in said and "10/24" in said and "20/24" in said


def test_nothing_is_printed_before_everything_is_written(tmp_path, capsys, monkeypatch, shard_folder):
    def full(*given):
        raise LatseError("the disk is full")

    for name, option in (("write_json", "--json"), ("_draw", "--figure")):
        with monkeypatch.context() as patch:
            patch.setattr(identify_command, name, full)
            given = ["identify", "--model", "pixels", "--probes", str(shard_folder)]
            assert main([*given, option, str(tmp_path / "it")]) == 1
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name the images with --probes, or of a kit's features also --probe-features"),
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
        (["--probes", "x", "--model", "pixels", "--sizes", "0"], "--sizes is 0, must be at least 1"),
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
