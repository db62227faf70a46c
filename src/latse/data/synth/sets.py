"""Data sets of synthetic people: one to train on, four of verification pairs, one for identification.

Processes draw the pictures into a spool, chunk by chunk, from where the sets are written at the end; what a
killed process has left there is not drawn again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from latse.data import workers
from latse.data.images import decode, encode
from latse.data.pairs.pairs import people_path, read_encoded, write_pairs, write_people
from latse.data.photographs import align
from latse.data.shards.recordio import set_files
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import ShardWriter
from latse.data.shards.staging import refuse_set, staged, writing_into
from latse.data.synth import heads
from latse.data.synth.people import draw_person, draw_view
from latse.data.synth.plan import (
    IDENTIFICATION,
    VERIFICATION,
    Group,
    Shot,
    SynthSettings,
    check,
    groups,
    ring_pairs,
)
from latse.data.synth.render import Photo, render
from latse.errors import LatseError
from latse.files import digest, locked, make_folder, read_json, replacing, write_json

MANIFEST = "synth.json"
ADVICE = "the same command goes on, with fewer --processes if memory was short"
FOLDER = "identification"
SPOOL = ".synth"  # in the folder of the set
REDRAWN = 2**20  # the picture `image` whose face is not found is drawn again as `image + REDRAWN`, …
ATTEMPTS = 100  # … and so on, so often at most

# (seed, person, image, shot) -> picture
Photographer = Callable[[int, int, int, Shot], Photo]


class Made(NamedTuple):
    """What was drawn: pictures, seconds of the clock, and of the processors of all processes."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Pictures in a second of one processor; 0 if none was drawn."""
        return self.images / self.cpu_seconds if self.cpu_seconds else 0.0


class Task(NamedTuple):
    """To draw people `first` to `last` (exclusive, counted within the group) into a file of the spool."""

    group: Group
    first: int
    last: int
    file: Path

    @property
    def images(self) -> int:
        """How many pictures that are."""
        return (self.last - self.first) * len(self.group.shots)


def draw_picture(seed: int, person: int, image: int, shot: Shot) -> Photo:
    """Draw the picture `image` of a person of the population `seed`; raises LatseError without the heads."""
    age = None
    if shot.ages is not None:
        age = float(np.random.default_rng([seed, person, image, 2**16]).uniform(*shot.ages))
    return render(_heads(), draw_person(seed, person), draw_view(seed, person, image, shot.kind, age))


def make(
    out: str | os.PathLike,
    settings: SynthSettings,
    processes: int = 1,
    photographer: Photographer = draw_picture,
) -> Optional[Made]:
    """Make the data sets of `settings` in the folder `out`.

    train.rec, train.idx, property; plain.bin, frontal-profile.bin, cross-age.bin, cross-pose.bin, each with
    its .people.npy; the data sets identification/probes and identification/distractors; the manifest
    synth.json. Their bytes depend neither on `processes` nor on interruptions.

    Parameters
    ----------
    out : path
        Made if it does not exist.
    settings : SynthSettings
        What is made.
    processes : int
        At least 1.
    photographer : function
        Of a module; what draws a picture.

    Returns
    -------
    Made or None
        None if the folder already holds what these settings make; then nothing is done.

    Raises
    ------
    LatseError
        If a setting is out of range, the heads cannot be fetched, `out` holds another data set or cannot be
        written, a process dies, or a face that is to be detected is not found in 100 pictures.
    """
    check(settings)
    if processes < 1:
        raise LatseError(f"processes: {processes} is below 1")
    out = Path(out)
    if _is_made(out, settings):
        _remove_spool(out)
        return None
    if _settings_of(out) != settings._asdict():
        refuse_set(out)
    with staged(out) as stage:
        spool = _open_spool(out / SPOOL, settings)
        made = _draw(settings, spool, processes, photographer)
        _write(out, stage, settings, spool)
    _remove_spool(out)
    return made


def sheet_of_sets(out: str | os.PathLike, people: int = 8, images: int = 10) -> np.ndarray:
    """Show the sets of a folder: uint8 (height, width, 3) RGB.

    A row for each of the first `people` people to train on, up to `images` pictures each; then for each
    verification set a row of same pairs and a row of different ones.

    Raises LatseError if a set cannot be read.
    """
    out = Path(out)
    shard = Shard(out)
    rows = [
        [shard.read(position)[0] for position in np.flatnonzero(shard.labels == label)[:images]]
        for label in range(min(people, shard.classes))
    ]
    for path in (out / f"{name}.bin" for name in VERIFICATION):
        if path.exists():
            rows += _some_pairs(path, images // 2)
    images = max(map(len, rows))
    sheet = np.full((len(rows), images, align.SIZE, align.SIZE, 3), 255, np.uint8)
    for row, faces in zip(sheet, rows):
        row[: len(faces)] = faces
    return sheet.transpose(0, 2, 1, 3, 4).reshape(len(rows) * align.SIZE, images * align.SIZE, 3)


def drawing_versions() -> Dict[str, str]:
    """Return the versions of what draws; a digest stands for the code beside this module."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    own = {"heads": heads.FILE, "renderer": hashlib.blake2b(code, digest_size=16).hexdigest()}
    packages = ("latse", "numpy", "scipy", "opencv-python", "scikit-image")
    return {**own, **{package: importlib.metadata.version(package) for package in packages}}


def _some_pairs(path: Path, count: int) -> List[List[np.ndarray]]:
    """The faces of `count` same pairs, and those of as many different ones, evenly over the file."""
    encoded, pairs, issame = read_encoded(path)
    rows = []
    for places in (np.flatnonzero(issame), np.flatnonzero(~issame)):
        chosen = pairs[places[np.linspace(0, len(places) - 1, count).astype(int)]].ravel()
        faces = (np.frombuffer(encoded[number], np.uint8) for number in chosen)
        rows.append([decode(face, str(path), (align.SIZE, align.SIZE)) for face in faces])
    return rows


@functools.lru_cache(maxsize=1)
def _heads() -> heads.Heads:
    return heads.load()


def _draw(settings: SynthSettings, spool: Path, processes: int, photographer: Photographer) -> Made:
    """Draw what the spool lacks."""
    tasks = [task for group in groups(settings).values() for task in _tasks(group, spool)]
    missing = [task for task in tasks if not task.file.exists()]
    if missing and photographer is draw_picture:
        heads.load()  # fetched here and not by each process
    started, cpu_seconds = time.monotonic(), 0.0
    total, left = (sum(task.images for task in some) for some in (tasks, missing))
    arguments = (photographer, settings.seed, settings.detect, settings.quality)
    with tqdm(total=total, initial=total - left, desc="draw", unit="image", smoothing=0.05) as bar:
        for told, content in workers.run(_drawing, arguments, missing, processes, ADVICE):
            bar.update(told == workers.AT)
            cpu_seconds += content if told == workers.DONE else 0
    return Made(left, time.monotonic() - started, cpu_seconds)


def _drawing(photographer: Photographer, seed: int, detect: bool, quality: int) -> Callable:
    """What a process does with a task; it returns the processor's seconds."""
    cv2.setNumThreads(1)
    threadpool_limits(1)  # the order of additions, so the last bit, may depend on the number of threads
    aligner = align.Aligner() if detect else None

    def draw(task: Task, at: Callable[[str], Any]) -> float:
        started, encoded, redrawn = time.process_time(), [], 0
        for person in range(task.group.first + task.first, task.group.first + task.last):
            for image, shot in enumerate(task.group.shots):
                at(f"picture {image} of person {person}")
                numbers = range(image, image + ATTEMPTS * REDRAWN, REDRAWN)
                pictures = (photographer(seed, person, number, shot) for number in numbers)
                again, face = _first_aligned(pictures, aligner, f"person {person} ({shot.kind})")
                encoded.append(encode(face, quality))
                redrawn += again
        with replacing(task.file) as temporary, temporary.open("wb") as file:
            content = np.frombuffer(b"".join(encoded), np.uint8)
            np.savez(file, content=content, lengths=[len(picture) for picture in encoded], redrawn=redrawn)
        return time.process_time() - started

    return draw


def _first_aligned(
    pictures: Iterator[Photo], aligner: Optional[align.Aligner], name: str
) -> Tuple[int, np.ndarray]:
    """Number and aligned face of the first picture whose face is found; without `aligner`, of the first."""
    for number, (image, points) in enumerate(pictures):
        if aligner is None:
            return number, align.warp(image, points)
        try:
            return number, aligner.cut_out(image).image
        except align.NoFaceError:
            continue
    raise LatseError(f"the detector finds no face in {ATTEMPTS} pictures of {name}")


def _open_spool(spool: Path, settings: SynthSettings) -> Path:
    """Make the spool, or go on with that of a killed process if the same was made with the same versions."""
    origin = {"settings": settings._asdict(), "versions": drawing_versions()}
    try:
        usable = read_json(spool / MANIFEST) == origin
    except LatseError:
        usable = False
    if not usable:
        if spool.is_dir():
            shutil.rmtree(spool)
        write_json(make_folder(spool) / MANIFEST, origin)
    return spool


def _remove_spool(out: Path) -> None:
    if (out / SPOOL).is_dir():  # also that of a process that was killed at the very end
        with locked(out):
            shutil.rmtree(out / SPOOL)


def _tasks(group: Group, spool: Path) -> Iterator[Task]:
    # Small sets for many processes, large sets in few files; a kill costs each process one of them.
    images = min(1024, max(16, group.images // 1024))
    step = max(1, images // len(group.shots))
    for first in range(0, group.people, step):
        yield Task(group, first, min(first + step, group.people), spool / f"{group.name}-{first:08d}.npz")


def _spooled(group: Group, spool: Path) -> Iterator[Tuple[int, bytes]]:
    """(label: position of the person in the group, encoded picture), in order."""
    for task in _tasks(group, spool):
        chunk = _read(task.file)
        pictures = np.split(chunk["content"], np.cumsum(chunk["lengths"])[:-1])
        for number, picture in enumerate(pictures):
            yield task.first + number // len(group.shots), picture.tobytes()


def _redrawn(group: Group, spool: Path) -> int:
    """How many pictures of a group were drawn and left out, because no face was found in them."""
    return sum(int(_read(task.file)["redrawn"]) for task in _tasks(group, spool))


def _read(chunk: Path) -> Dict[str, np.ndarray]:
    try:
        with np.load(chunk) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise LatseError(f"{chunk} is damaged: remove it and the same command draws it again") from error


def _write(out: Path, stage: Path, settings: SynthSettings, spool: Path) -> None:
    """Write all files: those of `out` itself into the stage, those below it where they belong."""
    plan = groups(settings)
    _write_shard(stage, plan["train"], spool, settings.shards)
    verification = [plan[name] for name in VERIFICATION if name in plan]
    pairs = {group.name: _write_pairs(stage, group, spool, settings.seed) for group in verification}
    files = {path.name: path for path in sorted(stage.iterdir())}
    _remove_older(out)
    for group in (plan[name] for name in IDENTIFICATION if name in plan):
        with staged(out / FOLDER / group.name) as below:
            _write_shard(below, group, spool)
        for name in ("property", "train.idx", "train.rec"):
            files[f"{FOLDER}/{group.name}/{name}"] = out / FOLDER / group.name / name
    manifest = {
        "settings": settings._asdict(),
        "people": {name: [group.first, group.first + group.people] for name, group in plan.items()},
        "images": {name: group.images for name, group in plan.items()},
        "redrawn": {name: _redrawn(group, spool) for name, group in plan.items()},
        "pairs": pairs,
        "bytes": {name: path.stat().st_size for name, path in files.items()},
        "digests": {name: digest(path) for name, path in files.items()},
        "versions": drawing_versions(),
    }
    write_json(stage / MANIFEST, manifest)


def _remove_older(out: Path) -> None:
    """Remove an earlier set in the same folder, so that a kill leaves no mixture of the two.

    `property` goes first, for without it nothing counts as made, and the manifest last, for it says that the
    rest is ours to remove.
    """
    if not (out / MANIFEST).exists():
        return
    pairs = [out / f"{name}.bin" for name in VERIFICATION]
    with writing_into(out):
        (out / "property").unlink(missing_ok=True)
        for folder in (out / FOLDER / name for name in IDENTIFICATION):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (*set_files(out), *pairs, *map(people_path, pairs), out / MANIFEST):
            path.unlink(missing_ok=True)


def _write_shard(stage: Path, group: Group, spool: Path, shards: int = 1) -> None:
    with ShardWriter(stage, group.people, shards=shards, images=group.images) as writer:
        pictures = tqdm(_spooled(group, spool), f"write {group.name}", group.images, unit="image", delay=1)
        for label, encoded in pictures:
            writer.add(label, encoded)


def _write_pairs(stage: Path, group: Group, spool: Path, seed: int) -> int:
    """Write the pairs of a group and return how many they are."""
    pictures = [encoded for _, encoded in _spooled(group, spool)]
    pairs, issame = ring_pairs(group.people, np.random.default_rng([seed, group.first]))
    write_pairs(stage / f"{group.name}.bin", [pictures[number] for number in pairs.ravel()], issame)
    write_people(stage / f"{group.name}.bin", group.first + pairs // len(group.shots))
    return len(issame)


def _settings_of(out: Path) -> dict | None:
    """Settings of the set in a folder, as its manifest has them."""
    try:
        return read_json(out / MANIFEST)["settings"]
    except (LatseError, KeyError, TypeError):
        return None  # nothing there, or not what this module writes


def _is_made(out: Path, settings: SynthSettings) -> bool:
    try:
        manifest = read_json(out / MANIFEST)
        sizes = {name: (out / name).stat().st_size for name in manifest["bytes"]}
        return manifest["settings"] == settings._asdict() and manifest["bytes"] == sizes
    except (LatseError, OSError, KeyError, TypeError):
        return False  # nothing there, or not what this module writes: it is made anew
