"""The complete state of a run between two iterations, in one file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Iterator, Mapping, NamedTuple

import mxnet as mx
import numpy as np

from latse.cluster.alone import ALONE, Alone
from latse.errors import LatseError
from latse.models import arrays_file, checkpoint
from latse.models.arrays_file import DIGEST, Blocks, check_digest
from latse.models.parameters import Parameters
from latse.train.tables import MOMENTUM, ROWS, Table

FILE, BEFORE, DAMAGED = "state.params", "state.before.params", "state.damaged.params"
NEW = "state.new.params"  # while it is written
KINDS = (ROWS, MOMENTUM)
PARTS = ("arg", "aux", "momentum", "scaling")
NamedArrays = Mapping[str, mx.nd.NDArray]
NOTHING: NamedArrays = MappingProxyType({})


class RunState(NamedTuple):
    """Iterations done; parameters and moving statistics by name; the optimiser's too, where it has any.

    All are float32: where the graph has float16 parameters, those that the optimiser moves. `scaling` is what
    `latse.train.precision.LossScale` goes on from, nothing where the loss is not scaled. At iteration 0 any
    of them may be missing: a parameter then begins at random.
    """

    iteration: int = 0
    arg_params: NamedArrays = NOTHING
    aux_params: NamedArrays = NOTHING
    momentum: NamedArrays = NOTHING
    scaling: NamedArrays = NOTHING


AFRESH = RunState()


def capture(module: mx.mod.Module, iteration: int, workers: Alone = ALONE) -> RunState:
    """Return the state of a module after `iteration` updates, the same on all workers.

    Statistics that differ between devices or workers are averaged and set on all of them, so that a run that
    goes on and one that resumes continue alike.
    """
    # BatchNorm moves its statistics in its backward pass behind the engine's back: no read waits for that.
    mx.nd.waitall()
    arg_params, aux_params = module.get_params()
    group = module._exec_group
    for name, copies in zip(group.param_names, group.param_arrays):
        copies[0].copyto(arg_params[name])  # all are equal; their average, on eight devices, is rounded
    aux_params = workers.mean("aux", aux_params)
    module.set_params(arg_params, aux_params)
    states, keys = _updater(module).states, _optimiser_keys(module)
    momentum, masters = {}, {}
    for key, array in states.items():
        momentum[keys[key]], masters[keys[key]] = array if isinstance(array, tuple) else (array, None)
    return RunState(iteration, {**arg_params, **_on_cpu(masters)}, aux_params, _on_cpu(momentum))


def restore(module: mx.mod.Module, momentum: NamedArrays, masters: NamedArrays = NOTHING) -> None:
    """Give the optimiser of an initialised module its arrays, each by the name of its parameter.

    `masters` are the float32 arrays that float16 parameters follow.
    """
    updater = _updater(module)
    for key, name in _optimiser_keys(module).items():
        state = momentum[name].copy() if name in momentum else None
        if name in masters:
            master = masters[name].copy()
            state = module._optimizer.create_state(key, master) if state is None else state, master
        if state is not None:
            updater.states[key], updater.states_synced[key] = state, False


def save(folder: Path, state: RunState, tables: Mapping[str, Blocks] = NOTHING) -> None:
    """Write the state into `folder`, atomically; raise LatseError if that is impossible.

    `tables` are those of a sampled head, by kind and name. The state that was there stays, under another
    name.
    """
    arrays = {
        f"{part}:{name}": array
        for part, named in zip(PARTS, state[1:])
        # The optimiser has its own in the order in which they were first moved, or set.
        for name, array in (sorted(named.items()) if part == "momentum" else named.items())
    }
    arrays["iteration"] = mx.nd.array([state.iteration], dtype="int64")
    path, new = folder / FILE, folder / NEW
    try:
        checkpoint.write_arrays(new, {**arrays, **tables}, digest=True)
        if path.exists():
            path.replace(folder / BEFORE)
    finally:  # a second Ctrl-C may come anywhere
        with contextlib.suppress(FileNotFoundError):  # it was not written, or the folder is gone
            new.replace(path)


def forget_before(folder: Path) -> None:
    """Remove the state before the last, of a run that is finished."""
    (folder / BEFORE).unlink(missing_ok=True)


def recover(folder: Path, say: Callable[[str], Any]) -> None:
    """Put the state before the last in the place of the last one where that is missing or damaged.

    `say` gets a sentence if it was damaged; the file stays as `DAMAGED`. Where both are damaged nothing
    happens.
    """
    path, before = folder / FILE, folder / BEFORE
    if not before.exists():
        return
    if not path.exists():  # the process died between two renamings
        before.replace(path)
        return
    try:
        _read(path)
    except LatseError as error:
        with contextlib.suppress(LatseError):
            iteration = _read(before).iteration
            path.replace(folder / DAMAGED)
            before.replace(path)
            say(f"{error}: it is {DAMAGED} now, and the run goes on from the checkpoint before, {iteration}")


def load(folder: Path) -> RunState | None:
    """Read the state in `folder`; None if there is none; raise LatseError if it is damaged."""
    path = folder / FILE
    return _read(path) if path.exists() else None


def reached(folder: Path) -> int:
    """Return the iteration of the state in `folder`, 0 if there is none; LatseError if it is damaged."""
    path = folder / FILE
    if not path.exists():
        return 0
    place = arrays_file.places(path).get("iteration")
    if place is None:
        raise LatseError(f"{path} is damaged: it does not say the iteration")
    return int(arrays_file.read(path, place).item())


def _read(path: Path) -> RunState:
    parts: dict[str, dict[str, mx.nd.NDArray]] = {part: {} for part in PARTS}
    iteration = -1
    try:
        check_digest(path)  # older states have none
        for key, place in arrays_file.places(path).items():
            part, _, name = key.partition(":")
            if part == "iteration":
                iteration = int(arrays_file.read(path, place).item())
            elif part not in (DIGEST, *KINDS):
                array = arrays_file.read(path, place)
                parts[part][name] = mx.nd.array(array, dtype=array.dtype)
        if iteration < 0:
            raise ValueError("it does not say the iteration")
    except (mx.base.MXNetError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise LatseError(f"{path} is damaged, the run cannot go on from it") from error
    return RunState(iteration, *(parts[part] for part in PARTS))


def table_blocks(folder: Path, kind: str, table: Table) -> Iterator[np.ndarray]:
    """Yield the blocks of a table of the state in `folder`; raise LatseError if they are not there."""
    path = folder / FILE
    place = arrays_file.places(path).get(f"{kind}:{table.name}")
    if place is None or place.shape != (table.rows, *table.shape):
        raise LatseError(f"{path} has no {kind} {table.name} of {table.rows} rows")
    for first, count in table.blocks():
        yield arrays_file.read(path, place, first, count).reshape(count, table.width)


class ModelWriter:
    """Writes the checkpoints that others read, of one network.

    Parameters
    ----------
    symbol : mx.sym.Symbol
        What a checkpoint keeps of the network.
    """

    def __init__(self, symbol: mx.sym.Symbol) -> None:
        self._text, self._wanted = symbol.tojson(), {*symbol.list_inputs(), "fc7_weight"}

    def save(
        self, prefix: Path, number: int, state: RunState, centres: Mapping[str, Blocks] = NOTHING
    ) -> None:
        """Write what the symbol uses of a state, and the class centres; LatseError as `checkpoint.save`.

        The files are those of `prefix` and `number` as there; `centres`, by name, replace the state's.
        """
        parameters = Parameters(state.arg_params, state.aux_params).only(self._wanted)
        checkpoint.save_text(prefix, number, self._text, {**parameters.args, **centres}, parameters.aux)


def _optimiser_keys(module: mx.mod.Module) -> dict[int | str, str]:
    """Return the parameter's name by the optimiser's key.

    The key is the name where the KVStore updates; else each parameter has a number on each device.
    """
    names, devices = module._exec_group.param_names, len(module._context)
    if module._update_on_kvstore:
        return {name: name for name in names}
    return {index * devices + device: name for index, name in enumerate(names) for device in range(devices)}


def _on_cpu(arrays: Mapping[str, mx.nd.NDArray | None]) -> dict[str, mx.nd.NDArray]:
    return {name: array.as_in_context(mx.cpu()) for name, array in arrays.items() if array is not None}


def _updater(module: mx.mod.Module) -> mx.optimizer.Updater:
    # Module's own save_optimizer_states writes a pickle; the arrays alone are all there is to keep.
    return module._kvstore._updater if module._update_on_kvstore else module._updater
