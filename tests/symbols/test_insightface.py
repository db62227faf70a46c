"""Encoders against insightface's layer equations and parameter names, both written down independently."""

import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.models import warm_start
from latse.models.export_command import plain
from latse.models.parameters import Parameters
from latse.symbols import encoders, names, networks

UNITS = {34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 124: (3, 13, 40, 5)}
EPSILON = 2e-5


def insightface_shapes(depth):
    """Arguments and auxiliary states of insightface's network in the order of its layers."""
    args, aux = {}, {}

    def batch_norm(name, channels):
        args.update({f"{name}_gamma": (channels,), f"{name}_beta": (channels,)})
        aux.update({f"{name}_moving_mean": (channels,), f"{name}_moving_var": (channels,)})

    args["conv0_weight"] = (64, 3, 3, 3)
    batch_norm("bn0", 64)
    args["relu0_gamma"] = (64,)
    before = 64
    for stage, (count, channels) in enumerate(zip(UNITS[depth], (64, 128, 256, 512)), 1):
        for unit in range(1, count + 1):
            name = f"stage{stage}_unit{unit}"
            batch_norm(f"{name}_bn1", before)
            args[f"{name}_conv1_weight"] = (channels, before, 3, 3)
            batch_norm(f"{name}_bn2", channels)
            args[f"{name}_relu1_gamma"] = (channels,)
            args[f"{name}_conv2_weight"] = (channels, channels, 3, 3)
            batch_norm(f"{name}_bn3", channels)
            if unit == 1:
                args[f"{name}_conv1sc_weight"] = (channels, before, 1, 1)
                batch_norm(f"{name}_sc", channels)
            before = channels
    batch_norm("bn1", 512)
    args.update({"pre_fc1_weight": (512, 512 * 7 * 7), "pre_fc1_bias": (512,)})
    batch_norm("fc1", 512)
    return args, aux


def random_parameters(depth, seed=0):
    """Parameters under insightface's names; their sizes keep the values near 1 at any depth."""
    rng = np.random.default_rng(seed)

    def draw(name, shape):
        if name.endswith("_weight"):
            return rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        if name.endswith(("_bias", "_beta", "_moving_mean")):
            return rng.normal(0, 0.2, shape)
        if name.endswith("_bn3_gamma"):
            return rng.uniform(0.1, 0.5, shape)
        if "relu" in name:
            return rng.normal(0.25, 0.2, shape)
        return rng.uniform(0.5, 1.5, shape)  # gamma and moving_var, fc1_gamma among them

    return tuple(
        {name: mx.nd.array(draw(name, shape)) for name, shape in part.items()}
        for part in insightface_shapes(depth)
    )


def reference_embedding(images, args, aux, depth):
    """The network in float64: images (N, 3, 112, 112) in 0..255 to embeddings (N, 512)."""
    parameters = {name: array.asnumpy().astype(np.float64) for name, array in {**args, **aux}.items()}

    def per_channel(values, like):
        return values.reshape((1, -1) + (1,) * (like.ndim - 2))

    def normalise(x, name, gamma=None):
        gamma = parameters[f"{name}_gamma"] if gamma is None else gamma
        slope = gamma / np.sqrt(parameters[f"{name}_moving_var"] + EPSILON)
        shift = parameters[f"{name}_beta"] - slope * parameters[f"{name}_moving_mean"]
        return x * per_channel(slope, x) + per_channel(shift, x)

    def convolve(x, name, stride=1):
        weight = parameters[f"{name}_weight"]
        side = weight.shape[2]
        padding = ((0, 0), (0, 0), (side // 2,) * 2, (side // 2,) * 2)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, padding), (side, side), axis=(2, 3))
        products = np.tensordot(windows[:, :, ::stride, ::stride], weight, axes=((1, 4, 5), (1, 2, 3)))
        return products.transpose(0, 3, 1, 2)

    def prelu(x, name):
        return np.where(x > 0, x, x * per_channel(parameters[f"{name}_gamma"], x))

    def residual(x, name, stride):
        y = convolve(normalise(x, f"{name}_bn1"), f"{name}_conv1")
        y = prelu(normalise(y, f"{name}_bn2"), f"{name}_relu1")
        y = normalise(convolve(y, f"{name}_conv2", stride), f"{name}_bn3")
        return y + (normalise(convolve(x, f"{name}_conv1sc", stride), f"{name}_sc") if stride == 2 else x)

    x = prelu(normalise(convolve((images - 127.5) / 128, "conv0"), "bn0"), "relu0")
    for stage, count in enumerate(UNITS[depth], 1):
        for unit in range(1, count + 1):
            x = residual(x, f"stage{stage}_unit{unit}", stride=2 if unit == 1 else 1)
    x = normalise(x, "bn1").reshape(len(x), -1)
    x = x @ parameters["pre_fc1_weight"].T + parameters["pre_fc1_bias"]
    return normalise(x, "fc1", gamma=np.ones(512))


def embed(name, images, args, aux):
    symbol = networks.trace(encoders.create(name))
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=images.shape)
    executor.copy_params_from(args, aux)
    return executor.forward(is_train=False, data=mx.nd.array(images))[0].asnumpy()


def test_insightface_parameters_give_the_embedding_of_the_layer_equations():
    args, aux = random_parameters(34)
    images = np.random.default_rng(1).integers(0, 256, (2, 3, 112, 112)).astype(np.float64)
    expected = reference_embedding(images, args, aux, 34)
    ours = names.from_insightface(args, aux)
    assert fit(34, ours).differences == 0
    embedding = embed("resnet34", images, *ours)
    assert np.abs(embedding - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()  # the images tell apart


@pytest.mark.parametrize("depth", UNITS)
def test_names_and_shapes_are_insightfaces(depth):
    symbol = networks.trace(encoders.create(f"resnet{depth}"))
    arg_shapes, _, aux_shapes = symbol.infer_shape(data=(1, 3, 112, 112))
    args = {name: mx.nd.zeros(shape) for name, shape in zip(symbol.list_arguments(), arg_shapes)}
    aux = {name: mx.nd.zeros(shape) for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes)}
    assert args.pop("data").shape == (1, 3, 112, 112)
    _, *theirs = plain(symbol, args, aux).write()
    found = tuple({name: array.shape for name, array in part.items()} for part in theirs)
    assert found == insightface_shapes(depth)
    assert [list(part) for part in found] == [list(part) for part in insightface_shapes(depth)]


@pytest.fixture(scope="module")
def theirs():
    return random_parameters(34)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].asnumpy(), array.asnumpy())


def test_the_map_there_and_back_changes_only_the_fixed_gamma(theirs):
    symbol = networks.trace(encoders.create("resnet34"))
    _, args, aux = plain(symbol, *names.from_insightface(*theirs)).write()
    assert_same(aux, theirs[1])
    assert_same(args, {**theirs[0], "fc1_gamma": mx.nd.ones((512,))})


def test_the_map_leaves_our_own_parameters_alone(theirs):
    args, aux = names.from_insightface(*theirs)
    args = {**args, "fc7_weight": mx.nd.ones((5, 512)), "decoder_conv0_weight": mx.nd.ones((3, 64, 3, 3))}
    aux = {**aux, "decoder_bn0_running_mean": mx.nd.ones((512,))}
    again = names.from_insightface(args, aux)
    assert_same(again[0], args)
    assert_same(again[1], aux)
    assert fit(34, (args, aux)).differences == 0


def test_the_map_alters_nothing_of_the_callers(theirs):
    before = [{name: array.copy() for name, array in part.items()} for part in theirs]
    names.from_insightface(*theirs)
    for part, copy in zip(theirs, before):
        assert_same(part, copy)
        assert {name: array.shape for name, array in part.items()} == {
            name: array.shape for name, array in copy.items()
        }


def fit(depth, parameters):
    return warm_start.fit(f"resnet{depth}", Parameters(*parameters).shapes())


@pytest.mark.parametrize("part, first, second", [
    (0, "stage1_unit2_conv1_weight", "stage4_unit1_sc_beta"),
    (0, "pre_fc1_bias", "fc1_beta"),
    (1, "bn0_running_var", "fc1_running_mean"),
])  # fmt: skip
def test_missing_parameters_are_named_in_the_order_of_the_layers(theirs, part, first, second):
    ours = names.from_insightface(*theirs)
    del ours[part][second], ours[part][first]
    assert fit(34, ours).missing == [first, second]
    with pytest.raises(
        LatseError, match=rf"r.params does not fit resnet34: .* 2 missing \({first}, {second}\)"
    ):
        fit(34, ours).check("r.params")


@pytest.mark.parametrize("part, name", [(0, "relu0_gamma"), (0, "pre_fc1_weight"), (1, "bn1_running_mean")])
def test_a_wrongly_shaped_parameter_is_named_with_both_shapes(theirs, part, name):
    ours = names.from_insightface(*theirs)
    needed = ours[part][name].shape
    ours[part][name] = mx.nd.zeros((3, 2))
    with pytest.raises(LatseError) as caught:
        fit(34, ours).check("r.params")
    assert str(caught.value).endswith(f" 1 of another shape ({name} is (3, 2), not {needed})")


@pytest.mark.parametrize("part, name", [(0, "bn_data_gamma"), (1, "bn_data_moving_mean")])
def test_a_superfluous_parameter_is_named(theirs, part, name):
    ours = names.from_insightface(*theirs)
    ours[part][name] = mx.nd.zeros((3,))
    assert fit(34, ours).superfluous == [name]


def test_another_depth_does_not_fit(theirs):
    ours = names.from_insightface(*theirs)
    assert fit(50, ours).missing[0] == "stage3_unit7_bn1_gamma"
    with pytest.raises(LatseError, match="unknown encoder 'resnet51'"):
        fit(51, ours)


def test_unmapped_insightface_names_do_not_fit(theirs):
    assert "relu0_gamma" in fit(34, theirs).misshapen
