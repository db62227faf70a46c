"""A set becomes photographs again: a folder for each person, which `pack` takes."""

from __future__ import annotations

import os
import re

import numpy as np
from tqdm import tqdm

from latse.data.images import JPEG, PNG
from latse.data.shards.names import Names, read_names
from latse.data.shards.records import Shard
from latse.data.shards.staging import refuse_set, whole_folder, writing_into
from latse.errors import LatseError

SUFFIXES = {JPEG: ".jpg", PNG: ".png"}  # by what an image begins with
LONGEST = 200  # bytes of a name that become that of a folder, which has at most 255


def unpack(folder: str | os.PathLike, out: str | os.PathLike) -> tuple[int, int]:
    """Write the images of a set, byte for byte, into a folder for each person; return how many of how many.

    Folders are called as `folder_names` says, images by their numbers in `Shard.records`. The people's order
    and that of a person's images are those of the set. People without an image get no folder.

    Raises LatseError if the set cannot be read, a record is neither JPEG nor PNG, or `out` lies in the set,
    is not empty or cannot be written; then nothing is left there.
    """
    refuse_set(out, folder)
    shard = Shard(folder)
    names = folder_names(read_names(folder, shard.classes))
    width = len(str(shard.records[-1]))
    person = None
    with whole_folder(out) as stage, writing_into(out):
        for position in tqdm(np.argsort(shard.labels, kind="stable"), "unpack", unit="image", leave=False):
            content = shard.content(position).tobytes()
            suffix = next((SUFFIXES[start] for start in SUFFIXES if content.startswith(start)), None)
            if suffix is None:
                raise LatseError(
                    f"{shard.name(position)} is neither JPEG nor PNG: `latse data check` says more"
                )
            if shard.labels[position] != person:
                person = shard.labels[position]
                (stage / names[person]).mkdir()
            (stage / names[person] / f"{shard.records[position]:0{width}d}{suffix}").write_bytes(content)
    return len(shard), len(np.unique(shard.labels))


def folder_names(people: Names) -> list[str]:
    """Return what the folder of each person is called, in ascending order, so that `pack` numbers them alike.

    By name, if the names ascend; otherwise by label, with zeros before it, and name. In a name / and zero
    bytes, and a dot at its beginning, are written as %2F, %00 and %2E.
    """
    names = [_usable(name) for name in people if name is not None]
    if len(names) == len(people) and all(one < other for one, other in zip(names, names[1:])):
        return names
    width = len(str(len(people) - 1))
    return [f"{label:0{width}d}" + (f" {_usable(name)}" if name else "") for label, name in enumerate(people)]


def _usable(name: str) -> str:
    quoted = re.sub(r"^\.|[/\0]", lambda match: f"%{ord(match[0]):02X}", name)
    return os.fsdecode(os.fsencode(quoted)[:LONGEST])
