import dataclasses
import json
import re

import mxnet as mx
import numpy as np
import pytest

from latse import recipe as recipes
from latse.bench import result
from latse.cli import main
from latse.errors import LatseError
from latse.paper import plan_command
from latse.paper.dry_run import dry_run
from latse.plan import memonger
from latse.train.training import Training, TrainingGraph, traced

CPU = mx.cpu()
SHAPES = {"data": (4, 3, 112, 112), "softmax_label": (4,)}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "narrow.yaml"
    path.write_text("encoder:\n  name: resnet_tiny\ntrain:\n  batch_size: 8\n")
    return path


def plan(recipe, *arguments):
    return main(["plan", str(recipe), *map(str, arguments)])


def graph_of(recipe, classes, *changes):
    return traced(recipes.load(recipe, changes), classes, 4)[0]


def test_writes_the_plan_and_says_what_the_executor_says(recipe, tmp_path, capsys):
    out, figures = tmp_path / "new" / "narrow-plan.json", tmp_path / "plan.json"
    assert plan(recipe, "--classes", 7, "--batch-size", 4, "--out", out, "--json", figures) == 0
    before, after = map(
        float,
        re.search(r"(\d+) MiB without a plan, (\d+) MiB with this one", capsys.readouterr().out).groups(),
    )
    planned = memonger.read_plan(out, graph_of(recipe, 7))
    assert memonger.planned_megabytes(planned, SHAPES, CPU) == after < before
    written = json.loads(figures.read_text())
    assert (written["before_megabytes"], written["after_megabytes"]) == (before, after)
    assert (written["classes"], written["recipe"], written["devices"]) == (7, "narrow", 1)
    assert written["settings"]["train"]["batch_size"] == 4
    assert "mxnet" in written["provenance"]["versions"]
    assert written["kind"] == "plan"


def test_two_devices_share_the_batch(recipe, tmp_path, capsys):
    for number, arguments in enumerate([("--batch-size", 4), ("--batch-size", 8, "--cpus", 2)]):
        assert plan(recipe, "--classes", 7, *arguments, "--out", tmp_path / f"{number}-plan.json") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("activations on")]
    assert lines[0] == lines[1]
    assert "batch 4" in lines[0]


def test_the_numbers_of_people_and_images_may_come_from_the_data(recipe, people, tmp_path):
    """Five people with three pictures each, as with `--classes 5 --images 15`."""
    for name, arguments in (("data", ("--data", people)), ("classes", ("--classes", 5, "--images", 15))):
        files = "--out", tmp_path / f"{name}-plan.json", "--json", tmp_path / f"{name}.json"
        assert plan(recipe, *arguments, "--batch-size", 4, *files) == 0
    by_data, by_number = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("data", "classes"))
    del by_data["provenance"], by_number["provenance"]
    assert by_data == by_number
    assert by_data["classes"] == 5
    assert by_data["epochs"] == by_data["images"] / 15 == 4 * 24000 / 15


def test_says_how_much_is_looked_at(recipe, tmp_path, capsys):
    out = "--out", tmp_path / "narrow-plan.json"
    changes = "--set", "train.iterations=1500", "--batch-size", 4, "--cpus", 2
    assert plan(recipe, "--classes", 7, "--images", 400, *changes, *out) == 0
    assert "1,500 iterations of 4 images on 2 devices: 6,000 images, 15.0 epochs" in capsys.readouterr().out
    assert plan(recipe, "--classes", 7, "--batch-size", 4, *out) == 0
    assert "24,000 iterations of 4 images on one device: 96,000 images\n" in capsys.readouterr().out


def parameters_of(symbol, inputs):
    """MiB of float32 parameters with gradient and momentum, and of statistics once, shape by shape."""
    arguments, _, states = symbol.infer_shape(**inputs)
    sizes = {name: np.prod(shape) for name, shape in zip(symbol.list_arguments(), arguments)}
    trained = sum(size for name, size in sizes.items() if name not in inputs)
    return 4 * (3 * trained + sum(np.prod(shape) for shape in states)) / 2**20


def test_estimates_what_a_student_needs(recipe, tmp_path, capsys):
    """Activations as the executor says, parameters by their shapes, a teacher, mean faces."""
    out, figures = tmp_path / "narrow-plan.json", tmp_path / "plan.json"
    student = "--set", "filter.k=3", "--set", "decoder.enabled=true"
    size = "--classes", 7, "--batch-size", 4
    assert (
        plan(recipe, *size, *student, "--set", "train.memory_plan=true", "--out", out, "--json", figures) == 0
    )
    said = capsys.readouterr().out
    written = json.loads(figures.read_text())
    inputs = {**SHAPES, "mean_face": SHAPES["data"], "keep": (4,)}
    symbol = graph_of(recipe, 7, "filter.k=3", "decoder.enabled=true")
    assert written["parameters_megabytes"] == pytest.approx(parameters_of(symbol, inputs))
    assert written["mean_faces_megabytes"] == 7 * 3 * 112 * 112 * 2 / 2**20
    assert written["teacher_megabytes"] > 0
    together = written["after_megabytes"] + written["parameters_megabytes"] + written["teacher_megabytes"]
    assert written["device_megabytes"] == together
    assert f", {together:.0f} MiB with this one (activations, parameters" in said
    assert "a run of this recipe makes the plan of least memory itself" in said
    assert "mean faces on the host" in said


def test_without_a_memory_plan_the_estimate_is_of_the_graph_as_it_is(recipe, tmp_path, capsys):
    figures = tmp_path / "plan.json"
    files = "--out", tmp_path / "narrow-plan.json", "--json", figures
    assert plan(recipe, "--classes", 7, "--batch-size", 4, *files) == 0
    written = json.loads(figures.read_text())
    assert written["device_megabytes"] == written["before_megabytes"] + written["parameters_megabytes"]
    assert written["teacher_megabytes"] == written["mean_faces_megabytes"] == 0
    assert "teacher" not in capsys.readouterr().out


def test_out_has_a_default(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plan(recipe, "--classes", 3, "--batch-size", 2) == 0
    assert "out/plan/narrow-plan.json" in capsys.readouterr().out
    assert (tmp_path / "out" / "plan" / "narrow-plan.json").exists()


@pytest.mark.parametrize("is_planned", [False, True])
def test_the_memory_of_a_device_is_that_of_its_activations_and_the_rest(recipe, is_planned, tmp_path, capsys):
    """Both lines compare the same two runs, whichever of them the recipe asks for."""
    setting = "--set", f"train.memory_plan={str(is_planned).lower()}"
    assert plan(recipe, "--classes", 7, "--batch-size", 4, *setting, "--out", tmp_path / "p.json") == 0
    said = capsys.readouterr().out
    sizes = re.findall(r": (\d+) MiB without a plan, (\d+) MiB with this one", said)
    (before, after), (device_before, device_after) = (map(int, pair) for pair in sizes)
    parameters = float(re.search(r"\(activations, parameters with gradients and momenta (\d+)\)", said)[1])
    assert device_before - before == pytest.approx(parameters, abs=1) and after < before
    assert device_after - after == pytest.approx(parameters, abs=1)
    assert ("a run of this recipe has no plan, unless" in said) is not is_planned


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--data", "nowhere"), "nowhere"),
        (("--classes", 1), "latse: --classes is 1, must be 2 to 16777216"),
        (("--classes", 10**12), "latse: --classes is 1000000000000, must be 2 to 16777216"),
        (("--classes", 7, "--images", 0), "latse: --images is 0, must be at least 1"),
        (
            ("--classes", 7, "--batch-size", 0),
            "latse: --batch-size: train.batch_size is 0, must be a",
        ),
        (("--classes", 7, "--batch-size", 3, "--cpus", 2), "cannot be split over 2 devices"),
        (("--classes", 7, "--set", "train.colour=red"), "unknown key"),
        (("--classes", 7, "--batch-size", 2, "--out", "/dev/null/x-plan.json"), "cannot write"),
    ],
)
def test_bad_input_is_one_sentence(recipe, arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plan(recipe, *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("latse: ")
    assert sentence in error
    assert not (tmp_path / "out").exists()


def test_needs_either_data_or_classes(recipe, capsys):
    assert plan(recipe) == 1
    assert "name a RECIPE with --data or --classes, or " in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        plan(recipe, "--classes", "7", "--data", "folder")
    assert caught.value.code == 2


def test_a_graph_that_no_plan_helps_is_said_so(recipe, tmp_path, monkeypatch, capsys):
    unplanned = mx.sym.MakeLoss(mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="fc"))
    graph = TrainingGraph(unplanned, {"data": (2, 3)})
    monkeypatch.setattr("latse.train.training.traced", lambda *_: graph)
    monkeypatch.setattr("latse.train.network_check.check_trained", lambda *_: None)
    out = tmp_path / "narrow-plan.json"
    assert plan(recipe, "--classes", 7, "--out", out) == 0
    said = capsys.readouterr().out
    assert "MiB; the plan computes nothing again" in said
    assert "without a plan" not in said and "with this one" not in said
    assert "force_mirroring" not in memonger.read_plan(out, unplanned).tojson()


def test_budgets(recipe, tmp_path, capsys):
    """The least memory, the least in 1.1 times the time, and the middle between that and the plain graph."""
    figures = tmp_path / "plan.json"
    files = "--out", tmp_path / "narrow-plan.json", "--json", figures
    found = []
    for budget in ((), ("--time", 1.1)):
        assert plan(recipe, "--classes", 7, "--batch-size", 4, *files, *budget) == 0
        found.append(json.loads(figures.read_text()))
    least, timed = found
    assert least["after_megabytes"] <= timed["after_megabytes"] < timed["before_megabytes"]
    assert timed["predicted_time"] <= 1.1 < least["predicted_time"]
    middle = (timed["before_megabytes"] + timed["after_megabytes"]) / 2
    assert plan(recipe, "--classes", 7, "--batch-size", 4, *files, "--memory", middle) == 0
    fits = json.loads(figures.read_text())
    assert fits["after_megabytes"] <= middle
    assert fits["predicted_time"] <= timed["predicted_time"]
    assert f"no plan can be below {fits['bound_megabytes']:.0f} MiB" in capsys.readouterr().out
    assert plan(recipe, "--classes", 7, "--batch-size", 4, *files, "--memory", 1) == 1
    assert "no plan fits into 1 MiB" in capsys.readouterr().err


def test_plan_file_is_of_one_graph(recipe, tmp_path):
    out = tmp_path / "narrow-plan.json"
    assert plan(recipe, "--classes", 7, "--batch-size", 4, "--out", out) == 0
    symbol = graph_of(recipe, 7)
    traced_again = graph_of(recipe, 7)
    assert symbol.tojson() != traced_again.tojson()  # for the names that MXNet counts
    for planless in (symbol, traced_again):
        assert "force_mirroring" in memonger.read_plan(out, planless).tojson()
        assert "force_mirroring" not in planless.tojson()
    with pytest.raises(LatseError, match="plan of another graph"):
        memonger.read_plan(out, graph_of(recipe, 8))
    with pytest.raises(LatseError, match="is no memory plan"):
        memonger.read_plan(make(tmp_path / "other.json", {"kind": "plan"}), symbol)
    content = json.loads(out.read_text())
    for wrong in ([-1], [10**6], ["conv0"], 5):
        path = make(tmp_path / "wrong.json", {**content, "recomputed": wrong})
        with pytest.raises(LatseError, match=r"wrong.json: recomputed(\[0\])? is .*, must be a (node|list)"):
            memonger.read_plan(path, symbol)


def make(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("batch_size, classes, bound", [(96, 85742, 14e9 / 2**20), (8, 85742, None)])
def test_the_papers_setting_has_a_goal(recipe, batch_size, classes, bound):
    """Less than 14 GB a device; what is planned here is narrow, with few people."""
    training = Training.of(recipes.load(recipe), 7, [CPU])
    planned = dry_run(training, None)
    wide = recipes.load(recipe, ["encoder.name=resnet124", f"train.batch_size={batch_size}"])
    papers = dataclasses.replace(training, recipe=wide, classes=classes)
    found = plan_command.figures(dataclasses.replace(planned, training=papers))
    (goal,) = found["goals"]
    assert goal.get("at_most") == bound
    assert goal["figure"]["median"] == planned.device_memory
    parts = found["contenders"]["a device"]
    others = parts["parameters"]["median"] + parts["teacher"]["median"]
    for plan in ("without a plan", "with the plan"):
        together = parts[f"activations {plan}"]["median"] + others
        assert parts[f"together {plan}"]["median"] == pytest.approx(together)


def test_the_report_is_a_result_for_the_page(recipe, tmp_path):
    report = tmp_path / "plan.json"
    assert plan(recipe, "--classes", 7, "--out", tmp_path / "p.json", "--json", report) == 0
    found, content = result.read(report), json.loads(report.read_text())
    assert found.kind == "plan" and found.setting["classes"] == "7"
    figures = found.contenders["a device"]
    assert figures["activations without a plan"].median == content["before_megabytes"]
    assert figures["activations with the plan"].median == content["after_megabytes"]
