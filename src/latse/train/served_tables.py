"""The tables of a sampled head as row_sparse arrays of MXNet's parameter servers."""

from __future__ import annotations

import argparse
import json
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse import recipe as recipes
from latse.cluster.workers import Workers
from latse.symbols.running import is_running
from latse.train.tables import MOMENTUM, ROWS, Table, optimiser

COMMAND = 0  # number of the one that servers take


class Piece(NamedTuple):
    """One key of the servers: number of the table, `ROWS` or `MOMENTUM`, number of the block."""

    table: int
    kind: str
    block: int


class ServedTables:
    """Tables of which no worker ever holds all rows. The servers move them, by the recipe that they read too.

    Parameters
    ----------
    workers : Workers
        Those of the run.
    recipe : CfgNode
        Whose optimiser moves them.
    tables : sequence of Table
        In an order that stays.
    iteration : int
        How many are done.
    """

    def __init__(self, workers: Workers, recipe: CfgNode, tables: Sequence[Table], iteration: int) -> None:
        self.tables, self._workers, self._iteration = tables, workers, iteration
        self._store, self._has_momentum = workers.store(recipe.train.kvstore), bool(recipe.train.momentum)

    def kinds(self, table: Table) -> list[str]:
        """Return what there is of a table: `ROWS`, and `MOMENTUM` where the optimiser has any."""
        return [ROWS, MOMENTUM] if self._has_momentum and not is_running(table.name) else [ROWS]

    def put(self, kind: str, table: Table, blocks: Iterator[np.ndarray]) -> None:
        """Make a table on the servers, of the blocks that worker 0 has."""
        for number, (_, count) in enumerate(table.blocks()):
            block = next(blocks) if self._workers.rank == 0 else np.zeros((count, table.width), np.float32)
            if kind == MOMENTUM:
                self._workers.go_with(_key(ROWS, table, number))
            every = mx.nd.sparse.row_sparse_array((block, np.arange(count)), shape=block.shape)
            self._store.init(_key(kind, table, number), every)
            mx.nd.waitall()  # else many blocks are on their way, and in memory, at once

    def ready(self) -> None:
        """Tell the servers what the tables are, when all are there."""
        keys = [
            Piece(place, kind, number)
            for place, table in enumerate(self.tables)
            for kind in self.kinds(table)
            for number, _ in enumerate(table.blocks())
        ]
        if self._workers.rank == 0:
            tables = [table._replace(attributes=dict(table.attributes)) for table in self.tables]
            numbers = {name: number for number, name in enumerate(self._store.keys)}
            names = [_key(piece.kind, self.tables[piece.table], piece.block) for piece in keys]
            called = [(numbers[name], *piece) for name, piece in zip(names, keys)]
            told = {"iteration": self._iteration, "tables": tables, "keys": called}
            self._store._send_command_to_servers(COMMAND, json.dumps(told))
        self._workers.gather("the tables", None)
        for place, kind, number in keys:  # by the first push the servers get hold of their parts
            table = self.tables[place]
            count = [*table.blocks()][number][1]
            self._push(kind, table, number, mx.nd.sparse.zeros("row_sparse", (count, table.width)))
            mx.nd.waitall()

    def pull(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """Return some rows, ascending: float32 (n, width)."""
        return np.concatenate(
            [
                self._pull(ROWS, table, number, count, rows[at] - first)
                for number, (first, count, at) in enumerate(_parts(table, rows))
                if at.start < at.stop
            ]
        )

    def push(self, gradients: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        """Send gradients of some rows of each table; the servers move them once all workers have."""
        for table in self.tables:
            for number, (first, count, at) in enumerate(_parts(table, rows)):
                shape = count, table.width
                part = mx.nd.sparse.zeros("row_sparse", shape)
                if at.start < at.stop:
                    values = gradients[table.name][at]
                    part = mx.nd.sparse.row_sparse_array((values, rows[at] - first), shape=shape)
                self._push(ROWS, table, number, part)

    def blocks(self, kind: str, table: Table) -> Iterator[np.ndarray]:
        """Return the blocks of the rows of a table, or of their momentum, float32 (count, width) each."""
        for number, (_, count) in enumerate(table.blocks()):
            yield self._pull(kind, table, number, count, np.arange(count))

    def _pull(self, kind: str, table: Table, number: int, count: int, rows: np.ndarray) -> np.ndarray:
        out = mx.nd.sparse.zeros("row_sparse", (count, table.width))
        which = mx.nd.array(rows, dtype="int64")  # MXNet takes no other type without harm
        self._store.row_sparse_pull(_key(kind, table, number), out=out, row_ids=which)
        return out.data.asnumpy()

    def _push(self, kind: str, table: Table, number: int, part: Any) -> None:
        self._store.push(_key(kind, table, number), part)


def _key(kind: str, table: Table, number: int) -> str:
    return f"{kind}:{table.name}:{number}"


def _parts(table: Table, rows: np.ndarray) -> Iterator[tuple[int, int, slice]]:
    """Yield first row and length of each block, and where its rows are among some, ascending."""
    for first, count in table.blocks():
        start, stop = np.searchsorted(rows, (first, first + count)).tolist()
        yield first, count, slice(start, stop)


class TableServer:
    """What a server does with a run's tables. All other keys are gradients, which are added up.

    Parameters
    ----------
    recipe : callable
        Returns that of the run.
    store : mx.kv.KVStore
        The server's own.
    """

    def __init__(self, recipe: Callable[[], CfgNode], store: Any) -> None:
        self._recipe, self._store = recipe, store
        self._pieces: dict[int, Piece] = {}  # by the server's number of the key
        self._held: dict[Piece, Any] = {}  # this server's parts, arrays of the store

    def command(self, number: int, body: bytes) -> None:
        """Take the command of `ServedTables.ready`."""
        assert number == COMMAND, number
        told = json.loads(body)
        tables = [Table(name, rows, tuple(shape), about) for name, rows, shape, about in told["tables"]]
        self._tables = tables
        self._pieces = {key: Piece(*piece) for key, *piece in told["keys"]}
        of_each = [tables[piece.table] for piece in self._pieces.values()]
        self._optimiser = optimiser(self._recipe(), of_each, told["iteration"])
        self._numbers = {piece: index for index, piece in enumerate(self._pieces.values())}
        self._store._set_updater(self.update)

    def update(self, key: int, received: Any, stored: Any) -> None:
        """Take what all workers have pushed to a key."""
        piece = self._pieces.get(key)
        if piece is None:
            stored[:] = received
            return
        if piece not in self._held:
            self._held[piece] = stored
            return
        table, index = self._tables[piece.table], self._numbers[piece]
        if not received.indices.shape[0]:
            self._optimiser._update_count(index)
        elif is_running(table.name):
            scale = self._optimiser.rescale_grad
            mx.nd.sparse.sgd_update(stored, received, out=stored, lr=1.0, wd=0.0, rescale_grad=scale)
        else:
            state = self._held.get(piece._replace(kind=MOMENTUM))
            self._optimiser.update_multi_precision(index, stored, received, state)


def server(args: argparse.Namespace, store: Any) -> TableServer:
    """Return what serves the tables of `latse train` with some arguments."""
    options = {"--kvstore": ("train.kvstore", args.kvstore)}
    return TableServer(lambda: recipes.load(args.recipe, args.set, options), store)
