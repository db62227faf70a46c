"""What a run would take, without its data: iterations, images, epochs and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse.plan import memonger
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE, Verdict, trace
from latse.train import graph
from latse.train.verdicts import DOUBT

MEBIBYTE = 2**20
# ResNet-124, the people of MS1MV2, and the 96 images that the paper gives a device of 16 GB; and what of it
# they may take, in MiB.
PAPERS_SETTING, PAPERS_LIMIT = ("resnet124", 85742, 96), 14e9 / 2**20


@dataclass(frozen=True)
class DryRun:
    """A run that was planned and not done; memory is MiB on one device unless said otherwise.

    Attributes
    ----------
    iterations, batch_size, devices
        Of the recipe (the batch over all devices), and how many devices share it.
    images
        That are looked at, repetitions counted.
    epochs
        How often each image of the set is, None where the set's size is not known.
    plan
        The memory planner's, of the activations of the training graph.
    parameters
        All parameters and statistics of the training graph, with their gradients and momenta.
    teacher
        Parameters and activations of a teacher with the same encoder, which folded takes a little less; 0
        without a filter.
    mean_faces
        Of all people, in the file on the host; 0 without a decoder.
    uses_plan
        Whether the recipe trains the planned graph (`train.memory_plan`).
    """

    iterations: int
    batch_size: int
    devices: int
    images: int
    epochs: float | None
    plan: memonger.Plan
    parameters: float
    teacher: float
    mean_faces: float
    uses_plan: bool

    @property
    def activations(self) -> float:
        """The planner's figure for the graph that `latse train` would run."""
        return self.plan.after_megabytes if self.uses_plan else self.plan.before_megabytes

    @property
    def device_memory(self) -> float:
        """Activations, parameters and teacher together; workspaces and batches come on top."""
        return self.activations + self.parameters + self.teacher

    def as_json(self) -> dict[str, float | None]:
        """Return what a file of JSON says of it; null for a figure that has no end."""
        figures = {
            "iterations": self.iterations,
            "batch_size": self.batch_size,
            "devices": self.devices,
            "images": self.images,
            "epochs": self.epochs,
            "before_megabytes": self.plan.before_megabytes,
            "after_megabytes": self.plan.after_megabytes,
            "stages": self.plan.stages,
            "predicted_time": self.plan.predicted_time,
            "bound_megabytes": self.plan.bound_megabytes,
            "parameters_megabytes": self.parameters,
            "teacher_megabytes": self.teacher,
            "device_megabytes": self.device_memory,
            "mean_faces_megabytes": self.mean_faces,
        }
        return {name: figure if figure != math.inf else None for name, figure in figures.items()}


def dry_run(
    recipe: CfgNode,
    classes: int,
    images: int | None,
    devices: list[mx.Context],
    budget: memonger.Budget = None,
    progress: bool = False,
) -> DryRun:
    """Build the graphs of a recipe for `classes` people and plan the first device's memory.

    Parameters
    ----------
    recipe
        As `latse.recipe.load` returns it; its batch size must be divisible by the number of devices.
    classes, images
        People and images of the set, the latter None where it is not known.
    devices
        All are taken for alike.
    budget
        Of the memory plan, as `latse.plan.memonger.plan` takes it.
    progress
        Show a progress bar on stderr.

    Raises
    ------
    LatseError
        If no plan fits into the device or the budget.
    """
    share = recipe.train.batch_size // len(devices)
    symbol, shapes = graph.build(recipe, classes, share)
    weights, statistics = _sizes(symbol, shapes)
    seen = recipe.train.iterations * recipe.train.batch_size
    return DryRun(
        iterations=recipe.train.iterations,
        batch_size=recipe.train.batch_size,
        devices=len(devices),
        images=seen,
        epochs=seen / images if images else None,
        plan=memonger.plan(symbol, shapes, devices[0], budget=budget, progress=progress),
        parameters=3 * weights + statistics,
        teacher=_teacher(recipe, classes, share, devices[0]) if recipe.filter.k is not None else 0.0,
        mean_faces=_mean_faces(classes) if recipe.decoder.enabled else 0.0,
        uses_plan=recipe.train.memory_plan,
    )


def _sizes(symbol: mx.sym.Symbol, shapes: dict[str, tuple[int, ...]]) -> tuple[float, float]:
    """Return the MiB of float32 parameters and of auxiliary states."""
    arguments, _, states = symbol.infer_shape(**shapes)
    parameters = [shape for name, shape in zip(symbol.list_arguments(), arguments) if name not in shapes]
    return _megabytes(parameters), _megabytes(states)


def _megabytes(shapes: list[tuple[int, ...]], size: int = 4) -> float:
    return sum(math.prod(shape) for shape in shapes) * size / MEBIBYTE


def _teacher(recipe: CfgNode, classes: int, share: int, device: mx.Context) -> float:
    parts = (
        (encoders.create(recipe.encoder.name, recipe.encoder.dropout), {"data": IMAGE_SHAPE}),
        (Verdict(classes, DOUBT), {"embedding": (encoders.EMBEDDING_SIZE,), "softmax_label": ()}),
    )
    memory = 0.0
    for network, inputs in parts:
        symbol, shapes = trace(network), {name: (share, *shape) for name, shape in inputs.items()}
        memory += memonger.planned_megabytes(symbol, shapes, device, fixed=symbol.list_arguments())
        memory += sum(_sizes(symbol, shapes))
    return memory


def _mean_faces(classes: int) -> float:
    return _megabytes([(classes, *IMAGE_SHAPE)], np.dtype(np.float16).itemsize)
