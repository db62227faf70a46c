"""Batches as a pure function of (seed, iteration), so that a resumed run sees what an unbroken one sees."""

from __future__ import annotations

import functools
import threading
from typing import Iterator

import numpy as np

from latse.data.shards.records import Batch, Shard
from latse.data.workers import in_threads
from latse.errors import LatseError, check_range

THREADS = 2  # that decode
QUEUE = 4  # batches that wait for the consumer


class BatchStream:
    """The endless sequence of batches of one run.

    The epochs' seeded permutations are laid end to end and cut into batches, so batches straddle epochs and
    no image is dropped. An image is mirrored or not by a function of (seed, epoch, record) alone.

    Several workers share the sequence: its batches go round among them, so that together they see what one
    worker with a batch of their sizes' sum would see, and a run may go on with another number of workers.

    Raises LatseError if `batch_size`, `seed`, `images_per_person` or `part` is out of range.

    Parameters
    ----------
    shard : Shard
    batch_size : int, >= 1
        Images of one worker.
    seed : int, 0 to 2**63 - 1
    images_per_person : int, >= 1
        How many images of a person stand together, where there are so many left of the epoch: losses that
        compare images of a batch need several. 1: the images of an epoch come in any order.
    part : (int, int)
        (rank, workers), 0 <= rank < workers: this worker gets the batches rank, rank + workers, … of the
        sequence as its iterations 0, 1, ….
    """

    def __init__(
        self,
        shard: Shard,
        batch_size: int,
        seed: int = 0,
        images_per_person: int = 1,
        part: tuple[int, int] = (0, 1),
    ):
        check_range("batch_size", batch_size, 1)
        check_range("seed", seed, 0, 2**63 - 1)
        check_range("images_per_person", images_per_person, 1)
        self._rank, self._workers = part
        if not 0 <= self._rank < self._workers:
            raise LatseError(f"part is {self._rank} of {self._workers}, must be 0 to {self._workers - 1}")
        self.shard, self.batch_size, self.seed = shard, int(batch_size), int(seed)
        self._images_per_person = int(images_per_person)
        self._lock = threading.Lock()
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    def epoch(self, iteration: int) -> int:
        """Return the epoch that the first image of this worker's batch `iteration` belongs to."""
        return self._first_place(iteration) // len(self.shard)

    def batch(self, iteration: int) -> Batch:
        """Return this worker's batch number `iteration` (>= 0), whatever was asked for before.

        Raises LatseError if one of its images cannot be decoded.
        """
        epochs, positions = self._images(iteration)
        return self.shard.batch(positions, flips(self.seed, epochs, self.shard.records[positions]))

    def prefetch(self, start: int, stop: int, threads: int = THREADS) -> Iterator[tuple[int, Batch]]:
        """Iterate (iteration, batch) for start <= iteration < stop, decoding ahead in `threads` threads.

        At most QUEUE + `threads` batches are held. An error of a thread is raised here when its batch's turn
        comes. Leaving the loop early ends the threads.
        """
        iterations = range(start, stop)
        yield from zip(iterations, in_threads(self.batch, zip(iterations), threads, QUEUE))

    def _first_place(self, iteration: int) -> int:
        """Place of the batch's first image in the sequence of all epochs."""
        return (iteration * self._workers + self._rank) * self.batch_size

    def _images(self, iteration: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the epoch and position of each image of a batch: int64 (B,) both."""
        first = self._first_place(iteration)
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), len(self.shard))
        with self._lock:  # the order of a large epoch takes a second: no two threads make the same
            parts = [
                self._order(epoch)[places[epochs == epoch]] for epoch in range(epochs[0], epochs[-1] + 1)
            ]
        return epochs, np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        """Return the positions in the order of an epoch: shuffled, and in groups of a person if asked for."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.shard))
        if self._images_per_person == 1:
            return order
        order = order[np.argsort(self.shard.labels[order], kind="stable")]
        labels = self.shard.labels[order]
        groups = _number_within(labels) // self._images_per_person
        _, group = np.unique(np.stack([labels, groups]), axis=1, return_inverse=True)
        return order[np.argsort(random.permutation(group.max() + 1)[group], kind="stable")]


def flips(seed: int, epochs: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Tell whether each image is mirrored: bool (n,), true with probability 1/2, for int arrays (n,).

    The three numbers are mixed one after the other by splitmix64's finaliser (Steele, Lea, Flood 2014).
    """
    state = np.full(len(records), seed, np.uint64)
    for numbers in (epochs, records):
        state = _mix(state + np.uint64(0x9E3779B97F4A7C15)) ^ np.asarray(numbers).astype(np.uint64)
    return (_mix(state + np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(63)).astype(bool)


def _number_within(labels: np.ndarray) -> np.ndarray:
    """Return how many of the same label stand before each: int64 (n,), for sorted labels (n,)."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1))
    return np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels)))


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
