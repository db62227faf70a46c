"""The bank of momentum-mean faces (eq. 12) that the decoder must restore."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Sequence, Tuple

import cv2
import numpy as np

from latse.errors import LatseError
from latse.files import explained, make_folder
from latse.runtime import threads as usual_threads
from latse.train import undo
from latse.train.rows import RowFile

FACES, STARTED, TOUCHED = "mean_faces.npy", "mean_faces_started.npy", "mean_faces.touched"
WHOLE, BEING_WRITTEN = b"\1", b"\2"  # a person's byte in STARTED; 0 where there is no mean

_People = Sequence[Tuple[int, np.ndarray]]


class MeanFaceBank:
    """One float16 mean face a person in a .npy file; a batch reads and writes only its own rows.

    The file runs ahead of the last checkpoint. So that a run killed at any moment resumes to the same bits,
    a row's old content is appended to a journal before the row first changes after a checkpoint; opening the
    bank at that checkpoint, or at the one before it, puts the old contents back. Where a journal is cut, a
    sentence on stderr says of how many people the means stay newer than the checkpoint. Nothing but `flush`
    waits for the disk: what a process has written outlives it, whereas after a power failure rows may be
    newer than the checkpoint.

    Several workers (processes, each with a bank of its own) may share the folder. Each changes a row under
    the row's lock: every row ends as if all its updates had happened one after the other, and no worker sees
    a row half written, not even by a worker that died; the row then stays barred until the bank is opened
    again. Worker 0 opens the bank first and closes it last, and between the `flush` of the first worker and
    the `checkpoint` of the last none may update: the workers see to that themselves (a barrier).

    Parameters
    ----------
    folder : path
        Where the files are: `mean_faces.npy` (classes, 3, 112, 112) float16 in [-1, 1], where -1 and 1
        stand for 0 and 255; `mean_faces_started.npy` (classes,) bool; the journals; and, while the bank is
        open, `mean_faces.touched`, which says which rows are in a journal, and whose bytes are the locks.
        The file system must have locks of byte ranges, and show each process at once what others have
        written: a host's own does, NFS does not.
    classes : int
        Number of people.
    shape : tuple of int
        (3, height, width) of a face.
    momentum : float
        That of eq. 12, in [0, 1).
    iteration : int
        Iteration of the checkpoint from which the run goes on; 0 starts an empty bank.
    worker : int
        Number of this worker among those that share the folder; 0 sets the bank up.
    threads : int, optional
        How many share the people of a batch; by default as many as the process computes with.

    Raises
    ------
    LatseError
        If a file is missing, has another shape, or cannot be written (the disk space is taken at the start).
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        classes: int,
        shape: tuple[int, ...],
        momentum: float,
        iteration: int,
        worker: int = 0,
        threads: int | None = None,
    ) -> None:
        self._folder, self._classes, self._worker = make_folder(folder), classes, worker
        threads, pixels = threads or usual_threads(), int(np.prod(shape))
        self._mixers = [_Mixer(pixels, np.float32(momentum)) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)
        opener = _create if worker == 0 and iteration == 0 else _open
        self._faces = opener(self._folder / FACES, (classes, *shape), np.float16)
        self._started = opener(self._folder / STARTED, (classes,), np.bool_)
        if worker == 0:
            self._undo(iteration)
            with explained(f"cannot write {self._folder / TOUCHED}"):
                (self._folder / TOUCHED).write_bytes(b"")
                os.truncate(self._folder / TOUCHED, 8 * classes)  # int64 a person, all 0
            undo.remove(self._folder, iteration)
        self._touched = RowFile(self._folder / TOUCHED, 8)
        self._begin_journal(iteration)

    def update(self, images: np.ndarray, labels: np.ndarray, teaches: np.ndarray) -> np.ndarray:
        """Move the means by a batch and return the decoder's targets.

        Parameters
        ----------
        images : uint8 array (B, 3, H, W)
            RGB, mirrored or not.
        labels : array (B,)
            Whole numbers in 0..classes-1.
        teaches : bool array (B,)
            Which images move the mean of their label; the first of a label starts it.

        Returns
        -------
        float32 array (B, 3, H, W)
            The mean of each image's label after the whole batch, in [-1, 1]; the image itself where its label
            has no mean yet.

        Raises
        ------
        LatseError
            For a label out of range, files that cannot be read or written, or a row that a worker which died
            has left half written.
        """
        labels = labels.astype(np.int64)
        for label in labels[(labels < 0) | (labels >= self._classes)]:
            raise LatseError(f"{self._faces.path} has no person {label}, only 0 to {self._classes - 1}")
        targets = np.empty(images.shape, np.float32)
        if not len(labels):
            return targets
        batch = images.reshape(len(images), 1, -1), teaches, targets.reshape(len(images), 1, -1)
        shares = _shares(labels, len(self._mixers))
        if len(shares) == 1:
            self._update(self._mixers[0], shares[0], *batch)
        else:
            jobs = [self._pool.submit(self._update, *part, *batch) for part in zip(self._mixers, shares)]
            for job in jobs:
                job.result()
        return targets

    def flush(self) -> None:
        """Bring the files to disk, as a checkpoint needs it before it is written."""
        self._faces.flush()
        self._started.flush()

    def checkpoint(self, iteration: int) -> None:
        """Take the checkpoint of `iteration`, which has been written, as the state to go back to.

        The way back to the checkpoint before it stays open, should this one turn out to be damaged.
        """
        self._journal.remove_older()
        self._journal.close()
        self._begin_journal(iteration)

    def close(self) -> None:
        """Flush and close the files; the journals stay, by which a run can go back that is to go on."""
        self.flush()
        self._journal.close()
        for file in (self._faces, self._started, self._touched):
            file.close()
        self._pool.shutdown()
        if self._worker == 0:
            (self._folder / TOUCHED).unlink()

    def _update(
        self, mixer: _Mixer, people: _People, images: np.ndarray, teaches: np.ndarray, targets: np.ndarray
    ) -> None:
        """Do some people's part of `update`; images and targets are (B, 1, pixels)."""
        for label, mine in people:
            if self._move(mixer, label, images[mine[teaches[mine]]]):
                mixer.widen(targets[mine[0]])
                targets[mine[1:]] = targets[mine[0]]
            else:
                for number in mine:
                    mixer.scale(images[number], targets[number])

    def _move(self, mixer: _Mixer, label: int, images: np.ndarray) -> bool:
        """Move a person's mean by some images and leave it in the mixer; return whether there is one."""
        with self._touched.locked(label):
            started = self._has_mean(label)
            if started:
                self._faces.read(label, mixer.mean)
            if len(images):
                self._note(mixer, label, started)
                for number, image in enumerate(images):
                    mixer.mix(image, started or number > 0)
                self._started.write(label, BEING_WRITTEN)
                self._faces.write(label, mixer.mean)
                self._started.write(label, WHOLE)
        return started or len(images) > 0

    def _has_mean(self, label: int) -> bool:
        state = np.empty(1, np.uint8)
        self._started.read(label, state)
        if state.tobytes() == BEING_WRITTEN:
            raise LatseError(
                f"{self._faces.path}: the mean of person {label} is half written by a process that died; "
                "start all workers again from the last checkpoint"
            )
        return bool(state[0])

    def _note(self, mixer: _Mixer, label: int, started: bool) -> None:
        """Put a row's content, which is in the mixer, into the journal if no worker has done so before."""
        stamp = np.empty(1, np.int64)
        self._touched.read(label, stamp)
        if stamp[0] != self._stamp:
            if not started:
                mixer.mean[:] = 0
            self._journal.append(label, started, mixer.mean)
            self._touched.write(label, np.full(1, self._stamp))

    def _undo(self, iteration: int) -> None:
        """Put the old contents back; say how many rows that have changed are in no journal."""
        face, noted = self._mixers[0].mean, set()
        for label, started in undo.noted(self._folder, iteration, face):
            self._faces.write(label, face)
            self._started.write(label, started)
            noted.add(label)
        lost = {*self._changed_since(iteration)} - noted
        if lost:
            newer = f"the means of {len(lost)} people are newer than the checkpoint of iteration {iteration}"
            print(f"latse: {self._folder}: a journal of the mean faces is cut: {newer}", file=sys.stderr)

    def _changed_since(self, iteration: int) -> list[int]:
        """Return whose rows have changed since a checkpoint, of a bank that was not closed."""
        path = self._folder / TOUCHED
        if not iteration or not path.is_file():  # a new bank is empty, whatever is left of an older one
            return []
        with explained(f"cannot read {path}"):
            return np.flatnonzero(np.fromfile(path, np.int64) > iteration).tolist()

    def _begin_journal(self, iteration: int) -> None:
        face_bytes = self._mixers[0].mean.nbytes
        self._journal = undo.UndoJournal(self._folder, iteration, self._worker, face_bytes)
        self._stamp = np.int64(iteration + 1)  # 0: never touched


class _Mixer:
    """The arithmetic of eq. 12 on one face at a time, whose arrays stay in the processor's cache.

    OpenCV converts float16 to and from float32 by the processor's own instruction, to the same bits as numpy
    but over ten times as fast.
    """

    def __init__(self, pixels: int, momentum: np.float32) -> None:
        self.mean = np.zeros((1, pixels), np.int16)  # the bits of float16, as OpenCV wants them
        self._kept, self._added = momentum, np.float32(1 - momentum)
        self._image, self._old = np.empty((2, 1, pixels), np.float32)

    def mix(self, image: np.ndarray, started: bool) -> None:
        """Move `mean` by a uint8 image (1, pixels), or start it."""
        self.scale(image, self._image)
        if started:
            self.widen(self._old)
            self._old *= self._kept
            self._image *= self._added
            self._image += self._old
        cv2.convertFp16(self._image, self.mean)

    def widen(self, out: np.ndarray) -> None:
        """Write `mean` to a float32 array (1, pixels)."""
        cv2.convertFp16(self.mean, out)

    @staticmethod
    def scale(image: np.ndarray, out: np.ndarray) -> None:
        """Write a uint8 image to a float32 array, 0..255 as -1..1."""
        np.divide(image, np.float32(127.5), out=out, dtype=np.float32)
        out -= np.float32(1)


def remove_traces(folder: Path) -> None:
    """Remove what a finished run needs no more: the journals, and the table of a bank left unclosed."""
    undo.remove(folder)
    (folder / TOUCHED).unlink(missing_ok=True)


def _shares(labels: np.ndarray, count: int) -> list[_People]:
    """Split a batch's people into up to `count` shares: each label with the places where it is, in order."""
    order = np.argsort(labels, kind="stable")
    places = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    people = [(int(labels[mine[0]]), mine) for mine in places]
    return [people[first::count] for first in range(min(count, len(people)))]


def _create(path: Path, shape: tuple[int, ...], dtype: type) -> RowFile:
    """Make a file of zeros, for which the space is taken now: a full disk is better known at the start."""
    with explained(f"cannot write {path}"):
        array = np.lib.format.open_memmap(path, "w+", dtype, shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return RowFile(path, array[:1].nbytes, array.offset)


def _open(path: Path, shape: tuple[int, ...], dtype: type) -> RowFile:
    """Open a file that must be there, whole and of that shape."""
    try:
        array = np.lib.format.open_memmap(path, "r")  # refuses a file whose end is cut off
    except (OSError, ValueError) as error:
        raise LatseError(f"cannot read {path}, without which the run cannot go on: {error}") from error
    if array.shape != shape or array.dtype != dtype:
        raise LatseError(f"{path} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    return RowFile(path, array[:1].nbytes, array.offset)
