"""Contenders: child processes that do one training step on request.

Each has its own memory, and all can take turns on a machine whose speed changes. What a child says is
described in `latse.bench.protocol`.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from latse.bench.protocol import Step
from latse.bench.timing import Times, take_turns
from latse.errors import LatseError
from latse.files import explained

LEAVE = 30.0  # seconds that a child has to end when its stdin is closed
OWN_ERROR = f"{LatseError.__module__}.{LatseError.__name__}: "  # how a traceback names one


class Contender:
    """One child process, called `title`; a context manager, in which the child is ready.

    The command starts the child, which inherits this process's processors and environment. `facts` is what
    the child said when it was ready: `planned_megabytes` (MiB or None), `parameters` (number). Raises
    LatseError if the child ends or says something else than it should, with the last line of its stderr.
    """

    def __init__(self, title: str, command: Sequence[str]) -> None:
        self.title = title
        self.facts: dict[str, Any] = {}
        self._command = list(command)

    def __enter__(self) -> Contender:
        pipe = subprocess.PIPE
        with contextlib.ExitStack() as unless_ready:
            self._errors = unless_ready.enter_context(tempfile.TemporaryFile())
            with explained(f"cannot start {self.title}: {self._command[0]}"):
                self._child = subprocess.Popen(
                    self._command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True
                )
            unless_ready.callback(self._end, patience=0)
            self.facts = self._answer("ready")
            unless_ready.pop_all()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end(patience=0 if kind else LEAVE)
        self._errors.close()

    def step(self) -> dict[str, Any]:
        """Do one step and return what the child says of it: `seconds`, `processor_seconds`, and more."""
        return self._ask("step", "seconds")

    def memory(self) -> dict[str, float]:
        """Return `peak_megabytes` and `rise_megabytes` of the child until now, MiB."""
        return self._ask("memory", "peak_megabytes")

    def _ask(self, line: str, key: str) -> dict[str, Any]:
        try:
            print(line, file=self._child.stdin, flush=True)
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


@dataclass(frozen=True)
class Race(Times):
    """What a contender said without its first step, how it weighs at the end, and its first words."""

    memory: Mapping[str, float]
    facts: Mapping[str, Any]


def race(commands: Mapping[str, Sequence[str]], repeats: int, title: str) -> dict[str, Race]:
    """Start contenders, title -> command, let them take turns, end them, and return what each took."""
    with contextlib.ExitStack() as stack:
        contenders = [stack.enter_context(Contender(*named)) for named in commands.items()]
        times = take_turns({contender.title: contender.step for contender in contenders}, repeats, title)
        return {
            contender.title: Race(times[contender.title].answers, contender.memory(), contender.facts)
            for contender in contenders
        }


def served(
    function: Callable[..., tuple[Mapping[str, Any], Step]], *arguments: Any, **options: Any
) -> list[str]:
    """Return the command of a contender that serves what a function of a module returns.

    It returns what `latse.bench.protocol.serve` says first, and the step; its arguments must be picklable and
    small.
    """
    pickled = pickle.dumps((function, arguments, options)).hex()
    return [sys.executable, "-m", "latse.bench.protocol", pickled]
