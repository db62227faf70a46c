"""The folded graph against the network as it was, op by op in MXNet."""

from collections import Counter

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.graph import fold as inference
from latse.graph.simplify import simplified
from latse.symbols import decoder, encoders, networks

SHAPE = (2, 3, 16, 16)
CPU = [mx.cpu()]


def forward(symbol, args, aux, images):
    module = mx.mod.Module(symbol, ("data",), label_names=None)
    module.bind([("data", images.shape)], for_training=False)
    module.set_params(args, aux, allow_extra=True)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=False)
    return [output.asnumpy() for output in module.get_outputs()]


def draw(symbol, shape, seed=0, slopes=(-0.5, 1.8)):
    """Random parameters; slopes of PReLU on both sides of 0 and of 1, gammas of both signs."""
    rng = np.random.default_rng(seed)
    arg_shapes, _, aux_shapes = symbol.infer_shape(data=shape)

    def one(name, shape):
        if "relu" in name and name.endswith("gamma"):
            return rng.uniform(*slopes, shape)
        if name.endswith("weight"):
            return rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        if name.endswith(("gamma", "var")):
            sign = rng.choice([-1, 1], shape) if name.endswith("gamma") else 1
            return sign * rng.uniform(0.3, 1.5, shape)
        return rng.normal(0, 0.5, shape)

    args = {n: mx.nd.array(one(n, s)) for n, s in zip(symbol.list_arguments(), arg_shapes) if n != "data"}
    aux = {n: mx.nd.array(one(n, s)) for n, s in zip(symbol.list_auxiliary_states(), aux_shapes)}
    return args, aux


def pictures(shape=SHAPE, seed=3):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)


def assert_same(symbol, args, aux, images, tolerance=1e-5):
    """Every form gives the outputs of the symbol, to a fraction of each output's norm."""
    expected = forward(symbol, args, aux, images)
    graph = simplified(symbol, args, aux)
    forms = [graph.write(), inference.folded(graph).write(), inference.fast(symbol, args, aux, CPU)]
    forms.append(inference.folded(graph, depthwise_slopes=True).write())
    for form in forms:
        found = forward(*form, images)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)
    for form in (0, 1, 3):
        assert forms[form][0].list_outputs() == symbol.list_outputs()


def operators(graph):
    return Counter(node.op for node in graph.nodes)


@pytest.mark.parametrize("slopes", [(0.1, 0.4), (-0.5, 1.8)])
def test_an_encoder_of_ours_keeps_its_embedding_and_no_normalisation(slopes):
    symbol = networks.trace(encoders.create("resnet_tiny"))
    args, aux = draw(symbol, (2, 3, 112, 112), slopes=slopes)
    assert_same(symbol, args, aux, pictures((2, 3, 112, 112)))
    graph = simplified(symbol, args, aux)
    assert not {"Dropout", "_copy", "_rminus_scalar", "Activation"} & set(operators(graph))
    assert operators(graph)["LeakyReLU"] == 5
    found = operators(inference.folded(graph, depthwise_slopes=True))
    assert found["BatchNorm"] == 0
    assert operators(inference.folded(graph))["BatchNorm"] == 1  # before the first unit: PReLU has no bias


def test_insightfaces_names_and_operators_come_out_of_ours():
    symbol = networks.trace(encoders.create("resnet_tiny"))
    args, aux = draw(symbol, (1, 3, 112, 112))
    graph = simplified(symbol, args, aux)
    assert set(graph.parameters) == {*args, *aux} and set(graph.write()[1]) == set(args)
    for name, array in args.items():
        expected = array.shape[:1] if "relu" in name else array.shape
        assert graph.parameters[name].shape == expected


def test_the_decoder_and_several_outputs_stay_as_they_were():
    network = networks.AutoEncoder(encoders.create("resnet_tiny"), decoder.Decoder())
    symbol = networks.trace(network)
    assert_same(symbol, *draw(symbol, (1, 3, 112, 112)), pictures((1, 3, 112, 112)), 3e-5)


def batch_norm(data, name, **attrs):
    return mx.sym.BatchNorm(data, name=name, fix_gamma=attrs.pop("fix_gamma", False), eps=2e-5, **attrs)


def conv(data, name, filters=4, kernel=3, **attrs):
    pad = attrs.pop("pad", kernel // 2)
    return mx.sym.Convolution(
        data, kernel=(kernel, kernel), pad=(pad, pad), num_filter=filters, name=name, **attrs
    )


def prelu(data, name):
    return mx.sym.LeakyReLU(data, act_type="prelu", name=name)


DATA = (mx.sym.var("data") - 127.5) * 0.0078125


def two_readers_with_shifts_of_their_own():
    x = conv(DATA, "conv0")
    return conv(batch_norm(x, "a"), "conv1") + conv(batch_norm(x, "b"), "conv2")


def normalisation_read_twice():
    x = batch_norm(conv(DATA, "conv0"), "a")
    return conv(x, "conv1") + x


def convolution_read_twice():
    x = conv(DATA, "conv0")
    return batch_norm(x, "a") + mx.sym.Activation(x, act_type="relu")


def two_normalisations():
    return conv(batch_norm(batch_norm(conv(DATA, "conv0"), "a"), "b", fix_gamma=True), "conv1")


def normalised_input():
    return conv(batch_norm(mx.sym.var("data"), "data_bn"), "conv0")


def grouped_and_unpadded():
    x = batch_norm(mx.sym.Activation(conv(DATA, "conv0", 8), act_type="relu"), "a")
    return conv(x, "conv1", 8, num_group=4, pad=0, no_bias=True)


def pooled_then_dense():
    x = batch_norm(mx.sym.Pooling(conv(DATA, "conv0"), kernel=(4, 4), stride=(4, 4), pool_type="max"), "a")
    dense = mx.sym.FullyConnected(mx.sym.Flatten(x), num_hidden=5, name="dense", no_bias=True)
    return mx.sym.BatchNorm(dense, name="fc1", fix_gamma=True, eps=2e-5)


def normalised_flat_map():
    x = batch_norm(mx.sym.Flatten(batch_norm(prelu(conv(DATA, "conv0"), "relu0"), "a")), "b")
    return mx.sym.FullyConnected(x, num_hidden=5, name="dense")


def slopes_into_a_sum():
    x = prelu(batch_norm(conv(DATA, "conv0"), "a"), "relu0")
    return x + conv(batch_norm(x, "b"), "conv1")


def a_chain_of_residual_units():
    x = prelu(batch_norm(conv(DATA, "conv0"), "bn0"), "relu0")
    for number in range(3):
        y = prelu(
            batch_norm(conv(batch_norm(x, f"{number}a"), f"{number}conv1"), f"{number}b"), f"relu{number}1"
        )
        x = x + batch_norm(conv(y, f"{number}conv2"), f"{number}c")
    return batch_norm(x, "last")


def several_outputs_of_one_node():
    x = mx.sym.SliceChannel(conv(DATA, "conv0"), num_outputs=2)
    return conv(batch_norm(x[1], "a"), "conv1") + x[0].sum(axis=1, keepdims=True).tile((1, 4, 1, 1))


def a_unit_of_a_mobile_network():
    """Pointwise, depthwise, pointwise and the way around them, as in MobileFaceNet."""
    x = batch_norm(conv(DATA, "conv0", 8), "a")
    y = prelu(batch_norm(conv(x, "wide", 8, kernel=1, no_bias=True), "b"), "relu0")
    y = prelu(batch_norm(conv(y, "depthwise", 8, num_group=8, no_bias=True), "c"), "relu1")
    x = x + batch_norm(conv(y, "narrow", 8, kernel=1, no_bias=True), "d")
    flat = mx.sym.Flatten(conv(x, "global", 8, kernel=16, pad=0, num_group=8, no_bias=True))
    dense = mx.sym.FullyConnected(batch_norm(flat, "e"), num_hidden=5, name="dense")
    return batch_norm(dense, "last", fix_gamma=True)


def dense_along_the_last_axis():
    x = batch_norm(conv(DATA, "conv0"), "a")
    x = mx.sym.FullyConnected(x, num_hidden=6, flatten=False, name="dense")
    return batch_norm(batch_norm(x, "b"), "c", axis=3)


def squeezed_and_excited():
    x = batch_norm(conv(DATA, "conv0", 8), "a")
    pooled = mx.sym.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1))
    weight = mx.sym.Activation(conv(pooled, "squeeze", 8, kernel=1), act_type="sigmoid")
    return conv(batch_norm(mx.sym.broadcast_mul(x, weight), "b"), "conv1")


def computed_weight():
    weight = mx.sym.var("conv_weight", shape=(4, 3, 3, 3))
    return batch_norm(mx.sym.Convolution(DATA, 2 * weight, kernel=(3, 3), num_filter=4, no_bias=True), "a")


NETWORKS = [
    two_readers_with_shifts_of_their_own, normalisation_read_twice, convolution_read_twice,
    two_normalisations, normalised_input, grouped_and_unpadded, pooled_then_dense, normalised_flat_map,
    slopes_into_a_sum, a_chain_of_residual_units, several_outputs_of_one_node,
    computed_weight, a_unit_of_a_mobile_network, squeezed_and_excited,
    dense_along_the_last_axis,
]  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**31))
def test_any_network_keeps_its_output(network, seed):
    symbol = mx.sym.identity(network(), name="fc1")
    args, aux = draw(symbol, SHAPE, seed)
    assert_same(symbol, args, aux, pictures(seed=seed))


@pytest.mark.parametrize("gamma", [0.0, 1e-7])
def test_a_shift_that_cannot_be_moved_stays(gamma):
    """a·x + b with a = 0, or with b/a so large that float32 would forget x."""
    symbol = mx.sym.identity(a_chain_of_residual_units(), name="fc1")
    args, aux = draw(symbol, SHAPE, slopes=(0.1, 0.4))
    args["1a_gamma"][2] = gamma
    assert_same(symbol, args, aux, pictures())
    found = inference.folded(simplified(symbol, args, aux), depthwise_slopes=True)
    assert operators(found)["BatchNorm"] == 2  # that one and the last, which nothing follows


def test_what_is_called_like_slopes_but_is_not_stays():
    """gamma·x + rest·relu(x) is a PReLU only where rest is 1 - gamma."""
    gamma, rest = (mx.sym.var(name, shape=(3, 1, 1, 1)) for name in ("relu0_gamma", "rest_weight"))
    depthwise = {"kernel": (1, 1), "num_filter": 3, "num_group": 3, "no_bias": True}
    relu = mx.sym.Activation(DATA, act_type="relu")
    network = mx.sym.Convolution(DATA, gamma, **depthwise) + mx.sym.Convolution(relu, rest, **depthwise)
    symbol = mx.sym.identity(network, name="fc1")
    args, aux = draw(symbol, SHAPE)
    assert_same(symbol, args, aux, pictures())
    assert operators(simplified(symbol, args, aux))["LeakyReLU"] == 0
    args["rest_weight"] = 1 - args["relu0_gamma"]
    assert operators(simplified(symbol, args, aux))["LeakyReLU"] == 1
    assert_same(symbol, args, aux, pictures())


def test_the_callers_parameters_are_not_touched():
    symbol = networks.trace(encoders.create("resnet_tiny"))
    args, aux = draw(symbol, (1, 3, 112, 112))
    before = {name: array.asnumpy() for name, array in {**args, **aux}.items()}
    inference.fast(symbol, args, aux, CPU)
    for name, array in {**args, **aux}.items():
        np.testing.assert_array_equal(array.asnumpy(), before[name])
