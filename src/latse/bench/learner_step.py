"""A contender that runs this project's own training step: `latse.train.learner.Learner` on a recipe."""

from __future__ import annotations

import argparse
from typing import Any, Callable, Mapping

import mxnet as mx
import numpy as np

from latse import recipe as recipes
from latse.bench import graph_step
from latse.bench.protocol import Step, serve
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Batch, Shard
from latse.errors import LatseError
from latse.models import checkpoint
from latse.plan import memonger
from latse.symbols.networks import IMAGE_SHAPE
from latse.train import mixed_learner
from latse.train.bank import MeanFaceBank
from latse.train.learner import Learner
from latse.train.training import Training, open_shard
from latse.train.verdicts import Judge, KeepAll, Stored, Teacher, TopK

SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is trained on what."""
    parser.add_argument("recipe")
    parser.add_argument("--classes", type=int, required=True, help="people; with --data those of the set")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--set", action="append", default=[], help="SECTION.KEY=VALUE of the recipe")
    graphs = parser.add_mutually_exclusive_group()
    graphs.add_argument("--plan", help="memory plan, a file of `latse plan`")
    graphs.add_argument("--symbol", help="JSON of the planned training graph")
    parser.add_argument("--data", help="set whose first batch is learned; default: random images")
    filters = parser.add_mutually_exclusive_group()
    filters.add_argument("--teacher", help="PREFIX,NUMBER of a teacher, asked in every step")
    filters.add_argument("--verdicts", help="its stored verdicts on the set")
    parser.add_argument("--bank", help="folder for mean faces that each step moves; default: random ones")


def build(args: argparse.Namespace) -> tuple[Learner, Callable[[], Mapping[str, np.ndarray]]]:
    """Return the learner of a recipe and a step of it, the filter's verdict and the bank included."""
    recipe = recipes.load(args.recipe, [*args.set, f"train.batch_size={args.batch_size}"])
    training = Training.of(recipe, args.classes, [mx.cpu()], SEED)
    if args.plan:
        training = training.with_symbol(memonger.read_plan(args.plan, training.graph.symbol))
    elif args.symbol:
        training = training.with_symbol(checkpoint.load_symbol(args.symbol))
    inputs = graph_step.made_up(training.graph.shapes, args.classes)
    batch, teacher = _batch(args, inputs), _teacher(args, recipe)
    inputs.update(data=batch.image, softmax_label=batch.label)
    learner = mixed_learner.create(training)
    momentum = recipe.decoder.momentum
    bank = MeanFaceBank(args.bank, args.classes, IMAGE_SHAPE, momentum, 0) if args.bank else None

    def learn() -> Mapping[str, np.ndarray]:
        inputs["keep"] = teacher.keep(batch)
        if bank:
            teaches = inputs["keep"].astype(bool) | recipe.filter.refused_in_mean
            inputs["mean_face"] = bank.update(batch.image, batch.label, teaches)
        return learner.step(inputs, SEED)

    return learner, learn


def _batch(args: argparse.Namespace, inputs: Mapping[str, np.ndarray]) -> Batch:
    """Return the first batch of the set, or one of the random images."""
    if args.data:
        return BatchStream(open_shard(args.data), args.batch_size, SEED).batch(0)
    numbers = np.arange(args.batch_size)
    return Batch(inputs["data"], inputs["softmax_label"], numbers, numbers % 2 == 1)


def _teacher(args: argparse.Namespace, recipe: recipes.CfgNode) -> Teacher:
    if args.verdicts:
        if not args.data:
            raise LatseError("--verdicts needs --data: they are those on a set")
        return Stored(args.verdicts, recipe.filter.k, Shard(args.data))
    if args.teacher:
        judge = Judge(*checkpoint.parse(args.teacher), args.classes, args.batch_size, [mx.cpu()])
        return TopK(judge, recipe.filter.k)
    return KeepAll()


def facts(learner: Learner) -> dict[str, Any]:
    """Return what a contender says of a learner before its first step."""
    return graph_step.facts(learner._module)


def main() -> None:
    """Serve the learner."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args()

    def built() -> tuple[dict[str, Any], Step]:
        learner, learn = build(args)

        def step() -> dict[str, float]:
            loss = float(learn()["loss"].mean())
            mx.nd.waitall()
            return {"loss": loss}

        return facts(learner), step

    serve(built)


if __name__ == "__main__":
    main()
