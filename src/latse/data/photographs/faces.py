"""Many photographs to faces, by several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, Sequence

import cv2
import numpy as np

from latse.data.images import decode
from latse.data.photographs import align
from latse.data.workers import in_order
from latse.errors import LatseError

AT_ONCE = 16  # photographs that a process gets; each time it loads the detector, which takes as long as one


def align_files(files: Sequence[Path], processes: int = 1) -> Iterator[np.ndarray | LatseError]:
    """Iterate the aligned face of each photograph, uint8 (112, 112, 3) RGB, or else what is wrong with it.

    The faces do not depend on the number of processes. Raises LatseError if a process dies.
    """
    parts = [(files[start : start + AT_ONCE],) for start in range(0, len(files), AT_ONCE)]
    if parts:
        for faces in in_order(_aligned, parts, min(processes, len(parts)), files[0].parent):
            yield from faces


def _aligned(files: Sequence[Path]) -> list[np.ndarray | LatseError]:
    cv2.setNumThreads(1)  # the processes are the parallelism
    aligner = align.Aligner()
    return [_face(aligner, file) for file in files]


def _face(aligner: align.Aligner, file: Path) -> np.ndarray | LatseError:
    try:
        return aligner.align_file(file)
    except LatseError as error:
        return error


def open_faces(files: Sequence[Path], detect: bool, processes: int = 1) -> Iterator[np.ndarray | LatseError]:
    """Iterate the face of each file, uint8 (112, 112, 3) RGB, or else what is wrong with it.

    With `detect` they are photographs, as for `align_files`, else aligned faces, as for `read_aligned`.
    """
    return align_files(files, processes) if detect else map(_pixels, files)


def _pixels(file: Path) -> np.ndarray | LatseError:
    try:
        return read_aligned(file)[1]
    except LatseError as error:
        return error


def read_aligned(file: Path, advice: str = "add --align") -> tuple[bytes, np.ndarray]:
    """Read a face that is aligned already: its bytes, and its pixels, uint8 (112, 112, 3) RGB.

    Raises LatseError, which ends with the `advice`, if the file is no JPEG or PNG of 112x112 pixels.
    """
    with align.naming(file):
        content = align.read_photograph(file)
    try:
        return content, decode(content, str(file), (align.SIZE, align.SIZE))
    except LatseError as error:
        taken = "only aligned JPEG or PNG faces are taken as they are"
        raise LatseError(f"{error}: {taken}: {advice}") from error
