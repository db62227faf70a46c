"""What a run tells while it goes: progress bar, log file, one JSON line every few iterations."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Collection, Iterator, Mapping

import numpy as np
from tqdm import tqdm

from latse.cluster.alone import ALONE, Alone
from latse.errors import LatseError
from latse.files import explained, read_lines, replacing

FILE = "metrics.jsonl"
STATUS = Path("/proc/self/status")
# What a line says besides the outputs of the training graph.
COSTS = ("images_per_second", "seconds", "cpu_seconds", "peak_megabytes")
FACTS = {"iteration", "epoch", "lr", "kept", "precision", "recall", "loss_scale", "skipped", *COSTS}


Watch = Callable[[Mapping[str, float]], Any]  # gets a line of the metrics


def check_names(outputs: Collection[str]) -> None:
    """Raise LatseError if an output of a training graph, `<name>_output`, is called like another fact."""
    for fact in FACTS:
        if f"{fact}_output" in outputs:
            taken = "which the metrics have for something else"
            raise LatseError(f"a generative loss needs another name than '{fact}', {taken}")


class Averages:
    """Averages the losses over some iterations and the workers of a run; what comes of it goes nowhere.

    Parameters
    ----------
    batch_size : int
        Images an iteration, of all workers.
    every : int
        Iterations a line.
    workers : Alone
        Those of the run.
    """

    def __init__(self, batch_size: int, every: int, workers: Alone) -> None:
        self._batch_size, self._every, self._workers = batch_size, every, workers
        self._begin()

    def add(self, iteration: int, values: dict[str, np.ndarray], due: bool = False, **facts: float) -> None:
        """Take values, (m,) each, of the iteration just done; write their means over all since the last line.

        A line comes every few iterations and where it is `due`: at a checkpoint, so that a run that goes on
        from there has the same lines. `facts` (epoch, lr) go into the line as they are. Without a value there
        is no mean.
        """
        for name, value in values.items():
            self._sums[name] += value.sum(dtype=np.float64), value.size
        self._count += 1
        self._advance()
        if iteration % self._every and not due:
            return
        line = {"iteration": iteration, **facts}
        line.update({name: float(total / size) for name, (total, size) in self._totals(iteration) if size})
        line["seconds"] = time.perf_counter() - self._began
        line["images_per_second"] = self._count * self._batch_size / line["seconds"]
        line["cpu_seconds"] = time.process_time() - self._cpu_began
        line["peak_megabytes"] = _peak_megabytes()
        self._write(line)
        self._begin()

    def note(self, text: str) -> None:
        """Take a sentence on the run."""

    def close(self) -> None:
        """Take no more."""

    def _totals(self, iteration: int) -> Iterator[tuple[str, np.ndarray]]:
        """Yield by name the sum of all workers' values, and how many they are."""
        own = {name: pair.tolist() for name, pair in self._sums.items()}
        said = self._workers.gather(f"the metrics of iteration {iteration}", own)
        for name in own:
            yield name, np.sum([each[name] for each in said if name in each], axis=0)

    def _advance(self) -> None:
        """Show that an iteration is done."""

    def _write(self, line: dict[str, float]) -> None:
        """Take a line."""

    def _begin(self) -> None:
        self._sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))  # of values, and how many
        self._count = 0
        self._began, self._cpu_began = time.perf_counter(), time.process_time()


class Journal(Averages):
    """Averages the losses and writes them down.

    Parameters
    ----------
    folder : Path
        Where `metrics.jsonl` and `train.log` are.
    start, stop : int
        Iterations done and to be done; lines past `start`, of a run that was cut off, are removed.
    batch_size, every, workers : int, int, Alone
        As those of `Averages`.
    watch : callable, default nothing
        Gets each line when it is written.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        stop: int,
        batch_size: int,
        every: int,
        watch: Watch = lambda line: None,
        workers: Alone = ALONE,
    ) -> None:
        self._path, self._watch = folder / FILE, watch
        self._forget(start)
        self._log_path = folder / "train.log"
        self._log = _logger(self._log_path)
        self.note(f"iteration {start} of {stop}")
        self._bar = tqdm(
            total=stop * batch_size,
            initial=start * batch_size,
            unit=" images",
            desc=folder.name,
            smoothing=0.05,
        )
        super().__init__(batch_size, every, workers)

    def note(self, text: str) -> None:
        """Write a sentence into the log file."""
        with explained(f"cannot write {self._log_path}"):
            self._log.info(text)

    def close(self) -> None:
        """End bar and log."""
        self._bar.close()
        for handler in list(self._log.handlers):
            self._log.removeHandler(handler)
            with explained(f"cannot write {self._log_path}"):
                handler.close()

    def _advance(self) -> None:
        self._bar.update(self._batch_size)

    def _write(self, line: dict[str, float]) -> None:
        # Not made anew: where the folder is gone, or another one has taken its place, the run ends.
        with explained(f"cannot write {self._path}"), open(self._path, "a", opener=_existing) as file:
            file.write(json.dumps(line) + "\n")
        self._watch(line)
        self._bar.set_postfix(loss=f"{line.get('loss', math.nan):.3f}", refresh=False)
        self.note(" ".join(f"{key}={value:.6g}" for key, value in line.items()))

    def _forget(self, start: int) -> None:
        lines = read_lines(self._path, errors="replace") if self._path.is_file() else ()
        with replacing(self._path) as temporary:
            temporary.write_text("".join(line + "\n" for _, line in lines if _iteration(line) <= start))


def _peak_megabytes() -> float:
    """Return the most memory that the process has had, MiB."""
    found = re.search(rb"VmHWM:\s*(\d+) kB", STATUS.read_bytes() if STATUS.is_file() else b"")
    # The latter is at least what the parent had when it started the process.
    return int(found[1] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**10


def _iteration(line: str) -> float:
    """Return the iteration of a line, infinity where a crash has left no whole one."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf


def _existing(path: str, flags: int) -> int:
    """Open a file that must be there."""
    return os.open(path, flags & ~os.O_CREAT)


class _LogFile(logging.FileHandler):
    """A file that cannot be written is an error, not a traceback on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Let the error of `emit` pass."""
        raise  # noqa: PLE0704 - called where an exception is handled


def _logger(path: Path) -> logging.Logger:
    log = logging.getLogger(f"latse.train.{path.parent}")
    log.setLevel(logging.INFO)
    log.propagate = False
    with explained(f"cannot write {path}"):
        handler = _LogFile(path, encoding="utf-8")
    handler.stream.reconfigure(errors="backslashreplace")  # of a path
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    return log
