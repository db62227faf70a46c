"""What is trained: a recipe's network as one graph, on which devices, from which seed."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import NamedTuple, Sequence

import mxnet as mx
from mxnet.gluon import nn
from yacs.config import CfgNode

from latse.child import in_child
from latse.data.shards.records import Shard
from latse.devices import share
from latse.errors import LatseError, blaming
from latse.models.parameters import Shapes
from latse.plan import memonger
from latse.recipe_keys import SAMPLED, SINGLE
from latse.symbols import encoders, margins, selection
from latse.symbols.decoder import Decoder
from latse.symbols.networks import (
    IMAGE_SHAPE,
    AutoEncoder,
    Classifier,
    FilteredStudent,
    Selected,
    Student,
    trace,
)
from latse.train import metrics, moving_statistics, network_check, precision
from latse.train.tables import Table, found, sample_size


class TrainingGraph(NamedTuple):
    """A traced training graph, with or without a memory plan, and the shapes of its inputs for a batch."""

    symbol: mx.sym.Symbol
    shapes: Shapes

    @property
    def batch_size(self) -> int:
        """How many images the shapes are for."""
        return self.shapes["data"][0]

    def for_batch(self, size: int) -> TrainingGraph:
        """Return the graph with the shapes for a batch of another size."""
        return self._replace(shapes={name: (size, *shape[1:]) for name, shape in self.shapes.items()})

    def planned(self, device: mx.Context) -> memonger.Plan:
        """Search the memory plan that takes the least memory, in a process of its own.

        Raises LatseError if no plan fits into the device, or the process is killed.
        """
        return in_child("the search for a memory plan", _plan, self, device)


def _plan(graph: TrainingGraph, device: mx.Context) -> memonger.Plan:
    """Plan in a process that has imported this module, and with it the operators of training graphs."""
    return memonger.plan(*graph, device, progress=True)


def traced(recipe: CfgNode, classes: int, batch_size: int) -> TrainingGraph:
    """Return the training graph of a recipe for `classes` people, in the recipe's precision."""
    network = _network(recipe, classes)
    images = (batch_size, *IMAGE_SHAPE)
    known = {"data": images, "mean_face": images}
    shapes = {name: known.get(name, (batch_size,)) for name in network.inputs}
    symbol = moving_statistics.with_momentum(trace(network), recipe.train.statistics_momentum)
    return TrainingGraph(*precision.prepared(recipe, symbol, shapes))


@dataclass(frozen=True)
class Training:
    """All that decides the bits of a training besides its images and its teacher.

    Attributes
    ----------
    recipe : CfgNode
        As `latse.recipe.load` returns it.
    classes : int
        Number of people.
    devices : list of mx.Context
        The worker's batch is split over them evenly.
    graph : TrainingGraph
        The recipe's, with the shapes for the worker's batch.
    kept : mx.sym.Symbol
        What a checkpoint keeps of it: `fc1_output` and, with a decoder, `generated_output`.
    seed : int, default 0
        Decides the initial parameters, the order of the images, flips and dropout; at least 0.
    workers : int, default 1
        How many processes share the batch, each with such devices.
    tables : list of Table
        Of a sampled head: what the graph gets as inputs, of some people each time; else empty.

    Raises
    ------
    LatseError
        For a batch that workers and devices cannot share.
    """

    recipe: CfgNode
    classes: int
    devices: list[mx.Context]
    graph: TrainingGraph
    kept: mx.sym.Symbol
    seed: int = 0
    workers: int = 1
    tables: Sequence[Table] = ()

    def __post_init__(self) -> None:
        whole = self.recipe.train.batch_size
        if whole % self.workers:
            raise LatseError(f"train.batch_size {whole} cannot be split over {self.workers} workers")
        share(self.batch_size, self.devices)

    @property
    def batch_size(self) -> int:
        """How many images of a batch are this worker's."""
        return self.recipe.train.batch_size // self.workers

    @classmethod
    def of(
        cls, recipe: CfgNode, classes: int, devices: list[mx.Context], seed: int = 0, workers: int = 1
    ) -> Training:
        """Return the training of the recipe's own graph.

        Raises LatseError if nobody could read its checkpoints, or a loss is called like something else in the
        metrics.
        """
        kept = inference(recipe)
        sample = classes
        if recipe.head.kind == SAMPLED:
            sample = sample_size(classes, recipe.head.rate, recipe.train.batch_size // workers)
        with blaming("the network of the recipe cannot be traced"):
            graph = traced(recipe, sample, recipe.train.batch_size)
        if recipe.decoder.enabled:
            metrics.check_names(graph.symbol.list_outputs())
        network_check.check_trained(recipe.encoder.name, kept, *graph)
        tables: list[Table] = []
        if recipe.head.kind == SAMPLED:
            tables = found(
                *graph, traced(recipe, sample + 1, recipe.train.batch_size).symbol, sample, classes
            )
            if not tables:
                raise LatseError(f"the loss {recipe.margin.name} compares no people: head.kind must be dense")
        run = cls(recipe, classes, devices, graph, kept, seed, workers, tables)
        return replace(run, graph=run._for_batch(run.batch_size, sample))

    def with_symbol(self, symbol: mx.sym.Symbol) -> Training:
        """Return the training of another Symbol with the same inputs, such as the planned one."""
        return replace(self, graph=self.graph._replace(symbol=symbol))

    @property
    def device_graph(self) -> TrainingGraph:
        """The graph with the shapes for one device's share of the batch, as the planner takes them."""
        return self._for_batch(share(self.batch_size, self.devices), self.sample)

    @property
    def sample(self) -> int:
        """How many people the loss compares."""
        return self.graph.shapes[self.tables[0].name][0] if self.tables else self.classes

    def _for_batch(self, size: int, sample: int) -> TrainingGraph:
        graph = self.graph.for_batch(size)
        whole = {table.name: (sample, *table.shape) for table in self.tables}
        return graph._replace(shapes={**graph.shapes, **whole})


def inference(recipe: CfgNode) -> mx.sym.Symbol:
    """Return the Symbol that a checkpoint keeps; raise LatseError for an encoder that it cannot hold."""
    encoder = encoders.create(**recipe.encoder)
    symbol = network_check.checked(recipe.encoder.name, encoder)
    if not recipe.decoder.enabled:
        return symbol
    return trace(AutoEncoder(encoder, Decoder(recipe.decoder.widths)))


def open_shard(folder: str | os.PathLike) -> Shard:
    """Open a set for the networks; raise LatseError if it cannot be read or its images have another size."""
    shard = Shard(folder)
    if (3, *shard.image_size) != IMAGE_SHAPE:
        raise LatseError(f"{folder}/property: the images must be 112x112, not {shard.image_size}")
    return shard


def _network(recipe: CfgNode, classes: int) -> nn.HybridBlock:
    """Return the network that the recipe trains, over `classes` people."""
    # In a lean unit gamma·x is x less (1 - gamma)·x, a difference that float16 rounds too much.
    lean = recipe.train.precision == SINGLE

    def make() -> tuple[encoders.Encoder, margins.Loss]:
        return encoders.create(lean=lean, **recipe.encoder), _loss(recipe, classes)

    if recipe.selection.name is not None:
        return Selected(make, selection.create(**recipe.selection))
    parts = make()
    if recipe.decoder.enabled:
        decoder = recipe.decoder
        weights = {"l1": decoder.l1_weight, "similarity": decoder.similarity_weight, **decoder.losses}
        return Student(*parts, Decoder(decoder.widths), recipe.filter.gate_losses, weights)
    if recipe.filter.k is not None:
        return FilteredStudent(*parts, recipe.filter.gate_losses)
    return Classifier(*parts)


def _loss(recipe: CfgNode, classes: int) -> margins.Loss:
    """Return the loss of the recipe with the regularisers that have a weight."""
    loss = margins.create(classes=classes, **recipe.margin)
    weights = {name: weight for name, weight in recipe.regularisers.items() if weight}
    return margins.Regularised(loss, weights) if weights else loss
