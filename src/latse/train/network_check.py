"""Whether what a checkpoint keeps can be read and is what is trained: seen before the first iteration."""

from __future__ import annotations

import mxnet as mx

from latse.errors import LatseError, blaming
from latse.models.parameters import Fit, Shapes, needed_shapes
from latse.symbols.encoders import Encoder
from latse.symbols.names import OTHER_PARTS, TWIN
from latse.symbols.networks import IMAGE_SHAPE, trace
from latse.symbols.running import is_running

IMAGE, EMBEDDING = {"data": (1, *IMAGE_SHAPE)}, "fc1_output"


def checked(name: str, encoder: Encoder) -> mx.sym.Symbol:
    """Return an encoder's graph, which is an embedding of images that a checkpoint can hold.

    Parameters
    ----------
    name : str
        What errors call it.
    encoder : Encoder
        One for checkpoints, not lean.

    Raises
    ------
    LatseError
        If it cannot be traced, its output or its input has another name or shape, or parameters share a name
        or have one that belongs to another part of a checkpoint.
    """
    with blaming(f"{name} cannot be traced"):
        symbol = trace(encoder)
    outputs, inputs = symbol.list_outputs(), symbol.list_inputs()
    if outputs != [EMBEDDING]:
        raise LatseError(
            f"{name} has the output {', '.join(outputs)}, not {EMBEDDING}: override `features` and "
            "`embedding`, or call the last operator fc1 in a block whose prefix is empty"
        )
    for parameter in inputs:
        if inputs.count(parameter) > 1:
            raise LatseError(f"{name} has two variables called {parameter}: give one another name")
        if parameter.startswith((*OTHER_PARTS, TWIN)) or is_running(parameter):
            raise LatseError(
                f"{name} must not call a parameter {parameter}: such names are a loss's, the decoder's or a "
                "second network's"
            )
    try:
        needed_shapes(symbol, **IMAGE)
    except LatseError as error:
        raise LatseError(f"{name}: {error}") from error
    size = symbol.infer_shape(**IMAGE)[1][0][1:]
    if size != (encoder.embedding_size,):
        raise LatseError(
            f"{name} has embeddings of shape {size}, but its embedding_size is {encoder.embedding_size}"
        )
    return symbol


def check_trained(name: str, kept: mx.sym.Symbol, trained: mx.sym.Symbol, inputs: Shapes) -> None:
    """Check that all parameters that a checkpoint keeps are trained.

    Parameters
    ----------
    name : str
        Of the encoder.
    kept, trained : mx.sym.Symbol
        The graph of a checkpoint and the training graph.
    inputs : mapping of str to tuple of int
        The shapes of the training graph's inputs.

    Raises
    ------
    LatseError
        If a parameter is not there under its name, or in another shape.
    """
    fit = Fit(name, needed_shapes(kept, **IMAGE), needed_shapes(trained, **inputs))
    for parameter in fit.missing:
        raise LatseError(
            f"{name}: a checkpoint would keep {parameter}, which no iteration trains, as two such networks "
            "have other names: give each block a prefix that is always the same"
        )
    for parameter in fit.misshapen:
        raise LatseError(
            f"{name}: a checkpoint would keep {parameter} of shape {fit.needed[parameter]}, but "
            f"{fit.present[parameter]} is its shape where it is trained: two such networks must be alike"
        )
