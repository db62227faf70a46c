import json
import pickle
import shutil

import cv2
import pytest

from latse.cli import main

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


def evaluate(house, *arguments):
    return main(["eval", "--model", f"{house}/student/model,0", *map(str, arguments)])


def test_everything_at_once(house, pairs_file, shard_folder, tmp_path, capsys):
    second = tmp_path / "again.bin"
    shutil.copy(pairs_file, second)
    outputs = {name: tmp_path / "results" / f"{name}.png" for name in ("figure", "generated", "curves")}
    status = evaluate(
        house,
        *("--pairs", pairs_file, second, "--train-data", shard_folder, "--batch-size", 10),
        *("--teacher", f"{house}/teacher/model,0", "--untrained", f"{house}/student/untrained,0"),
        *("--json", tmp_path / "results" / "verification.json"),
        *(part for name, path in outputs.items() for part in (f"--{name}", path)),
    )
    assert status == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "people: 48 pairs, 24 of them of different people"
    titles = [line[:17].rstrip() for line in lines[3:9]]
    assert titles == ["raw pixels", "whitened PCA", "fisherfaces", "untrained encoder", "teacher", "student"]
    for path in outputs.values():
        assert cv2.imread(str(path)).std() > 0

    report = json.loads((tmp_path / "results" / "verification.json").read_text())
    assert report["recipe"] == "orl_student"
    assert report["seed"] == 5
    assert report["settings"] == SETTINGS
    assert {"latse", "mxnet", "numpy", "python"} <= set(report["versions"])
    assert report["device"].startswith("cpu(0)")
    assert report["people"] == report["again"]
    result = report["people"]
    assert set(result["tar_at_far"]) == {"0.01", "0.001"}
    assert result["pairs"] == 48
    assert lines[8].split()[1] == f"{100 * result['accuracy']:.2f}"
    assert list(result["references"]) == ["raw_pixels", "whitened_pca", "fisherfaces", "untrained", "teacher"]
    for name, accuracy in result["references"].items():
        assert 0 <= accuracy <= 1
        assert result["reference_details"][name]["accuracy"] == accuracy


def test_a_bare_model_needs_no_records(house, pairs_file, tmp_path, save_network, capsys):
    save_network(tmp_path / "zoo" / "r50", decoder=False)
    report = tmp_path / "report.json"
    model = f"{tmp_path}/zoo/r50"
    assert main(["eval", "--model", model, "--pairs", str(pairs_file), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert (found["recipe"], found["seed"], found["settings"]) == (None, None, None)
    assert list(found["people"]["references"]) == ["raw_pixels"]
    assert capsys.readouterr().out.splitlines()[4].startswith("zoo ")


def few_pairs(path):
    ok, picture = cv2.imencode(".png", 99 * cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (112, 112)))
    assert ok
    path.write_bytes(pickle.dumps(([picture.tobytes()] * 6, [True, False, True])))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pairs", "none.bin"], "none.bin"),
        (["--pairs", "few.bin"], "3 pairs are too few for 10 folds"),
        (["--pairs", "people.bin", "people.bin"], "the name 'people' is already taken"),
        (["--pairs", "seed.bin"], "the name 'seed' is already taken"),
        (["--pairs", "settings.bin"], "the name 'settings' is already taken"),
        (["--model", "none/model,0"], "none/model-0000.params is missing"),
        (["--model", "{house}/student/model,x"], "is no checkpoint"),
        (["--teacher", "{house}/teacher/model,7"], "model-0007.params is missing"),
        (["--model", "{house}/teacher/model,0", "--figure", "f.png"], "has no output 'generated_output'"),
        (["--train-data", "none"], "none"),
        (["--json", "few.bin/report.json"], "few.bin"),
        (["--gpus", "99"], "there is no GPU 99"),
        (["--batch-size", "0"], "a batch of 0"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    house, pairs_file, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    for name in ("people.bin", "seed.bin", "settings.bin"):
        shutil.copy(pairs_file, name)
    few_pairs(tmp_path / "few.bin")
    before = sorted(tmp_path.iterdir())
    given = [argument.format(house=house) for argument in arguments]
    default = ["--pairs", "people.bin", "--json", "report.json"]
    assert evaluate(house, *default, *given) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("latse: ")
    assert sentence in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_damaged_run_record_is_named(house, pairs_file, tmp_path, capsys):
    shutil.copytree(house, tmp_path / "copy")
    for content in ("{", "[]"):
        (tmp_path / "copy" / "student" / "run.json").write_text(content)
        assert evaluate(tmp_path / "copy", "--pairs", pairs_file) == 1
        assert "run.json" in capsys.readouterr().err
