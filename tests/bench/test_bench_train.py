"""`latse bench train`: all contenders train the same network; what is printed and written was measured."""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from latse.bench import equivalents, graph_step, learner_step, parts_step, roofline
from latse.bench import train_command as train
from latse.bench.benchmark import SOURCES
from latse.bench.contender import Contender
from latse.bench.result import read
from latse.cli import main
from latse.goals import Figure
from latse.symbols import names
from latse.symbols.networks import IMAGE_SHAPE
from latse.train.learner import Learner
from latse.train.state import RunState
from latse.train.training import Training

PEERS = os.environ.get("PEERS", "")
CLASSES, BATCH_SIZE, RATE = 7, 4, 0.05
SHAPES = {"data": (BATCH_SIZE, *IMAGE_SHAPE), "softmax_label": (BATCH_SIZE,)}
ARCFACE = ("margin.name=arcface", "margin.m2=0.5", f"schedule.learning_rate={RATE}")

needs_insightface = pytest.mark.skipif(
    not PEERS or not Path(PEERS, SOURCES).is_dir(), reason="PEERS does not hold insightface's sources"
)


needs_torch = pytest.mark.skipif(
    not PEERS or not Path(PEERS, "torch", "bin", "python").exists(), reason="PEERS does not hold PyTorch"
)


@pytest.fixture
def both(tiny_recipe):
    """Our learner and the equivalent module, and the parameters that both begin with.

    Ours is past the iterations in which the momentum of its moving statistics rises.
    """
    symbol = equivalents.training_symbol("resnet_tiny", CLASSES, BATCH_SIZE)
    mx.random.seed(3)
    theirs = graph_step.bound(symbol, SHAPES, RATE, rescale=1.0)
    start = names.from_insightface(*theirs.get_params())
    recipe = tiny_recipe(*ARCFACE, "schedule.mode=constant", "train.iterations=1000")
    training = Training.of(recipe, CLASSES, [mx.cpu()])
    return Learner(training, RunState(500, *start)), theirs, start


def what_was_learned(ours, theirs, before):
    """What each parameter and state has changed by: name -> ours, theirs."""
    captured = ours.capture(1)
    args, aux = names.from_insightface(*theirs.get_params())
    assert (captured.arg_params.keys(), captured.aux_params.keys()) == (args.keys(), aux.keys())
    mine = {**captured.arg_params, **captured.aux_params}
    return {
        name: (mine[name].asnumpy() - before[name], other.asnumpy() - before[name])
        for name, other in {**args, **aux}.items()
        if name != "fc1_gamma"  # neither graph uses it
    }


def test_the_equivalent_has_our_loss_and_learns_what_we_learn(both):
    """With the plain layouts of SSE4.1 it learns the slopes of PReLU wrongly, so that only one step compares.

    MXNet 1.9.1 then lets LeakyReLU write its output over the input that the gradient of the slopes needs. The
    gradient comes out multiplied by the slope, 0.25.
    """
    ours, theirs, start = both
    inputs = graph_step.made_up(SHAPES, CLASSES)
    before = {name: array.asnumpy().copy() for part in start for name, array in part.items()}
    batch = mx.io.DataBatch([mx.nd.array(inputs["data"])], [mx.nd.array(inputs["softmax_label"])])
    for step in range(2):
        mx.random.seed(step)
        theirs.forward_backward(batch)
        theirs.update()
        loss = theirs.get_outputs()[2].asscalar()
        assert ours.step(inputs, step)["loss"].mean() == pytest.approx(loss, rel=1e-5)
        learned = what_was_learned(ours, theirs, before)
        slopes = {name for name in learned if "relu" in name}
        overwritten = step == 0 and all(
            np.linalg.norm(other - mine / 4) < np.linalg.norm(other - mine)
            for mine, other in map(learned.get, slopes)
        )
        for name, (mine, other) in learned.items():
            expected = mine / 4 if overwritten and name in slopes else mine
            # A bias before a batch normalisation learns nothing but its decay.
            assert np.linalg.norm(other - expected) < 2e-3 * np.linalg.norm(mine) + 1e-5, name
        if overwritten:
            break


def test_the_outputs_of_the_equivalent_are_insightfaces():
    symbol = equivalents.training_symbol("resnet34", CLASSES, BATCH_SIZE)
    shapes = dict(zip(symbol.list_outputs(), symbol.infer_shape(**SHAPES)[1]))
    assert list(shapes.values()) == [(BATCH_SIZE, 512), (BATCH_SIZE, CLASSES), (1,)]
    assert "fc1_output" in symbol.get_internals().list_outputs()


STRUCTURE = """
import json, sys
from collections import Counter
from pathlib import Path
from latse.bench import insightface_step

trainer, _ = insightface_step.modules(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
insightface_step.training_symbol(trainer, int(sys.argv[4])).save(sys.argv[5])
"""


@needs_insightface
@pytest.mark.parametrize("encoder", ["resnet34", "resnet124"])
def test_the_equivalent_is_insightfaces_graph(tmp_path, encoder):
    path = tmp_path / "symbol.json"
    sizes = [str(CLASSES), str(BATCH_SIZE)]
    command = [
        sys.executable,
        "-c",
        STRUCTURE,
        str(Path(PEERS, SOURCES).resolve()),
        encoder,
        *sizes,
        str(path),
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    theirs, equivalent = mx.sym.load(str(path)), equivalents.training_symbol(encoder, CLASSES, BATCH_SIZE)
    assert operators(equivalent) == operators(theirs)
    for kind in ("list_arguments", "list_auxiliary_states"):
        assert sorted(getattr(equivalent, kind)()) == sorted(getattr(theirs, kind)())
    assert equivalent.infer_shape(**SHAPES)[1] == theirs.infer_shape(**SHAPES)[1]


UNIMPORTANT = {("pad", "(0, 0)"), ("workspace", "256")}


def operators(symbol):
    """Count operators with all that decides what they compute; no padding is the default."""
    return Counter(
        (node["op"], *sorted(item for item in node.get("attrs", {}).items() if item not in UNIMPORTANT))
        for node in json.loads(symbol.tojson())["nodes"]
        if node["op"] != "null"
    )


def test_layers_are_counted_by_shape():
    data = mx.sym.var("data")
    x = mx.sym.Convolution(data, name="a", kernel=(3, 3), num_filter=8, pad=(1, 1), no_bias=True)
    for name in "bc":
        x = mx.sym.Convolution(x, name=name, kernel=(3, 3), num_filter=8, pad=(1, 1), no_bias=True)
    x = mx.sym.Convolution(x, name="slopes", kernel=(1, 1), num_filter=8, num_group=8)  # is no convolution
    x = mx.sym.Convolution(x, name="d", kernel=(1, 1), num_filter=4, stride=(2, 2))
    x = mx.sym.FullyConnected(x, name="e", num_hidden=5)
    assert roofline.layers(x, {"data": (2, 3, 12, 12)}) == {
        roofline.Layer("Convolution", (2, 3, 12, 12), (8, 3, 3, 3), 1, False): 1,
        roofline.Layer("Convolution", (2, 8, 12, 12), (8, 8, 3, 3), 1, True): 2,
        roofline.Layer("Convolution", (2, 8, 12, 12), (4, 8, 1, 1), 2, True): 1,
        roofline.Layer("FullyConnected", (2, 4, 6, 6), (5, 144), 1, True): 1,
    }


def test_the_roofline_has_all_layers_of_the_encoder_and_the_head():
    shapes = {"data": (1, *IMAGE_SHAPE), "softmax_label": (1,)}
    found = roofline.layers(equivalents.training_symbol("resnet50", CLASSES, 1), shapes)
    convolutions = sum(count for layer, count in found.items() if layer.operator == "Convolution")
    assert convolutions == 1 + 2 * (3 + 4 + 14 + 3) + 4
    dense = {layer.weight: count for layer, count in found.items() if layer.operator == "FullyConnected"}
    assert dense == {(512, 512 * 7 * 7): 1, (CLASSES, 512): 1}
    assert sum(count for layer, count in found.items() if not layer.learns_input) == 1


@pytest.mark.parametrize("learns_input", [True, False])
def test_a_layer_bound_alone_is_that_layer(learns_input):
    layer = roofline.Layer("Convolution", (2, 8, 12, 12), (32, 8, 3, 3), 2, learns_input)
    executor = roofline.bound(layer)
    internals = executor._symbol.get_internals()
    data = executor.arg_dict["data"].shape
    shapes = dict(zip(internals.list_outputs(), internals.infer_shape(data=data)[1]))
    (name,) = (name for name in shapes if name.startswith("convolution") and name.endswith("_output"))
    assert shapes[name] == (2, 32, 6, 6)
    assert shapes[name.replace("_output", "_weight")] == layer.weight
    assert (data == layer.data) is not learns_input


def built(folder, recipe, classes=CLASSES, **options):
    path = folder / "recipe.yaml"
    path.write_text(recipe)
    return learner_step.build(path, classes, BATCH_SIZE, **options)


FILTERED = "encoder: {name: resnet_tiny}\nfilter: {k: 1}\n"
STUDENT = FILTERED + "decoder: {enabled: true}\n"


def test_the_parts_of_a_step_are_a_step(tmp_path):
    learner, learn = built(tmp_path, FILTERED)
    twin, learn_twin = built(tmp_path, FILTERED)
    step = parts_step.by_parts(learner, learn)
    for _ in range(2):
        parts, outputs = step(), learn_twin()
        assert list(parts) == ["copies in", "forward and backward", "optimiser", "outputs to the host"]
        assert all(seconds > 0 for seconds in parts.values())
        assert set(outputs) == {"loss", "dloss"}
    mine, other = learner.capture(2).arg_params, twin.capture(2).arg_params
    assert all((mine[name].asnumpy() == other[name].asnumpy()).all() for name in other)


def test_ours_can_train_a_set_with_a_teacher_or_its_verdicts(tmp_path, people):
    recipe, data = tmp_path / "teacher.yaml", ["--data", str(people)]
    recipe.write_text("encoder: {name: resnet_tiny}\ntrain: {batch_size: 4, iterations: 1}\n")
    assert main(["train", str(recipe), *data, "--out", str(tmp_path / "teacher")]) == 0
    teacher, verdicts = f"{tmp_path / 'teacher' / 'model'},0", str(tmp_path / "verdicts.keep")
    assert main(["filter", *data, "--teacher", teacher, "--out", verdicts, "--k", "1"]) == 0
    kept = []
    for given in ({}, {"teacher": teacher}, {"verdicts": verdicts}):
        learner, learn = built(tmp_path, STUDENT, classes=5, data=people, **given)
        learner.step = lambda inputs, seed: inputs
        inputs = learn()
        kept.append(inputs["keep"].tolist())
        assert inputs["data"].shape == SHAPES["data"] and inputs["data"].dtype == np.uint8
        assert set(inputs["softmax_label"]) <= set(range(5))
    unfiltered, online, stored = kept
    assert unfiltered == [1] * BATCH_SIZE
    assert online == stored and set(online) <= {0, 1}


def test_the_bank_gives_the_targets_and_learns_what_is_kept(tmp_path):
    learner, learn = built(tmp_path, STUDENT, bank=tmp_path / "bank")
    learner.step = lambda inputs, seed: inputs
    inputs = learn()
    scaled = inputs["data"] / np.float32(127.5) - 1
    labels = inputs["softmax_label"].tolist()
    alone = [row for row, label in enumerate(labels) if labels.count(label) == 1]
    assert alone and np.allclose(inputs["mean_face"][alone], scaled[alone], atol=1e-3)
    means = np.load(tmp_path / "bank" / "mean_faces.npy")
    assert np.array_equal(means[int(labels[alone[0]])], inputs["mean_face"][alone[0]])
    assert set(np.flatnonzero(means.any(axis=(1, 2, 3)))) == set(map(int, labels))


def test_the_benchmark_measures_writes_and_prints(tmp_path, capsys):
    out = tmp_path / "train.json"
    sizes = ["--encoder", "resnet_tiny", "--classes", "7", "--batch-size", "2", "--repeats", "2"]
    peers = tmp_path / "peers"
    peers.mkdir()
    assert main(["bench", "train", *sizes, "--peers", str(peers), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    result = read(out)
    assert result.kind == "bench train"
    learners = {"ours", "ours, memory plan", "equivalent of insightface's trainer"}
    assert {title for title, figures in result.contenders.items() if "speed" in figures} == learners
    values = json.loads(out.read_text())["contenders"]
    for title in learners:
        figures = result.contenders[title]
        speeds = [2 / seconds for seconds in values[title]["step"]["values"]]
        assert len(speeds) == 2 and values[title]["speed"]["values"] == pytest.approx(speeds)
        assert figures["processor time"].min > 0
        assert figures["peak memory"].median > figures["memory risen"].median >= 0
    planned = {title: result.contenders[title]["planned memory"].median for title in learners}
    assert planned["ours, memory plan"] < planned["ours"]
    alone = result.contenders["convolutions and dense layers alone"]
    assert 0 < alone["step"].median < result.contenders["ours"]["step"].median
    assert sum(title.startswith("part of ours: ") for title in result.contenders) == 5
    theirs = "equivalent of insightface's trainer"
    rounds = zip(values[theirs]["step"]["values"], values["ours"]["step"]["values"])
    speed = result.goals[0]
    assert speed.text == f"images/s of ours over {theirs}, resnet_tiny" and speed.at_least == 1.6
    assert speed.figure.median == pytest.approx(np.median([other / own for other, own in rounds]))
    assert [goal.bound for goal in result.goals] == [1.6, None, 1.0, None, 0.88]
    assert printed.count(": met") + printed.count(": missed") == 3
    assert "insightface's own trainer is left out" in printed and "PyTorch is left out" in printed


FAKE_TORCH = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(Path(train.__file__).parent)!r})
from protocol import serve

assert sys.argv[1].endswith("torch_step.py")
serve(lambda: ({{"planned_megabytes": None, "parameters": 1}}, lambda: None))
"""


def test_pytorch_takes_part_where_it_is_given(tmp_path):
    python = tmp_path / "torch" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_TORCH)
    python.chmod(0o755)
    iresnet = tmp_path / train.IRESNET
    iresnet.parent.mkdir(parents=True)
    iresnet.touch()
    args = argparse.Namespace(
        encoder="resnet34", classes=7, batch_size=2, peers=str(tmp_path), torch_python=None
    )
    command = train._commands(args, (tmp_path, 7, 2), tmp_path)[train.TORCH]
    units, _, own, *sizes, _ = json.loads(command[-1])
    assert (units, own, sizes) == ([3, 4, 6, 3], str(iresnet), [7, 2])
    with Contender(train.TORCH, command) as contender:
        assert contender.step()["seconds"] >= 0
    found = dict.fromkeys((train.OURS, train.PLANNED, train.THEIRS), [1.0, 2.0])
    seconds = {**found, train.TORCH: [1.5, 3.0], train.CONVOLUTIONS: [0.5, 1.0]}
    figures = {title: {train.PEAK: Figure.of([5.0])} for title in seconds}
    first, second, *_ = train._goals("resnet34", seconds, figures)
    assert (first.figure.median, first.at_least) == (1.0, 1.6)
    assert (second.figure.median, second.at_least) == (1.5, 1.1)


@needs_torch
@pytest.mark.parametrize("encoder", ["resnet_tiny", "resnet34"])
def test_pytorch_trains_as_many_parameters(encoder, tmp_path):
    args = argparse.Namespace(encoder=encoder, classes=7, batch_size=2, peers=PEERS, torch_python=None)
    with Contender(train.TORCH, train._commands(args, (tmp_path, 7, 2), tmp_path)[train.TORCH]) as contender:
        symbol = equivalents.training_symbol(encoder, 7, 2)
        shapes = symbol.infer_shape(data=(2, *IMAGE_SHAPE), softmax_label=(2,))[0]
        sizes = dict(zip(symbol.list_arguments(), (int(np.prod(shape)) for shape in shapes)))
        trained = sum(sizes.values()) - sizes["data"] - sizes["softmax_label"]
        assert contender.facts["parameters"] == trained
        assert np.isfinite(contender.step()["loss"])


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (["--repeats", "0"], "--repeats is 0, must be 1 to 2147483647"),
        (["--classes", "1"], "--classes is 1, must be 2 to 2147483647"),
        (["--encoder", "resnet7"], "unknown encoder 'resnet7'"),
        (["--encoder", "y1"], "y1 is no ResNet of insightface's"),
        (["--peers", "/nowhere"], "--peers /nowhere: there is no such folder"),
        (["--torch-python", "/no/python"], "--torch-python /no/python: there is no such file"),
    ],
)
def test_what_is_refused(wrong, complaint, capsys):
    assert main(["bench", "train", *wrong]) == 1
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
