"""The metrics of a run as events of TensorBoard, by tensorboardX."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Iterator, Mapping

from latse.errors import LatseError
from latse.files import explained
from latse.train.metrics import Watch

FOLDER = "tensorboard"  # in that of the run


def library() -> ModuleType:
    """Return tensorboardX; raise LatseError where it is not installed."""
    try:
        return importlib.import_module("tensorboardX")
    except ImportError as error:
        raise LatseError("tensorboardX is not installed; pip install tensorboardX") from error


@contextlib.contextmanager
def events(run: Path, reached: int) -> Iterator[Watch]:
    """Give what writes each line of the metrics as events below the folder of a run.

    The run goes on from iteration `reached`: TensorBoard passes over what it had written past that before it
    was cut off. Raises LatseError if the folder cannot be written.
    """
    with explained(f"cannot write {run / FOLDER}"):
        # The name of a file is a time in seconds: what begins anew at once must not replace the first.
        own = {"purge_step": reached + 1, "filename_suffix": f".{reached}"}
        writer = library().SummaryWriter(str(run / FOLDER), **own)

    def write(line: Mapping[str, float]) -> None:
        with explained(f"cannot write {run / FOLDER}"):
            for name, value in line.items():
                if name != "iteration":
                    writer.add_scalar(name, value, int(line["iteration"]))
            writer.flush()

    with contextlib.closing(writer):
        yield write
