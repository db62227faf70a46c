"""What a checkpoint, insightface's or ours, gives to a network here: by name and shape, nothing silently."""

from __future__ import annotations

from typing import Dict, List, Mapping, NamedTuple, Tuple

import mxnet as mx
import numpy as np

from latse.errors import LatseError
from latse.models import checkpoint
from latse.symbols import encoder, names

Shapes = Mapping[str, Tuple[int, ...]]
CENTRES, DECODER = "fc7_weight", "decoder_"
TAKEN = "taken"


class Parameters(NamedTuple):
    """Arguments and auxiliary states by our names, float32, on the CPU."""

    args: Dict[str, mx.nd.NDArray]
    aux: Dict[str, mx.nd.NDArray]

    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """Return the shapes of all, arguments first."""
        return {name: array.shape for part in self for name, array in part.items()}

    def only(self, wanted: set[str]) -> Parameters:
        """Return those whose names are in `wanted`."""
        return Parameters(*({name: part[name] for name in part if name in wanted} for part in self))


class Comparison(NamedTuple):
    """How parameters fit an encoder: names that it lacks, has in another shape, and has no use for."""

    encoder: str
    missing: List[str]
    misshapen: List[str]
    superfluous: List[str]

    @property
    def fits(self) -> bool:
        """Whether all that the encoder needs is there."""
        return not (self.missing or self.misshapen)


class Start(NamedTuple):
    """Parameters to begin a training with, and a line on each part."""

    parameters: Parameters
    report: List[str]


def read(text: str) -> Parameters:
    """Read the parameters of the checkpoint `PREFIX,NUMBER`.

    Raises
    ------
    LatseError
        If it is missing or damaged, or an array of it is not finite.
    """
    prefix, number = checkpoint.parse(text)
    _, *found = checkpoint.load(prefix, number)
    parts = [{name: array.astype(np.float32) for name, array in part.items()} for part in found]
    for name, array in (item for part in parts for item in part.items()):
        if not np.isfinite(array.asnumpy()).all():
            path = checkpoint.parameters_path(prefix, number)
            raise LatseError(f"{path}: {name} holds a number that is not finite")
    return Parameters(*names.from_insightface(*parts))


def needed_shapes(name: str) -> Dict[str, Tuple[int, ...]]:
    """Return the shapes of all parameters of the encoder `name`, in the order of its layers."""
    args, aux = names.encoder_shapes(name)
    return {**args, **aux}


def compare(name: str, given: Shapes) -> Comparison:
    """Compare the shapes of parameters with those of the encoder `name`.

    Class centres and a decoder's parameters may be there as well.
    """
    needed = needed_shapes(name)
    return Comparison(
        name,
        missing=[key for key in needed if key not in given],
        misshapen=[key for key in needed if key in given and given[key] != needed[key]],
        superfluous=[key for key in given if key not in needed and not key.startswith((CENTRES, DECODER))],
    )


def closest(given: Shapes) -> Comparison:
    """Return the comparison with that one of `encoder.ENCODERS` that has the fewest differences."""
    found = [compare(name, given) for name in encoder.ENCODERS]
    return min(found, key=lambda one: len(one.missing) + len(one.misshapen) + len(one.superfluous))


def check(found: Comparison, source: str) -> None:
    """Raise LatseError, naming the file `source`, if the encoder's parameters are not all there."""
    faults = [
        f"{len(keys)} {fault} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for fault, keys in (("missing", found.missing), ("of another shape", found.misshapen))
        if keys
    ]
    if faults:
        count = len(needed_shapes(found.encoder))
        raise LatseError(
            f"{source} holds no {found.encoder}: of its {count} parameters, {' and '.join(faults)}"
        )


def start(text: str, name: str, shapes: Shapes) -> Start:
    """Take from a checkpoint what a training can begin with.

    Parameters
    ----------
    text
        `PREFIX,NUMBER`, a checkpoint of insightface or of this project.
    name
        The encoder that is trained; all of it must be in the checkpoint.
    shapes
        Of all parameters that are trained, by name. Class centres are taken where they are of as many people
        (whether of the same ones, no file says), a decoder where the checkpoint holds all of it.

    Raises
    ------
    LatseError
        If the checkpoint is missing or damaged, or of another encoder.
    """
    source = str(checkpoint.parameters_path(*checkpoint.parse(text)))
    parameters = read(text)
    given = parameters.shapes()
    best = closest(given)
    if best.fits and best.encoder != name:
        raise LatseError(f"{source} holds {best.encoder}, but the recipe trains {name}")
    check(compare(name, given), source)
    known = {*shapes, *given}  # what belongs together is taken together; all else stands for itself
    parts = {
        f"encoder {name}": set(needed_shapes(name)),
        "class centres": known & {CENTRES},
        "decoder": {key for key in known if key.startswith(DECODER)},
    }
    parts.update({key: {key} for key in sorted(known - set().union(*parts.values()))})
    fates = {title: _fate(keys, shapes, given) for title, keys in parts.items() if keys}
    taken = {key for title, fate in fates.items() if fate == TAKEN for key in parts[title]}
    return Start(parameters.only(taken & set(shapes)), [f"{title}: {fate}" for title, fate in fates.items()])


def _fate(keys: set[str], shapes: Shapes, given: Shapes) -> str:
    """Return TAKEN, or why parameters that belong together are not taken."""
    wanted = sorted(keys & set(shapes))
    if not wanted:
        return "not taken, the recipe has none"
    absent = [key for key in wanted if key not in given]
    if absent:
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        return f"begins anew, the checkpoint has no {absent[0]}{others}"
    other = [key for key in wanted if given[key] != shapes[key]]
    if other:
        return f"begins anew, {other[0]} of the checkpoint is {given[other[0]]}, not {shapes[other[0]]}"
    return TAKEN
