"""The workers of a run of several processes, as one of them sees them."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx
import numpy as np

from latse.cluster.alone import Alone, NamedArrays
from latse.cluster.meeting import Member
from latse.cluster.place import Place
from latse.cluster.serving import COMMAND

AT_ONCE = 16_384  # numbers that a worker says in a line


class Store(mx.kv.KVStore):
    """A KVStore that knows the numbers by which its servers call the keys.

    Attributes
    ----------
    keys : list of str
        In the order in which they were made: servers call the first 0.
    """

    def __init__(self, kind: str) -> None:
        made = mx.kv.create(kind)
        super().__init__(made.handle)
        made.handle = None  # this one frees it
        self.keys: list[str] = []
        self._is_compressed = False

    def set_gradient_compression(self, compression_params: dict[str, Any]) -> None:
        """Compress what is pushed from now on, also the first value of a key."""
        super().set_gradient_compression(compression_params)
        self._is_compressed = True

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """Push and pull; MXNet does not do both at once with what is compressed."""
        if not self._is_compressed:
            return super().pushpull(key, value, out, priority)
        self.push(key, value, priority)
        return self.pull(key, value if out is None else out, priority)

    def init(self, key: str | list[str], value: Any) -> None:
        """Make a key, of the value that worker 0 gives."""
        self.keys += [key] if isinstance(key, str) else key
        super().init(key, value)


class Workers(Alone):
    """One of several workers, each in a process of its own, perhaps on a host of its own.

    Parameters
    ----------
    place : Place
        Where this process is.
    kind : str
        Name of MXNet's distributed KVStore.
    """

    def __init__(self, place: Place, kind: str) -> None:
        self._member, self.count, self._servers = Member(place), place.workers, place.servers
        self._store = Store(kind)
        self.rank = self._store.rank

    def store(self, name: str) -> Store:
        """Return the KVStore that all workers share."""
        return self._store

    def go_with(self, key: str) -> None:
        """See to it that the next key that is made is on the servers of another one of the same shape.

        MXNet chooses the server of a small array by the number of its key modulo that of the servers.
        """
        keys = self._store.keys
        while (len(keys) - keys.index(key)) % self._servers:
            self._store.init(f"nothing:{len(keys)}", mx.nd.zeros((1,)))

    def tell_servers(self, told: Any) -> None:
        """Give the servers a command, `told` by worker 0 as JSON holds it, and wait until it is done."""
        if self.rank == 0:
            self._store._send_command_to_servers(COMMAND, json.dumps(told))
        self.gather("a command to the servers", None)

    def gather(self, what: str, value: Any) -> list[Any]:
        """Return what each worker says, by rank, once all have; `value` as JSON holds it."""
        return self.hear(self.say(what, value))

    def say(self, what: str, value: Any) -> int:
        """Say something, as for `gather`, and wait for nobody; return the number by which it is heard."""
        return self._member.say(self.rank, what, value)

    def hear(self, number: int) -> list[Any]:
        """Return what each worker has said at a number, by rank, once all have; once each."""
        return self._member.hear(number)

    def first(self, title: str, arrays: NamedArrays) -> NamedArrays:
        """Return the arrays of worker 0; a `title` can be asked for once."""
        found = {}
        for name in sorted(arrays):
            key, array = f"first {title}:{name}", arrays[name].astype(np.float32)
            self._store.init(key, array)  # worker 0's counts
            found[name] = mx.nd.zeros_like(array)
            self._store.pull(key, out=found[name])
        return found

    def mean(self, title: str, arrays: NamedArrays) -> NamedArrays:
        """Return the means over the workers of float32 arrays.

        They go through the meeting: what goes to the servers is compressed where gradients are.
        """
        found = {}
        for name in sorted(arrays):
            flat = arrays[name].asnumpy().ravel()
            parts = [
                np.mean(self.gather(f"{title} {name}", flat[first : first + AT_ONCE].tolist()), axis=0)
                for first in range(0, len(flat), AT_ONCE)
            ]
            found[name] = mx.nd.array(np.concatenate(parts)).reshape(arrays[name].shape)
        return found

    def fail(self, sentence: str) -> None:
        """Tell the others why this one ends."""
        self._member.fail(sentence)
        self._store.handle = None  # its end would wait for the others

    def close(self) -> None:
        """Leave the others, who are all done; the last one ends the servers."""
        self.gather("the end", None)
        mx.nd.waitall()
        self._member.leave()
        self._store.__del__()
        self._store.handle = None  # which Python's own end of it may free again
