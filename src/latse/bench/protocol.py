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
from typing import Any, Callable, Mapping, Optional

Step = Callable[[], Optional[Mapping[str, Any]]]


def serve(build: Callable[[], tuple[Mapping[str, Any], Step]]) -> None:
    """Build, say on stdout what was built, then answer the lines of stdin until their end.

    `build` returns what the first line says (`planned_megabytes`, `parameters`) and the step. To be called
    after all imports: from here on memory counts. A step waits until it is done.

    Each answer is a JSON object in a line. First `{"ready": true, …}`. `step` gives `{"seconds": …,
    "processor_seconds": …}`, the latter of all threads together, which other processes on the machine do not
    prolong, and what the step returns. `memory` gives `{"peak_megabytes": …, "rise_megabytes": …}`, the most
    memory that was ever resident and that less what was resident before `build`, both in MiB. All else that
    is printed goes to stderr.
    """
    own_stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    before = resident("VmRSS")
    facts, step = build()
    answer: Mapping[str, Any] = {"ready": True, **facts}
    print(json.dumps(answer), file=own_stdout, flush=True)
    for line in sys.stdin:
        command = line.strip()
        if command == "step":
            answer = timed(step)
        elif command == "memory":
            peak = resident("VmHWM")
            answer = {"peak_megabytes": peak, "rise_megabytes": peak - before}
        else:
            raise ValueError(f"a contender knows step and memory, not {command!r}")
        print(json.dumps(answer), file=own_stdout, flush=True)


def resident(key: str) -> float:
    """Return a figure of this process in MiB: `VmRSS`, its memory now, or `VmHWM`, the most it has been."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


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


if __name__ == "__main__":  # serve what a pickled function returns, as `latse.bench.contender.served` asks
    from latse import ending

    function, arguments, options = pickle.loads(bytes.fromhex(sys.argv[1]))
    ending.run(lambda: serve(lambda: function(*arguments, **options)))
