"""What a run would take, without its data: iterations, images, epochs and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latse.models.parameters import needed_shapes
from latse.plan import memonger
from latse.symbols import encoders
from latse.symbols.networks import IMAGE_SHAPE, Verdict, trace
from latse.train.training import Training, TrainingGraph
from latse.train.verdicts import DOUBT

MEBIBYTE = 2**20


@dataclass(frozen=True)
class DryRun:
    """A run that was planned and not done; memory is MiB on one device unless said otherwise.

    Attributes
    ----------
    training : Training
        What would be trained; all devices are taken for alike.
    set_images : int or None
        Images of the set, None where their number is not known.
    plan : memonger.Plan
        The memory planner's, of the activations of the training graph.
    parameters : float
        All parameters and statistics of the training graph, with their gradients and momenta.
    teacher : float
        Parameters and activations of a teacher with the same encoder, which folded takes a little less; 0
        without a filter.
    mean_faces : float
        Of all people, in the file on the host; 0 without a decoder.
    """

    training: Training
    set_images: int | None
    plan: memonger.Plan
    parameters: float
    teacher: float
    mean_faces: float

    @property
    def images(self) -> int:
        """Images that are looked at, repetitions counted."""
        return self.training.recipe.train.iterations * self.training.recipe.train.batch_size

    @property
    def epochs(self) -> float | None:
        """How often each image of the set is looked at, None where their number is not known."""
        return self.images / self.set_images if self.set_images else None

    @property
    def unplanned_memory(self) -> float:
        """Activations without the plan, parameters and teacher; workspaces and batches come on top."""
        return self.plan.before_megabytes + self.parameters + self.teacher

    @property
    def planned_memory(self) -> float:
        """The same with the plan."""
        return self.plan.after_megabytes + self.parameters + self.teacher

    @property
    def device_memory(self) -> float:
        """Which of the two `latse train` would take by the recipe alone."""
        return self.planned_memory if self.training.recipe.train.memory_plan else self.unplanned_memory

    def as_json(self) -> dict[str, float | None]:
        """Return what a file of JSON says of it; null for a figure that has no end."""
        figures = {
            "iterations": self.training.recipe.train.iterations,
            "batch_size": self.training.recipe.train.batch_size,
            "devices": len(self.training.devices),
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
    training: Training, set_images: int | None, budget: memonger.Budget = None, progress: bool = False
) -> DryRun:
    """Plan the first device's memory, within a `budget` as `latse.plan.memonger.plan` takes it.

    `training` and `set_images` are those of `DryRun`. With `progress` a bar is shown on stderr. Raises
    LatseError if no plan fits into the device or the budget.
    """
    recipe, graph = training.recipe, training.device_graph
    weights, statistics = _sizes(graph)
    mean_faces = training.classes * math.prod(IMAGE_SHAPE) * np.dtype(np.float16).itemsize / MEBIBYTE
    return DryRun(
        training,
        set_images,
        plan=memonger.plan(*graph, training.devices[0], budget=budget, progress=progress),
        parameters=3 * weights + statistics,
        teacher=_teacher(training) if recipe.filter.k is not None else 0.0,
        mean_faces=mean_faces if recipe.decoder.enabled else 0.0,
    )


def _sizes(graph: TrainingGraph) -> tuple[float, float]:
    """Return the MiB of float32 parameters and of auxiliary states."""
    shapes, states = needed_shapes(graph.symbol, **graph.shapes), graph.symbol.list_auxiliary_states()
    sizes = {name: 4 * math.prod(shape) / MEBIBYTE for name, shape in shapes.items()}
    statistics = sum(sizes.pop(name) for name in states)
    return sum(sizes.values()), statistics


def _teacher(training: Training) -> float:
    encoder, share = encoders.create(**training.recipe.encoder), training.device_graph.batch_size
    centres = training.classes, encoder.embedding_size
    verdict = Verdict(centres, DOUBT), {"embedding": centres[1:], "softmax_label": ()}
    memory = 0.0
    for network, inputs in ((encoder, {"data": IMAGE_SHAPE}), verdict):
        graph = TrainingGraph(trace(network), {name: (share, *shape) for name, shape in inputs.items()})
        arguments = graph.symbol.infer_shape(**graph.shapes)[0]
        untrained = dict(zip(graph.symbol.list_arguments(), arguments))
        memory += memonger.planned_megabytes(graph.symbol, untrained, training.devices[0])
        memory += sum(_sizes(graph))
    return memory
