"""`latse import`: checkpoints whose graphs are written here in plain MXNet, as insightface writes them."""

import json

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.data.shards.records import Shard
from latse.models import checkpoint, warm_start
from latse.models.parameters import Parameters
from latse.symbols import encoders, names

EPSILON = 2e-5


def batch_norm(net, name, fixed=False):
    return mx.sym.BatchNorm(net, fix_gamma=fixed, eps=EPSILON, momentum=0.9, name=name)


def convolution(net, name, width, kernel=3, stride=1):
    shape = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "pad": (kernel // 2,) * 2}
    return mx.sym.Convolution(net, num_filter=width, no_bias=True, name=name, **shape)


def prelu(net, name):
    return mx.sym.LeakyReLU(net, act_type="prelu", name=name)


def squeezed(net, name, width):
    """A squeeze-and-excitation block, which no encoder here has."""
    pooled = mx.sym.Pooling(net, global_pool=True, kernel=(7, 7), pool_type="avg")
    hidden = mx.sym.Convolution(pooled, num_filter=width // 16, kernel=(1, 1), name=f"{name}_se_conv1")
    scale = mx.sym.Convolution(hidden, num_filter=width, kernel=(1, 1), name=f"{name}_se_conv2")
    return mx.sym.broadcast_mul(net, mx.sym.sigmoid(scale))


def network(name, squeeze=False):
    """insightface's graph of the encoder `name` up to fc1, with names, operators and layout of its own."""
    units, widths = encoders.ENCODERS[name].units, encoders.ENCODERS[name].widths
    net = (mx.sym.identity(mx.sym.var("data")) - 127.5) * 0.0078125
    net = prelu(batch_norm(convolution(net, "conv0", widths[0]), "bn0"), "relu0")
    for stage, (count, width) in enumerate(zip(units, widths[1:]), 1):
        for unit in range(1, count + 1):
            title, stride = f"stage{stage}_unit{unit}", 2 if unit == 1 else 1
            body = convolution(batch_norm(net, f"{title}_bn1"), f"{title}_conv1", width)
            body = prelu(batch_norm(body, f"{title}_bn2"), f"{title}_relu1")
            body = batch_norm(convolution(body, f"{title}_conv2", width, stride=stride), f"{title}_bn3")
            body = squeezed(body, title, width) if squeeze else body
            if unit == 1:
                net = batch_norm(convolution(net, f"{title}_conv1sc", width, 1, 2), f"{title}_sc")
            net = net + body
    net = mx.sym.Dropout(batch_norm(net, "bn1"), p=0.4)
    return batch_norm(mx.sym.FullyConnected(net, num_hidden=512, name="pre_fc1"), "fc1", fixed=True)


def save(prefix, number, symbol, **more):
    """Save a symbol with random parameters under insightface's names; return them by name."""
    rng = np.random.default_rng(4)
    args, _, aux = symbol.infer_shape(data=(1, 3, 112, 112))

    def draw(name, shape):
        if name.endswith("_weight"):
            return rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        if name.endswith(("_beta", "_bias", "_mean")):
            return rng.normal(0, 0.2, shape)
        return rng.uniform(0.3, 0.9, shape)

    named = [dict(zip(symbol.list_arguments(), args)), dict(zip(symbol.list_auxiliary_states(), aux))]
    del named[0]["data"]
    found = [{name: mx.nd.array(draw(name, shape)) for name, shape in part.items()} for part in named]
    found[0].update({name: mx.nd.array(array) for name, array in more.items()})
    mx.model.save_checkpoint(str(prefix), number, symbol, *found)
    return {name: array.asnumpy() for part in found for name, array in part.items()}


def run(source, out, *arguments):
    return main(["import", str(source), "--out", str(out), *map(str, arguments)])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The prefix of a tiny checkpoint with class centres of seven people, and its parameters."""
    prefix = tmp_path_factory.mktemp("insightface") / "r"
    centres = np.random.default_rng(0).normal(size=(7, 512))
    return prefix, save(prefix, 12, network("resnet_tiny"), fc7_weight=centres)


def test_everything_maps_and_the_embedding_stays(theirs, tmp_path, capsys):
    prefix, parameters = theirs
    assert run(f"{prefix},12", tmp_path / "new" / "start", "--json", tmp_path / "import.json") == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "import.json").read_text())
    assert (report["kind"], report["encoder"]) == ("import", "resnet_tiny")
    assert report["not_mapped"] == {}
    assert len(report["mapped"]) == len(parameters)
    assert report["embedding"]["largest_difference"] < 1e-6
    assert "provenance" in report
    assert f"all {len(parameters) - 1} parameters mapped" in printed
    assert "class centres: of 7 people, kept" in printed
    assert "another network" not in printed
    symbol, args, aux = checkpoint.load(tmp_path / "new" / "start", 0)
    assert symbol.list_outputs() == ["fc1_output"]
    np.testing.assert_array_equal(args["fc7_weight"].asnumpy(), parameters["fc7_weight"].astype(np.float32))
    assert (args["fc1_gamma"].asnumpy() == 1).all()
    slopes = args["stage2_unit1_relu1_gamma"]
    np.testing.assert_array_equal(slopes.asnumpy().ravel(), parameters["stage2_unit1_relu1_gamma"])
    assert {"bn0_running_mean"} <= aux.keys()


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet100", "resnet124"])
def test_the_depth_is_found_from_the_parameters(name):
    """A deeper network has all the parameters of a shallower one, in the same shapes."""
    symbol = network(name)
    args, _, aux = symbol.infer_shape(data=(1, 3, 112, 112))
    args, aux = dict(zip(symbol.list_arguments(), args)), dict(zip(symbol.list_auxiliary_states(), aux))
    del args["data"]
    given = [{key: mx.nd.zeros(shape) for key, shape in part.items()} for part in (args, aux)]
    fit = warm_start.closest(Parameters(*names.from_insightface(*given)).shapes())
    assert (fit.network, fit.differences) == (name, 0)


def test_what_does_not_map_is_named_one_by_one(tmp_path, capsys):
    """Squeeze-and-excitation has no place here; the rest is a start, but not the same network."""
    parameters = save(tmp_path / "se", 3, network("resnet_tiny", squeeze=True), softmax_extra=np.ones((2, 3)))
    assert run(f"{tmp_path / 'se'},3", tmp_path / "out", "--json", tmp_path / "import.json") == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "import.json").read_text())
    extra = {name for name in parameters if "_se_" in name} | {"softmax_extra"}
    assert set(report["not_mapped"]) == extra
    for name in extra:
        assert f"not mapped: {name} {parameters[name].shape}\n" in printed
    assert report["embedding"]["largest_difference"] > 1e-3
    assert "this is another network than the original" in printed
    assert "class centres: none" in printed


def test_a_training_starts_from_either(theirs, tiny, people, tmp_path):
    """From what was imported and from insightface's own files, to the same bits."""
    prefix, parameters = theirs
    assert run(f"{prefix},12", tmp_path / "start") == 0
    found = []
    for number, text in enumerate((tmp_path / "start", f"{prefix},12")):
        out = tmp_path / str(number)
        arguments = ["train", tiny, "--data", people, "--out", out, "--start", text]
        assert main([*map(str, arguments), "--set", "train.iterations=1"]) == 0
        found.append([checkpoint.load(out / name, 0)[1] for name in ("untrained", "model")])
    for first, second in zip(*found):
        assert first.keys() == second.keys()
        assert all((first[name].asnumpy() == second[name].asnumpy()).all() for name in first)
    initial = found[0][0]
    np.testing.assert_array_equal(initial["conv0_weight"].asnumpy(), parameters["conv0_weight"])
    assert initial["fc7_weight"].shape == (Shard(people).classes, 512)


@pytest.fixture
def refused(tmp_path, capsys):
    """Import with an error, check that nothing is written, and return the sentence."""

    def refused(source, *arguments, out=tmp_path / "out" / "x"):
        assert run(source, out, *arguments) == 1
        error = capsys.readouterr().err.strip()
        assert error.count("\n") == 0
        assert not list(tmp_path.glob("out/*"))
        return error

    return refused


def test_another_network_is_refused_with_what_is_missing(refused, theirs, tmp_path):
    data = mx.sym.var("data")
    net = mx.sym.Convolution(data, kernel=(14, 14), stride=(14, 14), num_filter=4, name="conv_1_conv2d")
    save(tmp_path / "mobile", 0, mx.sym.FullyConnected(net, num_hidden=128, name="fc1"))
    sentence = refused(tmp_path / "mobile")
    seen = "4 parameters, conv_1_conv2d_weight (4, 3, 14, 14) to fc1_bias (128,)"
    assert f"mobile-0000.params holds no network that is known here: {seen}; " in sentence
    assert "; the nearest, resnet8, has 76, of which 76 are missing (" in sentence
    wrong = refused(f"{theirs[0]},12", "--encoder", "resnet34")
    assert "does not fit resnet34" in wrong
    assert "missing (stage1_unit2_bn1_gamma" in wrong
    assert "of another shape (conv0_weight" in wrong


def test_a_damaged_checkpoint_is_refused(refused, theirs, tmp_path):
    prefix, parameters = theirs
    assert "r-0011.params" in refused(f"{prefix},11")
    assert "no checkpoint" in refused(f"{prefix},twelve")
    assert "would replace" in refused(f"{prefix},12", out=prefix)
    broken = {**parameters, "bn1_beta": np.full(16, np.inf)}
    args = {name: mx.nd.array(array) for name, array in broken.items() if "moving" not in name}
    aux = {name: mx.nd.array(array) for name, array in broken.items() if "moving" in name}
    mx.model.save_checkpoint(str(tmp_path / "inf"), 0, network("resnet_tiny"), args, aux)
    assert "bn1_beta holds a number that is not finite" in refused(tmp_path / "inf")
    (tmp_path / "cut-symbol.json").write_text((tmp_path / "inf-symbol.json").read_text())
    (tmp_path / "cut-0000.params").write_bytes((tmp_path / "inf-0000.params").read_bytes()[:5000])
    assert "damaged" in refused(tmp_path / "cut")
