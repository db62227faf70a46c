"""A Symbol taken apart and put together again, and a graph rewritten node by node."""

import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.graph.nodes import Array, Graph, Rewriting

DATA = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def network(name="leaky", slope=0.1, data="data", swapped=False):
    """Both outputs of one node are read, one of them twice; two outputs of their own."""
    halves = mx.sym.SliceChannel(mx.sym.var(data) + 1, num_outputs=2, name=f"{name}_halves")
    y = mx.sym.LeakyReLU(halves[1], slope=slope, act_type="leaky", name=name)
    pair = [y + halves[0] * halves[1], mx.sym.cast(y, dtype="float16", name=f"{name}_half")]
    return mx.sym.Group(pair[::-1] if swapped else pair)


def loop():
    """A node with a subgraph."""
    state = [mx.sym.zeros((4,))]
    return mx.sym.contrib.foreach(lambda row, sums: (row * 2, [sums[0] + row]), mx.sym.var("data"), state)[0]


def computed(symbol):
    return [array.asnumpy() for array in symbol.eval(data=mx.nd.array(DATA))]


@pytest.mark.parametrize("symbol", [network(), loop()], ids=["network", "loop"])
@pytest.mark.parametrize("put", [Graph.symbol, lambda graph: Rewriting(graph).done().symbol()])
def test_what_is_put_together_again_computes_the_same(symbol, put):
    again = put(Graph.read(symbol))
    assert again.list_outputs() == symbol.list_outputs()
    for one, other in zip(computed(again), computed(symbol)):
        np.testing.assert_array_equal(one, other)


def test_names_may_be_of_any_letters():
    """MXNet reads UTF-8, and no other way of writing a letter that ASCII has not."""
    symbol = mx.sym.relu(mx.sym.var("data"), name="活性化_é")
    assert Graph.read(symbol).symbol().list_outputs() == ["活性化_é_output"]


class Doubling(Rewriting):
    """Doubles what each LeakyReLU returns, and the second output of each SliceChannel."""

    def rewritten(self, i, node, inputs):
        entry = self.copied(i, node, inputs)
        return self.graph.add("_mul_scalar", "twice", [entry], scalar=2) if node.op == "LeakyReLU" else entry


def test_readers_of_a_node_read_what_stands_for_it():
    source = Graph.read(network())
    found = computed(Doubling(source).done().symbol())
    left, right = np.split(DATA + 1, 2, axis=1)
    leaky = 2 * np.where(right > 0, right, np.float32(0.1) * right)
    np.testing.assert_allclose(found[0], leaky + left * right, rtol=1e-6)
    np.testing.assert_allclose(found[1], leaky, rtol=1e-3)
    assert "twice" not in [node.name for node in source.nodes]


def test_the_digest_is_of_what_is_computed():
    """Names of operators do not count; settings, connexions, outputs and names of variables do."""
    digest = Graph.read(network()).digest()
    assert Graph.read(network("renamed")).digest() == digest
    assert Graph.read(network()).renamed("node").digest() == digest
    others = [network(slope=0.2), network(data="image"), network(swapped=True)]
    assert len({digest, *(Graph.read(other).digest() for other in others)}) == 4
    assert Graph.read(others[0]).digest({"slope"}) == Graph.read(network()).digest({"slope"}) != digest
    # Plans in users' folders name their graph so.
    assert digest == "c9c94a1103366eccadc5fdb4f9c5a403"


@pytest.mark.filterwarnings("ignore:Cannot decide")
def test_arrays_have_the_shapes_and_bytes_of_every_visible_output():
    graph = Graph.read(network())
    arrays = dict(zip((node.op for node in graph.nodes), graph.arrays({"data": (3, 4)})))
    assert arrays["null"] == [Array((3, 4), 48)]
    assert arrays["SliceChannel"] == [Array((3, 2), 24)] * 2
    assert arrays["Cast"] == [Array((3, 2), 12)]
    named_alike = mx.sym.relu(mx.sym.relu(mx.sym.var("data"), name="a")[0].sum(axis=1), name="a")
    assert [len(each) for each in Graph.read(named_alike).arrays({"data": (2, 8)})] == [1, 1, 1, 1]
    with pytest.raises(LatseError, match="only that of nothing was given"):
        graph.arrays({})


def test_settings_are_read_as_what_they_are():
    x = mx.sym.Convolution(mx.sym.var("x"), kernel=(3, 1), num_filter=2, no_bias=True, name="conv")
    *_, node = Graph.read(x).nodes
    assert (node.numbers("kernel", ()), node.numbers("stride", (1, 1))) == ((3, 1), (1, 1))
    assert node.is_true("no_bias") and not node.is_true("cudnn_off") and node.is_true("absent", default=True)
    assert Graph.read(x).uses() == [1, 1, 1]
