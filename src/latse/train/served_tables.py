"""The tables of a sampled head as row_sparse arrays of MXNet's parameter servers."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, NamedTuple, Sequence

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse.cluster.workers import Workers
from latse.symbols.running import is_running
from latse.train.mover import Mover
from latse.train.optimiser import optimiser, settings
from latse.train.tables import MOMENTUM, ROWS, Table

AT_ONCE = 4096  # rows that are read together: MXNet keeps the memory for the most of each block


class Piece(NamedTuple):
    """One key of the servers: number of the table, `ROWS` or `MOMENTUM`, number of the block."""

    table: int
    kind: str
    block: int


class ServedTables:
    """Tables of which no worker ever holds all rows. The servers move them.

    Parameters
    ----------
    workers : Workers
        Those of the run.
    recipe, tables, iteration : CfgNode, sequence of Table, int
        As those of `LocalTables`.
    """

    def __init__(self, workers: Workers, recipe: CfgNode, tables: Sequence[Table], iteration: int) -> None:
        self.tables, self._workers, self._recipe, self._iteration = tables, workers, recipe, iteration
        self._store, self._has_momentum = workers.store(recipe.train.kvstore), bool(recipe.train.momentum)

    def kinds(self, table: Table) -> list[str]:
        """Return what there is of a table: `ROWS`, and `MOMENTUM` where the optimiser has any."""
        return [ROWS, MOMENTUM] if self._has_momentum and not is_running(table.name) else [ROWS]

    def begin(self) -> None:
        """Tell the servers what the tables are, before they are filled."""
        tables = [table._replace(attributes=dict(table.attributes)) for table in self.tables]
        told = {"settings": settings(self._recipe), "iteration": self._iteration, "tables": tables}
        self._workers.tell_servers(told)

    def put(self, kind: str, table: Table, blocks: Iterator[np.ndarray]) -> None:
        """Make a table on the servers, of the blocks that worker 0 has."""
        for number, (_, count) in enumerate(table.blocks()):
            block = next(blocks) if self._workers.rank == 0 else np.zeros((count, table.width), np.float32)
            if kind == MOMENTUM:
                self._workers.go_with(_key(ROWS, table, number))
            every = mx.nd.sparse.row_sparse_array((block, np.arange(count)), shape=block.shape)
            self._store.init(_key(kind, table, number), every)
            piece = Piece(self.tables.index(table), kind, number)
            self._workers.tell_servers({"key": len(self._store.keys) - 1, "piece": piece})
            # By the first push the servers get hold of their parts, and MXNet lets go of the block.
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

    def skip(self) -> None:
        """Count a step that moves no row; all workers do."""
        self.push({}, np.arange(0))

    def blocks(self, kind: str, table: Table) -> Iterator[np.ndarray]:
        """Return the rows of a table, or their momentum, in parts, float32 (m, width) each."""
        for number, (_, count) in enumerate(table.blocks()):
            for first in range(0, count, AT_ONCE):
                yield self._pull(kind, table, number, count, np.arange(first, min(first + AT_ONCE, count)))

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


class TableServer(Mover):
    """What a server does with a run's tables. All other keys are gradients, which are added up."""

    def __init__(self, recipe: CfgNode, store: Any) -> None:
        super().__init__(recipe, store)
        self._pieces: dict[int, Piece] = {}  # by the server's number of the key
        self._held: dict[Piece, Any] = {}  # this server's parts, arrays of the store

    def command(self, told: Any) -> None:
        """Take a command of `ServedTables`: what the tables are, or what one key is."""
        if "key" in told:
            piece = self._pieces[told["key"]] = Piece(*told["piece"])
            self._optimiser.idx2name[told["key"]] = self._tables[piece.table].name
            return
        self._tables = [Table(name, rows, tuple(shape), about) for name, rows, shape, about in told["tables"]]
        attributes = {table.name: table.attributes for table in self._tables}
        self._begin(optimiser(self._recipe, attributes, told["iteration"]))

    def update(self, key: int, received: Any, stored: Any) -> None:
        """Take what all workers have pushed to a key."""
        piece = self._pieces.get(key)
        if piece is None:
            stored[:] = received
            return
        if piece not in self._held:
            self._held[piece] = stored
            return
        table = self._tables[piece.table]
        if not received.indices.shape[0]:
            self._optimiser._update_count(key)
        elif is_running(table.name):
            scale = self._optimiser.rescale_grad
            mx.nd.sparse.sgd_update(stored, received, out=stored, lr=1.0, wd=0.0, rescale_grad=scale)
        else:
            state = self._held.get(piece._replace(kind=MOMENTUM))
            self._optimiser.update_multi_precision(key, stored, received, state)
