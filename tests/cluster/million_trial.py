"""Train with a sampled head over many people on parameter servers, and let it filter; print memory and time.

    python tests/cluster/million_trial.py --people 100000 1000000

Takes some minutes and, for a million people, 14 GB of disk and 6 GB of memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from latse.data.shards.shard_writer import write_shard

IMAGES = 512
RECIPE = """\
encoder: {name: resnet_tiny}
head: {kind: sampled, rate: RATE}
train: {batch_size: 32, iterations: 12, checkpoint_every: 12, log_every: 1, keep: 1, kvstore: dist_sync}
schedule: {mode: constant, learning_rate: 0.1}
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument(
        "--sample", type=int, default=10_000, help="people in a sample (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--servers", type=int, default=2)
    args = parser.parse_args()
    print(
        "people | most of a worker, MiB | of a server, MiB | seconds a step, median (least to most) "
        "| of latse filter, MiB | images it judges in a second"
    )
    for people in args.people:
        with tempfile.TemporaryDirectory() as folder:
            print(people, "|", " | ".join(trial(args, people, Path(folder))), flush=True)


def trial(args, people, folder):
    """Train over so many people and return what was measured, in words."""
    write_shard(folder / "set", made_up(people), people, (112, 112))
    (folder / "recipe.yaml").write_text(RECIPE.replace("RATE", str(args.sample / people)))
    train = sys.executable, "-m", "latse", "train", folder / "recipe.yaml", "--data", folder / "set"
    launch = (
        sys.executable,
        "-m",
        "latse",
        "launch",
        "-n",
        args.workers,
        "-s",
        args.servers,
        "--timeout",
        1800,
    )
    words = *launch, "--", *train, "--out", folder / "run"
    with subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL) as process:
        most = {}
        watching = threading.Thread(target=watch, args=(process, most))
        watching.start()
        assert process.wait() == 0
        watching.join()
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines]
    of = {
        role: max(peak for name, peak in most.items() if name.startswith(role))
        for role in ("worker", "server")
    }
    spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
    return f"{of['worker']:.0f}", f"{of['server']:.0f}", spread, *filtered(folder)


def filtered(folder):
    """Judge the images by the centres of all people; return the most memory, and images a second."""
    words = "--data", folder / "set", "--teacher", folder / "run", "--k", 3, "--out", folder / "teacher.keep"
    begun = time.monotonic()
    process = subprocess.Popen(
        [*map(str, (sys.executable, "-m", "latse", "filter", *words))], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return f"{usage.ru_maxrss / 1024:.0f}", f"{IMAGES / (time.monotonic() - begun):.1f}"


def made_up(people):
    """Yield images, each of another person."""
    random = np.random.default_rng(0)
    for label in np.sort(random.choice(people, IMAGES, replace=False)).tolist():
        pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        yield label, cv2.imencode(".jpg", cv2.resize(pixels, (112, 112)))[1].tobytes()


def watch(process, most):
    """Note the most memory that each part has had, MiB by name, while a launch runs."""
    while process.poll() is None:
        for path in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for child in path.read_text().split():
                try:
                    variables = Path("/proc", child, "environ").read_text().split("\0")
                    status = Path("/proc", child, "status").read_text()
                except OSError:
                    continue  # it has ended
                names = [v.partition("=")[2] for v in variables if v.startswith("LATSE_NAME=")]
                peaks = [
                    int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")
                ]
                most.update(dict(zip(names, peaks)))
        time.sleep(0.5)


if __name__ == "__main__":
    main()
