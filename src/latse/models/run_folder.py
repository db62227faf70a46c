"""The folder of a run in the place of a checkpoint: its last one. Without mxnet, as parsers need it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from latse.errors import LatseError
from latse.files import explained


def stored(prefix: str | os.PathLike) -> list[int]:
    """Return the numbers of the checkpoints with `prefix` that are there, ascending."""
    prefix = Path(prefix)
    pattern = re.compile(rf"{re.escape(prefix.name)}-(\d{{4,}})\.params")
    files = prefix.parent.iterdir() if prefix.parent.is_dir() else ()
    matches = [pattern.fullmatch(path.name) for path in files]
    return sorted({int(match[1]) for match in matches if match})


def checkpoint_of(text: str) -> str:
    """Return `FOLDER/model,NUMBER` if `text` is the folder of a run, else `text` itself.

    NUMBER is 0, the network at the end of the training, or else that of the newest checkpoint. Raises
    LatseError if the folder holds no checkpoint.
    """
    folder = Path(text)
    with explained(f"cannot read {text}"):
        if not text or not folder.is_dir() or Path(f"{text}-0000.params").is_file():  # a bare PREFIX
            return text
        numbers = stored(folder / "model")
    if not numbers or not (folder / "model-symbol.json").is_file():
        raise LatseError(f"{text} is a folder without a run's model-symbol.json and model-0000.params")
    return f"{folder / 'model'},{0 if 0 in numbers else max(numbers)}"


def named_checkpoint(text: str) -> str:
    """Return `checkpoint_of(text)`, and say on stderr where a run is not finished; a `type` of argparse."""
    checkpoint = checkpoint_of(text)
    number = checkpoint.rpartition(",")[2]
    if checkpoint != text and number != "0":
        print(
            f"latse: {text}: the run is not finished; {checkpoint} is its newest checkpoint", file=sys.stderr
        )
    return checkpoint
