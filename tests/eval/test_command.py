import json
import pickle
import shutil

import cv2
import numpy as np
import pytest
import sklearn.preprocessing
from sklearn.model_selection import KFold

from latse.cli import main
from latse.data.pairs.pairs import read_pairs, read_people, write_people
from latse.eval.restoration import judge_restoration
from latse.models.embedding import Network

SETTINGS = {"margin": {"name": "arcface", "m2": 0.5}, "schedule": {"steps": [3, 4]}}


@pytest.fixture(scope="module")
def house(tmp_path_factory, save_network):
    """Folders as training leaves them: a student with its untrained encoder and records, and a teacher."""
    out = tmp_path_factory.mktemp("out")
    for folder, name, decoder in (
        ("student", "model", True),
        ("student", "untrained", False),
        ("teacher", "model", False),
    ):
        (out / folder).mkdir(exist_ok=True)
        save_network(out / folder / name, seed=len(name), decoder=decoder)
        (out / folder / "metrics.jsonl").write_text(
            '{"iteration": 0, "dloss": 3.0}\n{"iteration": 9, "dloss": 1.0}\n'
        )
    record = {"recipe": "orl_student", "seed": 5, "settings": SETTINGS, "teacher": "0f"}
    (out / "student" / "run.json").write_text(json.dumps(record))
    return out


@pytest.fixture(scope="module")
def people():
    """Who is on the images of `pairs_file`, as conftest.py lays them."""
    found = []
    for person in range(8):
        for second in (1, 2, 2):
            found += [person, person, person, (person + 1 + second) % 8]
    return np.array(found)


@pytest.fixture
def sets(pairs_file, people, tmp_path):
    """One set twice: once with its people, once without."""
    (tmp_path / "sets").mkdir()
    paths = [tmp_path / "sets" / name for name in ("people.bin", "nobody.bin")]
    for path in paths:
        shutil.copy(pairs_file, path)
    write_people(paths[0], people)
    return paths


def restored(prefix, pairs):
    """How like the faces that a checkpoint generates from the images of pairs are to mean faces."""
    decoder = Network(prefix, 0, "generated_output")
    images, people = read_pairs(pairs).images, read_people(pairs)
    return judge_restoration(decoder, images, people, decoder.batch_size)._asdict()


def evaluate(house, *arguments):
    return main(["eval", "--model", f"{house}/student/model,0", *map(str, arguments)])


def test_everything_at_once(house, sets, shard_folder, tmp_path, capsys):
    outputs = {name: tmp_path / "results" / f"{name}.png" for name in ("figure", "generated", "curves")}
    status = main(
        [
            *("eval", "--model", f"student={house}/student/model,0", f"teacher={house}/teacher/model,0"),
            *(f"untrained={house}/student/untrained,0", "pixels", "pca", "fisherfaces"),
            *("--pairs", *map(str, sets), "--train-data", str(shard_folder), "--batch-size", "10"),
            *("--json", str(tmp_path / "results" / "verification.json"), "--samples", "30"),
            *(str(part) for name, path in outputs.items() for part in (f"--{name}", path)),
        ]
    )
    assert status == 0
    titles = ["student", "teacher", "untrained", "pixels", "pca", "fisherfaces"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:16]] == ["people", *titles, "nobody", *titles]
    described = "48 pairs, 24 of them of different people; "
    assert lines[16] == f"people: {described}8 people, drawn again 30 times for the interval"
    assert lines[17] == f"nobody: {described}no interval: there is no nobody.people.npy to say who is who"
    for path in outputs.values():
        assert cv2.imread(str(path)).std() > 0

    report = json.loads((tmp_path / "results" / "verification.json").read_text())
    assert report["kind"] == "verification" and list(report["models"]) == titles
    assert {key: report["models"]["student"][key] for key in ("recipe", "seed", "settings")} == {
        "recipe": "orl_student",
        "seed": 5,
        "settings": SETTINGS,
    }
    assert {"command", "commit", "versions", "device"} <= set(report["provenance"])
    known, unknown = report["sets"]["people"], report["sets"]["nobody"]
    found = {title: result["restoration"] for title, result in known["results"].items()}
    assert found.pop("student") == restored(f"{house}/student/model", *sets[:1])
    assert {*found.values(), *(result["restoration"] for result in unknown["results"].values())} == {None}
    ssim = known["results"]["student"]["restoration"]["ssim"]
    assert lines[18].startswith(f"people: student generates faces with SSIM {ssim:.3f} to the mean face of ")
    assert (known["people"], unknown["people"]) == (8, None)
    assert (known["pairs"], known["different_pairs"]) == (48, 24)
    for number, title in enumerate(titles):
        result, same = known["results"][title], unknown["results"][title]
        assert lines[3 + number].split()[1] == f"{100 * result['accuracy']:.2f}"
        low, high = result["intervals"]["accuracy"]
        assert f"{100 * low:.2f} to {100 * high:.2f}" in lines[3 + number]
        assert result["intervals"]["unit"] == "people" and result["intervals"]["samples"] == 30
        for key in ("tar_at_far", "threshold_at_far", "cosine_at_far"):
            assert set(result["intervals"][key]) == set(result[key]) == set(result["tar_at_far"])
        roc = result["roc"]
        assert len(roc["far"]) == len(roc["tar"]) == len(roc["low"]) == len(roc["high"])
        assert same["intervals"] is same["roc"]["low"] is same["roc"]["high"] is None
        for key in ("accuracy", "std", "exact", "val_at_far_1e-3", "tar_at_far", "auc", "eer", "histogram"):
            assert result[key] == same[key]


def test_the_accuracy_is_that_of_the_protocol_to_the_last_bit(house, pairs_file, tmp_path):
    """A model of random weights on a .bin: images, mirrors, sums, distances and folds done once more here."""
    json_file = tmp_path / "it.json"
    assert evaluate(house, "--pairs", pairs_file, "--json", json_file) == 0
    images, issame = read_pairs(pairs_file)
    network = Network(house / "student" / "model", 0)
    first, inverse = np.unique(
        images.reshape(len(images), -1), axis=0, return_index=True, return_inverse=True
    )[1:]
    distinct = np.sort(first)
    place = np.searchsorted(distinct, first)[inverse]
    summed = np.zeros((len(distinct), 512))
    summed += network(images[distinct])
    summed += network(images[distinct][..., ::-1])
    unit = sklearn.preprocessing.normalize(summed[place])
    distance = np.sum(np.square(np.subtract(unit[0::2], unit[1::2])), 1)
    accuracies = np.zeros(10)
    for fold, (train, test) in enumerate(KFold(n_splits=10, shuffle=False).split(np.arange(48))):
        right = np.zeros(400)
        for number, threshold in enumerate(np.arange(0, 4, 0.01)):
            right[number] = np.sum(np.less(distance[train], threshold) == issame[train]) / len(train)
        best = np.arange(0, 4, 0.01)[np.argmax(right)]
        accuracies[fold] = float(np.sum(np.less(distance[test], best) == issame[test])) / test.size
    (result,) = json.loads(json_file.read_text())["sets"]["people"]["results"].values()
    assert result["fold_accuracies"] == accuracies.tolist()
    assert (result["accuracy"], result["std"]) == (np.mean(accuracies), np.std(accuracies))


def test_features_of_a_file(pairs_file, tmp_path):
    """Features that are all the same say nothing; nothing is done to them but to normalise."""
    np.save(tmp_path / "same-people.npy", np.full((96, 4), 3.0, np.float32))
    pattern = f"same={tmp_path}/same-{{set}}.npy"
    assert (
        main(["eval", "--model", pattern, "--pairs", str(pairs_file), "--json", f"{tmp_path}/it.json"]) == 0
    )
    result = json.loads((tmp_path / "it.json").read_text())["sets"]["people"]["results"]["same"]
    assert result["accuracy"] <= 0.5 and (result["auc"], result["eer"]) == (0.5, 0.5)
    assert result["tar_at_far"]["0.1"] == 0 and result["val_at_far_1e-3"]["far"] == 1


def test_pairs_of_one_person_alone(pairs_file, tmp_path, capsys):
    images, issame = pickle.loads(pairs_file.read_bytes())
    same = [number for number, it in enumerate(issame) if it]
    chosen = [images[2 * number + side] for number in same for side in (0, 1)]
    (tmp_path / "same.bin").write_bytes(pickle.dumps((chosen, [True] * len(same)), 2))
    write_people(tmp_path / "same.bin", np.repeat(np.arange(len(same)) // 3, 2))
    order = [
        "eval",
        "--model",
        "pixels",
        "--pairs",
        str(tmp_path / "same.bin"),
        "--json",
        f"{tmp_path}/it.json",
    ]
    assert main(order) == 0
    one = json.loads((tmp_path / "it.json").read_text())["sets"]["same"]
    assert one["people"] == 8 and one["results"]["pixels"]["intervals"] is None
    assert one["results"]["pixels"]["auc"] is None and one["results"]["pixels"]["accuracy"] > 0.5
    assert "same: 24 pairs, 0 of them of different people; 8 people, no interval" in capsys.readouterr().out


def test_a_bare_model_needs_no_records(pairs_file, tmp_path, save_network, capsys):
    save_network(tmp_path / "zoo" / "r50", decoder=False)
    report = tmp_path / "report.json"
    model = f"{tmp_path}/zoo/r50"
    assert main(["eval", "--model", model, "--pairs", str(pairs_file), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["models"]["zoo"]["source"] == model and "recipe" not in found["models"]["zoo"]
    assert capsys.readouterr().out.splitlines()[3].startswith("  zoo ")


def test_no_samples_no_intervals(sets, tmp_path, capsys):
    order = [
        "eval",
        "--model",
        "pixels",
        "--pairs",
        str(sets[0]),
        "--samples",
        "0",
        "--json",
        f"{tmp_path}/it.json",
    ]
    assert main(order) == 0
    assert (
        json.loads((tmp_path / "it.json").read_text())["sets"]["people"]["results"]["pixels"]["intervals"]
        is None
    )
    assert capsys.readouterr().out.splitlines()[-1].endswith("8 people, no interval")


def few_pairs(path):
    ok, picture = cv2.imencode(".png", 99 * cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (112, 112)))
    assert ok
    path.write_bytes(pickle.dumps(([picture.tobytes()] * 6, [True, False, True])))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pairs", "none.bin"], "none.bin"),
        (["--pairs", "few.bin"], "few.bin: 3 pairs are too few for 10 folds"),
        (["--pairs", "people.bin", "people.bin"], "the name 'people' is already taken"),
        (["--pairs", "people.bin", "odd.bin"], "odd.bin: 95 images do not make 48 pairs"),
        (["--pairs", "short.bin"], "short.people.npy names 95 people, but short.bin has 96 images"),
        (
            ["--pairs", "wrong.bin"],
            "wrong.bin: pair 1 shows two people, but by wrong.people.npy it shows one",
        ),
        (
            ["--pairs", "apart.bin"],
            "apart.bin: pair 0 shows one person, but by apart.people.npy it shows two",
        ),
        (["--model", "none/model,0"], "none/model-0000.params is missing"),
        (["--model", "{house}/student/model,x"], "is no checkpoint"),
        (["--model", "{house}/teacher/model,7"], "model-0007.params is missing"),
        (["--model", "nan.npy"], "nan.npy for people: the embedding of image 7 is not finite"),
        (["--model", "zero.npy"], "zero.npy for people: the embedding of image 7 is zero, which has no dir"),
        (["--train-data", "none", "--model", "pca"], "none"),
        (["--json", "few.bin/report.json"], "few.bin"),
        (["--gpus", "99"], "--gpus 99: "),
        (["--batch-size", "0"], "the batch size is 0, must be 1 to 2147483647"),
        (["--samples", "-1"], "--samples is -1, must be 0 to 2147483647"),
        (["--samples", "9" * 20], f"--samples is {'9' * 20}, must be 0 to 2147483647"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    house, pairs_file, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    for name in ("people.bin", "short.bin", "wrong.bin", "apart.bin"):
        shutil.copy(pairs_file, name)
    few_pairs(tmp_path / "few.bin")
    images, issame = pickle.loads(pairs_file.read_bytes())
    (tmp_path / "odd.bin").write_bytes(pickle.dumps((images[:-1], issame)))
    write_people("short.bin", np.zeros(95))
    write_people("wrong.bin", np.zeros(96))
    write_people("apart.bin", np.arange(96))
    features = np.ones((96, 3))
    features[7, 1] = np.nan
    np.save("nan.npy", features)
    features[7] = 0
    np.save("zero.npy", features)
    before = sorted(tmp_path.iterdir())
    given = [argument.format(house=house) for argument in arguments]
    default = ["--pairs", "people.bin", "--json", "report.json"]
    assert evaluate(house, *default, *given) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("latse: ")
    assert sentence in error
    assert sorted(tmp_path.iterdir()) == before


def test_pairs_are_named_where_there_are_none_of_the_default_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--model", "pixels"]) == 1
    assert "name the pairs with --pairs: there is no data/orl/orl.bin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("{house}/teacher/model,0", "has no output 'generated_output'"),
        ("pixels", "there is no checkpoint among the models to draw pictures of"),
    ],
)
def test_pictures_need_a_checkpoint_that_draws(house, pairs_file, tmp_path, capsys, model, sentence):
    order = [
        "eval",
        "--model",
        model.format(house=house),
        "--pairs",
        pairs_file,
        "--figure",
        tmp_path / "f.png",
    ]
    assert main([*map(str, order)]) == 1
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_run_record_is_named(house, pairs_file, tmp_path, capsys):
    shutil.copytree(house, tmp_path / "copy")
    for content in ("{", "[]"):
        (tmp_path / "copy" / "student" / "run.json").write_text(content)
        assert evaluate(tmp_path / "copy", "--pairs", pairs_file) == 1
        assert "run.json" in capsys.readouterr().err


def test_a_decoder_is_fed_as_its_encoder(house, sets, tmp_path):
    """Twice the pixels less half of 255 are other faces than the pixels themselves."""
    model = f"{house}/student/model,0"
    order = "--model", f"plain={model}", f"fed={model}?mean=127.5&scale=2", "--pairs", sets[0]
    assert main(["eval", *map(str, order), "--json", str(tmp_path / "it.json")]) == 0
    (judged,) = json.loads((tmp_path / "it.json").read_text())["sets"].values()
    plain, fed = (judged["results"][title]["restoration"]["ssim"] for title in ("plain", "fed"))
    assert plain != fed


def test_thresholds_are_printed_when_asked_for(house, pairs_file, tmp_path, capsys):
    order = "--model", "pixels", "--pairs", pairs_file, "--json", tmp_path / "it.json"
    assert main(["eval", *map(str, order), "--thresholds"]) == 0
    (judged,) = json.loads((tmp_path / "it.json").read_text())["sets"].values()
    result, printed = judged["results"]["pixels"], capsys.readouterr().out
    assert 0 < result["threshold_at_far"]["0.1"] < 4
    assert f"{result['cosine_at_far']['0.1']:.4f}  " in printed
    assert main(["eval", *map(str, order)]) == 0
    assert f"{result['cosine_at_far']['0.1']:.4f}  " not in capsys.readouterr().out
