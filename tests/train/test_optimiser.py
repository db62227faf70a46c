"""The optimiser: momentum for what is learned, plain assignment for what a loss remembers."""

import mxnet as mx
import numpy as np
import pytest

from latse.train.optimiser import SGDWithRunning


def trained(contexts, kvstore, steps=5, batch=4, **options):
    """Train with gradients that are known: 1 a sample for `learned_weight`, old - 3 for `scale_running`."""
    data = mx.sym.var("data")
    names = "learned_weight", "scale_running"
    learned, running = (mx.sym.var(name, shape=(1,), init=mx.init.One()) for name in names)
    pull = mx.sym.BlockGrad(running - 3) * running
    loss = mx.sym.broadcast_add(data * 0, learned) + mx.sym.broadcast_add(data * 0, pull)
    module = mx.mod.Module(mx.sym.MakeLoss(loss), label_names=None, context=contexts)
    module.bind([("data", (batch,))])
    module.init_params()
    module.init_optimizer(
        kvstore=kvstore,
        optimizer=SGDWithRunning.__name__,
        optimizer_params={
            "learning_rate": 0.1,
            "momentum": 0.9,
            "wd": 0.01,
            "rescale_grad": 1 / batch,
            **options,
        },
    )
    history = []
    for _ in range(steps):
        module.forward_backward(mx.io.DataBatch([mx.nd.zeros(batch)]))
        module.update()
        history.append({name: array.asscalar() for name, array in module.get_params()[0].items()})
    return history


@pytest.mark.parametrize("kvstore", ["local", "device"])
@pytest.mark.parametrize("devices", [1, 2])
def test_learned_and_running_parameters(devices, kvstore):
    history = trained([mx.cpu(number) for number in range(devices)], kvstore)
    weight, momentum = 1.0, 0.0
    for values in history:
        momentum = 0.9 * momentum - 0.1 * (1 + 0.01 * weight)
        weight += momentum
        assert values["learned_weight"] == pytest.approx(weight, rel=1e-6)
        assert values["scale_running"] == 3


def test_several_parameters_at_once_are_those_one_by_one():
    optimiser = SGDWithRunning(
        learning_rate=0.5, momentum=0.9, param_idx2name={0: "a", 1: "b_running", 2: "c"}, rescale_grad=0.25
    )
    weights = [mx.nd.array([value]) for value in (1.0, 2.0, 3.0)]
    grads = [mx.nd.array([value]) for value in (4.0, 8.0, 16.0)]
    states = [optimiser.create_state(index, weight) for index, weight in enumerate(weights)]
    assert states[1] is None
    optimiser.update_multi_precision([0, 1, 2], weights, grads, states)
    np.testing.assert_allclose([weight.asscalar() for weight in weights], [0.5, 0.0, 1.0])


@pytest.mark.parametrize("devices", [1, 2])
def test_one_by_one_is_the_same_descent(devices):
    contexts = [mx.cpu(number) for number in range(devices)]
    assert trained(contexts, "local", one_by_one=True) == trained(contexts, "local")


def test_one_by_one_gives_the_updater_one_parameter_at_a_time():
    assert mx.optimizer.get_updater(SGDWithRunning(learning_rate=0.1)).aggregate_updates
    assert not mx.optimizer.get_updater(SGDWithRunning(one_by_one=True, learning_rate=0.1)).aggregate_updates
