"""Contenders: child processes that do one training step on request.

Each has its own memory, and all can take turns on a machine whose speed changes. What a child says is
described in `latse.bench.protocol`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from typing import IO, Any, Mapping, Optional, Sequence

from tqdm import tqdm

from latse.errors import LatseError

LEAVE = 30.0  # seconds that a child has to end when its stdin is closed
OWN_ERROR = f"{LatseError.__module__}.{LatseError.__name__}: "  # how a traceback names one


class Contender:
    """One child process; a context manager, in which the child is ready.

    Parameters
    ----------
    title : str
        What tables call it.
    command : list of str
        Starts the child. It inherits this process's processors and environment.
    environment : mapping of str to str, optional
        Variables that it gets besides.

    Attributes
    ----------
    facts : dict
        What the child said when it was ready: `planned_megabytes` (MiB or None), `parameters` (number).
    answers : list of dict
        What it said after each step.

    Raises
    ------
    LatseError
        If the child ends or says something else than it should; with the last line of its stderr.
    """

    def __init__(
        self, title: str, command: Sequence[str], environment: Optional[Mapping[str, str]] = None
    ) -> None:
        self.title = title
        self.facts: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Contender:
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=self._environment,
            )
        except OSError as error:
            self._errors.close()
            raise LatseError(
                f"cannot start {self.title}: {self._command[0]}: {error.strerror or error}"
            ) from error
        try:
            self.facts = self._answer("ready")
        except BaseException:
            self._end(patience=0)
            self._errors.close()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end(patience=0 if kind else LEAVE)
        self._errors.close()

    def step(self) -> float:
        """Do one step and return its seconds, as the child measured them."""
        self.answers.append(self._ask("step", "seconds"))
        return self.answers[-1]["seconds"]

    def memory(self) -> dict[str, float]:
        """Return `peak_megabytes` and `rise_megabytes` of the child until now, MiB."""
        return self._ask("memory", "peak_megabytes")

    def _ask(self, line: str, key: str) -> dict[str, Any]:
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return self._answer(key)

    def _answer(self, key: str) -> dict[str, Any]:
        """Return the child's next line, which must have `key`."""
        line = self._child.stdout.readline()
        if not line.endswith("\n"):
            raise self._failure()
        try:
            content = json.loads(line)
            content[key]
        except (ValueError, KeyError, TypeError):
            raise LatseError(f"{self.title} says no {key}: {line.strip()[:200]}") from None
        return content

    def _failure(self) -> LatseError:
        """Return the error for a child that has closed its stdout."""
        self._end(patience=LEAVE)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = lines[-1].replace(OWN_ERROR, "") if lines else "it said nothing"
        return LatseError(f"{self.title} ended with status {self._child.returncode}: {reason}")

    def _end(self, patience: float) -> None:
        """Let the child end, kill it if it does not within `patience` seconds, and wait for it."""
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()


def take_turns(contenders: Sequence[Contender], repeats: int, progress_title: str) -> dict[str, list[float]]:
    """Let each contender do one unmeasured step, then all in turn `repeats` times; return seconds by title.

    Contenders must be ready, and their titles differ.
    """
    for contender in tqdm(contenders, unit=" first steps", desc=progress_title):
        contender.step()
    seconds: dict[str, list[float]] = {contender.title: [] for contender in contenders}
    for _ in tqdm(range(repeats), unit=" rounds", desc=progress_title):
        for contender in contenders:
            seconds[contender.title].append(contender.step())
    return seconds


def graph_command(
    symbol_path: str | os.PathLike,
    shapes_path: str | os.PathLike,
    classes: int = 2,
    learning_rate: float = 0.01,
) -> list[str]:
    """Return the command of a contender that trains any Symbol on made-up inputs.

    Parameters
    ----------
    symbol_path : path
        JSON of a training Symbol, as `Symbol.save` writes it.
    shapes_path : path
        JSON, name of each input -> its shape for the batch, a list of int; all other arguments are trained.
    classes : int, default 2
        Labels are drawn below it.
    learning_rate : float, default 0.01
        Of stochastic gradient descent with momentum 0.9.
    """
    options = ["--classes", str(classes), "--learning-rate", str(learning_rate)]
    return [sys.executable, "-m", "latse.bench.graph_step", str(symbol_path), str(shapes_path), *options]
