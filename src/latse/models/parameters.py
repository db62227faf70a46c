"""The parameters of a network, and whether they fit it."""

from __future__ import annotations

import os
from typing import NamedTuple

import mxnet as mx

from latse.errors import LatseError
from latse.graph.nodes import Arrays, Shapes

NAMED = 3  # faults of a kind that an error names


class Parameters(NamedTuple):
    """Arguments and auxiliary states of a network by name, on the CPU."""

    args: Arrays
    aux: Arrays

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all, arguments first."""
        return {name: array.shape for part in self for name, array in part.items()}

    def only(self, wanted: set[str]) -> Parameters:
        """Return those whose names are in `wanted`."""
        return Parameters(*({name: part[name] for name in part if name in wanted} for part in self))


class Fit(NamedTuple):
    """How parameters fit a network: those that it lacks, has in another shape, and has no use for.

    Attributes
    ----------
    network : str
        What the error calls the network.
    needed : mapping of str to tuple of int
        The shapes of all that it needs.
    missing, superfluous : list of str
    misshapen : dict of str to tuple of int
        Name -> the wrong shape.
    """

    network: str
    needed: Shapes
    missing: list[str]
    misshapen: dict[str, tuple[int, ...]]
    superfluous: list[str]

    @property
    def fits(self) -> bool:
        """Whether all that the network needs is there."""
        return not (self.missing or self.misshapen)

    @property
    def differences(self) -> int:
        """How many parameters are missing, misshapen or superfluous."""
        return len(self.missing) + len(self.misshapen) + len(self.superfluous)

    def check(self, source: str | os.PathLike) -> None:
        """Raise LatseError, naming the file `source`, if something that the network needs is not there."""
        misshapen = [f"{name} is {shape}, not {self.needed[name]}" for name, shape in self.misshapen.items()]
        faults = [
            f"{len(names)} {kind} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
            for kind, names in (("missing", self.missing), ("of another shape", misshapen))
            if names
        ]
        if faults:
            raise LatseError(
                f"{source} does not fit {self.network}: of its {len(self.needed)} parameters, "
                + " and ".join(faults)
            )


def compare(network: str, needed: Shapes, present: Shapes) -> Fit:
    """Compare the shapes of the parameters that are `present` with those that a network needs."""
    return Fit(
        network,
        needed,
        missing=[name for name in needed if name not in present],
        misshapen={
            name: tuple(present[name])
            for name, shape in needed.items()
            if name in present and tuple(present[name]) != tuple(shape)
        },
        superfluous=[name for name in present if name not in needed],
    )


def needed_shapes(symbol: mx.sym.Symbol, **inputs: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters of a symbol, arguments first, in the order of its layers.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        Any network; what it reads beside its inputs are its parameters.
    **inputs : tuple of int
        The shape of each input by name.

    Raises
    ------
    LatseError
        If the symbol does not take such inputs, or these do not tell the shapes of all its parameters.
    """
    for name in inputs:
        if name not in symbol.list_arguments():
            raise LatseError(f"its network has no input named {name!r}")
    try:
        args, _, aux = symbol.infer_shape(**inputs)
    except mx.base.MXNetError as error:
        shapes = " and ".join(f"{name!r} of shape {shape[1:]}" for name, shape in inputs.items())
        raise LatseError(f"its network does not take {shapes}") from error
    if args is None:
        raise LatseError(f"its network has other inputs than {', '.join(map(repr, inputs))}")
    named = zip([*symbol.list_arguments(), *symbol.list_auxiliary_states()], [*args, *aux])
    return {name: shape for name, shape in named if name not in inputs}


def fitting(
    symbol: mx.sym.Symbol,
    args: Arrays,
    aux: Arrays,
    data: tuple[int, ...],
    source: str | os.PathLike,
) -> Parameters:
    """Return the parameters that a symbol needs, without those that it does not need.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        With `data` as its only input.
    args, aux : dict of str to NDArray
        As `latse.models.checkpoint.load` returns them.
    data : tuple of int
        The shape of `data`, (N, 3, H, W).
    source : str or path
        Where the parameters come from.

    Raises
    ------
    LatseError
        If the symbol does not take such data, or a parameter is missing or misshapen; the sentence names
        `source`.
    """
    try:
        needed = needed_shapes(symbol, data=data)
    except LatseError as error:
        raise LatseError(f"{source}: {error}") from error
    found = Parameters(args, aux)
    compare("its network", needed, found.shapes()).check(source)
    return found.only(set(needed))
