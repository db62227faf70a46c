"""A contender that runs this project's own training step: `latse.train.learner.Learner` on a recipe."""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, Sequence

import mxnet as mx
import numpy as np

from latse import recipe as recipes
from latse.bench import graph_step
from latse.bench.protocol import Step
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Batch, Shard
from latse.models import checkpoint
from latse.symbols.networks import IMAGE_SHAPE
from latse.train import mixed_learner
from latse.train.bank import MeanFaceBank
from latse.train.learner import Learner
from latse.train.training import Training, open_shard
from latse.train.verdicts import Judge, KeepAll, Stored, Teacher, TopK

SEED = 0
STEADY = (
    "schedule.mode=constant",
    f"schedule.learning_rate={graph_step.LEARNING_RATE}",
    "train.kvstore=local",
)
Learn = Callable[[], Mapping[str, np.ndarray]]


def build(
    recipe: str | os.PathLike,
    classes: int,
    batch_size: int,
    changes: Sequence[str] = (),
    symbol: str | os.PathLike | None = None,
    data: str | os.PathLike | None = None,
    teacher: str | None = None,
    verdicts: str | os.PathLike | None = None,
    bank: str | os.PathLike | None = None,
) -> tuple[Learner, Learn]:
    """Return the learner of a recipe and a step of it, the filter's verdict and the bank included.

    Parameters
    ----------
    recipe : path
        Name or file.
    classes, batch_size : int
        People (with `data` those of the set) and images.
    changes : sequence of str
        SECTION.KEY=VALUE of the recipe.
    symbol : path, optional
        JSON of the planned training graph.
    data : path, optional
        The set whose first batch is learned; by default random images.
    teacher : str, optional
        PREFIX,NUMBER of a teacher that is asked in every step.
    verdicts : path, optional
        Its stored verdicts on `data`, in its place.
    bank : path, optional
        The folder of mean faces that each step moves; by default they are random.
    """
    loaded = recipes.load(recipe, [*changes, f"train.batch_size={batch_size}"])
    training = Training.of(loaded, classes, [mx.cpu()], SEED)
    if symbol:
        training = training.with_symbol(checkpoint.load_symbol(symbol))
    inputs = graph_step.made_up(training.graph.shapes, classes)
    batch, judge = _batch(data, inputs), _teacher(training, data, teacher, verdicts)
    inputs.update(data=batch.image, softmax_label=batch.label)
    learner = mixed_learner.create(training)
    momentum = loaded.decoder.momentum
    faces = MeanFaceBank(bank, classes, IMAGE_SHAPE, momentum, 0) if bank else None

    def learn() -> Mapping[str, np.ndarray]:
        inputs["keep"] = judge.keep(batch)
        if faces:
            teaches = inputs["keep"].astype(bool) | loaded.filter.refused_in_mean
            inputs["mean_face"] = faces.update(batch.image, batch.label, teaches)
        return learner.step(inputs, SEED)

    return learner, learn


def _batch(data: str | os.PathLike | None, inputs: Mapping[str, np.ndarray]) -> Batch:
    """Return the first batch of a set, or one of the random images."""
    numbers = np.arange(len(inputs["data"]))
    if data:
        return BatchStream(open_shard(data), len(numbers), SEED).batch(0)
    return Batch(inputs["data"], inputs["softmax_label"], numbers, numbers % 2 == 1)


def _teacher(
    training: Training,
    data: str | os.PathLike | None,
    teacher: str | None,
    verdicts: str | os.PathLike | None,
) -> Teacher:
    if verdicts:
        return Stored(verdicts, training.recipe.filter.k, Shard(data))
    if teacher:
        judge = Judge(teacher, training.classes, training.graph.batch_size, training.devices)
        return TopK(judge, training.recipe.filter.k)
    return KeepAll()


def facts(learner: Learner) -> dict[str, Any]:
    """Return what a contender says of a learner before its first step."""
    return graph_step.facts(learner._module)


def contender(*arguments: Any, **options: Any) -> tuple[dict[str, Any], Step]:
    """Return the training of what `build` builds, as `latse.bench.protocol.serve` takes it."""
    learner, learn = build(*arguments, **options)

    def step() -> dict[str, float]:
        loss = float(learn()["loss"].mean())
        mx.nd.waitall()
        return {"loss": loss}

    return facts(learner), step
