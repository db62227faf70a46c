"""Batches as a pure function of (seed, iteration), so that a resumed run sees what an unbroken one sees."""

from __future__ import annotations

import functools
import queue
import threading
from typing import Iterator, NamedTuple

import numpy as np

from latse.data.records import Shard
from latse.errors import LatseError

QUEUE = 4  # batches that are decoded ahead


class Batch(NamedTuple):
    """image uint8 (B, 3, height, width) RGB 0..255; label float32 (B,); record int64 (B,)."""

    image: np.ndarray
    label: np.ndarray
    record: np.ndarray


class BatchStream:
    """The endless sequence of batches of one run.

    The epochs' seeded permutations are laid end to end and cut into batches, so batches straddle epochs and
    no image is dropped. An image is mirrored or not by a function of (seed, epoch, record) alone.

    Parameters
    ----------
    shard : Shard
    batch_size : int, >= 1
    seed : int, >= 0
    images_per_person : int, >= 1
        How many images of a person stand together, where there are so many left of the epoch: losses that
        compare images of a batch need several. 1: the images of an epoch come in any order.

    Raises
    ------
    LatseError
        If `batch_size`, `seed` or `images_per_person` is out of range.
    """

    def __init__(self, shard: Shard, batch_size: int, seed: int = 0, images_per_person: int = 1):
        if batch_size < 1:
            raise LatseError(f"batch_size is {batch_size}, must be at least 1")
        if seed < 0:
            raise LatseError(f"seed is {seed}, must not be negative")
        if images_per_person < 1:
            raise LatseError(f"images_per_person is {images_per_person}, must be at least 1")
        self.shard, self.batch_size, self.seed = shard, int(batch_size), int(seed)
        self._images_per_person = int(images_per_person)
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    def epoch(self, iteration: int) -> int:
        """Epoch that the first image of the batch `iteration` belongs to."""
        return iteration * self.batch_size // len(self.shard)

    def batch(self, iteration: int) -> Batch:
        """The batch number `iteration` (>= 0), whatever was asked for before.

        Raises LatseError if one of its images cannot be decoded.
        """
        epochs, places = np.divmod(
            np.arange(iteration * self.batch_size, (iteration + 1) * self.batch_size), len(self.shard)
        )
        positions = np.array([self._order(int(epoch))[place] for epoch, place in zip(epochs, places)])
        records = self.shard.records[positions]
        image = np.empty((self.batch_size, 3, *self.shard.image_size), np.uint8)
        for row, flip in enumerate(flips(self.seed, epochs, records)):
            pixels = self.shard.read(positions[row])[0].transpose(2, 0, 1)
            image[row] = pixels[:, :, ::-1] if flip else pixels
        return Batch(image, self.shard.labels[positions].astype(np.float32), records)

    def prefetch(self, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
        """Iterate (iteration, batch) for start <= iteration < stop, decoding ahead in one thread.

        An error of the thread is raised here. Leaving the loop early ends the thread.
        """
        done, ready = threading.Event(), queue.Queue(QUEUE)

        def put(item: tuple) -> None:
            while not done.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return
                except queue.Full:
                    pass

        def decode_ahead() -> None:
            try:
                for iteration in range(start, stop):
                    if done.is_set():
                        return
                    put((iteration, self.batch(iteration), None))
            except BaseException as error:
                put((None, None, error))

        thread = threading.Thread(target=decode_ahead, name="latse-prefetch", daemon=True)
        thread.start()
        try:
            for _ in range(start, stop):
                iteration, batch, error = ready.get()
                if error is not None:
                    raise error
                yield iteration, batch
        finally:
            done.set()
            thread.join()

    def _permutation(self, epoch: int) -> np.ndarray:
        """Positions in the order of an epoch: shuffled, and where it is asked for, in groups of a person."""
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
    """Whether each image is mirrored: bool (n,), true with probability 1/2, for int arrays (n,).

    The three numbers are mixed one after the other by splitmix64's finaliser (Steele, Lea, Flood 2014).
    """
    state = np.full(len(records), seed, np.uint64)
    for numbers in (epochs, records):
        state = _mix(state + np.uint64(0x9E3779B97F4A7C15)) ^ np.asarray(numbers).astype(np.uint64)
    return (_mix(state + np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(63)).astype(bool)


def _number_within(labels: np.ndarray) -> np.ndarray:
    """How many of the same label stand before each: int64 (n,), for sorted labels (n,)."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1))
    return np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels)))


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
