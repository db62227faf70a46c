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
from latse.data.shards.records import Batch
from latse.models import checkpoint
from latse.symbols.networks import IMAGE_SHAPE
from latse.train import learners
from latse.train.bank import MeanFaceBank
from latse.train.learner import Learner
from latse.train.training import Training, open_shard
from latse.train.verdicts import Judge, KeepAll, Stored, TopK

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

    `changes` are SECTION.KEY=VALUE of the recipe, a name or a file; `symbol` is the JSON of its planned
    training graph. With `data` the first batch of that set is learned, and `classes` are its people; without
    it the images are random. A `teacher`, PREFIX,NUMBER, is asked in every step; in its place come its stored
    `verdicts` on `data`. `bank` is the folder of mean faces that each step moves; by default they are random.
    """
    loaded = recipes.load(recipe, [*changes, f"train.batch_size={batch_size}"])
    training = Training.of(loaded, classes, [mx.cpu()], SEED)
    if symbol:
        training = training.with_symbol(checkpoint.load_symbol(symbol))
    inputs = graph_step.made_up(training.graph.shapes, classes)
    if data:
        shard = open_shard(data)
        batch = BatchStream(shard, batch_size, SEED).batch(0)
        inputs.update(data=batch.image, softmax_label=batch.label)
    else:
        numbers = np.arange(batch_size)
        batch = Batch(inputs["data"], inputs["softmax_label"], numbers, numbers % 2 == 1)
    if verdicts:
        judge = Stored(verdicts, loaded.filter.k, shard)
    elif teacher:
        judge = TopK(Judge(teacher, classes, batch_size, training.devices), loaded.filter.k)
    else:
        judge = KeepAll()
    learner = learners.create(training)
    faces = MeanFaceBank(bank, classes, IMAGE_SHAPE, loaded.decoder.momentum, 0) if bank else None

    def learn() -> Mapping[str, np.ndarray]:
        inputs["keep"] = judge.keep(batch)
        if faces:
            teaches = inputs["keep"].astype(bool) | loaded.filter.refused_in_mean
            inputs["mean_face"] = faces.update(batch.image, batch.label, teaches)
        return learner.step(inputs, SEED)

    return learner, learn


def contender(*arguments: Any, **options: Any) -> tuple[dict[str, Any], Step]:
    """Return the training of what `build` builds, as `latse.bench.protocol.serve` takes it."""
    learner, learn = build(*arguments, **options)

    def step() -> dict[str, float]:
        loss = float(learn()["loss"].mean())
        mx.nd.waitall()
        return {"loss": loss}

    return graph_step.facts(learner._module), step
