"""The bank of mean faces of several workers: each person's has one owner, to whom the pictures travel."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Union

import numpy as np

from latse.cluster.alone import Alone
from latse.cluster.exchange import Exchange
from latse.errors import LatseError
from latse.files import make_folder, read_text, write_text
from latse.train.bank import MeanFaceBank

MARK = "mean_faces.shared"  # by which a worker sees that its folder is worker 0's
SECONDS = 120.0  # that the connections may take


class OwnedBank:
    """The banks of several workers as one. It does what one bank does with their batches one after the other.

    The mean of person p belongs to the worker of rank p modulo the number of workers. All keep one set of
    files, in the folder of worker 0; no two of them change the same row.

    Parameters
    ----------
    workers : Alone
        Those of the run, two or more.
    folder, classes, shape, momentum, iteration : Path, int, tuple of int, float, int
        As those of `MeanFaceBank`.

    Raises
    ------
    LatseError
        As `MeanFaceBank`; if a worker does not see the folder of worker 0, or cannot be reached.
    """

    def __init__(
        self,
        workers: Alone,
        folder: Path,
        classes: int,
        shape: tuple[int, ...],
        momentum: float,
        iteration: int,
    ) -> None:
        self._workers, self._shape = workers, shape
        self._refuse_other_folders(make_folder(folder))
        own = folder, classes, shape, momentum, iteration, workers.rank
        if workers.rank == 0:
            self._bank = MeanFaceBank(*own)
        workers.gather("the opening of the mean faces", None)
        if workers.rank > 0:
            self._bank = MeanFaceBank(*own)
        self._exchange = Exchange(workers, SECONDS)

    def update(self, images: np.ndarray, labels: np.ndarray, teaches: np.ndarray) -> np.ndarray:
        """Move the means by all workers' batches; return the targets of this one: see `MeanFaceBank`."""
        owner = labels.astype(np.int64) % self._workers.count
        mine = [np.flatnonzero(owner == rank) for rank in range(self._workers.count)]
        got = self._exchange.swap([_packed(images[at], labels[at], teaches[at]) for at in mine])
        parts = [_unpacked(content, self._shape) for content in got]
        moved = self._bank.update(*(np.concatenate(column) for column in zip(*parts)))
        ends = np.cumsum([len(part[1]) for part in parts])[:-1]
        back = self._exchange.swap([part.tobytes() for part in np.split(moved, ends)])
        targets = np.empty(images.shape, np.float32)
        for at, content in zip(mine, back):
            targets[at] = np.frombuffer(content, np.float32).reshape(-1, *self._shape)
        return targets

    def flush(self) -> None:
        """Bring this worker's files to disk."""
        self._bank.flush()

    def checkpoint(self, iteration: int) -> None:
        """Take the checkpoint of `iteration`, which has been written, as the state to go back to."""
        self._bank.checkpoint(iteration)

    def close(self) -> None:
        """Flush and close the files, those of worker 0 last."""
        if self._workers.rank > 0:
            self._bank.close()
        self._workers.gather("the closing of the mean faces", None)
        if self._workers.rank == 0:
            self._bank.close()
        self._exchange.close()

    def _refuse_other_folders(self, folder: Path) -> None:
        """Raise LatseError on all workers unless all see the folder of worker 0."""
        mark, said = folder / MARK, secrets.token_hex(8)
        if self._workers.rank == 0:
            write_text(mark, said)
        first, *_ = self._workers.gather("the folder of the mean faces", said)
        sees = mark.is_file() and read_text(mark) == first
        blind = [
            host for host in self._workers.gather("who sees it", "" if sees else socket.gethostname()) if host
        ]
        if self._workers.rank == 0:
            mark.unlink()
        if blind:
            raise LatseError(
                f"{folder}: {', '.join(blind)} does not see this folder of the first worker, where the mean "
                "faces are: put --out on a file system that all hosts share"
            )


Bank = Union[MeanFaceBank, OwnedBank]


def opened(
    workers: Alone, folder: Path, classes: int, shape: tuple[int, ...], momentum: float, iteration: int
) -> Bank:
    """Return the bank of a run; the arguments are those of `OwnedBank`."""
    if workers.count == 1:
        return MeanFaceBank(folder, classes, shape, momentum, iteration)
    return OwnedBank(workers, folder, classes, shape, momentum, iteration)


def _packed(images: np.ndarray, labels: np.ndarray, teaches: np.ndarray) -> bytes:
    whole = labels.astype("<i8")
    return b"".join((whole.tobytes(), teaches.astype(np.uint8).tobytes(), images.tobytes()))


def _unpacked(content: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = len(content) // (8 + 1 + int(np.prod(shape)))
    labels = np.frombuffer(content, "<i8", count)
    teaches = np.frombuffer(content, np.uint8, count, 8 * count).astype(bool)
    return np.frombuffer(content, np.uint8, -1, 9 * count).reshape(count, *shape), labels, teaches
