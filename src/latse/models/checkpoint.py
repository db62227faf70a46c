"""Checkpoints in MXNet's own format: `PREFIX-symbol.json` and `PREFIX-NNNN.params`.

The parameters carry the names `arg:…` and `aux:…`, so that `mx.model.load_checkpoint` and insightface's tools
read what is written here, and the other way round.
"""

from __future__ import annotations

import os
from typing import Any, Mapping, Sequence

import mxnet as mx

from latse.errors import LatseError
from latse.files import ascii_name, existing, explained, read_text, replacing
from latse.graph.nodes import Arrays, sentence
from latse.models import arrays_file
from latse.models.arrays_file import Writable
from latse.models.run_folder import FILE, parameters_path, symbol_path
from latse.models.symbol_file import check_symbol


def save(
    prefix: str | os.PathLike, number: int, symbol: mx.sym.Symbol, arg_params: Arrays, aux_params: Arrays
) -> None:
    """Write a checkpoint, each of its two files atomically, the parameters first.

    Parameters
    ----------
    prefix, number : path, int
        The files are `PREFIX-symbol.json` and `PREFIX-NNNN.params`; an older pair is replaced.
    symbol : mx.sym.Symbol
        Its outputs are what readers ask for by name (`fc1_output`, `generated_output`).
    arg_params, aux_params : dict of str to mx.nd.NDArray
        Arrays by name, on any device. Arguments that the symbol does not use may ride along.

    Raises
    ------
    LatseError
        If a file cannot be written.
    """
    save_text(prefix, number, symbol.tojson(), arg_params, aux_params)


def save_text(
    prefix: str | os.PathLike, number: int, text: str, arg_params: Arrays, aux_params: Arrays
) -> None:
    """Write a checkpoint as `save` does, of a symbol whose JSON is given.

    Whoever writes many makes it once: MXNet never frees the memory that `tojson` takes.
    """
    named = {f"arg:{name}": array for name, array in arg_params.items()}
    named.update({f"aux:{name}": array for name, array in aux_params.items()})
    write_arrays(parameters_path(prefix, number), named)
    with replacing(symbol_path(prefix)) as temporary:
        temporary.write_text(text)


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, Writable], digest: bool = False) -> None:
    """Write arrays as `arrays_file.write` does; raise LatseError also if one cannot be computed."""
    try:
        arrays_file.write(path, arrays, digest)
    except mx.base.MXNetError as error:
        raise LatseError(f"cannot write {path}: {sentence(error)}") from error


def read_arrays(path: str | os.PathLike) -> Any:
    """Read arrays in MXNet's format: a dict of them by name, or a list where they have no names.

    Raises LatseError if the file cannot be read or its lengths do not fit it, and MXNetError if it is damaged
    otherwise.
    """
    arrays_file.places(path)
    with explained(f"cannot read {path}"), ascii_name(path) as name:
        return mx.nd.load(name)


def load(prefix: str | os.PathLike, number: int) -> tuple[mx.sym.Symbol, Arrays, Arrays]:
    """Read a checkpoint.

    Parameters
    ----------
    prefix, number : path, int
        The files are `PREFIX-symbol.json` and `PREFIX-NNNN.params`.

    Returns
    -------
    symbol, arg_params, aux_params
        The arrays are on the CPU.

    Raises
    ------
    LatseError
        If a file is missing or damaged.
    """
    path = existing(FILE, parameters_path(prefix, number))
    try:
        named = read_arrays(path)
    except mx.base.MXNetError as error:
        raise LatseError(f"{path} is damaged: it holds no MXNet parameters") from error
    if not isinstance(named, dict):
        raise LatseError(f"{path} holds arrays without names, so it is no checkpoint")
    kinds: dict[str, Arrays] = {"arg": {}, "aux": {}}
    for key, array in named.items():
        kind, colon, name = key.partition(":")
        if kind not in kinds or not colon:
            raise LatseError(f"{path} holds {key!r}, which is neither an arg: nor an aux: parameter")
        kinds[kind][name] = array.as_in_context(mx.cpu())
    return load_symbol(symbol_path(prefix)), kinds["arg"], kinds["aux"]


def load_symbol(path: str | os.PathLike) -> mx.sym.Symbol:
    """Read a symbol from JSON; raise LatseError if the file is missing or damaged."""
    path = existing(FILE, path)
    text = read_text(path)
    check_symbol(text, str(path))
    try:
        return mx.sym.load_json(text)
    except mx.base.MXNetError as error:
        raise LatseError(f"{path} is damaged or unreadable: it holds no MXNet symbol") from error


def pick_outputs(symbol: mx.sym.Symbol, names: Sequence[str], prefix: str | os.PathLike) -> mx.sym.Symbol:
    """Group the outputs `names` of `symbol`, inner ones included (insightface's `fc1_output` is one).

    Raises
    ------
    LatseError
        If there is no such output; the sentence names the symbol file of `prefix`.
    """
    internals = symbol.get_internals()
    present = set(internals.list_outputs())
    for name in names:
        if name not in present:
            raise LatseError(f"{symbol_path(prefix)} has no output {name!r}")
    return mx.sym.Group([internals[name] for name in names])
