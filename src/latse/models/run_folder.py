"""Where a checkpoint is: its files, and the folder of a run in its place. For parsers, without mxnet."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from latse.errors import LatseError
from latse.files import existing, explained, read_json

FILE = "the checkpoint file"
WRITE = "write PREFIX,NUMBER, as in out/orl/student/model,0, or RUN_FOLDER"


def symbol_path(prefix: str | os.PathLike) -> Path:
    """Return the path of the symbol that all checkpoints with `prefix` share."""
    return Path(f"{os.fspath(prefix)}-symbol.json")


def parameters_path(prefix: str | os.PathLike, number: int) -> Path:
    """Return the path of the parameters of the checkpoint `number`, in four digits or more."""
    return Path(f"{os.fspath(prefix)}-{number:04d}.params")


def parse(text: str) -> tuple[str, int]:
    """Split `PREFIX,NUMBER` as it stands on a command line; a bare `PREFIX` means checkpoint 0.

    Raises
    ------
    LatseError
        If the prefix is empty or the number is not a whole number from 0 on.
    """
    prefix, comma, number = text.rpartition(",")
    if not comma:
        prefix, number = text, "0"
    if not prefix or not (number.isascii() and number.isdigit()):
        raise LatseError(f"{text!r} is no checkpoint: {WRITE}")
    return prefix, int(number)


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
    """Return `checkpoint_of(text)`, and say on stderr where a run is not finished; a `type` of argparse.

    Raises LatseError as `checkpoint_of` and `check`.
    """
    checkpoint = checkpoint_of(text)
    check(checkpoint)
    prefix, number = parse(checkpoint)
    if checkpoint != text and number:
        reached, finish = _unfinished(Path(text), number)
        taken = f"its newest checkpoint {Path(prefix).name},{number} is taken"
        print(f"latse: {text}: the run is not finished{reached}; {taken}{finish}", file=sys.stderr)
    return checkpoint


def check(text: str, kind: str = "checkpoint", hint: str = WRITE) -> None:
    """Raise LatseError unless both files of the checkpoint `text` are there.

    `kind` and `hint` are what the sentence on a mistyped word calls it, and what it says to write.
    """
    prefix, number = parse(text)
    parameters = parameters_path(prefix, number)
    with explained(f"cannot read {text}"):
        if "," not in text and not parameters.is_file():
            raise LatseError(f"{text!r} is no {kind}, for there is no {parameters}: {hint}")
    existing(FILE, parameters)
    existing(FILE, symbol_path(prefix))


def _unfinished(folder: Path, number: int) -> tuple[str, str]:
    """Return how far a run is and how it is finished, as its run.json says; empty if that does not tell."""
    try:
        last = int(read_json(folder / "run.json")["settings"]["train"]["iterations"])
    except (LatseError, KeyError, TypeError, ValueError):  # it is another program's, or damaged
        return "", ""
    here = f"or here with --set train.iterations={number} too"
    finish = f"; its `latse train` command finishes it with --resume, {here}"
    return f" (iteration {number} of {last})", finish
