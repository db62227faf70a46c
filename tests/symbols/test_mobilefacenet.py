"""MobileFaceNet against insightface's network, put together here in MXNet's ordinary operators."""

import mxnet as mx
import numpy as np
import pytest

from latse.models import checkpoint, warm_start
from latse.models.export_command import plain
from latse.models.parameters import Parameters, needed_shapes
from latse.symbols import encoders, names, networks

SHAPE = (2, 3, 112, 112)
# Bottlenecks that keep the map in the stages 2 to 5, length of the embedding.
NETWORKS = {"y1": ((1, 4, 6, 2), 128), "y2": ((2, 8, 16, 4), 256)}


def layer(x, name, channels, kernel=1, stride=1, groups=1, slopes=True, pad=None):
    """Convolution, batch normalisation of MXNet's own epsilon, PReLU."""
    pad = kernel // 2 if pad is None else pad
    sizes = {key: (size, size) for key, size in {"kernel": kernel, "stride": stride, "pad": pad}.items()}
    kind = {"num_filter": channels, "num_group": groups, "no_bias": True, "name": f"{name}_conv2d"}
    x = mx.sym.Convolution(x, **sizes, **kind)
    x = mx.sym.BatchNorm(x, fix_gamma=False, momentum=0.9, name=f"{name}_batchnorm")
    return mx.sym.LeakyReLU(x, act_type="prelu", name=f"{name}_relu") if slopes else x


def bottleneck(x, name, channels, width, stride=1):
    x = layer(x, f"{name}_conv_sep", width)
    x = layer(x, f"{name}_conv_dw", width, 3, stride, width)
    return layer(x, f"{name}_conv_proj", channels, slopes=False)


def insightface(name):
    """The Symbol of insightface's network."""
    blocks, size = NETWORKS[name]

    def residual(x, stage, channels, width):
        for number in range(blocks[stage - 2]):
            x = bottleneck(x, f"res_{stage}_block{number}", channels, width) + x
        return x

    x = layer((mx.sym.var("data") - 127.5) * 0.0078125, "conv_1", 64, 3, 2)
    x = residual(x, 2, 64, 64) if blocks[0] > 1 else layer(x, "conv_2_dw", 64, 3, 1, 64)
    x = residual(bottleneck(x, "dconv_23", 64, 128, 2), 3, 64, 128)
    x = residual(bottleneck(x, "dconv_34", 128, 256, 2), 4, 128, 256)
    x = residual(bottleneck(x, "dconv_45", 128, 512, 2), 5, 128, 256)
    x = layer(x, "conv_6sep", 512)
    x = layer(x, "conv_6dw7_7", 512, 7, 1, 512, slopes=False, pad=0)
    x = mx.sym.FullyConnected(mx.sym.flatten(x), num_hidden=size, name="pre_fc1")
    return mx.sym.BatchNorm(x, fix_gamma=True, eps=2e-5, momentum=0.9, name="fc1")


def drawn(symbol, dtype="float32"):
    """Random parameters, which keep the values near 1 at any depth."""
    rng = np.random.default_rng(0)
    shapes = needed_shapes(symbol, data=SHAPE)

    def draw(name, shape):
        if name.endswith("_weight"):
            return rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        if "relu" in name:
            return rng.normal(0.25, 0.2, shape)
        if name.endswith(("gamma", "var")):
            return rng.uniform(0.5, 1.5, shape)
        return rng.normal(0, 0.2, shape)

    arrays = {name: mx.nd.array(draw(name, shape), dtype=dtype) for name, shape in shapes.items()}
    aux = {name: arrays.pop(name) for name in symbol.list_auxiliary_states()}
    return Parameters(arrays, aux)


def images(dtype="float32"):
    return mx.nd.array(np.random.default_rng(1).integers(0, 256, SHAPE), dtype=dtype)


def embed(symbol, parameters):
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=SHAPE)
    executor.copy_params_from(*parameters)
    return executor.forward(is_train=False, data=images())[0].asnumpy()


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request):
    """Name, insightface's Symbol and random parameters of it."""
    symbol = insightface(request.param)
    return request.param, symbol, drawn(symbol)


def test_insightface_parameters_give_insightfaces_embedding(pair):
    name, theirs, parameters = pair
    ours = networks.trace(encoders.create(name))
    mapped = Parameters(*names.from_insightface(*parameters))
    assert warm_start.fit(name, mapped.shapes()).differences == 0
    expected, found = embed(theirs, parameters), embed(ours, mapped)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.1 * np.abs(expected).max()  # the images tell apart


def test_an_export_has_insightfaces_names_shapes_and_order(pair):
    name, theirs, parameters = pair
    ours = networks.trace(encoders.create(name))
    exported = plain(ours, *names.from_insightface(*parameters)).write()
    assert exported[0].list_arguments() == theirs.list_arguments()
    assert Parameters(*exported[1:]).shapes() == parameters.shapes()


def test_an_old_checkpoint_calls_the_last_weight_otherwise(tmp_path):
    symbol = insightface("y1")
    args, aux = drawn(symbol)
    args["fc1_weight"] = args.pop("pre_fc1_weight")
    checkpoint.save(tmp_path / "model", 0, symbol, args, aux)
    found = warm_start.closest(warm_start.read(f"{tmp_path / 'model'},0").shapes())
    assert (found.network, found.differences) == ("y1", 0)


def test_lean_bottlenecks_have_the_values_and_gradients_of_plain_ones():
    steps = []
    for lean in (False, True):
        network = encoders.create("y1", lean)
        network.cast("float64")
        symbol = networks.trace(network)
        args, aux = drawn(symbol, "float64") if not steps else steps[0][:2]
        gradients = {key: mx.nd.zeros_like(array) for key, array in args.items()}
        executor = symbol.bind(
            mx.cpu(),
            {**args, "data": images("float64")},
            {**gradients, "data": mx.nd.zeros(SHAPE, dtype="float64")},
            aux_states={key: array.copy() for key, array in aux.items()},
        )
        output = executor.forward(is_train=True)[0]
        executor.backward(mx.nd.array(np.random.default_rng(2).normal(size=output.shape), dtype="float64"))
        mx.nd.waitall()  # statistics are moved in the backward pass, which nobody else waits for
        steps.append((args, aux, {"output": output, **executor.aux_dict, **gradients}))
    for key, expected in steps[0][2].items():
        scale = 1 if key.endswith(("bias", "beta")) else np.abs(expected.asnumpy()).max()
        np.testing.assert_allclose(
            steps[1][2][key].asnumpy(), expected.asnumpy(), rtol=0, atol=1e-9 * scale, err_msg=key
        )
