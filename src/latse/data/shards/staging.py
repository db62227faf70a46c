"""A set, or a folder of images, appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator

from latse.data.shards.recordio import set_files
from latse.errors import LatseError
from latse.files import PART, explained, locked, make_folder, read_json

# What commands write beside a set and what is true of that one only.
SIDE_FILES = (
    "clean.json",
    "merge.json",
    "noise.npz",
    "noise.json",
    "orl.json",
    "pack.json",
    "repair.json",
    "synth.json",
)


def refuse_set(out: str | os.PathLike, *sources: str | os.PathLike) -> None:
    """Raise LatseError if `out` holds a set, or lies in one of `sources`, which are left as they are.

    Hours of work are not replaced by a mistyped name.
    """
    for folder in sources:
        if Path(folder).resolve() in (Path(out).resolve(), *Path(out).resolve().parents):
            raise LatseError(f"{out} lies in {folder}, which is left as it is: name another folder")
    # A manifest without `property` is what a killed command has left, not a set that lacks it.
    killed = any((Path(out) / name).exists() for name in SIDE_FILES)
    if (Path(out) / "property").exists() or (set_files(Path(out)) and not killed):
        raise LatseError(f"{out} holds a set already: remove it, or choose another folder")


@contextlib.contextmanager
def staged(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`; on success its files replace those of the same names.

    Where they are a data set, all .rec and .idx files of an older one go, however many it had, and the
    SIDE_FILES that tell of it. All the older files go before the first new one comes, so that a kill at any
    moment leaves whole files of one set, never a mixture. A failure before that leaves the older files as
    they were, and what a killed process left behind goes at the next call.

    Raises LatseError if the folder cannot be written or another process is writing into it; what the body
    raises passes unchanged.
    """
    folder = make_folder(folder)
    with locked(folder), contextlib.ExitStack() as clean_up:
        with writing_into(folder):
            for left in folder.glob(".staged-*"):
                shutil.rmtree(left)
            stage = Path(clean_up.enter_context(tempfile.TemporaryDirectory(prefix=".staged-", dir=folder)))
        yield stage
        with writing_into(folder):
            _publish(stage, folder)


def _publish(stage: Path, folder: Path) -> None:
    # `property` goes first and comes last: without it, what else there is does not count as a set. A manifest
    # comes first and goes last: its command may replace what else there is.
    files = sorted(
        stage.iterdir(), key=lambda file: (file.name == "property", file.suffix != ".json", file.name)
    )
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    older = [folder / file.name for file in reversed(files)]
    if (stage / "property").exists():
        older += set_files(folder)  # of another number of shards
        older += [folder / name for name in SIDE_FILES]
    for file in older:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
    for file in files:
        file.replace(folder / file.name)


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which takes its name on success.

    A failure leaves nothing, and what a killed process left behind goes at the next call.

    Raises LatseError if `folder` is there and not an empty folder, it cannot be written, or another process
    is at work on it.
    """
    folder = Path(os.path.realpath(folder))
    with explained(f"cannot read {folder}"):
        if folder.exists() and any(folder.iterdir()):
            raise LatseError(f"{folder} is not empty: choose another folder")
    stage = make_folder(folder.with_name(f".{folder.name}{PART}"))
    with locked(stage):
        try:
            with writing_into(folder):
                for left in stage.iterdir():
                    shutil.rmtree(left)
            yield stage
            with writing_into(folder):
                os.sync()  # of millions of files at once
                stage.rename(folder)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise


def writing_into(folder: str | os.PathLike) -> contextlib.AbstractContextManager:
    """Turn an OSError of the body into a LatseError that names the folder."""
    return explained(f"cannot write into {folder}")


def sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file in a folder, by its name: what a manifest says of a set."""
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir())}


def is_made(folder: Path, manifest: str, asked: dict[str, Any], files: str = "bytes") -> bool:
    """Tell whether a set is there, made as `asked`.

    Its manifest says so, and that the files have the sizes that it tells under the key `files`.
    """
    try:
        made = read_json(folder / manifest)
        there = {name: (folder / name).stat().st_size for name in made[files]}
        return made[files] == there and all(made[key] == value for key, value in asked.items())
    except (LatseError, OSError, KeyError, TypeError):
        return False  # nothing there, or not what the command writes: it is made anew
