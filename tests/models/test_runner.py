"""What runs a network over images: any number of devices, one copy of the parameters."""

import mxnet as mx
import numpy as np
import pytest

from latse.models.runner import Runner

SIZE, WIDTH = 5, 3


def sums(contexts=(), **changes):
    """A dense layer over two inputs, and its weight."""
    weight = mx.nd.array(np.random.default_rng(0).normal(size=(4, WIDTH)))
    both = mx.sym.var("data") + mx.sym.var("more")
    symbol = mx.sym.FullyConnected(both, mx.sym.var("weight"), no_bias=True, num_hidden=4, name="out")
    shapes = dict.fromkeys(("data", "more"), (SIZE, WIDTH))
    return Runner(symbol, {"weight": weight, **changes}, {}, shapes, contexts), weight.asnumpy()


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_the_rows_are_those_of_one_device_however_they_are_split(devices, rows):
    runner, weight = sums([mx.cpu(number) for number in range(devices)])
    data, more = np.random.default_rng(1).normal(size=(2, rows, WIDTH)).astype(np.float32)
    for _ in range(2):
        (found,) = runner(data, more)
        assert (found.shape, found.dtype) == ((rows, 4), np.float32)
        np.testing.assert_allclose(found, (data + more) @ weight.T, rtol=1e-5, atol=1e-6)


def test_what_was_returned_stays_as_it_was():
    runner, _ = sums()
    ones = np.ones((SIZE, WIDTH), np.float32)
    (first,) = runner(ones, ones)
    kept = first.copy()
    runner(7 * ones, ones)
    np.testing.assert_array_equal(first, kept)


def test_parameters_are_not_copied_on_their_own_device():
    weight = mx.nd.ones((4, WIDTH))
    runner, _ = sums(weight=weight)
    weight[:] = 2
    (found,) = runner(*np.ones((2, SIZE, WIDTH), np.float32))
    assert (found == 2 * 2 * WIDTH).all()


def test_parameters_of_another_type_are_cast_to_that_of_the_graph():
    runner, weight = sums()
    halves, _ = sums(weight=mx.nd.array(weight).astype(np.float16))
    ones = np.ones((2, SIZE, WIDTH), np.float32)
    np.testing.assert_allclose(halves(*ones)[0], runner(*ones)[0], atol=0.01)


def test_a_runner_of_smaller_batches_uses_the_parameters_of_a_larger_one():
    weight = mx.nd.ones((4, WIDTH))
    symbol = mx.sym.FullyConnected(mx.sym.var("data"), mx.sym.var("weight"), no_bias=True, num_hidden=4)
    contexts = [mx.cpu(1), mx.cpu(2)]
    large = Runner(symbol, {"weight": weight}, {}, {"data": (SIZE, WIDTH)}, contexts)
    weight[:] = 2  # both devices have had their copy
    small = Runner(symbol, {"weight": weight}, {}, {"data": (1, WIDTH)}, contexts[:1], large)
    ones = np.ones((SIZE, WIDTH), np.float32)
    for runner, rows in ((large, SIZE), (small, 1), (large, SIZE)):
        assert (runner(ones[:rows])[0] == np.full((rows, 4), WIDTH)).all()
