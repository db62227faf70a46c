import json

import mxnet as mx
import numpy as np
import pytest

from latse.symbols import networks
from latse.symbols.decoder import Decoder, ToColours


@pytest.fixture(scope="module")
def symbol():
    return networks.trace(Decoder())


def nodes(symbol, op):
    return [node for node in json.loads(symbol.tojson())["nodes"] if node["op"] == op]


def test_an_embedding_becomes_a_face(symbol):
    assert symbol.list_outputs() == ["generated_output"]
    assert symbol.infer_shape(data=(5, 512))[1] == [(5, 3, 112, 112)]


def test_faces_lie_between_minus_1_and_1_and_depend_on_the_embedding():
    mx.random.seed(0)
    decoder = Decoder()
    decoder.initialize(mx.init.Xavier(magnitude=50))
    faces = decoder(mx.nd.random.normal(0, 3, (2, 512))).asnumpy()
    assert -1 <= faces.min() < -0.5 and 0.5 < faces.max() <= 1
    assert np.abs(faces[0] - faces[1]).max() > 0.1


def test_four_stages_double_height_and_width_by_deconvolution(symbol):
    deconvolutions = nodes(symbol, "Deconvolution")
    assert {node["attrs"]["stride"] for node in deconvolutions} == {"(2, 2)"}
    bodies = [node["name"] for node in deconvolutions if node["attrs"]["kernel"] == "(3, 3)"]
    shortcuts = [node["name"] for node in deconvolutions if node["attrs"]["kernel"] == "(1, 1)"]
    assert len(deconvolutions) == 8
    internals = symbol.get_internals()
    for names in (bodies, shortcuts):
        shapes = [internals[f"{name}_output"].infer_shape(data=(2, 512))[1][0] for name in names]
        assert shapes == [(2, 256, 14, 14), (2, 128, 28, 28), (2, 64, 56, 56), (2, 64, 112, 112)]
    upsampling = {"UpSampling", "_contrib_BilinearResize2D", "repeat", "depth_to_space"}
    assert not any(nodes(symbol, op) for op in upsampling)


def test_a_narrow_decoder_has_the_same_layout_and_names(symbol):
    narrow = networks.trace(Decoder((40, 30, 20, 10)))
    assert narrow.list_inputs() == symbol.list_inputs()
    assert narrow.infer_shape(data=(2, 512))[1] == [(2, 3, 112, 112)]
    assert [node["op"] for node in json.loads(narrow.tojson())["nodes"]] == [
        node["op"] for node in json.loads(symbol.tojson())["nodes"]
    ]
    internals = narrow.get_internals()

    def shape(name):
        return internals[f"decoder_stage{name}_output"].infer_shape(data=(2, 512))[1][0]

    stages = range(1, 5)
    assert [shape(f"{stage}_unit1_activation0") for stage in stages] == [
        (2, 40, 7, 7),
        (2, 30, 14, 14),
        (2, 20, 28, 28),
        (2, 10, 56, 56),
    ]
    assert [shape(f"{stage}_unit2_activation0") for stage in stages] == [
        (2, 30, 14, 14),
        (2, 20, 28, 28),
        (2, 10, 56, 56),
        (2, 10, 112, 112),
    ]


def test_eight_residual_units_of_two_layers_mirror_resnet_18(symbol):
    assert len(nodes(symbol, "elemwise_add")) == 8
    convolutions = [node["attrs"] for node in nodes(symbol, "Convolution")]
    # 8 units of 2 layers, four of those layers deconvolutions, and the layer that makes the image.
    assert len(convolutions) == 8 * 2 - 4 + 1
    assert {attributes["kernel"] for attributes in convolutions} == {"(3, 3)"}
    assert {attributes.get("stride", "(1, 1)") for attributes in convolutions} == {"(1, 1)"}
    assert len(nodes(symbol, "FullyConnected")) == 1
    internals = symbol.get_internals()
    expanded = nodes(symbol, "FullyConnected")[0]["name"]
    assert internals[f"{expanded}_output"].infer_shape(data=(2, 512))[1] == [(2, 512 * 7 * 7)]


def test_its_parameters_are_told_by_their_names(symbol):
    parameters = [name for name in symbol.list_inputs() if name != "data"]
    assert parameters
    assert all(name.startswith("decoder_") for name in parameters)
    # A batch normalisation follows every other layer and takes its mean away.
    assert [name for name in parameters if name.endswith("bias")] == ["decoder_conv0_bias"]


def test_no_pixel_starts_in_the_flat_ends_of_tanh(symbol):
    mx.random.seed(0)
    module = mx.mod.Module(symbol, label_names=None)
    module.bind([("data", (4, 512))], for_training=True)
    module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2))  # the trainer's
    module.forward(mx.io.DataBatch([mx.nd.random.normal(0, 1, (4, 512))]), is_train=True)
    assert np.abs(module.get_outputs()[0].asnumpy()).max() < 0.9


def test_the_image_is_a_convolution_to_three_channels():
    """As a plain convolution of the same parameters is, values and gradients."""
    random = np.random.default_rng(0)
    shapes = {"x": (2, 5, 6, 7), "weight": (3, 5, 3, 3), "bias": (3,)}
    given = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    above = random.normal(size=(2, 3, 6, 7)).astype(np.float32)
    plain = mx.sym.Convolution(*map(mx.sym.var, shapes), kernel=(3, 3), pad=(1, 1), num_filter=3)
    ours = ToColours(5, prefix="")(mx.sym.var("x"))
    assert set(ours.list_arguments()) == set(shapes)
    found = []
    for symbol in (plain, ours):
        executor = symbol.simple_bind(mx.cpu(), "write", **shapes)
        for name, array in given.items():
            executor.arg_dict[name][:] = array
        output = executor.forward(is_train=True)[0].asnumpy()
        executor.backward(mx.nd.array(above))
        found.append([output, *(executor.grad_dict[name].asnumpy() for name in shapes)])
    for one, other in zip(*found):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
