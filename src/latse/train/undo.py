"""The journal from which the mean faces of a checkpoint are put back."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Iterator

import numpy as np

from latse.errors import LatseError
from latse.train.rows import write_whole

NAME = "mean_faces.undo-"


class UndoJournal:
    """What one worker has found in the rows that it was the first to change since a checkpoint.

    Parameters
    ----------
    folder : Path
        Where the mean faces are.
    iteration : int
        That of the checkpoint.
    worker : int
        Number of the worker.
    """

    _handle = -1  # closed

    def __init__(self, folder: Path, iteration: int, worker: int) -> None:
        self._path = folder / (_name(iteration) + (f".{worker}" if worker else ""))
        self._end, self._lock = 0, threading.Lock()
        try:
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        except OSError as error:
            raise LatseError(f"cannot write {self._path}: {error.strerror}") from error

    def append(self, label: int, started: bool, face: np.ndarray) -> None:
        """Add a row's content, whole, before the row changes; LatseError if that is impossible."""
        entry = np.int64(label).tobytes() + bytes([started]) + face.tobytes()
        with self._lock:
            write_whole(self._handle, entry, self._end, self._path)
            self._end += len(entry)  # only now: a part of an entry is written over by the next

    def remove(self) -> None:
        """Remove the journal, which a newer checkpoint has made useless."""
        self.close()
        self._path.unlink()

    def close(self) -> None:
        """Close the file; it may be closed already."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    __del__ = close


def noted(folder: Path, iteration: int, face: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """Yield label and state byte of every entry that any worker has noted since a checkpoint.

    `face`, C-contiguous and of a row's size, then holds the row's content. A torn last entry, whose row had
    not been changed yet, is left out.
    """
    head, name = bytearray(9), _name(iteration)
    for path in (*folder.glob(name), *folder.glob(name + ".*")):
        try:
            with path.open("rb", buffering=0) as file:
                while file.readinto(head) == len(head) and file.readinto(face) == face.nbytes:
                    yield int.from_bytes(head[:8], "little"), bytes(head[8:])
        except OSError as error:
            raise LatseError(f"cannot read {path}: {error.strerror}") from error


def remove_all(folder: Path) -> None:
    """Remove the journals of all checkpoints and workers."""
    for path in folder.glob(NAME + "*"):
        path.unlink()


def _name(iteration: int) -> str:
    return f"{NAME}{iteration:08d}"
