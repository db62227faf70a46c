"""What the people of a set are called: the key `people` of a file beside the set, a name for each label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional, Sequence

from latse.data.shards.staging import is_made
from latse.errors import LatseError
from latse.files import read_json
from latse.form import COUNT, Each, Leaf, Maybe, Rows, check

FILES = ("pack.json", "merge.json", "clean.json")  # of the commands that know names
Names = Sequence[Optional[str]]  # by label; None: not known


def read_names(folder: str | os.PathLike, classes: int) -> Names:
    """Return the name of each of the `classes` people of a set, None where it is not known.

    Raises LatseError if the file that tells them is damaged or belongs to another set.
    """
    for path in (Path(folder) / name for name in FILES):
        if not path.exists():
            continue
        content = read_json(path)
        check(path, content, {"people?": Maybe(Rows(Maybe(NAME))), "files?": Each(COUNT)})
        people = content.get("people") or [None] * classes
        if len(people) != classes or not is_made(path.parent, path.name, {}, "files"):
            raise LatseError(f"{path} tells of another set than the one beside it: remove that file")
        return people
    return [None] * classes


def _is_name(name: Any) -> bool:
    try:
        return isinstance(name, str) and bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False


NAME = Leaf("a name", _is_name)
