"""The bank of mean faces of several workers: each person's has one owner, to whom the pictures travel."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np

from latse.cluster.alone import Alone
from latse.cluster.exchange import Exchange
from latse.errors import LatseError
from latse.files import make_folder, read_json, read_text, write_json, write_text
from latse.train.bank import MeanFaceBank

MARK = "mean_faces.shared"  # by which a worker sees that its folder is worker 0's
OWNERS = "mean_faces.owners.json"
SECONDS = 120.0  # that the connections may take


class OwnedBank:
    """The banks of several workers as one. It does what one bank does with their batches one after the other.

    The mean of person p belongs to the worker of rank p modulo the number of workers, which keeps it in its
    own `MeanFaceBank`. Workers that see one folder keep one set of files; no two of them touch the same row,
    so that it may be on any file system. A worker without that folder keeps files in its own: such a run goes
    on with as many workers as it began with.

    Parameters
    ----------
    workers : Alone
        Those of the run, two or more.
    folder, classes, shape, momentum, iteration : Path, int, tuple of int, float, int
        As those of `MeanFaceBank`.

    Raises
    ------
    LatseError
        As `MeanFaceBank`; if the number of workers has changed without a common folder; if one cannot be
        reached.
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
        is_shared = self._sees_folder_of_first(make_folder(folder))
        self._check_owners(folder, iteration, is_shared)
        place = workers.rank if is_shared else 0
        self._bank = None if place else MeanFaceBank(folder, classes, shape, momentum, iteration)
        workers.gather("the opening of the mean faces", None)
        if self._bank is None:
            self._bank = MeanFaceBank(folder, classes, shape, momentum, iteration, place)
        self._place, self._exchange = place, Exchange(workers, SECONDS)

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
        if self._place:
            self._bank.close()
        self._workers.gather("the closing of the mean faces", None)
        if not self._place:
            self._bank.close()
        self._exchange.close()

    def _sees_folder_of_first(self, folder: Path) -> bool:
        mark, said = folder / MARK, str(np.random.default_rng().integers(2**62))
        if self._workers.rank == 0:
            write_text(mark, said)
        first, *_ = self._workers.gather("the folder of the mean faces", said)
        sees = mark.is_file() and read_text(mark) == first
        self._workers.gather("who sees the folder of worker 0", None)
        if self._workers.rank == 0:
            mark.unlink()
        return sees

    def _check_owners(self, folder: Path, iteration: int, is_shared: bool) -> None:
        all_share = all(self._workers.gather("who keeps files of its own", is_shared))
        path, count = folder / OWNERS, self._workers.count
        if iteration and not all_share:
            before = read_json(path).get("workers") if path.exists() else None
            if before != count:
                raise LatseError(
                    f"{path}: the mean faces lie in the folders of {before} workers: go on with as many, or "
                    "put --out where all workers see it"
                )
        if not all_share:
            write_json(path, {"workers": count})


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
