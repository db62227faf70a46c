"""The bank of mean faces of several workers: each person's has one owner, to whom the pictures travel."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Union

import numpy as np

from latse.cluster.alone import Alone
from latse.cluster.exchange import Exchange
from latse.files import make_folder, read_text, write_text
from latse.train.bank import MeanFaceBank

MARK = "mean_faces.shared"  # by which a worker sees that its folder is worker 0's
BOOT = Path("/proc/sys/kernel/random/boot_id")  # another one on each machine that runs
SECONDS = 120.0  # that the connections may take


class OwnedBank:
    """The banks of several workers as one. It does what one bank does with their batches one after the other.

    All mean faces are in the folder of worker 0. Their owners are the workers on its machine that see that
    folder, and they alone read and write it: each person has one owner. So no file system is shared by
    machines, and the files are those of a run of one process, whoever the workers are.

    Parameters
    ----------
    workers : Alone
        Those of the run, two or more.
    folder, classes, shape, momentum, iteration : Path, int, tuple of int, float, int
        As those of `MeanFaceBank`.

    Raises
    ------
    LatseError
        As `MeanFaceBank`; if a worker cannot be reached.
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
        self._owners = _owners(workers, folder)
        own = folder, classes, shape, momentum, iteration, workers.rank
        self._bank: MeanFaceBank | None = None
        if workers.rank == 0:
            self._bank = MeanFaceBank(*own)
        workers.gather("the opening of the mean faces", None)
        if workers.rank in self._owners[1:]:
            self._bank = MeanFaceBank(*own)
        self._exchange = Exchange(workers, SECONDS)

    def update(self, images: np.ndarray, labels: np.ndarray, teaches: np.ndarray) -> np.ndarray:
        """Move the means by all workers' batches; return the targets of this one: see `MeanFaceBank`."""
        owner = np.array(self._owners)[labels.astype(np.int64) % len(self._owners)]
        mine = [np.flatnonzero(owner == rank) for rank in range(self._workers.count)]
        got = self._exchange.swap([_packed(images[at], labels[at], teaches[at]) for at in mine])
        back = self._exchange.swap(self._moved(got) if self._bank else [b""] * self._workers.count)
        targets = np.empty(images.shape, np.float32)
        for at, content in zip(mine, back):
            targets[at] = np.frombuffer(content, np.float32).reshape(-1, *self._shape)
        return targets

    def _moved(self, got: list[bytes]) -> list[bytes]:
        """Move the means by what each worker has sent, by rank; return the targets of each."""
        parts = [_unpacked(content, self._shape) for content in got]
        moved = self._bank.update(*(np.concatenate(column) for column in zip(*parts)))
        ends = np.cumsum([len(part[1]) for part in parts])[:-1]
        return [part.tobytes() for part in np.split(moved, ends)]

    def flush(self) -> None:
        """Bring this worker's files to disk."""
        if self._bank:
            self._bank.flush()

    def checkpoint(self, iteration: int) -> None:
        """Take the checkpoint of `iteration`, which has been written, as the state to go back to."""
        if self._bank:
            self._bank.checkpoint(iteration)

    def close(self) -> None:
        """Flush and close the files, those of worker 0 last."""
        if self._bank and self._workers.rank > 0:
            self._bank.close()
        self._workers.gather("the closing of the mean faces", None)
        if self._bank and self._workers.rank == 0:
            self._bank.close()
        self._exchange.close()


def _owners(workers: Alone, folder: Path) -> list[int]:
    """Return the ranks of the workers on the machine of worker 0 that see its folder, 0 first.

    Elsewhere the folder may be seen too, but not as it is at that moment: pages of a network's file system
    are written whole, the neighbours' rows with them.
    """
    mark, said = folder / MARK, (secrets.token_hex(8), _machine())
    if workers.rank == 0:
        write_text(make_folder(folder) / MARK, said[0])
    (token, machine), *_ = workers.gather("the folder of the mean faces", said)
    sees = machine == said[1] and mark.is_file() and read_text(mark) == token
    owners = [rank for rank, is_one in enumerate(workers.gather("who sees it", sees)) if is_one]
    if workers.rank == 0:
        mark.unlink()
    return owners


def _machine() -> str:
    """Return what another machine, or this one started again, does not return."""
    return read_text(BOOT)


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
