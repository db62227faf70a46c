"""What GluonCV's graphs compute, no plan changes: to the bit in MXNet's own kernels."""

import os
import subprocess
import sys
from pathlib import Path

import gluoncv
import mxnet as mx
import numpy as np
import pytest
from gluoncv import loss
from mxnet import autograd

from latse.cli import main
from latse.plan import memonger

CPU, CLASSES = mx.cpu(), 10
SIDE = 64  # of an image; what is larger needs it


def network(name, **settings):
    return gluoncv.model_zoo.get_model(name, pretrained=False, **settings)


def outputs(name, *inputs, **settings):
    """What a network puts out in training."""
    with autograd.record():
        return network(name, pretrained_base=False, **settings)(*map(mx.sym.var, ("data", *inputs)))


def classifier(name):
    scores = network(name, classes=CLASSES)(mx.sym.var("data"))
    return mx.sym.SoftmaxOutput(scores, mx.sym.var("label"), name="softmax")


def losses(*symbols):
    return mx.sym.Group([mx.sym.MakeLoss(each) for each in symbols])


def ssd(name):
    """Outputs alone: the loss of SSD counts positive boxes in Python, so that no graph holds it."""
    classes, boxes, _ = outputs(name)
    return mx.sym.Group([classes, boxes])


def yolo(name):
    return losses(*outputs(name, "boxes", "object", "centers", "scales", "weights", "classes"))


def center_net(name):
    heat, size, offset = outputs(name)
    mask = mx.sym.var("mask")
    shares = [
        loss.HeatmapFocalLoss(from_logits=True)(heat, mx.sym.var("heat")),
        loss.MaskedL1Loss(weight=0.1)(size, mx.sym.var("size"), mask),
        loss.MaskedL1Loss()(offset, mx.sym.var("offset"), mask),
    ]
    return losses(sum(shares))


def faster_rcnn(name):
    """With the losses of its two heads; what the proposals are compared with is drawn in the graph."""
    classes, boxes, *_, label, target, mask, _ = outputs(name, "boxes", "classes")
    return losses(
        mx.gluon.loss.SoftmaxCrossEntropyLoss()(classes, label, mx.sym.expand_dims(label, -1) >= 0),
        mx.gluon.loss.HuberLoss()(boxes, target, mask),
    )


def segmentation(name):
    """With the two terms of GluonCV's loss, whose own class asks a Symbol for its dtype, which has none."""
    label = mx.sym.var("label")
    terms = [
        mx.sym.SoftmaxOutput(scores, label, multi_output=True, normalization="valid", grad_scale=share)
        for scores, share in zip(outputs(name, crop_size=SIDE), (1, 0.5))
    ]
    return mx.sym.Group(terms)


def transformer(_, layers=3, width=32, heads=4, length=64):
    """Layers of attention, of which GluonCV has none."""

    def dense(x, units):
        return mx.sym.FullyConnected(x, num_hidden=units, flatten=False)

    def split(x):
        x = mx.sym.reshape(dense(x, width), (0, 0, heads, -1))
        return mx.sym.reshape(mx.sym.transpose(x, axes=(0, 2, 1, 3)), (-3, 0, 0))

    x = mx.sym.Embedding(mx.sym.var("label"), input_dim=CLASSES, output_dim=width)
    for _ in range(layers):
        y = mx.sym.LayerNorm(x)
        scores = mx.sym.softmax(mx.sym.batch_dot(split(y), split(y), transpose_b=True) * heads**-0.5)
        y = mx.sym.batch_dot(mx.sym.Dropout(scores, p=0.1), split(y))
        y = mx.sym.transpose(mx.sym.reshape(y, (-4, -1, heads, 0, 0)), axes=(0, 2, 1, 3))
        x = x + dense(mx.sym.reshape(y, (0, 0, -3)), width)
        x = x + dense(mx.sym.LeakyReLU(dense(mx.sym.LayerNorm(x), 4 * width), act_type="gelu"), width)
    return losses(mx.sym.mean(mx.sym.square(x)))


def images(batch=1, side=SIDE, **more):
    return {"data": (batch, 3, side, side), **more}


def pictures(batch, side=SIDE):
    return images(batch, side, label=(batch,))


CANDIDATES = 3 * (8**2 + 4**2 + 2**2)  # three boxes in each cell of three maps
OF_YOLO = {"object": 1, "centers": 2, "scales": 2, "weights": 2, "classes": 20}
OF_CENTER_NET = {"heat": 20, "size": 2, "offset": 2, "mask": 2}
yolo_inputs = images(boxes=(1, 3, 4), **{name: (1, CANDIDATES, size) for name, size in OF_YOLO.items()})
center_net_inputs = images(**{name: (1, size, 16, 16) for name, size in OF_CENTER_NET.items()})

ALWAYS = {
    "center_net_resnet18_v1b_voc": (center_net, center_net_inputs),
    "transformer": (transformer, {"label": (4, 64)}),  # with Dropout
}
DEEP = {
    "resnet50_v1b": (classifier, pictures(4)),
    "mobilenetv2_1.0": (classifier, pictures(4)),
    "mobilenetv3_large": (classifier, pictures(4)),  # with Dropout
    "se_resnext50_32x4d": (classifier, pictures(2)),
    "resnest50": (classifier, pictures(2)),
    "densenet121": (classifier, pictures(1, side=224)),
    "inceptionv3": (classifier, pictures(1, side=299)),  # with Dropout
    "xception": (classifier, pictures(2)),
    "ssd_512_mobilenet1.0_voc": (ssd, images(side=128)),
    "ssd_300_vgg16_atrous_voc": (ssd, images(side=300)),
    "yolo3_mobilenet1.0_voc": (yolo, yolo_inputs),
    "faster_rcnn_resnet50_v1b_voc": (faster_rcnn, images(side=192, boxes=(1, 3, 4), classes=(1, 3, 1))),
    "fcn_resnet50_voc": (segmentation, images(label=(1, SIDE, SIDE))),  # with Dropout
    "deeplab_resnet50_ade": (segmentation, images(label=(1, SIDE, SIDE))),  # with Dropout
}


ONEDNN = [*ALWAYS, "resnet50_v1b", "mobilenetv2_1.0", "ssd_512_mobilenet1.0_voc", "fcn_resnet50_voc"]


def values(name, shape, random):
    """Made-up values such that no gradient dies or grows without end on its way."""
    if name == "label":
        return random.randint(0, CLASSES, shape)
    if name.endswith("gamma"):
        return random.uniform(0.5, 1.5, shape)
    if name.endswith(("beta", "bias")):
        return random.normal(0, 0.1, shape)
    if name.endswith("weight"):
        return random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return random.uniform(0, 1, shape)


def one_step(symbol, shapes):
    """Outputs, gradients and moving statistics of one step, all by name."""
    trained = {name: "null" if name in shapes else "write" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(CPU, trained, dict.fromkeys(shapes, "float32"), **shapes)
    random = np.random.RandomState(0)
    for name, array in sorted(executor.arg_dict.items()):
        array[:] = values(name, array.shape, random)
    for name, array in executor.aux_dict.items():
        array[:] = name.endswith("var")
    mx.random.seed(3)  # of Dropout, which no plan computes again
    outputs = executor.forward(is_train=True)
    found = dict(zip(symbol.list_outputs(), [array.asnumpy() for array in outputs]))
    executor.backward([mx.nd.array(random.normal(size=array.shape)) for array in outputs])
    gradients = {name: array.asnumpy() for name, array in executor.grad_dict.items() if array is not None}
    return found, gradients, {name: array.asnumpy() for name, array in executor.aux_dict.items()}


def plain_and_planned(name, folder):
    """Plan a graph by the command, and take a step with it and with what the command wrote."""
    build, shapes = {**ALWAYS, **DEEP}[name]
    graph, out, planned = (str(Path(folder, file)) for file in ("graph.json", "plan.json", "planned.json"))
    build(name).save(graph)
    words = [f"{key}={','.join(map(str, shape))}" for key, shape in shapes.items()]
    assert main(["plan", "--symbol", graph, "--shape", *words, "--out", out, "--planned", planned]) == 0
    plain, found = mx.sym.load(graph), mx.sym.load(planned)
    assert memonger.read_plan(out, plain).tojson() == found.tojson()
    taken, before = (memonger.planned_megabytes(symbol, shapes, CPU) for symbol in (found, plain))
    assert taken < before
    return one_step(plain, shapes), one_step(found, shapes)


def compare_to_the_bit(name, folder):
    for expected, found in zip(*plain_and_planned(name, folder)):
        assert expected.keys() == found.keys()
        for key, array in expected.items():
            assert np.isfinite(array).all(), key
            np.testing.assert_array_equal(found[key], array, err_msg=key)


def assert_same_in_mxnets_own_kernels(names, folder):
    """Compare graphs in a process without oneDNN, as test_memonger.py does."""
    code = f"from test_public_graphs import *\nfor name in {names}: compare_to_the_bit(name, {str(folder)!r})"
    own = {"MXNET_MKLDNN_ENABLED": "0", "MXNET_STORAGE_FALLBACK_LOG_VERBOSE": "0"}
    subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env={**os.environ, **own}, check=True
    )


def norm(array):
    return np.linalg.norm(array.astype(np.float64).ravel())


def test_planned_public_graphs_compute_the_same_to_the_bit(tmp_path):
    assert_same_in_mxnets_own_kernels([*ALWAYS], tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("name", DEEP)
def test_a_planned_deep_public_graph_computes_the_same_to_the_bit(name, tmp_path):
    assert_same_in_mxnets_own_kernels([name], tmp_path)


@pytest.mark.deep
@pytest.mark.parametrize("name", ONEDNN)
def test_a_planned_public_graph_computes_the_same_by_onednn_but_for_rounding(name, tmp_path):
    expected, found = plain_and_planned(name, tmp_path)
    whole = np.sqrt(sum(norm(array) ** 2 for array in expected[1].values()))
    for kind, share in enumerate((0, 1e-6, 0)):  # of the whole gradient, as in test_plan_gradients.py
        for key, array in expected[kind].items():
            assert norm(found[kind][key] - array) <= 1e-4 * norm(array) + share * whole, key
