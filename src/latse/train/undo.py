"""The journal from which the mean faces of a checkpoint are put back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Iterator

import numpy as np

from latse.files import explained
from latse.train.rows import RowFile

NAME = "mean_faces.undo-"
HEAD = 9  # bytes of an entry before the face: a label, int64, and whether its mean had started


class UndoJournal:
    """What one worker has found in the rows that it was the first to change since a checkpoint.

    `folder` is that of the mean faces, `iteration` that of the checkpoint.
    """

    def __init__(self, folder: Path, iteration: int, worker: int, face_bytes: int) -> None:
        path = folder / (_name(iteration) + (f".{worker}" if worker else ""))
        with explained(f"cannot write {path}"):
            path.write_bytes(b"")
        self._file, self._entries, self._lock = RowFile(path, HEAD + face_bytes), 0, threading.Lock()

    def append(self, label: int, started: bool, face: np.ndarray) -> None:
        """Add a row's content, whole, before the row changes; LatseError if that is impossible."""
        entry = np.int64(label).tobytes() + bytes([started]) + face.tobytes()
        with self._lock:
            self._file.write(self._entries, entry)
            self._entries += 1  # only now: a part of an entry is written over by the next

    def close(self) -> None:
        """Close the file, which stays: a newer checkpoint may turn out to be damaged."""
        self._file.close()

    def remove_older(self) -> None:
        """Remove the journals of earlier checkpoints, also those of workers that are gone."""
        for path in self._file.path.parent.glob(NAME + "*"):
            if _iteration(path) < _iteration(self._file.path):
                path.unlink(missing_ok=True)  # another worker does the same


def noted(folder: Path, iteration: int, face: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """Yield label and state byte of every entry that any worker has noted since a checkpoint.

    Of a row the oldest entry comes last: whoever writes all of them back ends with what was there at the
    checkpoint. `face`, C-contiguous and of a row's size, then holds the row's content. A
    torn last entry, whose row had not been changed yet, is left out.
    """
    head = bytearray(HEAD)
    for path in sorted(folder.glob(NAME + "*"), key=_iteration, reverse=True):
        if _iteration(path) < iteration:
            continue
        with explained(f"cannot read {path}"), path.open("rb", buffering=0) as file:
            while file.readinto(head) == len(head) and file.readinto(face) == face.nbytes:
                yield int.from_bytes(head[:8], "little"), bytes(head[8:])


def remove(folder: Path, since: int = 0) -> None:
    """Remove the journals of all workers since a checkpoint, by default all."""
    for path in folder.glob(NAME + "*"):
        if _iteration(path) >= since:
            path.unlink()


def _name(iteration: int) -> str:
    return f"{NAME}{iteration:08d}"


def _iteration(path: Path) -> int:
    return int(path.name[len(NAME) :].partition(".")[0])
