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
    """How the shapes of the parameters that are `present` fit those that a `network` needs, by name."""

    network: str
    needed: Shapes
    present: Shapes

    @property
    def missing(self) -> list[str]:
        """Names that the network needs and that are not there."""
        return [name for name in self.needed if name not in self.present]

    @property
    def misshapen(self) -> list[str]:
        """Names that are there in another shape."""
        return [name for name, shape in self.needed.items() if self.present.get(name, shape) != shape]

    @property
    def superfluous(self) -> list[str]:
        """Names that the network has no use for."""
        return [name for name in self.present if name not in self.needed]

    @property
    def fits(self) -> bool:
        """Whether all that the network needs is there."""
        return not (self.missing or self.misshapen)

    @property
    def is_foreign(self) -> bool:
        """Whether more than half of what the network needs is missing: it is another network's."""
        return 2 * len(self.missing) > len(self.needed)

    @property
    def differences(self) -> int:
        """How many names are missing, misshapen or superfluous."""
        return len(self.missing) + len(self.misshapen) + len(self.superfluous)

    def check(self, source: str | os.PathLike) -> None:
        """Raise LatseError, naming the file `source`, if something that the network needs is not there."""
        shapes = [f"{name} is {self.present[name]}, not {self.needed[name]}" for name in self.misshapen]
        faults = [
            f"{len(names)} {kind} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"
            for kind, names in (("missing", self.missing), ("of another shape", shapes))
            if names
        ]
        if faults:
            count = len(self.needed)
            raise LatseError(
                f"{source} does not fit {self.network}: of its {count} parameters, {' and '.join(faults)}"
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
    symbol: mx.sym.Symbol, args: Arrays, aux: Arrays, data: tuple[int, ...], source: str | os.PathLike
) -> Parameters:
    """Return the parameters that a symbol needs, without those that it does not need.

    Parameters
    ----------
    symbol, args, aux : mx.sym.Symbol, Arrays, Arrays
        As `latse.models.checkpoint.load` returns them; `data` is the only input.
    data : tuple of int
        The shape of `data`, (N, 3, H, W).
    source : path
        Where the parameters come from.

    Raises
    ------
    LatseError
        If they do not fit, or the network has other inputs; the sentence names `source`.
    """
    try:
        needed = needed_shapes(symbol, data=data)
    except LatseError as error:
        raise LatseError(f"{source}: {error}") from error
    parameters = Parameters(args, aux)
    Fit("its network", needed, parameters.shapes()).check(source)
    return parameters.only(set(needed))
