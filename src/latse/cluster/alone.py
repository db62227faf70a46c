"""What workers do together, in a run of one process. Without mxnet, as readers of results need it."""

from __future__ import annotations

from typing import Any, Mapping

NamedArrays = Mapping[str, Any]  # of mx.nd.NDArray


class Alone:
    """The one worker of a run of one process.

    Attributes
    ----------
    rank, count : int
        The number of this worker, from 0, and how many there are.
    """

    rank, count = 0, 1

    def store(self, name: str) -> Any:
        """Return what shares the gradients of devices, as `mx.mod.Module` takes it."""
        return name

    def gather(self, what: str, value: Any) -> list[Any]:
        """Return what each worker says, by rank, once all have; `value` as JSON holds it."""
        return [value]

    def first(self, title: str, arrays: NamedArrays) -> NamedArrays:
        """Return the arrays of worker 0, which on every worker have these names and shapes."""
        return arrays

    def mean(self, title: str, arrays: NamedArrays) -> NamedArrays:
        """Return the means over the workers of float32 arrays."""
        return arrays

    def fail(self, sentence: str) -> None:
        """Tell the others why this one ends."""

    def close(self) -> None:
        """Leave the others, who are all done."""


ALONE = Alone()
