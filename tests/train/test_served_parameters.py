"""What a server does with parameters that it moves whenever gradients of a worker come."""

import mxnet as mx
import numpy as np
import pytest

from latse import recipe as recipes
from latse.train import mover
from latse.train.optimiser import schedule, settings
from latse.train.server import Server

WORKERS, RATE, DECAY, MOMENTUM = 2, 0.5, 0.1, 0.9
NAMES = "first arg:a_weight", "a_weight", "b_weight", "a_running", "momentum:a_weight", "momentum:b_weight"
KEYS = {name: number for number, name in enumerate(NAMES)}


class Store:
    """A server's KVStore, as far as it is asked."""

    def _set_updater(self, updater):
        self.push = updater


@pytest.fixture
def recipe(tmp_path):
    train = f"kvstore: dist_async, batch_size: 4, iterations: 4, momentum: {MOMENTUM}, weight_decay: {DECAY}"
    (tmp_path / "recipe.yaml").write_text(
        f"train: {{{train}}}\nschedule: {{mode: cosine, learning_rate: {RATE}, warmup: 0}}\n"
    )
    return recipes.load(tmp_path / "recipe.yaml")


def test_each_push_moves_by_the_rate_of_its_iteration_and_a_part_of_the_decay(recipe, monkeypatch):
    """Begun after iteration 1; after the two pushes of iteration 2, iteration 3 is skipped."""
    monkeypatch.setattr(mover, "ended", pytest.fail)  # not the process of the tests
    store = Store()
    server = Server(store)
    attributes = {"a_weight": {"__lr_mult__": "2"}, "a_running": {}, "b_weight": {"__lr_mult__": "0"}}
    told = {"settings": settings(recipe), "iteration": 1, "workers": WORKERS}
    server.command({**told, "attributes": attributes, "numbers": KEYS})
    weight, momentum, running, still = (mx.nd.array([value]) for value in (3.0, 0.25, 5.0, 7.0))
    store.push(KEYS["momentum:a_weight"], mx.nd.zeros(1), momentum)
    store.push(KEYS["momentum:b_weight"], mx.nd.zeros(1), mx.nd.zeros(1))
    expected, moving = 3.0, 0.25
    for iteration, gradients in ((2, (1.0, -8.0)), (4, (2.0, 0.5))):
        for gradient in gradients:
            store.push(KEYS["a_weight"], mx.nd.array([gradient]), weight)
            store.push(KEYS["a_running"], mx.nd.array([gradient]), running)
            store.push(KEYS["b_weight"], mx.nd.array([gradient]), still)
            rate = 2 * schedule(recipe)(iteration)
            moving = MOMENTUM * moving - rate * (gradient / 4 + DECAY / WORKERS * expected)
            expected += moving
            np.testing.assert_allclose(weight.asnumpy(), expected, rtol=1e-6)
            np.testing.assert_allclose(momentum.asnumpy(), moving, rtol=1e-6)
        if iteration == 2:
            server.command({"skip": WORKERS})
    np.testing.assert_allclose(running.asnumpy(), 5 - (1 - 8 + 2 + 0.5) / 4)
    assert still.asscalar() == 7.0
