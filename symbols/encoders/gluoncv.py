"""Image classifiers of gluoncv's model zoo as backbones: `gluoncv/NAME`."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Callable

import mxnet as mx
from mxnet.gluon import SymbolBlock, nn

from latse.errors import LatseError
from latse.graph.nodes import Graph
from latse.symbols.encoders.base import Encoder
from latse.symbols.networks import IMAGE_SHAPE, trace

PREFIX = "gluoncv/"
Builder = Callable[..., nn.HybridBlock]
# The modules of gluoncv.model_zoo whose networks classify images. All others detect, segment, track, read
# videos or are quantised, and some load weights from the network whatever they are told.
CLASSIFIERS = (
    *("alexnet", "cifarresnet", "cifarresnext", "cifarwideresnet", "densenet", "dla", "googlenet", "hrnet"),
    *("inception", "mobilenet", "mobilenetv3", "nasnet", "pruned_resnet.resnetv1b_pruned"),
    *("residual_attentionnet", "resnest", "resnet", "resnetv1b", "resnext", "senet", "shufflenet"),
    *("squeezenet", "vgg", "xception", "yolo.darknet"),
)


class GluonCVEncoder(Encoder):
    """A classifier's features, its weights random, with the paper's head.

    Its parameters have gluoncv's own names, those of the first network of its kind in a process.

    Parameters
    ----------
    name : str
        What gluoncv calls it.
    lean : bool, default False
        Makes no difference.
    dropout : float, default 0.4
        As of `Encoder`.

    Raises
    ------
    LatseError
        If there is no classifier of that name, or it does not take images of 112x112.
    """

    def __init__(self, name: str, lean: bool = False, dropout: float = 0.4) -> None:
        self._zoo_name = name
        super().__init__(lean, dropout)

    def features(self) -> nn.HybridBlock:
        """Return the classifier up to its last map of several pixels."""
        name, builders = self._zoo_name, _builders()
        if name not in builders:
            raise LatseError(f"unknown encoder '{PREFIX}{name}': gluoncv's model zoo has no {name}")
        if _classifies(builders[name]):
            with contextlib.suppress(mx.base.MXNetError):  # of one that MXNet 1.9.1 cannot trace
                network = builders[name](pretrained=False)
                last_map = _last_map(network)
                if last_map is not None:
                    data = mx.sym.var("data", dtype="float32")
                    return SymbolBlock(last_map, data, params=network.collect_params())
        height, width = IMAGE_SHAPE[1:]
        raise LatseError(f"gluoncv's {name} is no image classifier that takes images of {height}x{width}")


def classifiers() -> list[str]:
    """Return the names of all classifiers, whether they take images of 112x112 or not."""
    return sorted(name for name, build in _builders().items() if _classifies(build))


def _builders() -> dict[str, Builder]:
    """Return what builds each network of the zoo; its `get_model` would build one to see what it is."""
    from gluoncv.model_zoo import model_zoo

    return model_zoo._models


def _classifies(build: Builder) -> bool:
    return build.__module__.partition("model_zoo.")[2] in CLASSIFIERS


def _last_map(network: nn.HybridBlock) -> mx.sym.Symbol | None:
    """Return a classifier up to its last map of several pixels; None if it has no such part.

    Its `features` are that where they end in one. Else it is what the last pooling gets: the one over the
    whole map, or, where dense layers follow, one that only makes it smaller.
    """
    has_features = hasattr(network, "features")
    # The first output: the second one of a NASNet only helps training.
    graph = Graph.read(trace(network.features if has_features else network)[0])
    (last,) = graph.heads
    while graph.nodes[last[0]].op == "Dropout":
        last = graph.nodes[last[0]].inputs[0]
    poolings = [node for node in graph.nodes if node.op == "Pooling"]
    candidates = [last] * has_features + [node.inputs[0] for node in poolings[-1:]]
    maps = (replace(graph, heads=[entry]).symbol() for entry in candidates)
    return next((feature_map for feature_map in maps if _is_map(feature_map)), None)


def _is_map(symbol: mx.sym.Symbol) -> bool:
    """Tell whether an image of 112x112 makes an output of several rows and columns."""
    try:
        shape = symbol.infer_shape_partial(data=(1, *IMAGE_SHAPE))[1][0]
    except mx.base.MXNetError:  # such as a last pooling that is larger than the map
        return False
    return len(shape) == 4 and min(shape[2:]) > 1
