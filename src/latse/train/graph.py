"""From a recipe to the graphs that are trained and kept."""

from __future__ import annotations

import os

import mxnet as mx
from mxnet.gluon import nn
from yacs.config import CfgNode

from latse.data.shards.records import Shard
from latse.errors import LatseError
from latse.recipe_keys import SINGLE
from latse.symbols import encoders, margins
from latse.symbols.decoder import Decoder
from latse.symbols.layers import set_statistics_momentum
from latse.symbols.networks import IMAGE_SHAPE, AutoEncoder, FilteredStudent, Student, Teacher, trace
from latse.train import precision


def training(recipe: CfgNode, classes: int) -> nn.HybridBlock:
    """Return the network that the recipe trains, over `classes` people."""
    # In a lean unit gamma·x is x less (1 - gamma)·x, a difference that float16 rounds too much.
    lean = recipe.train.precision == SINGLE
    parts = encoders.create(recipe.encoder.name, recipe.encoder.dropout, lean), _loss(recipe, classes)
    if recipe.decoder.enabled:
        weights = recipe.decoder.l1_weight, recipe.decoder.similarity_weight
        network = Student(*parts, Decoder(recipe.decoder.widths), recipe.filter.gate_losses, *weights)
    elif recipe.filter.k is not None:
        network = FilteredStudent(*parts, recipe.filter.gate_losses)
    else:
        network = Teacher(*parts)
    set_statistics_momentum(network, recipe.train.statistics_momentum)
    return network


def _loss(recipe: CfgNode, classes: int) -> margins.Loss:
    """Return the loss of the recipe with the regularisers that have a weight."""
    loss = margins.create(classes=classes, **recipe.margin)
    weights = {name: weight for name, weight in recipe.regularisers.items() if weight}
    return margins.Regularised(loss, weights) if weights else loss


def inference(recipe: CfgNode) -> mx.sym.Symbol:
    """Return the Symbol that a checkpoint keeps: `fc1_output` and, with a decoder, `generated_output`."""
    part = encoders.create(recipe.encoder.name, recipe.encoder.dropout)
    if not recipe.decoder.enabled:
        return trace(part)
    return trace(AutoEncoder(part, Decoder(recipe.decoder.widths)))


def open_shard(folder: str | os.PathLike) -> Shard:
    """Open a set for the networks; raise LatseError if it cannot be read or its images have another size."""
    shard = Shard(folder)
    if (3, *shard.image_size) != IMAGE_SHAPE:
        raise LatseError(f"{folder}/property: the images must be 112x112, not {shard.image_size}")
    return shard


def shapes(network: nn.HybridBlock, batch_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input of a network for a batch."""
    images = (batch_size, *IMAGE_SHAPE)
    known = {"data": images, "mean_face": images}
    return {name: known.get(name, (batch_size,)) for name in network.inputs}


def build(recipe: CfgNode, classes: int, batch_size: int) -> tuple[mx.sym.Symbol, dict[str, tuple[int, ...]]]:
    """Return the training Symbol of the recipe and the shapes of its inputs for one device's share."""
    network = training(recipe, classes)
    return precision.prepared(recipe, trace(network), shapes(network, batch_size))
