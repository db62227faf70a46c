"""The bank of momentum-mean faces (eq. 12) that the decoder must restore."""

from __future__ import annotations

import os

import numpy as np

from latse.errors import LatseError
from latse.files import make_folder

FACES, STARTED, JOURNAL = "mean_faces.npy", "mean_faces_started.npy", "mean_faces.undo-{:08d}"


class MeanFaceBank:
    """One float16 mean face a person in a memory-mapped .npy file; a batch touches only its own rows.

    The file runs ahead of the last checkpoint. So that a run killed at any moment resumes to the same bits,
    a row's old content is appended to a journal before the row first changes after a checkpoint; opening the
    bank at that checkpoint puts the old contents back.

    Parameters
    ----------
    folder : path
        Where the files are: `mean_faces.npy` (classes, 3, 112, 112) float16 in [-1, 1], where -1 and 1
        stand for 0 and 255; `mean_faces_started.npy` (classes,) bool; and the journal.
    classes : int
        Number of people.
    shape : tuple of int
        (3, height, width) of a face.
    momentum : float
        That of eq. 12, in [0, 1).
    iteration : int
        Iteration of the checkpoint from which the run goes on; 0 starts an empty bank.

    Raises
    ------
    LatseError
        If a file is missing, has another shape, or cannot be written (the disk space is taken at the start).
    """

    def __init__(
        self, folder: str | os.PathLike, classes: int, shape: tuple[int, ...], momentum: float, iteration: int
    ) -> None:
        self._folder = make_folder(folder)
        self._momentum = np.float32(momentum)
        files = (FACES, (classes, *shape), np.float16), (STARTED, (classes,), np.bool_)
        opener = self._create if iteration == 0 else self._open
        self._faces, self._started = (opener(*file) for file in files)
        self._undo(iteration)
        self._begin_journal(iteration)

    def update(self, images: np.ndarray, labels: np.ndarray, teaches: np.ndarray) -> np.ndarray:
        """Move the means by a batch and return the decoder's targets.

        Parameters
        ----------
        images : uint8 array (B, 3, H, W)
            RGB as fed to the network, mirrored or not.
        labels : array (B,)
            Whole numbers in 0..classes-1.
        teaches : bool array (B,)
            Which images move the mean of their label; the first of a label starts it.

        Returns
        -------
        float32 array (B, 3, H, W)
            The mean of each image's label after the whole batch, in [-1, 1]; the image itself where its label
            has no mean yet.
        """
        labels = labels.astype(np.int64)
        targets = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
        for label in np.unique(labels):
            mine = labels == label
            for image in targets[mine & teaches]:
                self._move(label, image)
            if self._started[label]:
                targets[mine] = self._faces[label]
        return targets

    def flush(self) -> None:
        """Bring the files to disk, as a checkpoint needs it before it is written."""
        self._faces.flush()
        self._started.flush()

    def checkpoint(self, iteration: int) -> None:
        """Take the checkpoint of `iteration`, which has been written, as the state to go back to."""
        self._journal.close()
        self._journal_path.unlink()
        self._begin_journal(iteration)

    def close(self) -> None:
        """Flush and close the files; a finished run leaves no journal behind."""
        self.flush()
        self._journal.close()
        self._journal_path.unlink()

    def _move(self, label: int, image: np.ndarray) -> None:
        if label not in self._journalled:
            self._note(label)
        if self._started[label]:
            old = self._faces[label].astype(np.float32)
            image = (1 - self._momentum) * image + self._momentum * old
        self._faces[label] = image
        self._started[label] = True

    def _note(self, label: int) -> None:
        """Append a row's content to the journal, whole, before the row changes."""
        try:
            self._journal.write(np.int64(label).tobytes() + self._started[label].tobytes())
            self._journal.write(self._faces[label].tobytes())
            self._journal.flush()
        except OSError as error:
            raise LatseError(f"cannot write {self._journal_path}: {error.strerror}") from error
        self._journalled.add(label)

    def _undo(self, iteration: int) -> None:
        journal = self._folder / JOURNAL.format(iteration)
        row = self._faces[0].nbytes
        entry = 8 + 1 + row
        content = journal.read_bytes() if journal.exists() else b""
        for start in range(0, len(content) - entry + 1, entry):  # a torn last entry changed nothing yet
            label = int(np.frombuffer(content, np.int64, 1, start)[0])
            self._started[label] = content[start + 8] != 0
            face = np.frombuffer(content, np.float16, row // 2, start + 9)
            self._faces[label] = face.reshape(self._faces[label].shape)
        self.flush()
        for old in self._folder.glob(JOURNAL.split("{", 1)[0] + "*"):
            old.unlink()

    def _begin_journal(self, iteration: int) -> None:
        self._journal_path = self._folder / JOURNAL.format(iteration)
        try:
            self._journal = self._journal_path.open("wb")
        except OSError as error:
            raise LatseError(f"cannot write {self._journal_path}: {error.strerror}") from error
        self._journalled: set[int] = set()

    def _create(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        path = self._folder / name
        try:
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            with path.open("r+b") as file:  # a full disk is an error here, not a SIGBUS in mid-run
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise LatseError(f"cannot write {path}: {error.strerror}") from error
        return array

    def _open(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        path = self._folder / name
        try:
            np.lib.format.open_memmap(path, "r")  # unlike r+, refuses a file whose end is cut off
            array = np.lib.format.open_memmap(path, "r+")
        except (OSError, ValueError) as error:
            raise LatseError(f"cannot read {path}, without which the run cannot go on: {error}") from error
        if array.shape != shape or array.dtype != dtype:
            raise LatseError(f"{path} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
        return array
