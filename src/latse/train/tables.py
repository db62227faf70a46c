"""What a sampled head keeps of every person: rows of tables, of which a batch reads and moves only some."""

from __future__ import annotations

from typing import Iterator, Mapping, NamedTuple, Protocol, Sequence

import mxnet as mx
import numpy as np
from yacs.config import CfgNode

from latse.errors import LatseError
from latse.models.arrays_file import Blocks
from latse.models.parameters import needed_shapes
from latse.symbols.running import is_running
from latse.train.optimiser import optimiser
from latse.train.precision import DivergenceError

ROWS, MOMENTUM = "table", "table_momentum"  # kinds, which a state has as beginnings of names
CENTRES = "fc7_weight"
BLOCK = 65_536  # rows that are handled together


class Table(NamedTuple):
    """A parameter of a loss with a row for each person.

    Attributes
    ----------
    name : str
        Of the parameter.
    rows : int
        Number of people.
    shape : tuple of int
        Of a row.
    attributes : dict of str to str
        Of the graph: how it is initialised, factors of learning rate and decay.
    """

    name: str
    rows: int
    shape: tuple[int, ...]
    attributes: Mapping[str, str]

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return int(np.prod(self.shape, dtype=np.int64))

    def drawn(self, count: int) -> np.ndarray:
        """Draw the first content of `count` rows: float32 (count, width)."""
        array = mx.nd.zeros((count, self.width))
        described = mx.init.InitDesc(self.name, dict(self.attributes))
        mx.init.Normal(0.01)(described, array)  # that of the attributes, if there is one
        return array.asnumpy()

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield first row and number of rows of each block."""
        for first in range(0, self.rows, BLOCK):
            yield first, min(BLOCK, self.rows - first)


class Tables(Protocol):
    """Where the rows of tables are: `LocalTables` or `latse.train.served_tables.ServedTables`."""

    tables: Sequence[Table]

    def kinds(self, table: Table) -> list[str]:
        """Return what there is of a table."""
        ...

    def pull(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """Return some rows."""
        ...

    def push(self, gradients: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        """Move some rows."""
        ...

    def skip(self) -> None:
        """Count a step that moves no row."""
        ...

    def blocks(self, kind: str, table: Table) -> Iterator[np.ndarray]:
        """Return all rows."""
        ...


class LocalTables:
    """Tables in the memory of this process.

    Parameters
    ----------
    recipe : CfgNode
        Whose optimiser moves them.
    tables : sequence of Table
        In an order that stays.
    iteration : int
        How many are done.
    """

    def __init__(self, recipe: CfgNode, tables: Sequence[Table], iteration: int) -> None:
        self.tables = tables
        self._optimiser = optimiser(recipe, {table.name: table.attributes for table in tables}, iteration)
        self._rows = {table.name: np.empty((table.rows, table.width), np.float32) for table in tables}
        self._momentum = {
            table.name: np.zeros((table.rows, table.width), np.float32)
            for table in tables
            if recipe.train.momentum and not is_running(table.name)
        }

    def put(self, kind: str, table: Table, blocks: Iterator[np.ndarray]) -> None:
        """Fill a table with blocks; `kind` is as of `blocks`."""
        for (first, count), block in zip(table.blocks(), blocks):
            self._of(kind)[table.name][first : first + count] = block

    def begin(self) -> None:
        """Do nothing: others may have to be told."""

    def pull(self, table: Table, rows: np.ndarray) -> np.ndarray:
        """Return some rows, ascending: float32 (n, width)."""
        return self._rows[table.name][rows]

    def push(self, gradients: Mapping[str, np.ndarray], which: np.ndarray) -> None:
        """Move some rows of each table by their gradients, float32 (n, width), the sum over the batch."""
        for number, table in enumerate(self.tables):
            weight, gradient = (
                mx.nd.array(a) for a in (self._rows[table.name][which], gradients[table.name])
            )
            momentum = self._momentum.get(table.name)
            state = None if momentum is None else mx.nd.array(momentum[which])
            self._optimiser.update_multi_precision(number, weight, gradient, state)
            self._rows[table.name][which] = weight.asnumpy()
            if momentum is not None:
                momentum[which] = state.asnumpy()

    def skip(self) -> None:
        """Count a step that moves no row, as the schedule goes by iterations."""
        for number, _ in enumerate(self.tables):
            self._optimiser._update_count(number)

    def kinds(self, table: Table) -> list[str]:
        """Return what there is of a table: `ROWS`, and `MOMENTUM` where the optimiser has any."""
        return [kind for kind in (ROWS, MOMENTUM) if table.name in self._of(kind)]

    def blocks(self, kind: str, table: Table) -> Iterator[np.ndarray]:
        """Return the blocks of the rows of a table, or of their momentum, float32 (count, width) each."""
        array = self._of(kind)[table.name]
        return (array[first : first + count] for first, count in table.blocks())

    def _of(self, kind: str) -> dict[str, np.ndarray]:
        return self._rows if kind == ROWS else self._momentum


class SampledHead:
    """Reads the rows of a batch's people and of a sample of the others, and moves them.

    Parameters
    ----------
    tables : Tables
        Where the rows are.
    classes, sample : int
        How many people there are, and how many the loss compares.
    seed : int
        That of the run.
    rank, count : int
        Of the worker: each has a sample of its own.
    """

    def __init__(self, tables: Tables, classes: int, sample: int, seed: int, rank: int, count: int) -> None:
        self.tables, self._classes, self._sample = tables, classes, sample
        self._seed, self._rank, self._count = seed, rank, count
        self._people = np.arange(0)

    def inputs(self, labels: np.ndarray, iteration: int) -> dict[str, np.ndarray]:
        """Return the rows of each table that the loss compares, and the places of the labels among them."""
        labels = labels.astype(np.int64)
        self._people = self.people(labels, iteration)
        found = {
            table.name: self.tables.pull(table, self._people).reshape(-1, *table.shape)
            for table in self.tables.tables
        }
        return {**found, "softmax_label": np.searchsorted(self._people, labels)}

    def learn(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Move the rows of the last `inputs` by their gradients, sums over the batch."""
        flat = {table.name: gradients[table.name].reshape(-1, table.width) for table in self.tables.tables}
        self.tables.push(flat, self._people)

    def blocks(self) -> dict[str, Blocks]:
        """Return all that the tables hold, by kind and name, as a state keeps it."""
        return {
            f"{kind}:{table.name}": self._blocks(kind, table)
            for table in self.tables.tables
            for kind in self.tables.kinds(table)
        }

    def centres(self) -> dict[str, Blocks]:
        """Return the class centres, as a checkpoint keeps them."""
        return {
            table.name: self._blocks(ROWS, table) for table in self.tables.tables if table.name == CENTRES
        }

    def _blocks(self, kind: str, table: Table) -> Blocks:
        """Return all rows; what reads them raises DivergenceError for one that is not finite."""

        def finite() -> Iterator[np.ndarray]:
            for block in self.tables.blocks(kind, table):
                if not np.isfinite(block).all():
                    raise DivergenceError(f"a number of {table.name} is not finite")
                yield block

        return Blocks((table.rows, *table.shape), finite())

    def people(self, labels: np.ndarray, iteration: int) -> np.ndarray:
        """Return who is compared in an iteration: those of the labels, and others by chance; ascending."""
        if self._sample == self._classes:
            return np.arange(self._classes)
        own = np.unique(labels)
        random = np.random.default_rng((self._seed, iteration, self._rank, self._count))
        drawn = random.choice(self._classes, min(self._sample + len(own), self._classes), replace=False)
        others = drawn[~np.isin(drawn, own)][: self._sample - len(own)]
        return np.sort(np.concatenate([own, others]))


def sample_size(classes: int, rate: float, batch_size: int) -> int:
    """Return how many people the loss compares where a batch may have `batch_size` of them."""
    return min(classes, max(int(np.ceil(rate * classes)), batch_size))


def found(
    graph: mx.sym.Symbol,
    shapes: Mapping[str, tuple[int, ...]],
    larger: mx.sym.Symbol,
    sample: int,
    classes: int,
) -> list[Table]:
    """Return the tables of a loss: the parameters that grow with the number of people.

    Parameters
    ----------
    graph, larger : mx.sym.Symbol
        The training graph over `sample` people, and over one more.
    shapes : mapping of str to tuple of int
        Of the inputs of both.
    sample, classes : int
        How many people the loss compares, and how many there are.
    """
    before, after = (needed_shapes(symbol, **shapes) for symbol in (graph, larger))
    attributes, tables = graph.attr_dict(), []
    for name, shape in before.items():
        if shape != after[name]:
            if (shape[0], after[name][0]) != (sample, sample + 1) or shape[1:] != after[name][1:]:
                raise LatseError(f"the parameter {name} has not one row a person: head.kind must be dense")
            tables.append(Table(name, classes, tuple(shape[1:]), attributes.get(name, {})))
    return tables
