"""A contender that does what a step of insightface's MXNet trainer does.

With its sources (`arcface_mxnet`) the graph and the metrics are its own: its modules are imported as they
are, with a stand-in for the module `config` that its users write. Without them `latse.bench.equivalents`
stands in.
"""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path
from typing import Any

import mxnet as mx

from latse.bench import equivalents, graph_step
from latse.bench.protocol import Step
from latse.errors import LatseError
from latse.symbols.networks import IMAGE_SHAPE

# Our encoder -> its `num_layers`.
LAYERS = {"resnet34": 34, "resnet50": 50, "resnet100": 100, "resnet124": 124}


def modules(sources: Path, encoder: str, classes: int) -> tuple[types.ModuleType, types.ModuleType]:
    """Import insightface's `train` and `metric` with the setting of ArcFace on a ResNet.

    To be called once in a process: its modules are global and take names such as `config` and `train`.
    `sources` is its folder `recognition/arcface_mxnet`, `encoder` one of `LAYERS`. Raises LatseError if the
    sources are missing or cannot be imported.
    """
    sys.path[:0] = [str(sources), str(sources / "symbol"), str(sources / "common")]
    sys.modules["config"] = types.ModuleType("config")
    vars(sys.modules["config"]).update(
        config=_configuration(encoder, classes), default=types.SimpleNamespace(), generate_config=None
    )
    try:
        return importlib.import_module("train"), importlib.import_module("metric")
    except ImportError as error:
        raise LatseError(f"cannot use insightface's trainer in {sources}: {error}") from error


def training_symbol(trainer: types.ModuleType, batch_size: int) -> mx.sym.Symbol:
    """Return the training graph of insightface's module `train`."""
    return trainer.get_symbol(types.SimpleNamespace(per_batch_size=batch_size))


def _configuration(encoder: str, classes: int) -> types.SimpleNamespace:
    """Return the values of its sample for a ResNet with ArcFace."""
    return types.SimpleNamespace(
        net_name="fresnet",
        num_layers=LAYERS[encoder],
        net_se=0,
        net_act="prelu",
        net_unit=3,
        net_input=1,
        net_output="E",
        emb_size=512,
        bn_mom=0.9,
        workspace=256,
        fp16=False,
        memonger=False,
        loss_name="margin_softmax",
        loss_s=equivalents.SCALE,
        loss_m1=1.0,
        loss_m2=equivalents.MARGIN,
        loss_m3=0.0,
        ce_loss=True,
        fc7_lr_mult=1.0,
        fc7_wd_mult=1.0,
        num_classes=classes,
    )


def contender(
    encoder: str, classes: int, batch_size: int, sources: Path | None = None
) -> tuple[dict[str, Any], Step]:
    """Return its training step on an encoder of ours, as `latse.bench.protocol.serve` takes it.

    `sources` is the folder `arcface_mxnet`; without it equivalents of this project are trained.
    """
    if sources:
        trainer, metric = modules(sources, encoder, classes)
        symbol = training_symbol(trainer, batch_size)
        metrics = [metric.AccMetric(), metric.LossValueMetric()]
    else:
        symbol = equivalents.training_symbol(encoder, classes, batch_size)
        accuracy = mx.metric.Accuracy(output_names=["softmax_output"])
        metrics = [accuracy, mx.metric.Loss(output_names=["ce_loss_output"])]
    shapes = {"data": (batch_size, *IMAGE_SHAPE), graph_step.LABEL: (batch_size,)}
    # The gradient is already the batch's mean: SoftmaxOutput divides it.
    module = graph_step.bound(symbol, shapes, graph_step.LEARNING_RATE, rescale=1.0)
    inputs = graph_step.made_up(shapes, classes)
    # Its loader gives float32 arrays of MXNet.
    data, label = (mx.nd.array(inputs[name], dtype="float32") for name in shapes)
    batch = mx.io.DataBatch([data], [label])
    composite = mx.metric.CompositeEvalMetric(metrics)

    def step() -> None:
        module.forward_backward(batch)
        module.update()
        module.update_metric(composite, batch.label)
        mx.nd.waitall()

    return graph_step.facts(module), step
