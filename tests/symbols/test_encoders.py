import json

import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.symbols import encoders, networks


def images(seed=0, count=2):
    return mx.nd.array(np.random.default_rng(seed).uniform(0, 255, (count, 3, 112, 112)))


@pytest.fixture(scope="module")
def tiny():
    mx.random.seed(0)
    network = encoders.create("resnet_tiny")
    network.initialize(mx.init.Xavier())
    network(images())
    return network


def test_the_output_is_fc1_of_512_values():
    symbol = networks.trace(encoders.create("resnet_tiny"))
    assert symbol.list_outputs() == ["fc1_output"]
    assert symbol.infer_shape(data=(3, 3, 112, 112))[1] == [(3, 512)]


def test_the_tiny_encoder_has_one_unit_a_stage_and_half_a_million_parameters(tiny):
    weights = {key: value.shape for key, value in tiny.collect_params().items() if "conv" in key}
    stages = [("conv0_weight", 3, 16)]
    for stage, (before, after) in enumerate([(16, 16), (16, 32), (32, 64), (64, 16)], 1):
        unit = f"stage{stage}_unit1_conv"
        stages += [(f"{unit}1_weight", before, after), (f"{unit}2_weight", after, after)]
        assert weights.pop(f"{unit}1sc_weight") == (after, before, 1, 1)
    assert weights == {name: (after, before, 3, 3) for name, before, after in stages}
    trained = [value for value in tiny.collect_params().values() if value.grad_req != "null"]
    assert round(sum(parameter.data().size for parameter in trained) / 1e6, 2) == 0.49


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_the_study_s_encoders_halve_the_image_at_once_and_have_6n_plus_2_layers(depth):
    symbol = networks.trace(encoders.create(f"resnet{depth}"))
    layers = [name for name in symbol.list_arguments() if name.endswith(("conv0_weight", "conv1_weight"))]
    layers += [name for name in symbol.list_arguments() if name.endswith(("conv2_weight", "fc1_weight"))]
    assert len(layers) == depth
    inside = symbol.get_internals()
    _, (stem, last), _ = mx.sym.Group([inside["conv0_fwd_output"], inside["bn1_fwd_output"]]).infer_shape(
        data=(2, 3, 112, 112)
    )
    assert (stem, last) == ((2, 16, 56, 56), (2, 16, 7, 7))


def test_the_normalisation_is_inside(tiny):
    grey = mx.nd.full((1, 3, 112, 112), 127.5)
    np.testing.assert_array_equal(
        tiny(grey).asnumpy(), tiny.head(tiny.body(mx.nd.zeros((1, 3, 112, 112)))).asnumpy()
    )
    scaled = mx.nd.array((images().asnumpy().astype(np.float64) - 127.5) / 128)
    np.testing.assert_allclose(
        tiny(images()).asnumpy(), tiny.head(tiny.body(scaled)).asnumpy(), rtol=1e-4, atol=1e-5
    )


def test_the_embedding_is_not_of_unit_length(tiny):
    with mx.autograd.train_mode():
        lengths = np.linalg.norm(tiny(images()).asnumpy(), axis=1)
    assert np.abs(lengths - 1).min() > 1


def test_dropout_acts_in_training_only(tiny):
    def forward(training):
        with mx.autograd.record(train_mode=training):
            return tiny.head[1](mx.nd.ones((1, 1000))).asnumpy()

    np.testing.assert_array_equal(forward(False), np.ones((1, 1000)))
    dropped = forward(True)
    assert 0.3 < np.mean(dropped == 0) < 0.5  # 0.4 of them
    np.testing.assert_allclose(dropped[dropped != 0], 1 / 0.6, rtol=1e-6)
    np.testing.assert_array_equal(tiny(images()).asnumpy(), tiny(images()).asnumpy())


def test_dropout_follows_the_seed_whatever_the_device():
    """That is, not cuDNN's, which does not."""
    attributes = networks.trace(encoders.create("resnet_tiny")).attr_dict()
    dropouts = [values for values in attributes.values() if "cudnn_off" in values and values.get("p")]
    assert [(float(values["p"]), values["cudnn_off"]) for values in dropouts] == [(0.4, "True")]


def test_without_dropout_there_is_none_in_the_graph():
    symbol = networks.trace(encoders.create("resnet_tiny", dropout=0.0))
    assert not any(node["op"] == "Dropout" for node in json.loads(symbol.tojson())["nodes"])


def test_the_rate_of_dropout_is_a_parameter():
    assert encoders.create("resnet_tiny", dropout=0.0).head[1]._rate == 0
    assert encoders.create("resnet50").head[1]._rate == 0.4


def test_the_gamma_of_the_last_batch_normalisation_is_fixed():
    attributes = networks.trace(encoders.create("resnet_tiny")).attr_dict()
    fixed = {name for name, values in attributes.items() if values.get("fix_gamma") == "True"}
    assert fixed == {"fc1_fwd"}


def test_an_unknown_encoder_is_refused_with_the_known_ones():
    with pytest.raises(LatseError, match="unknown encoder 'resnet18'; there are resnet_tiny, resnet8"):
        encoders.create("resnet18")
