"""What an ONNX network is fed with, and how many threads it computes on."""

import numpy as np
import pytest

from latse.errors import LatseError
from latse.models import onnx_model
from latse.models.feeding import Feeding
from latse.models.onnx_model import CENTRED, OnnxNetwork

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

IMAGES = np.random.default_rng(4).integers(0, 256, (5, 3, 112, 112), np.uint8)


def save(path, nodes, producer="", silent=0):
    """Means of 16x16 pixels behind `nodes`, each a name, an operator and a constant or None.

    `silent` nodes named `pass…` stand before them.
    """
    make, constants, output, made = onnx.helper, [], "data", []
    for name, operator, value in [(f"pass{n}", "Identity", None) for n in range(silent)] + nodes:
        inputs = [output] if value is None else [output, f"{name}_value"]
        if value is not None:
            constants.append(onnx.numpy_helper.from_array(np.array(value, np.float32), inputs[1]))
        output = f"{name}_out"
        made.append(make.make_node(operator, inputs, [output], name=name))
    made.append(make.make_node("AveragePool", [output], ["p"], kernel_shape=[16, 16], strides=[16, 16]))
    made.append(make.make_node("Flatten", ["p"], ["out"]))
    kind = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        made,
        "net",
        [make.make_tensor_value_info("data", kind, ["n", 3, 112, 112])],
        [make.make_tensor_value_info("out", kind, ["n", 147])],
        constants,
    )
    opset = [make.make_operatorsetid("", 13)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=7, producer_name=producer), path)


def means(images):
    return images.reshape(len(images), 3, 7, 16, 7, 16).mean(axis=(3, 5)).reshape(len(images), -1)


MXNET = [("_minusscalar0", "Sub", 127.5), ("_mulscalar0", "Mul", 0.0078125)]


@pytest.mark.parametrize(
    ("nodes", "silent", "raw"),
    [
        ([], 0, False),
        (MXNET, 0, True),
        ([("Sub_0", "Sub", 127.5), ("Mul_1", "Mul", 0.0078125)], 0, True),
        (MXNET[::-1], 0, True),
        (MXNET, 6, True),
        (MXNET, 7, False),  # the multiplication is the ninth
        (MXNET[:1], 0, False),
        ([("Sub_0", "Sub", 127.5), ("Div_1", "Div", 128.0)], 0, False),
        ([("scale", "Mul", 2.0), ("shift", "Sub", 1.0)], 0, False),  # the names count, not the operators
        ([("bn_data", "Mul", 2.0)], 0, False),
    ],
)
def test_a_network_is_fed_as_insightface_feeds_it(tmp_path, nodes, silent, raw):
    save(tmp_path / "net.onnx", nodes, silent=silent)
    network = OnnxNetwork(tmp_path / "net.onnx", batch_size=2)
    assert network.feeding == (Feeding() if raw else CENTRED)
    expected = IMAGES.astype(np.float64) if raw else (IMAGES - 127.5) / 127.5
    for _, operator, value in nodes:
        apply = {"Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[operator]
        expected = apply(expected, value)
    np.testing.assert_allclose(network(IMAGES), means(expected), atol=1e-4 * np.abs(expected).max())


def test_what_latse_wrote_is_fed_pixels_whatever_it_begins_with(tmp_path):
    save(tmp_path / "net.onnx", [], producer="latse")
    np.testing.assert_allclose(OnnxNetwork(tmp_path / "net.onnx")(IMAGES), means(IMAGES), rtol=1e-5)


@pytest.mark.parametrize(("text", "expected"), [("2,1", 2), ("1", 1)])
def test_sessions_have_the_threads_of_mxnet(tmp_path, monkeypatch, text, expected):
    save(tmp_path / "net.onnx", [])
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    options = onnx_model.session(str(tmp_path / "net.onnx")).get_session_options()
    assert options.intra_op_num_threads == expected


def test_what_is_no_model_is_one_sentence(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no protobuf")
    for source, name in ((str(tmp_path / "x.onnx"), "x"), (b"no protobuf", "the exported file")):
        with pytest.raises(
            LatseError, match=f"{name} holds no ONNX model that onnxruntime runs: ."
        ) as raised:
            onnx_model.session(source, name)
        assert "\n" not in str(raised.value)


def test_a_missing_package_is_named_with_its_remedy():
    with pytest.raises(LatseError, match=r"no_such_package is not installed; pip install 'latse\[onnx\]'"):
        onnx_model.required("no_such_package")
