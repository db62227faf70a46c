"""Rows of an array in a file that several processes share."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path
from typing import Iterator

import numpy as np

from latse.errors import LatseError
from latse.files import explained

OFD_SETLKW = 38  # F_OFD_SETLKW of Linux, which Python names since 3.9


class RowFile:
    """The rows of an array in a file, each read and written whole by a system call.

    Compared with a mapping: pages of the file never count to this process, a full disk is an error instead of
    a SIGBUS, and row after row costs no page faults.

    Parameters
    ----------
    path : Path
        An existing file.
    row_bytes : int
        Bytes of a row.
    offset : int
        Where row 0 begins.
    """

    _handle = -1  # closed

    def __init__(self, path: Path, row_bytes: int, offset: int = 0) -> None:
        self.path, self._row_bytes, self._offset = path, row_bytes, offset
        with explained(f"cannot open {path}"):
            self._handle = os.open(path, os.O_RDWR)

    def read(self, row: int, buffer: np.ndarray) -> None:
        """Fill `buffer`, C-contiguous and of a row's size, with a row; LatseError if that is impossible."""
        try:
            read = os.preadv(self._handle, [buffer], self._offset + row * self._row_bytes)
        except OSError as error:
            raise LatseError(f"cannot read {self.path}: {error.strerror}") from error
        if read != self._row_bytes:
            raise LatseError(f"{self.path} is damaged: it ends in row {row}")

    def write(self, row: int, content: bytes | np.ndarray) -> None:
        """Write a row, of any size up to a row's; LatseError if a part could not be written."""
        rest, offset = memoryview(content).cast("B"), self._offset + row * self._row_bytes
        try:
            while rest:
                written = os.pwrite(self._handle, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            raise LatseError(f"cannot write {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def locked(self, row: int) -> Iterator[None]:
        """Keep other processes that ask for the same out of a row.

        The lock belongs to the open file, not to the process as POSIX's own would: then the kernel does not
        take threads that hold different rows for a deadlock, in which it refuses to wait. It ends when the
        file is closed, thus with the process, however that ends.
        """
        self._lock(fcntl.F_WRLCK, row)
        try:
            yield
        finally:
            self._lock(fcntl.F_UNLCK, row)

    def _lock(self, kind: int, row: int) -> None:
        start = self._offset + row * self._row_bytes
        request = struct.pack("hhqqi0q", kind, os.SEEK_SET, start, self._row_bytes, 0)  # Linux's struct flock
        try:
            fcntl.fcntl(self._handle, OFD_SETLKW, request)
        except OSError as error:
            raise LatseError(f"cannot lock {self.path}: {error.strerror}") from error

    def flush(self) -> None:
        """Bring what has been written to disk; LatseError if that is impossible."""
        with explained(f"cannot write {self.path}"):
            os.fdatasync(self._handle)

    def close(self) -> None:
        """Close the file; it may be closed already."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    __del__ = close
