"""Files of the MegaFace development kit: features, lists of images, insightface's lists of noisy entries.

A feature file is a matrix of OpenCV: four int32, little-endian, rows, columns, bytes of an element (4) and
its type (5: CV_32FC1), then rows x columns float32. It lies below its folder under the image's path with an
ending behind it, such as `_r100.bin`. A list is JSON: `path`, the images' paths, and, of probes, `id`, their
people.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Sequence

import numpy as np
from tqdm import tqdm

from latse.errors import LatseError
from latse.eval.identification import Gallery
from latse.files import SPACE, explained, make_folder, read_json, read_lines, write_json
from latse.form import TEXT, Maybe, Rows, check

ELEMENT_BYTES, ELEMENT_TYPE = 4, 5
HEADER = np.dtype("<i4")
ROWS_AT_ONCE = 1024
# How many last parts of a path the published lists of noisy entries name.
PROBE_PARTS, DISTRACTOR_PARTS = 1, 3
FORM = {"path": Rows(TEXT, 1), "id?": Maybe(Rows(TEXT))}  # of a list


class ImageList(NamedTuple):
    """Images as a list of the kit names them.

    paths : list of n paths, relative to a folder; people : list of n names, None where the list has no `id`.
    """

    paths: list[str]
    people: list[str] | None


class Refined(NamedTuple):
    """A list of images and which of them are no noise.

    listed : all images; kept : int64 (n,), ascending positions of those that stay; left_out : how many do
    not, None if no list of noisy entries was given.
    """

    listed: ImageList
    kept: np.ndarray
    left_out: int | None

    @property
    def images(self) -> ImageList:
        """Return the images that stay."""
        people, kept = self.listed.people, self.kept.tolist()
        return ImageList(
            [self.listed.paths[number] for number in kept],
            None if people is None else [people[number] for number in kept],
        )


class FeatureFiles:
    """The feature files of images, whose paths start from `folder`, read as they are asked for.

    `ending` stands behind the image's whole name.
    """

    def __init__(self, folder: str | os.PathLike, paths: Sequence[str], ending: str):
        self.folder, self.paths, self.ending = Path(folder), paths, ending

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """Return float32 (n, d); raise LatseError if a file is missing or damaged, or has another length."""
        numbers = np.arange(len(self))[positions]
        features = [read_feature(self._file(number)) for number in numbers]
        for number, feature in zip(numbers, features):
            if len(feature) != len(features[0]):
                raise LatseError(
                    f"{self._file(number)} holds {len(feature)} values, others {len(features[0])}"
                )
        return np.stack(features)

    def called(self, number: int) -> str:
        """Return what the sentence of an error calls the feature of an image."""
        return f"the feature {self._file(number)}"

    def _file(self, number: int) -> Path:
        return self.folder / (self.paths[number] + self.ending)


def read_feature(path: str | os.PathLike) -> np.ndarray:
    """Read a feature file: float32 (d,); raise LatseError if it is missing or damaged."""
    with explained(f"cannot read {path}"):
        content = Path(path).read_bytes()
    if len(content) < 4 * HEADER.itemsize:
        raise LatseError(f"{path} is no feature file: it ends within its header")
    rows, columns, size, kind = np.frombuffer(content, HEADER, 4).tolist()
    if min(rows, columns) != 1 or (size, kind) != (ELEMENT_BYTES, ELEMENT_TYPE):
        raise LatseError(f"{path} is no feature file: its header is {rows} {columns} {size} {kind}")
    values = content[4 * HEADER.itemsize :]
    if len(values) != ELEMENT_BYTES * rows * columns:
        raise LatseError(f"{path} holds {len(values)} bytes instead of {rows * columns} float32")
    return np.frombuffer(values, "<f4").astype(np.float32, copy=False)


def write_features(
    folder: str | os.PathLike, images: ImageList, features: Gallery, ending: str, list_file: str | os.PathLike
) -> None:
    """Write features, float (n, d), as the kit reads them, and in the end the list that names them.

    Features are asked for by slices: they need not be in memory. The files are written as they come, and the
    list after them, whole: without it a folder is unfinished. Raises LatseError if that is impossible.
    """
    if len(images.paths) != len(features):
        raise LatseError(f"{len(features)} features do not fit {len(images.paths)} images")
    for parent in {str(PurePosixPath(path).parent) for path in images.paths}:
        make_folder(Path(folder) / parent)
    blocks = (features[start : start + ROWS_AT_ONCE] for start in range(0, len(features), ROWS_AT_ONCE))
    rows = (row for block in blocks for row in block)
    for path, row in zip(tqdm(images.paths, desc="writing features", leave=False, delay=1), rows):
        header = np.array([len(row), 1, ELEMENT_BYTES, ELEMENT_TYPE], HEADER).tobytes()
        file = Path(folder) / (path + ending)
        with explained(f"cannot write {file}"):
            file.write_bytes(header + row.astype("<f4").tobytes())
    people = {} if images.people is None else {"id": list(images.people)}
    write_json(list_file, {**people, "path": list(images.paths)})


def read_image_list(path: str | os.PathLike) -> ImageList:
    """Read a list of the kit.

    Raises LatseError if it is missing or no such list, names a path twice, or one that leads out of the
    folder that it starts from.
    """
    content = read_json(path)
    check(path, content, FORM)
    paths, people = content["path"], content.get("id")
    if people is not None and len(people) != len(paths):
        raise LatseError(f"{path}: id has {len(people)} names, path has {len(paths)}: must be as many")
    entry, count = Counter(paths).most_common(1)[0]
    if count > 1:
        raise LatseError(f"{path} names {entry} twice")
    for entry in paths:
        if entry.startswith("/") or ".." in entry.split("/"):
            raise LatseError(f"{path}: the path {entry} leads out of its folder")
    return ImageList(paths, people)


def read_refined(list_file: str | os.PathLike, noise_file: str | os.PathLike | None, parts: int) -> Refined:
    """Read a list of the kit and, if `noise_file` is not None, which of its entries are noise.

    `parts` is that of `noiseless`. Raises LatseError as `read_image_list`, `read_noise` and `noiseless` do.
    """
    listed = read_image_list(list_file)
    if noise_file is None:
        return Refined(listed, np.arange(len(listed.paths)), None)
    kept = noiseless(listed, read_noise(noise_file), parts)
    return Refined(listed, kept, len(listed.paths) - len(kept))


def people_of(images: ImageList) -> list[str]:
    """Return the person of each image: its `id`, or the folder that it lies in."""
    if images.people is not None:
        return images.people
    return [PurePosixPath(path).parent.name for path in images.paths]


def read_noise(path: str | os.PathLike) -> set[str]:
    """Read a list of noisy entries as insightface publishes them: one in a line, behind the last tab.

    Lines with `#` in front are comments. Raises LatseError if the file cannot be read or names nothing.
    """
    lines = (line for _, line in read_lines(path))
    noise = {line.split("\t")[-1].strip(SPACE) for line in lines if not line.startswith("#")}
    if not noise:
        raise LatseError(f"{path} names no noisy entry: it must have one in a line")
    return noise


def noiseless(images: ImageList, noise: set[str], parts: int) -> np.ndarray:
    """Find the images whose path does not end, in its last `parts` parts, in an entry of `read_noise`.

    `parts` is `PROBE_PARTS` for FaceScrub (the file's name), `DISTRACTOR_PARTS` for MegaFace. Returns their
    positions, int64 (m,), ascending. Raises LatseError if no image is noise, so that the list is another
    set's, or all are.
    """
    ends = ("/".join(PurePosixPath(path).parts[-parts:]) for path in images.paths)
    kept = np.flatnonzero([end not in noise for end in ends])
    if len(kept) == len(images.paths):
        raise LatseError(f"none of {len(noise)} noisy entries is among {len(images.paths)} images")
    if not len(kept):
        raise LatseError(f"all {len(images.paths)} images are noisy entries")
    return kept
