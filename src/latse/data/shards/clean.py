"""A cleaned copy of a set: images are left out or stand under other labels, and a list says which and why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from latse.data.shards.names import read_names
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import MOST_SHARDS, write_images
from latse.data.shards.staging import refuse_set, sizes, staged
from latse.errors import LatseError, check_range
from latse.files import write_json

LEFT_OUT = -1  # as the new label of an image
NO_REASONS: Mapping[int, Mapping[str, Any]] = {}


def write_clean(
    shard: Shard,
    out: str | os.PathLike,
    labels: np.ndarray,
    made: Mapping[str, Any],
    shards: int = 1,
    reasons: Mapping[int, Mapping[str, Any]] = NO_REASONS,
) -> dict[str, Any]:
    """Write the images of a set that stay into a new one, byte for byte, each under its new label.

    People keep their numbers and names, and a label that loses all its images stays empty. A person's images
    come in the order of `Shard.records`.

    Parameters
    ----------
    shard : Shard
        The set, which is left as it is.
    out : path
        Outside of the set; holds no set.
    labels : int array (n,)
        The new label of each image, 0 <= label < classes, or `LEFT_OUT` (-1).
    made : mapping
        What `clean.json` says besides.
    shards : int
        Number of files, as for `ShardWriter`.
    reasons : mapping of int to mapping
        Position of an image -> what its decision says besides `record`, `label` and `new`.

    Returns
    -------
    dict
        What `out/clean.json` holds: `source`, `source_digest`, `images`, `classes`, `people`, what `made`
        says, `decisions` on all images that do not stay as they were (`new` is null if left out), `files`.

    Raises
    ------
    LatseError
        If nobody is left, a label or `shards` is out of range, or `out` does not fit or cannot be written.
    """
    check_range("the number of shards", shards, 1, MOST_SHARDS)
    refuse_set(out, shard.folder)
    stays = np.flatnonzero(labels != LEFT_OUT)
    if not len(stays):
        raise LatseError(f"no image of {shard.folder} would be left")
    people = read_names(shard.folder, shard.classes)
    content = {
        "source": str(Path(shard.folder).resolve()),
        "source_digest": shard.digest(),
        "images": len(stays),
        "classes": shard.classes,
        "people": people if any(people) else None,
        **made,
        "decisions": [
            {
                "record": int(shard.records[position]),
                "label": int(shard.labels[position]),
                "new": None if labels[position] == LEFT_OUT else int(labels[position]),
                **reasons.get(int(position), {}),
            }
            for position in np.flatnonzero(labels != shard.labels)
        ],
    }
    with staged(out) as stage:
        source = np.zeros(len(stays), int)
        write_images(stage, [shard], source, stays, labels[stays], shard.classes, shards, "clean")
        content["files"] = sizes(stage)
        write_json(stage / "clean.json", content)
    return content
