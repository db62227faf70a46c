"""Several sets become one, in which no two people share a label."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from typing import Any, Sequence

import numpy as np

from latse.data.shards.names import Names, read_names
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import MOST_SHARDS, write_images
from latse.data.shards.staging import refuse_set, sizes, staged
from latse.errors import LatseError, check_range
from latse.files import write_json


def merge(
    folders: Sequence[str | os.PathLike], out: str | os.PathLike, by_name: bool = False, shards: int = 1
) -> dict[str, Any]:
    """Write the images of all sets into a new one, byte for byte.

    The people of a set follow those of the sets before it: their labels are shifted. With `by_name` people of
    one name are one person, and people are numbered in the order of their names (by code points), as `pack`
    numbers them. A person's images come in the order of the sets and of their records.

    Raises LatseError if there is one set only, a set cannot be read, two are the same or have images of
    different sizes, a name is lacking, a number or twice in a set (`by_name`), or `out` does not fit or
    cannot be written.

    Parameters
    ----------
    folders : sequence of paths
        The sets, which are left as they are.
    out : path
        Outside of the sets; holds no set.
    by_name : bool
        Whether the people of one name are one person; each set must have names (see `read_names`).
    shards : int
        Number of files, as for `ShardWriter`.

    Returns
    -------
    dict
        What `merge.json` holds.
    """
    check_range("the number of shards", shards, 1, MOST_SHARDS)
    if len(folders) < 2:
        raise LatseError(f"{folders[0]} alone is nothing to merge: name two sets or more, and then OUT")
    refuse_set(out, *folders)
    sets, digests = _opened(folders)
    names = [read_names(shard.folder, shard.classes) for shard in sets]
    people, labels = _matched(sets, names) if by_name else _shifted(names)
    made = {
        "by_name": by_name,
        "images": sum(map(len, sets)),
        "classes": len(people),
        "sets": [*map(_told, sets, digests, labels)],
        "people": people if any(people) else None,
    }
    with staged(out) as stage:
        new = np.concatenate([own[shard.labels] for shard, own in zip(sets, labels)])
        source = np.repeat(np.arange(len(sets)), [len(shard) for shard in sets])
        place = np.concatenate([np.arange(len(shard)) for shard in sets])
        write_images(stage, sets, source, place, new, len(people), shards, "merge")
        made["files"] = sizes(stage)
        write_json(stage / "merge.json", made)
    return made


def _opened(folders: Sequence[str | os.PathLike]) -> tuple[list[Shard], list[str]]:
    """Open sets that can be merged, and return their digests too; raise LatseError if they cannot be."""
    sets = [Shard(folder) for folder in folders]
    digests = [shard.digest() for shard in sets]
    for (one, digest), (other, same) in itertools.combinations(zip(sets, digests), 2):
        if one.image_size != other.image_size:
            different = "{}x{} pixels instead of {}x{}".format(*other.image_size, *one.image_size)
            raise LatseError(f"the images of {other.folder} are {different}, as in {one.folder}")
        if digest == same:
            raise LatseError(f"{one.folder} and {other.folder} are the same set")
    return sets, digests


def _shifted(names: list[Names]) -> tuple[Names, list[np.ndarray]]:
    """Return the names of all people, and of each set the new label of each old one: int64 (classes,)."""
    ends = np.cumsum([0, *map(len, names)])
    return list(itertools.chain(*names)), [np.arange(*span) for span in zip(ends[:-1], ends[1:])]


def _matched(sets: list[Shard], names: list[Names]) -> tuple[Names, list[np.ndarray]]:
    """Return the same where people of one name are one person; LatseError if names do not tell people."""
    for shard, own in zip(sets, names):
        if None in own:
            raise LatseError(
                f"{shard.folder} has no name for label {own.index(None)}: only what `latse data pack`, "
                "`merge` and `clean` make has names; without --by-name labels are shifted"
            )
        name, times = Counter(own).most_common(1)[0]
        if times > 1:
            raise LatseError(f"{shard.folder} has {times} people called {name}: names do not tell who is who")
        number = next(filter(str.isdecimal, own), None)
        if number is not None:
            why = "the same number of another set is somebody else's; without --by-name labels are shifted"
            raise LatseError(f"{shard.folder} calls a person {number}, a number: {why}")
    people = sorted(set(itertools.chain(*names)))
    place = {name: label for label, name in enumerate(people)}
    return people, [np.array([place[name] for name in own], np.int64) for own in names]


def _told(shard: Shard, digest: str, new: np.ndarray) -> dict[str, Any]:
    """Return what `merge.json` says of a set whose labels become `new`."""
    return {
        "folder": str(shard.folder.resolve()),
        "digest": digest,
        "images": len(shard),
        "classes": shard.classes,
        "labels": _runs(new),
    }


def _runs(labels: np.ndarray) -> list[dict[str, int]]:
    """Return what becomes of old labels: `count` from `label` on become `new` and those after it."""
    starts = np.flatnonzero(np.diff(labels, prepend=labels[0]) != 1)
    counts = np.diff(starts, append=len(labels))
    return [
        {"label": int(start), "count": int(count), "new": int(labels[start])}
        for start, count in zip(starts, counts)
    ]
