"""What is known of the images of a synthetic set, worked out again from its numbers, and people's faces."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from latse.data.images import decode, encode
from latse.data.pairs.pairs import read_encoded
from latse.data.photographs import align
from latse.data.shards.records import Shard
from latse.data.shards.staging import is_made
from latse.data.synth import plan, truth_file
from latse.data.synth.people import View, draw_person
from latse.data.synth.plan import VERIFICATION, Group, SynthSettings
from latse.data.synth.render import drawn_occlusion, render
from latse.data.synth.sets import MANIFEST, Photographer, all_heads, draw_picture, view_of
from latse.data.synth.truth_file import Truth
from latse.data.workers import in_order
from latse.errors import LatseError, check_range
from latse.files import read_object

# How a person is seen as such: from the front, calm, in even light.
PLAIN = View(
    seed=0,
    yaw=0.0,
    pitch=0.0,
    roll=0.0,
    shoulders=0.0,
    expression={},
    gaze=(0.0, 0.0),
    light=(0.0, 0.5, 0.75**0.5),
    light_strength=0.6,
    light_warmth=0.0,
    ambient=0.7,
    distance=12.0,
    exposure=1.0,
    contrast=1.0,
    saturation=1.0,
    clothes=(0.4, 0.4, 0.4),
    occlusion="none",
    blur=0.0,
    motion=0.0,
    noise=0.0,
    quality=95,
    messy=0.0,
    age=None,
)


def make(
    folder: str | os.PathLike, processes: int = 1, photographer: Photographer = draw_picture
) -> list[Path]:
    """Write what is known beside the training set and each set of pairs in a folder; return the files.

    Parameters
    ----------
    folder : path
        As `latse data synth` has made it without `--detect`.
    processes : int
        At least 1; they draw the faces.
    photographer : function
        What has drawn the pictures.

    Raises
    ------
    LatseError
        If the folder holds no such set, or one that this version would draw otherwise, or a file cannot be
        written.
    """
    check_range("processes", processes, 1)
    folder = Path(folder)
    settings = _settings(folder)
    groups = plan.groups(settings)
    files = {}
    for group in (groups[name] for name in ("train", *VERIFICATION) if name in groups):
        path = folder if group.name == "train" else folder / f"{group.name}.bin"
        _check_first(path, settings, group, photographer)
        files[truth_file.truth_path(path)] = group
    for path, group in reversed(files.items()):  # that of the training set tells that all are there
        truth_file.write(path, truth_of(settings, group, processes))
    return [*files]


def truth_of(settings: SynthSettings, group: Group, processes: int = 1) -> Truth:
    """Return what is known of a group: of its pictures in order, of pairs in that of their images."""
    seed, order = settings.seed, _order(settings, group)
    numbers = group.first + np.arange(group.people)
    pictures = [_facts(seed, group, number) for number in range(group.images)]
    columns = {name: np.array([picture[name] for picture in pictures])[order] for name in pictures[0]}
    numeric = {name: array.astype(np.float32) for name, array in columns.items() if name != "occlusion"}
    sexes = [draw_person(seed, number).female for number in numbers]
    tasks = ((seed, number) for number in numbers.tolist())
    faces = in_order(portrait, tasks, processes, Path(f"the people of {group.name}"))
    bar = tqdm(faces, f"draw {group.name}", group.people, unit="face", delay=1)
    return Truth(
        person=numbers[order // len(group.shots)],
        **numeric,
        occlusion=columns["occlusion"],
        people=numbers,
        female=np.array(sexes, np.float32),
        frontal=np.stack([*bar]),
    )


def _order(settings: SynthSettings, group: Group) -> np.ndarray:
    """Return the numbers of the pictures in the order of records or pairs: int (n,)."""
    if group.name not in VERIFICATION:
        return np.arange(group.images)
    random = np.random.default_rng([settings.seed, group.first])
    return plan.ring_pairs(group.people, random)[0].ravel()


def portrait(seed: int, person: int) -> np.ndarray:
    """Draw a person from the front, without glasses: uint8 (3, 112, 112)."""
    bare = dataclasses.replace(draw_person(seed, person), glasses=False)
    return align.warp(*render(all_heads(), bare, PLAIN)).transpose(2, 0, 1)


def _facts(seed: int, group: Group, number: int) -> dict[str, Any]:
    """Return what is known of the picture of a number in a group."""
    person, image = divmod(number, len(group.shots))
    who = draw_person(seed, group.first + person)
    view = view_of(seed, group.first + person, image, group.shots[image])
    return {
        **{name: getattr(view, name) for name in ("yaw", "pitch", "roll", "light")},
        "age": who.age if view.age is None else view.age,
        "smile": view.expression.get("mouthSmileLeft", 0.0),
        "occlusion": drawn_occlusion(who, view),
    }


def _settings(folder: Path) -> SynthSettings:
    """Return how a set was made; LatseError if it was not made so, or is not whole."""
    made = read_object(folder / MANIFEST)
    if not is_made(folder, MANIFEST, {}) or set(made.get("settings", {})) != {*SynthSettings._fields}:
        raise LatseError(f"{folder} holds no whole set of `latse data synth`")
    settings = SynthSettings(**made["settings"])
    plan.check(settings)
    if settings.detect:
        raise LatseError(f"{folder} was made with --detect: nobody knows which pictures were drawn again")
    return settings


def _check_first(path: Path, settings: SynthSettings, group: Group, photographer: Photographer) -> None:
    """Raise LatseError unless the first picture is what would be drawn of it now."""
    photo = photographer(settings.seed, group.first, 0, group.shots[0])
    drawn = encode(align.warp(*photo), settings.quality)
    if path.is_dir():
        is_same = (Shard(path).read(0)[0] == decode(drawn, "the picture", (align.SIZE, align.SIZE))).all()
    else:
        encoded, pairs, _ = read_encoded(path)
        place = int(np.argmin(_order(settings, group)))
        is_same = bytes(encoded[pairs.ravel()[place]]) == drawn
    if not is_same:
        raise LatseError(f"{path}: this version of latse draws its first picture otherwise")
