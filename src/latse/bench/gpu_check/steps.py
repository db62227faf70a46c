"""Training steps of made-up networks on made-up images, and by how much two of them differ."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

import mxnet as mx
import numpy as np

from latse import recipe as recipes
from latse.bench.embed_command import random_parameters
from latse.bench.gpu_check.setting import Sizes
from latse.bench.graph_step import made_up
from latse.symbols import encoders
from latse.train import learners
from latse.train.learner import Learner
from latse.train.state import RunState
from latse.train.training import Training

RECIPE = "casia_teacher"  # LinearFace
RATE = 0.01
# So that what is compared does not depend on chance, and the momentum after one step is the gradient.
STEADY = (
    "schedule.mode=constant",
    f"schedule.learning_rate={RATE}",
    "train.weight_decay=0.0",
    "train.kvstore=local",
)
SEED = 0

Arrays = Mapping[str, np.ndarray]


class Step(NamedTuple):
    """What a step returned and what it moved: outputs (B,), gradients and moving statistics, by name."""

    outputs: Arrays
    gradients: Arrays
    statistics: Arrays


def training(
    devices: Sequence[mx.Context], sizes: Sizes, encoder: str, *changes: str, images: int | None = None
) -> Training:
    """Return the training of an encoder with LinearFace without dropout; `images` are those of a device."""
    batch = len(devices) * (images or sizes.images)
    dropout = ["encoder.dropout=0.0"] if "dropout" in encoders.parameters(encoder) else []
    own = [f"encoder.name={encoder}", *dropout, f"train.batch_size={batch}"]
    recipe = recipes.load(RECIPE, [*STEADY, *own, *changes])
    return Training.of(recipe, sizes.classes, list(devices), SEED)


def student(sizes: Sizes) -> tuple[str, ...]:
    """Return what makes of a teacher's recipe the student's: decoder and filter."""
    return "decoder.enabled=true", f"decoder.widths={list(sizes.widths)}", "filter.k=3"


def learner(training: Training) -> Learner:
    """Return what learns, from drawn parameters: the same ones whatever the device."""
    symbol, shapes = training.graph
    return learners.create(training, RunState(0, *random_parameters(symbol, **shapes)))


def inputs(training: Training) -> dict[str, np.ndarray]:
    """Return the inputs of a step by name; the images are tiles of one colour, as different as people are.

    Of noise all embeddings are alike, and a batch normalisation makes of their rounding a difference.
    """
    shapes = training.graph.shapes
    return {**made_up(shapes, training.classes), "data": tiles(shapes["data"][0])}


def tiles(count: int) -> np.ndarray:
    """Return images of 7×7 tiles of random colours, uint8 (count, 3, 112, 112)."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 3, 7, 7), np.uint8)
    return colours.repeat(16, axis=2).repeat(16, axis=3)


def one_step(training: Training) -> Step:
    """Do one step."""
    made = learner(training)
    outputs = made.step(inputs(training), SEED)
    after = made.capture(1)
    gradients = {name: -array.asnumpy() / RATE for name, array in after.momentum.items()}
    return Step(outputs, gradients, {name: array.asnumpy() for name, array in after.aux_params.items()})


def losses(training: Training) -> np.ndarray:
    """Learn the same batch a few times; return the mean loss before each step, float64 (steps,)."""
    made, fed = learners.create(training), inputs(training)
    steps = range(training.recipe.train.iterations)
    return np.array([made.step(fed, number)["loss"].mean(dtype=np.float64) for number in steps])


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the largest number that is expected."""
    difference = np.abs(found.astype(np.float64) - expected).max()
    return float(difference / max(np.abs(expected).max(), np.finfo(np.float32).tiny))


def worst(found: Arrays, expected: Arrays, share: float) -> tuple[float, str]:
    """Return by how much the arrays of one name differ at most, by their norm, and which they are.

    Where an array is small beside a `share` of all together, the difference is one of that. Not a number is
    more than any.
    """
    whole = share * norm(expected)
    differences = {
        name: norm({name: found[name].astype(np.float64) - array}) / max(norm({name: array}) + whole, 1e-30)
        for name, array in expected.items()
    }
    name = max(differences, key=lambda name: (np.isnan(differences[name]), differences[name]))
    return differences[name], name


def norm(arrays: Arrays) -> float:
    """Return the norm of all numbers together."""
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays.values())))
