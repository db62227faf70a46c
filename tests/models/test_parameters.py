import mxnet as mx
import pytest

from latse.errors import LatseError
from latse.models.parameters import Fit, fitting


def small_network():
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="fc1")
    net = mx.sym.BatchNorm(net, name="bn")
    args = {"fc1_weight": mx.nd.random.normal(shape=(3, 5)), "fc1_bias": mx.nd.ones((3,))}
    args.update(
        {"bn_gamma": mx.nd.ones((3,)), "bn_beta": mx.nd.zeros((3,)), "fc7_weight": mx.nd.ones((7, 3))}
    )
    return net, args, {"bn_moving_mean": mx.nd.zeros((3,)), "bn_moving_var": mx.nd.ones((3,))}


def test_a_comparison_has_all_differences_and_its_sentence_the_first_of_each_kind():
    needed = dict.fromkeys("abcdef", (2, 3))
    fit = Fit("resnet34", needed, {"e": (2, 3), "f": (4,), "g": (1,)})
    assert (fit.missing, fit.misshapen, fit.superfluous) == (list("abcd"), ["f"], ["g"])
    assert (fit.fits, fit.differences) == (False, 6)
    with pytest.raises(LatseError) as caught:
        fit.check("r-0000.params")
    assert str(caught.value) == (
        "r-0000.params does not fit resnet34: of its 6 parameters, 4 missing (a, b, c, …) and "
        "1 of another shape (f is (4,), not (2, 3))"
    )
    more = Fit("resnet34", needed, {**needed, "g": (1,)})
    more.check("r-0000.params")
    assert (more.fits, more.differences) == (True, 1)


def test_fitting_parameters_are_those_that_the_symbol_needs():
    symbol, args, aux = small_network()
    found, statistics = fitting(symbol, args, {**aux, "other": mx.nd.ones((1,))}, (4, 5), "a.params")
    assert set(args) - set(found) == {"fc7_weight"}
    assert all(found[name] is args[name] for name in found)
    assert statistics == aux


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("fc1_bias", None, r"a.params does not fit its network: of its 6 parameters, 1 missing \(fc1_bias\)"),
        ("bn_moving_var", None, r"a.params .* 6 parameters, 1 missing \(bn_moving_var\)"),
        (
            "fc1_weight",
            mx.nd.ones((3, 6)),
            r"a.params .* 1 of another shape \(fc1_weight is \(3, 6\), not \(3, 5\)\)",
        ),
        ("bn_moving_mean", mx.nd.ones((2,)), r"a.params .* \(bn_moving_mean is \(2,\), not \(3,\)\)"),
    ],
)
def test_parameters_that_do_not_fit_are_named(name, array, sentence):
    symbol, *both = small_network()
    for arrays in both:
        if name in arrays:
            arrays.update({name: array})
        if array is None:
            arrays.pop(name, None)
    with pytest.raises(LatseError, match=sentence):
        fitting(symbol, *both, (4, 5), "a.params")


def test_networks_without_fitting_input_are_named():
    symbol, args, aux = small_network()
    data, other = mx.sym.var("data"), mx.sym.var("other")
    for wrong, sentence in (
        (mx.sym.FullyConnected(other, num_hidden=3), "has no input named 'data'"),
        (mx.sym.broadcast_add(data, other), "has other inputs than 'data'"),
        (mx.sym.Convolution(data, num_filter=3, kernel=(3, 3)), r"does not take 'data' of shape \(5,\)"),
        (mx.sym.SoftmaxOutput(symbol, name="softmax"), r"7 parameters, 1 missing \(softmax_label\)"),
    ):
        with pytest.raises(LatseError, match=f"a.params.*{sentence}"):
            fitting(wrong, args, aux, (4, 5), "a.params")
