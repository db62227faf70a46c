"""Data sets of synthetic people: one to train on, four of verification pairs, one for identification.

Processes draw the pictures into a spool, chunk by chunk, from where the sets are written at the end; what a
killed process has left there is not drawn again.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import importlib.metadata
import itertools
import os
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import cv2
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from latse.data import spool
from latse.data.images import decode, encode
from latse.data.pairs.pairs import people_path, read_encoded, refuse_pairs, write_pairs
from latse.data.photographs import align
from latse.data.shards.recordio import set_files
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import ShardWriter
from latse.data.shards.staging import is_made, refuse_set, staged, writing_into
from latse.data.synth import heads, plan
from latse.data.synth.arithmetic import same_everywhere
from latse.data.synth.people import View, draw_person, draw_view
from latse.data.synth.plan import IDENTIFICATION, VERIFICATION, Group, Shot, SynthSettings
from latse.data.synth.render import Photo, render
from latse.data.synth.sheet import grid
from latse.errors import LatseError, check_range
from latse.files import digest, locked, make_folder, read_object, write_json

MANIFEST = "synth.json"
ADVICE = "the same command goes on, with fewer --processes if memory was short"
FOLDER = "identification"
SPOOL = ".synth"  # in the folder of the set
REDRAWN = 2**20  # the picture `image` whose face is not found is drawn again as `image + REDRAWN`, …
ATTEMPTS = 100  # … and so on, so often at most

# (seed, person, image, shot) -> picture
Photographer = Callable[[int, int, int, Shot], Photo]
Chunks = Dict[str, List[spool.Chunk]]  # the files of the spool by the name of their group

all_heads = functools.lru_cache(maxsize=1)(heads.load)


class Made(NamedTuple):
    """What was drawn: pictures, seconds of the clock, and of the processors of all processes."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Pictures in a second of one processor; 0 if none was drawn."""
        return self.images / self.cpu_seconds if self.cpu_seconds else 0.0


def draw_picture(seed: int, person: int, image: int, shot: Shot) -> Photo:
    """Draw the picture `image` of a person of the population `seed`; raises LatseError without the heads."""
    return render(all_heads(), draw_person(seed, person), view_of(seed, person, image, shot))


def view_of(seed: int, person: int, image: int, shot: Shot) -> View:
    """Return how that picture is taken."""
    age = None
    if shot.ages is not None:
        age = float(np.random.default_rng([seed, person, image, 2**16]).uniform(*shot.ages))
    return draw_view(seed, person, image, shot.kind, age)


def make(
    out: str | os.PathLike,
    settings: SynthSettings,
    processes: int = 1,
    photographer: Photographer = draw_picture,
) -> Made | None:
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
    plan.check(settings)
    check_range("processes", processes, 1)
    out = Path(out)
    if is_made(out, MANIFEST, {"settings": settings._asdict()}):
        _remove_spool(out)
        return None
    if _manifest(out).get("settings") != settings._asdict():
        refuse_set(out)
    if not (out / MANIFEST).exists():
        for name in VERIFICATION:
            refuse_pairs(out / f"{name}.bin")
    with staged(out) as stage:
        chunks = _chunks(settings, _open_spool(out / SPOOL, settings))
        made = _draw(settings, chunks, processes, photographer)
        _write(out, stage, settings, chunks)
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
    return grid(rows)


def drawing_versions() -> dict[str, str]:
    """Return the versions of what draws; a digest stands for the code beside this module."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    own = {"heads": heads.FILE, "renderer": hashlib.blake2b(code, digest_size=16).hexdigest()}
    packages = ("latse", "numpy", "scipy", "opencv-python", "scikit-image")
    return {**own, **{package: importlib.metadata.version(package) for package in packages}}


def _some_pairs(path: Path, count: int) -> list[list[np.ndarray]]:
    """Return the faces of `count` same pairs, and those of as many different ones, evenly over the file."""
    encoded, pairs, issame = read_encoded(path)
    rows = []
    for places in (np.flatnonzero(issame), np.flatnonzero(~issame)):
        chosen = pairs[places[np.linspace(0, len(places) - 1, count).astype(int)]].ravel()
        faces = (np.frombuffer(encoded[number], np.uint8) for number in chosen)
        rows.append([decode(face, str(path), (align.SIZE, align.SIZE)) for face in faces])
    return rows


def _draw(settings: SynthSettings, chunks: Chunks, processes: int, photographer: Photographer) -> Made:
    """Draw what the spool lacks."""
    if photographer is draw_picture:
        heads.load()  # fetched here and not by each process
    started = time.monotonic()
    arguments = (photographer, settings.seed, settings.detect, settings.quality)
    with same_everywhere():
        drawn, seconds = spool.fill(sum(chunks.values(), []), _drawing, arguments, processes, ADVICE, "draw")
    return Made(drawn, time.monotonic() - started, seconds)


def _drawing(photographer: Photographer, seed: int, detect: bool, quality: int) -> Callable:
    """Return what fills a chunk, whose task is people first to last (exclusive) of a group, and its shots."""
    cv2.setNumThreads(1)
    threadpool_limits(1)  # the order of additions, so the last bit, may depend on the number of threads
    aligner = align.Aligner() if detect else None

    def draw(chunk: spool.Chunk, at: Callable[[str], Any]) -> None:
        made, (first, last, shots) = [], chunk.task
        for person, (image, shot) in itertools.product(range(first, last), enumerate(shots)):
            at(f"picture {image} of person {person}")
            numbers = range(image, image + ATTEMPTS * REDRAWN, REDRAWN)
            pictures = (photographer(seed, person, number, shot) for number in numbers)
            redrawn, face = _first_aligned(pictures, aligner, f"person {person} ({shot.kind})")
            encoded = encode(face, quality)
            made.append(([len(encoded), redrawn], encoded))
        chunk.write(made)

    return draw


def _first_aligned(
    pictures: Iterator[Photo], aligner: align.Aligner | None, name: str
) -> tuple[int, np.ndarray]:
    """Return number and aligned face of the first picture with a face; without `aligner`, of the first."""
    for number, (image, points) in enumerate(pictures):
        if aligner is None:
            return number, align.warp(image, points)
        try:
            return number, aligner.cut_out(image).image
        except align.NoFaceError:
            continue
    raise LatseError(f"the detector finds no face in {ATTEMPTS} pictures of {name}")


def _open_spool(folder: Path, settings: SynthSettings) -> Path:
    """Make the spool, or go on with that of a killed process if the same was made with the same versions."""
    origin = {"settings": settings._asdict(), "versions": drawing_versions()}
    if _manifest(folder) != origin:
        if folder.is_dir():
            shutil.rmtree(folder)
        write_json(make_folder(folder) / MANIFEST, origin)
    return folder


def _remove_spool(out: Path) -> None:
    if (out / SPOOL).is_dir():  # also that of a process that was killed at the very end
        with locked(out):
            shutil.rmtree(out / SPOOL)


def _chunks(settings: SynthSettings, folder: Path) -> Chunks:
    """Return the files of the spool; a person is never split."""
    chunks: Chunks = collections.defaultdict(list)
    for name, first, people, shots in plan.groups(settings).values():
        step = max(1, spool.step(people * len(shots)) // len(shots))
        for start in range(0, people, step):
            end = min(start + step, people)
            task = (first + start, first + end, shots)
            chunks[name].append(spool.Chunk(folder / f"{name}-{start:08d}", (end - start) * len(shots), task))
    return chunks


def _pictures(chunks: list[spool.Chunk]) -> Iterator[bytes]:
    """Return the encoded pictures of a group, person by person."""
    return (content for chunk in chunks for content in chunk.contents())


def _redrawn(chunks: list[spool.Chunk]) -> int:
    """Return how many pictures of a group were drawn and left out, because no face was found in them."""
    return sum(redrawn for chunk in chunks for _, redrawn in chunk.entries())


def _write(out: Path, stage: Path, settings: SynthSettings, chunks: Chunks) -> None:
    """Write all files: those of `out` itself into the stage, those below it where they belong."""
    groups = plan.groups(settings)
    _write_shard(stage, groups["train"], chunks, settings.shards)
    verification = [groups[name] for name in VERIFICATION if name in groups]
    pairs = {group.name: _write_pairs(stage, group, chunks, settings.seed) for group in verification}
    files = {path.name: path for path in sorted(stage.iterdir())}
    _remove_older(out)
    for group in (groups[name] for name in IDENTIFICATION if name in groups):
        with staged(out / FOLDER / group.name) as below:
            _write_shard(below, group, chunks)
        for name in ("property", "train.idx", "train.rec"):
            files[f"{FOLDER}/{group.name}/{name}"] = out / FOLDER / group.name / name
    manifest = {
        "settings": settings._asdict(),
        "people": {name: [group.first, group.first + group.people] for name, group in groups.items()},
        "images": {name: group.images for name, group in groups.items()},
        "redrawn": {name: _redrawn(chunks[name]) for name in groups},
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


def _write_shard(stage: Path, group: Group, chunks: Chunks, shards: int = 1) -> None:
    pictures = _pictures(chunks[group.name])
    with ShardWriter(stage, group.people, shards=shards, images=group.images) as writer:
        bar = tqdm(pictures, f"write {group.name}", group.images, unit="image", delay=1)
        for number, encoded in enumerate(bar):
            writer.add(number // len(group.shots), encoded)


def _write_pairs(stage: Path, group: Group, chunks: Chunks, seed: int) -> int:
    """Write the pairs of a group and return how many they are."""
    pictures = list(_pictures(chunks[group.name]))
    pairs, issame = plan.ring_pairs(group.people, np.random.default_rng([seed, group.first]))
    encoded, people = [pictures[number] for number in pairs.ravel()], group.first + pairs // len(group.shots)
    write_pairs(stage / f"{group.name}.bin", encoded, issame, people)
    return len(issame)


def _manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest in a folder says; nothing where there is none, or another file."""
    try:
        return read_object(folder / MANIFEST)
    except LatseError:
        return {}
