"""The folder of a run stands for its last checkpoint, wherever a model or a checkpoint is asked for."""

import json
import shutil

import pytest

from latse.cli import main
from latse.errors import LatseError
from latse.models.run_folder import checkpoint_of, named_checkpoint


@pytest.fixture
def run_folder(tmp_path, save_network):
    """A finished run, with an earlier checkpoint of other parameters."""
    folder = tmp_path / "out" / "student"
    folder.mkdir(parents=True)
    save_network(folder / "model", seed=7)
    (folder / "model-0000.params").rename(folder / "model-0040.params")
    save_network(folder / "model")
    return folder


def test_a_finished_run_is_its_last_checkpoint(run_folder, monkeypatch, capsys):
    assert named_checkpoint(str(run_folder)) == f"{run_folder}/model,0"
    monkeypatch.chdir(run_folder)
    assert named_checkpoint(".") == "model,0"
    assert capsys.readouterr().err == ""


def test_an_unfinished_run_is_its_newest_checkpoint_which_is_said(run_folder, capsys):
    (run_folder / "model-0000.params").unlink()
    shutil.copy(run_folder / "model-0040.params", run_folder / "model-10000.params")
    assert named_checkpoint(str(run_folder)) == f"{run_folder}/model,10000"
    said = (
        f"latse: {run_folder}: the run is not finished{{}}; its newest checkpoint model,10000 is taken{{}}\n"
    )
    assert capsys.readouterr().err == said.format("", "")
    (run_folder / "run.json").write_text('{"settings": {"train": {"iterations": 20000}}}')
    assert named_checkpoint(str(run_folder)) == f"{run_folder}/model,10000"
    finish = (
        "; its `latse train` command finishes it with --resume, or here with --set train.iterations=10000 too"
    )
    assert capsys.readouterr().err == said.format(" (iteration 10000 of 20000)", finish)
    (run_folder / "run.json").write_text("[]")
    assert named_checkpoint(str(run_folder)) == f"{run_folder}/model,10000"
    assert capsys.readouterr().err == said.format("", "")


@pytest.mark.parametrize("text", ["", "out/model,3", "out/model", "model"])
def test_all_else_stays(text):
    assert checkpoint_of(text) == text


def test_a_prefix_that_is_a_folder_too_stays_a_prefix(run_folder, save_network):
    save_network(run_folder)
    assert checkpoint_of(str(run_folder)) == str(run_folder)


@pytest.mark.parametrize("missing", ["model-symbol.json", "model-*.params"])
def test_a_folder_without_a_checkpoint_is_named(run_folder, missing):
    for path in run_folder.glob(missing):
        path.unlink()
    with pytest.raises(LatseError, match=r"student is a folder without a run's model-symbol\.json"):
        checkpoint_of(str(run_folder))


def test_the_folder_is_judged_as_its_checkpoint(run_folder, pairs_file, tmp_path):
    for text, name in ((run_folder, "folder"), (f"{run_folder}/model,0", "checkpoint")):
        order = ["eval", "--model", text, "--pairs", pairs_file, "--samples", 0, "--json", tmp_path / name]
        assert main([*map(str, order)]) == 0
    folder, checkpoint = (json.loads((tmp_path / name).read_text()) for name in ("folder", "checkpoint"))
    assert folder["models"] == checkpoint["models"] and list(folder["models"]) == ["student"]
    assert folder["sets"] == checkpoint["sets"]


def test_the_folder_is_exported_as_its_checkpoint(run_folder, tmp_path):
    for text, name in ((run_folder, "folder"), (f"{run_folder}/model,0", "checkpoint")):
        assert main(["export", str(text), "--plain", str(tmp_path / name)]) == 0
    assert (tmp_path / "folder-0000.params").read_bytes() == (
        tmp_path / "checkpoint-0000.params"
    ).read_bytes()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (
            "pixel",
            "'pixel' is no model, for there is no pixel-0000.params: WHAT is one of PREFIX,NUMBER, RUN_",
        ),
        (
            "no/run",
            "WHAT is one of PREFIX,NUMBER, RUN_FOLDER, FILE.onnx, pixels, pca, fisherfaces, dlib, FILE.npy",
        ),
        ("x" * 5000, "xxx: File name too long"),
        (".", ". is a folder without a run's model-symbol.json and model-0000.params"),
    ],
)
def test_an_unknown_model_lists_the_kinds(pairs_file, tmp_path, monkeypatch, capsys, what, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--model", what, "--pairs", str(pairs_file)]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "order",
    [
        "identify --probes x --model x",
        "templates --data x --model a=./x",
        "figures --run x --data x --pairs x --out x --teacher x",
        "export x --onnx x.onnx",
        "import x --out y",
        "filter --data x --out y --teacher x",
        "train orl_student --data x --out y --teacher x",
        "train orl_student --data x --out y --start x",
        "bench embed --model x",
    ],
)
def test_every_command_looks_into_the_folder(tmp_path, monkeypatch, capsys, order):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    assert main(order.split()) == 1
    assert "x is a folder without a run's model-symbol.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_teacher_and_start_take_folders(tiny, people, tmp_path):
    folder = tmp_path / "teacher"
    steps = ["--data", str(people), "--set", "train.iterations=1"]
    assert main(["train", str(tiny), *steps, "--out", str(folder)]) == 0
    verdicts = []
    for number, text in enumerate((str(folder), f"{folder}/model,0")):
        order = ["filter", "--data", str(people), "--teacher", text, "--batch-size", "8"]
        assert main([*order, "--out", str(tmp_path / f"{number}.keep")]) == 0
        verdicts.append((tmp_path / f"{number}.keep").read_bytes())
    assert verdicts[0] == verdicts[1]
    places = ["--teacher", str(folder), "--start", str(folder), "--out", str(tmp_path / "student")]
    assert main(["train", str(tiny), *steps, "--set", "filter.k=1", *places]) == 0
    origin = json.loads((tmp_path / "student" / "run.json").read_text())["from"]
    assert origin["teacher"] == origin["start"] == f"{folder}/model,0"
