"""Train for an hour with a checkpoint every few iterations; judge whether memory and open handles stay flat.

    python tests/chaos/soak.py --minutes 60 --json out/chaos/soak.json

Flat means: after the first quarter of the time the resident memory, a straight line through what was read,
grows by less than --growth MiB, and no more handles are open at the end than were then. The run is ended by
SIGTERM, which must write a checkpoint. The exit status is 1 otherwise.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from chaos_kinds import TERMINATED
from chaos_trial import Trial, prepare
from tqdm import tqdm

EVER = "--set=train.iterations=1000000000"


def main(arguments=None):
    """Return 0 if all is flat."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="default: %(default)s")
    parser.add_argument("--readings", type=int, default=60, help="how many (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--growth", type=float, default=16, help="MiB that is flat (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the readings as JSON")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # and cleans up
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        prepare(Path(name, "origin"))
        trial = Trial(Path(name, "run"), Path(name, "origin"), random.Random(0), args.workers)
        try:
            readings = soaked(trial, args)
            trial.process.send_signal(signal.SIGTERM)
            ending = trial.ended()
        finally:
            trial.close()
    told = judged(readings, args.growth)
    if ending.status != TERMINATED:
        told.append(f"SIGTERM has ended the run with status {ending.status}")
    first, last = readings[len(readings) // 4], readings[-1]
    for when, each in (("after a quarter", first), ("at the end", last)):
        memory, handles = f"{each['megabytes']:.0f} MiB", f"{each['handles']} handles"
        print(f"{when}: {each['minutes']:.1f} min, {each['iterations']} iterations, {memory}, {handles}")
    print("; ".join(told) or "flat")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"verdict": told or "flat", "readings": readings}, indent=1) + "\n")
    return int(bool(told))


def soaked(trial, args):
    """Return what was read of a run, in equal steps of time."""
    trial.start(EVER)
    trial.until(lambda: trial.reached() >= 8)
    began, readings = time.monotonic(), []
    for number in tqdm(range(1, args.readings + 1), unit=" readings"):
        time.sleep(max(0.0, began + number * args.minutes * 60 / args.readings - time.monotonic()))
        if trial.process.poll() is not None:
            sys.exit(f"the run has ended: {trial.ended().said}")
        readings.append({"minutes": (time.monotonic() - began) / 60, **read(trial)})
    return readings


def read(trial):
    """Return iterations, resident MiB, open handles and threads, over all processes of the run."""
    processes = [Path("/proc", str(number)) for number, _ in trial.members()]
    pages = sum(int((process / "statm").read_text().split()[1]) for process in processes)
    return {
        "iterations": trial.reached(),
        "megabytes": pages * 4096 / 2**20,
        "handles": sum(len([*(process / "fd").iterdir()]) for process in processes),
        "threads": sum(len([*(process / "task").iterdir()]) for process in processes),
    }


def judged(readings, growth):
    """Return what is not flat."""
    late = readings[len(readings) // 4 :]
    minutes, memory = ([each[name] for each in late] for name in ("minutes", "megabytes"))
    grown = np.polyfit(minutes, memory, 1)[0] * (minutes[-1] - minutes[0])
    told = (
        [f"memory grows by {grown:.1f} MiB in {minutes[-1] - minutes[0]:.0f} min"] if grown > growth else []
    )
    for name in ("handles", "threads"):
        if min(late[-1][name], late[-2][name]) > late[0][name]:
            told.append(f"{name} grow from {late[0][name]} to {late[-1][name]}")
    return told


if __name__ == "__main__":
    sys.exit(main())
