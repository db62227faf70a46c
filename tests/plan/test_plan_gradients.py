"""A step with a memory plan is the plain step; one with our PReLU, in either unit, is that by definition."""

import mxnet as mx
import numpy as np
import pytest

from latse.plan import memonger
from latse.symbols import encoders, margins, networks
from latse.symbols.encoders import resnet
from latse.symbols.layers import MirroredPReLU, PReLU
from latse.symbols.networks import trace
from latse.train.training import traced

CPU, CLASSES = mx.cpu(), 6

# What is computed again comes from the same operators on the same values. Yet oneDNN picks its kernel by the
# layout that an array happens to have, which a plan may change, and its kernels round differently. A rounding
# error grows on its way back, most where a batch normalisation follows, which takes away all that is common
# to a batch: the gradient of a shift in front of it is rounding and nothing else. So a parameter's gradient
# is compared by its norm, and what is small beside the norm of the whole gradient does not count.
OF_THE_PARAMETER, OF_THE_WHOLE = 1e-4, 1e-6

# BatchNorm's own moving statistics are those of the forward pass, which is not done again for them.
STATISTICS = 1e-6

# Images of this side go through all layers of a ResNet, the last map being 3x3, in a fifth of the time.
SIDE = 48

ALWAYS = [("resnet_tiny", False), ("resnet34", False), ("resnet_tiny", True)]
DEEP = [("resnet50", False), ("resnet100", False), ("resnet124", False), ("resnet50", True)]


def training(tiny_recipe, name, has_decoder=False, batch_size=2, side=SIDE, widths=(512, 256, 128, 64)):
    """Symbol and shapes of the training graph of an encoder with ArcFace's head, or of a LATSE student."""
    student = ["decoder.enabled=true", f"decoder.widths={list(widths)}", "filter.k=1"] if has_decoder else []
    recipe = tiny_recipe(f"encoder.name={name}", "margin.name=arcface", *student)
    symbol, shapes = traced(recipe, CLASSES, batch_size)
    return symbol, {**shapes, "data": (batch_size, 3, side, side)}


def values(symbol, shapes, dtype="float32"):
    """Made-up values of all arguments, the same in any order, such that no gradient dies on its way."""
    random = np.random.RandomState(0)
    draw = {
        "data": lambda shape: random.randint(0, 256, shape),
        "softmax_label": lambda shape: random.randint(0, CLASSES, shape),
        "keep": lambda shape: np.arange(shape[0]) % 3 > 0,
        "mean_face": lambda shape: random.uniform(-1, 1, shape),
    }
    found = {}
    for name, shape in sorted(zip(symbol.list_arguments(), symbol.infer_shape(**shapes)[0])):
        if name in draw:
            array = draw[name](shape)
        elif name.endswith("gamma"):
            array = random.uniform(0.1, 0.4, shape) if "relu" in name else random.uniform(0.5, 1.5, shape)
        elif name.endswith(("beta", "bias")):
            array = random.normal(0, 0.1, shape)
        else:
            array = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        found[name] = mx.nd.array(array, dtype=dtype)
    return found


def one_step(symbol, shapes, dtype="float32", head_gradients=None, seed=3):
    """Outputs, gradients and moving statistics of one step, all by name."""
    trained = {name: "null" if name in shapes else "write" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(CPU, trained, dict.fromkeys(shapes, dtype), **shapes)
    executor.copy_params_from(values(symbol, shapes, dtype))
    for name, array in executor.aux_dict.items():
        array[:] = name.endswith("var")
    mx.random.seed(seed)
    outputs = [array.asnumpy() for array in executor.forward(is_train=True)]
    executor.backward(head_gradients)
    gradients = {name: executor.grad_dict[name].asnumpy() for name in trained if name not in shapes}
    statistics = {name: array.asnumpy() for name, array in executor.aux_dict.items()}
    return dict(zip(symbol.list_outputs(), outputs)), gradients, statistics


def norm(arrays):
    return np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays))


def assert_same_gradients(found, expected, of_the_parameter, of_the_whole):
    assert found.keys() == expected.keys()
    whole = norm(expected.values())
    assert np.isfinite(whole) and whole > 0
    for name, gradient in expected.items():
        allowed = of_the_parameter * norm([gradient]) + of_the_whole * whole
        assert norm([found[name] - gradient]) <= allowed, name


def assert_same_arrays(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


def assert_plan_changes_nothing(symbol, shapes):
    plan = memonger.plan(symbol, shapes, CPU)
    assert plan.after_megabytes < plan.before_megabytes
    assert "__force_mirroring__" in plan.symbol.tojson()
    outputs, gradients, statistics = one_step(symbol, shapes)
    again = one_step(plan.symbol, shapes)
    assert_same_arrays(again[0], outputs, STATISTICS)
    assert_same_gradients(again[1], gradients, OF_THE_PARAMETER, OF_THE_WHOLE)
    assert_same_arrays(again[2], statistics, STATISTICS)
    assert all(array.any() for name, array in statistics.items() if name.endswith("mean"))


@pytest.mark.parametrize(("name", "has_decoder"), ALWAYS)
def test_planned_step_is_the_plain_step(tiny_recipe, name, has_decoder):
    assert_plan_changes_nothing(*training(tiny_recipe, name, has_decoder, widths=(32, 16, 16, 8)))


@pytest.mark.deep
@pytest.mark.parametrize(("name", "has_decoder"), DEEP)
def test_planned_step_of_a_deep_network_is_the_plain_step(tiny_recipe, name, has_decoder):
    assert_plan_changes_nothing(*training(tiny_recipe, name, has_decoder, side=112))


def test_comparison_sees_a_wrong_gradient(tiny_recipe):
    _, gradients, _ = one_step(*training(tiny_recipe, "resnet_tiny"))
    wrong = {**gradients, "stage1_unit1_conv1_weight": gradients["stage1_unit1_conv1_weight"] * 1.001}
    with pytest.raises(AssertionError, match="stage1_unit1_conv1_weight"):
        assert_same_gradients(wrong, gradients, OF_THE_PARAMETER, OF_THE_WHOLE)


def test_comparison_sees_another_dropout(tiny_recipe):
    symbol, shapes = training(tiny_recipe, "resnet_tiny")
    first, second = one_step(symbol, shapes, seed=3), one_step(symbol, shapes, seed=4)
    with pytest.raises(AssertionError):
        assert_same_gradients(second[1], first[1], OF_THE_PARAMETER, OF_THE_WHOLE)


class DefinedPReLU(PReLU):
    """The same parameter as He et al. define the function."""

    def hybrid_forward(self, F, x, gamma):
        """Return an array of the shape of `x`."""
        return F.where(x > 0, x, F.broadcast_mul(x, F.reshape(gamma, (1, -1, 1, 1))))


def encoder_step(name, prelu, dtype, batch_size, monkeypatch, lean=False, side=SIDE):
    """One step of an encoder without dropout, from made-up gradients of its outputs."""
    shapes, random = {"data": (batch_size, 3, side, side)}, np.random.RandomState(1)
    monkeypatch.setattr(resnet, "PReLU", prelu)
    network = encoders.create(name, dropout=0.0, lean=lean)
    network.cast(dtype)
    symbol = trace(network)
    return one_step(symbol, shapes, dtype, [mx.nd.array(random.normal(size=(batch_size, 512)), dtype=dtype)])


# In float64 rounding cannot hide a wrong term.
@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize(("name", "batch_size"), [("resnet_tiny", 4), ("resnet34", 2)])
def test_gradients_of_our_prelu_are_the_functions(name, batch_size, lean, monkeypatch):
    found = encoder_step(name, PReLU, "float64", batch_size, monkeypatch, lean)
    expected = encoder_step(name, DefinedPReLU, "float64", batch_size, monkeypatch)
    assert_same_arrays(found[0], expected[0], 1e-9)
    assert_same_gradients(found[1], expected[1], 1e-9, 1e-11)
    assert_same_arrays(found[2], expected[2], 1e-9)
    slopes = [gradient for key, gradient in found[1].items() if "relu" in key]
    assert slopes and all(gradient.all() for gradient in slopes)


# In float32 a value that rounding takes past 0 has the other slope, and all gradients before it change: the
# definition's own are 1e-3 of their norm away from those in float64.
@pytest.mark.parametrize("lean", [False, True])
def test_gradients_of_our_prelu_in_float32_are_as_near_as_the_functions(lean, monkeypatch):
    found = encoder_step("resnet34", PReLU, "float32", 4, monkeypatch, lean, side=64)
    exact = encoder_step("resnet34", DefinedPReLU, "float64", 4, monkeypatch, side=64)
    assert_same_arrays(found[0], exact[0], 1e-2)
    assert norm([found[1][name] - exact[1][name] for name in exact[1]]) < 1e-2 * norm(exact[1].values())
    assert_same_arrays(found[2], exact[2], 1e-2)


def test_our_prelu_alone_is_mxnets_operator():
    """Mirrored it is -PReLU(-x). A float32 sum of n terms is off by n·2^-24 of their sizes' sum at most."""
    random, shape = np.random.RandomState(0), (2, 5, 12, 12)
    x, given = (mx.nd.array(random.normal(size=shape)) for _ in range(2))
    gamma = mx.nd.array(random.uniform(0.1, 0.4, 5))
    layer, mirrored = PReLU(5, "a_"), MirroredPReLU(5, "b_")
    for block in (layer, mirrored):
        block.initialize()
        block.gamma.set_data(gamma.reshape((5, 1, 1, 1)))
    results = []
    for of, slopes in (
        (lambda: mx.nd.LeakyReLU(x, gamma, act_type="prelu"), gamma),
        (lambda: layer(x), layer.gamma.data()),
        (lambda: -mirrored(-x), mirrored.gamma.data()),
    ):
        x.attach_grad()
        slopes.attach_grad()
        with mx.autograd.record():
            y = of()
        y.backward(given)
        results.append([array.asnumpy().ravel() for array in (y, x.grad, slopes.grad)])
    sizes = np.abs((x * given).asnumpy()).sum((0, 2, 3))
    for found in results[1:]:
        for array, expected in zip(found[:2], results[0]):
            np.testing.assert_allclose(array, expected, rtol=0, atol=2**-20)
        assert (np.abs(found[2] - results[0][2]) <= 2 * 288 * 2**-24 * sizes).all()


@pytest.mark.deep
@pytest.mark.parametrize("name", ["resnet50", "resnet100", "resnet124"])
def test_a_deep_encoder_of_lean_units_has_the_gradients_of_improved_ones(name, monkeypatch):
    found, expected = (
        encoder_step(name, PReLU, "float32", 4, monkeypatch, lean, 112) for lean in (True, False)
    )
    assert_same_arrays(found[0], expected[0], 1e-3)
    assert_same_gradients(found[1], expected[1], 2e-2, 2e-4)
    assert_same_arrays(found[2], expected[2], 1e-4)


def test_lean_units_have_the_parameters_of_improved_ones_and_keep_less(tiny_recipe):
    lean, shapes = training(tiny_recipe, "resnet34", batch_size=16, side=112)
    improved = trace(networks.Classifier(encoders.create("resnet34"), margins.create("arcface", CLASSES)))
    for kind in ("list_arguments", "list_auxiliary_states"):
        assert sorted(getattr(lean, kind)()) == sorted(getattr(improved, kind)())
    sizes = [dict(zip(one.list_arguments(), one.infer_shape(**shapes)[0])) for one in (lean, improved)]
    assert sizes[0] == sizes[1]
    kept, more = (memonger.planned_megabytes(one, shapes, CPU) for one in (lean, improved))
    assert kept < 0.95 * more
