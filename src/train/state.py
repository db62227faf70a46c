"""The complete state of a run between two iterations, in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import mxnet as mx

from latse import checkpoint
from latse.errors import LatseError
from latse.files import replacing

FILE = "state.params"


class State(NamedTuple):
    """Iterations done; parameters and moving statistics by name; the optimiser's arrays by its keys."""

    iteration: int
    arg_params: dict[str, mx.nd.NDArray]
    aux_params: dict[str, mx.nd.NDArray]
    momentum: dict[int | str, mx.nd.NDArray]


def capture(module: mx.mod.Module, iteration: int) -> State:
    """Return the state of a module after `iteration` updates.

    Statistics that differ between devices are averaged and set on all of them, so that a run that goes on and
    one that resumes continue alike.
    """
    arg_params, aux_params = module.get_params()
    module.set_params(arg_params, aux_params)
    return State(iteration, arg_params, aux_params, dict(_updater(module).states))


def restore(module: mx.mod.Module, state: State) -> None:
    """Set the optimiser's arrays of an initialised module; its parameters are set when it is initialised."""
    updater = _updater(module)
    updater.states = dict(state.momentum)
    updater.states_synced = dict.fromkeys(state.momentum, False)


def save(folder: Path, state: State) -> None:
    """Write the state into `folder`, atomically; raise LatseError if that is impossible."""
    arrays = {f"arg:{name}": array for name, array in state.arg_params.items()}
    arrays.update({f"aux:{name}": array for name, array in state.aux_params.items()})
    arrays.update({f"momentum:{key}": array for key, array in state.momentum.items()})
    arrays["iteration"] = mx.nd.array([state.iteration], dtype="int64")
    with replacing(folder / FILE) as temporary:
        mx.nd.save(os.fspath(temporary), arrays)


def load(folder: Path) -> State | None:
    """Read the state in `folder`; None if there is none; raise LatseError if it is damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        arrays = mx.nd.load(os.fspath(path))
        iteration = int(arrays.pop("iteration").asscalar())
    except (mx.base.MXNetError, AttributeError, KeyError, TypeError) as error:
        raise LatseError(f"{path} is damaged, the run cannot go on from it") from error
    parts: dict[str, dict] = {"arg": {}, "aux": {}, "momentum": {}}
    for key, array in arrays.items():
        part, _, name = key.partition(":")
        parts[part][name] = array
    momentum = {_optimiser_key(key): array for key, array in parts["momentum"].items()}
    return State(iteration, parts["arg"], parts["aux"], momentum)


def save_model(
    prefix: Path, number: int, symbol: mx.sym.Symbol, state: State, keep: tuple[str, ...] = ("fc7_weight",)
) -> None:
    """Write the checkpoint that others read: what `symbol` uses, and the class centres."""
    wanted = {*symbol.list_arguments(), *keep}
    arg_params = {name: array for name, array in state.arg_params.items() if name in wanted}
    aux_params = {
        name: array for name, array in state.aux_params.items() if name in symbol.list_auxiliary_states()
    }
    checkpoint.save(prefix, number, symbol, arg_params, aux_params)


def _optimiser_key(text: str) -> int | str:
    """Return the key as the optimiser has it: a number on one device, a parameter's name on a KVStore."""
    return int(text) if text.isdigit() else text


def _updater(module: mx.mod.Module) -> mx.optimizer.Updater:
    # Module's own save_optimizer_states writes a pickle; the arrays alone are all there is to keep.
    return module._kvstore._updater if module._update_on_kvstore else module._updater
