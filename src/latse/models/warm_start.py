"""What a checkpoint, insightface's or ours, gives to a network here: by name and shape, nothing silently."""

from __future__ import annotations

import os
from typing import Any, Mapping, NamedTuple

import numpy as np

from latse.errors import LatseError
from latse.models import checkpoint
from latse.models.parameters import Fit, Parameters, Shapes, needed_shapes
from latse.models.run_folder import parse
from latse.symbols import encoders, names
from latse.symbols.networks import IMAGE_SHAPE, trace

CENTRES, DECODER = "fc7_weight", "decoder_"
TAKEN = "taken"


class Start(NamedTuple):
    """Parameters to begin a training with, and a line on each part."""

    parameters: Parameters
    report: list[str]


def read(text: str) -> Parameters:
    """Read the parameters of the checkpoint `PREFIX,NUMBER`.

    Raises
    ------
    LatseError
        If it is missing or damaged, or an array of it is not finite.
    """
    prefix, number = parse(text)
    _, *parameters = checkpoint.load(prefix, number)
    parts = [{name: array.astype(np.float32) for name, array in part.items()} for part in parameters]
    for name, array in (item for part in parts for item in part.items()):
        if not np.isfinite(array.asnumpy()).all():
            path = checkpoint.parameters_path(prefix, number)
            raise LatseError(f"{path}: {name} holds a number that is not finite")
    return Parameters(*names.from_insightface(*parts))


def fit(name: str, present: Shapes, **parameters: float) -> Fit:
    """Compare the shapes of parameters with those of an encoder, named as `encoders.create` has it.

    Class centres and a decoder's parameters may be there as well.
    """
    needed = needed_shapes(trace(encoders.create(name, **parameters)), data=(1, *IMAGE_SHAPE))
    others = {key: shape for key, shape in present.items() if not key.startswith(names.OTHER_PARTS)}
    return Fit(name, needed, others)


def closest(present: Shapes) -> Fit:
    """Return the fit to that one of `encoders.ENCODERS` that has the fewest differences."""
    return min((fit(name, present) for name in encoders.ENCODERS), key=lambda result: result.differences)


def recognised(source: str | os.PathLike, present: Shapes) -> Fit:
    """Return the `closest` fit; raise LatseError, naming the file `source`, if that `is_foreign`."""
    nearest = closest(present)
    if nearest.is_foreign:
        first, last = (f"{name} {tuple(present[name])}" for name in ([*present][0], [*present][-1]))
        raise LatseError(
            f"{source} holds no network that is known here: {len(present)} parameters, {first} to {last}; "
            f"the nearest, {nearest.network}, has {len(nearest.needed)}, of which {len(nearest.missing)} are "
            "missing (`latse encoders list` shows all; FILE.py:CLASS in the place of a name is yours)"
        )
    return nearest


def start(text: str, encoder: Mapping[str, Any], shapes: Shapes) -> Start:
    """Take from a checkpoint what a training can begin with.

    Parameters
    ----------
    text : str
        `PREFIX,NUMBER`, a checkpoint of insightface or of this project.
    encoder : mapping of str to object
        Name and parameters of the encoder that is trained; all of it must be in the checkpoint.
    shapes : Shapes
        Of all parameters that are trained, by name. Class centres are taken where they are of as many people
        (whether of the same ones, no file says), a decoder where the checkpoint holds all of it.

    Raises
    ------
    LatseError
        If the checkpoint is missing or damaged, or of another encoder.
    """
    source = str(checkpoint.parameters_path(*parse(text)))
    parameters = read(text)
    present = parameters.shapes()
    needed = fit(present=present, **encoder)
    if not needed.fits and closest(present).fits:
        raise LatseError(f"{source} holds {closest(present).network}, but the recipe trains {needed.network}")
    if needed.is_foreign:
        recognised(source, present)
    needed.check(source)
    known = {*shapes, *present}  # what belongs together is taken together; all else stands for itself
    parts = {
        f"encoder {needed.network}": set(needed.needed),
        "class centres": known & {CENTRES},
        "decoder": {key for key in known if key.startswith(DECODER)},
        "second network": {key for key in known if key.startswith(names.TWIN)},
    }
    parts.update({key: {key} for key in sorted(known - set().union(*parts.values()))})
    fates = {title: _fate(keys, shapes, present) for title, keys in parts.items() if keys}
    taken = {key for title, fate in fates.items() if fate == TAKEN for key in parts[title]}
    return Start(parameters.only(taken & set(shapes)), [f"{title}: {fate}" for title, fate in fates.items()])


def _fate(keys: set[str], shapes: Shapes, present: Shapes) -> str:
    """Return TAKEN, or why parameters that belong together are not taken."""
    wanted = {key: shapes[key] for key in sorted(keys & set(shapes))}
    if not wanted:
        return "not taken, the recipe has none"
    part = Fit("", wanted, present)
    if part.missing:
        others = f" and {len(part.missing) - 1} more" if len(part.missing) > 1 else ""
        return f"begins anew, the checkpoint has no {part.missing[0]}{others}"
    for key in part.misshapen:
        return f"begins anew, {key} of the checkpoint is {present[key]}, not {shapes[key]}"
    return TAKEN
