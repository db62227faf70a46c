"""The child's side of a contender: does one training step whenever it is asked to.

Only Python's own modules are imported here, because children of another environment use it too.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, TextIO

Step = Callable[[], Optional[Mapping[str, Any]]]


def serve(build: Callable[[], tuple[Mapping[str, Any], Step]]) -> None:
    """Build, say on stdout what was built, then answer the lines of stdin until their end.

    Parameters
    ----------
    build : callable
        Returns what the first line says (`planned_megabytes`, `parameters`) and the step. To be called after
        all imports: from here on memory counts. A step waits until it is done; what it returns is added to
        its answer.

    Notes
    -----
    One JSON object a line. First `{"ready": true, …}`. `step` gives `{"seconds": …, "processor_seconds": …}`,
    the latter of all threads together, which other processes on the machine do not prolong; `memory` gives
    `{"peak_megabytes": …, "rise_megabytes": …}`, the most memory that was ever resident and that less what
    was resident before `build`, both in MiB. All else that is printed goes to stderr.
    """
    answers = _own_stdout()
    before = resident("VmRSS")
    facts, step = build()
    _say(answers, {"ready": True, **facts})
    for line in sys.stdin:
        command = line.strip()
        if command not in ("step", "memory"):
            raise ValueError(f"a contender knows step and memory, not {command!r}")
        _say(answers, timed(step) if command == "step" else _memory(before))


def resident(key: str) -> float:
    """Return a figure of this process in MiB: `VmRSS`, its memory now, or `VmHWM`, the most it has been."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def _own_stdout() -> TextIO:
    """Return this process's stdout, and let everything that is printed from here on go to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, content: Mapping[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def timed(step: Step) -> dict[str, Any]:
    """Do a step; return its `seconds`, its `processor_seconds` of all threads, and what it returns."""
    began, processor_began = time.perf_counter(), time.process_time()
    more = step()
    processor_seconds = time.process_time() - processor_began
    return {
        "seconds": time.perf_counter() - began,
        "processor_seconds": processor_seconds,
        **(more or {}),
    }


def _memory(before: float) -> dict[str, float]:
    peak = resident("VmHWM")
    return {"peak_megabytes": peak, "rise_megabytes": peak - before}


if __name__ == "__main__":  # serve what a pickled function returns, as `latse.bench.contender.served` asks
    function, arguments, options = pickle.loads(bytes.fromhex(sys.argv[1]))
    serve(lambda: function(*arguments, **options))
