"""Start commands that fail in five ways while MXNet is at work, some at a time; report what ends wrongly.

    python tests/failing_runs/run.py --runs 500 --processes 4

What is reported: a run that goes on for more than --limit seconds after its failure, another exit status than
it should have, a missing sentence, a child process that outlives it, a half-written file. Each is saved with
its files below --out, and where gdb is installed with the threads of one that has to be killed.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from latse.data.pairs.pairs import write_pairs
from latse.data.shards.shard_writer import write_shard

PEOPLE, PICTURES = 5, 3
STARTING = 900  # seconds until the failure, on a machine with much else to do
SURVIVING = 5  # seconds that a child may outlive a run
RECIPE = """\
encoder: {name: resnet_tiny}
train: {batch_size: 4, iterations: 100000, checkpoint_every: 50000, log_every: 1}
schedule: {mode: constant, learning_rate: 0.01}
"""
# A user's margin with an operator in Python that raises in the middle of the first step.
MARGIN = """
import mxnet as mx
from latse.symbols.margins import Margin

class Raising(Margin):
    def target_logit(self, F, theta):
        return self._s * F.Custom(F.cos(theta), op_type="raising")

class Operator(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        raise ValueError("in the middle of a step")

@mx.operator.register("raising")
class Registered(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):
        return Operator()
"""


@dataclass(frozen=True)
class Kind:
    """One way to fail: a command line, in which OUT stands for the run's folder, and how it should end."""

    words: str
    says: str
    status: int = 1
    terminated: bool = False  # by a signal, as soon as it has trained a step


KINDS = {
    "truncated record": Kind(
        "train tiny.yaml --data truncated --out OUT", "is not an image that can be decoded"
    ),
    "loss not finite": Kind(
        "train tiny.yaml --data good --out OUT --set schedule.learning_rate=1e30", "the loss is not finite"
    ),
    "operator raises": Kind(
        "train tiny.yaml --data good --out OUT --set margin.name=own.py:Raising",
        "ValueError: in the middle of a step",
    ),
    "damaged pair": Kind("eval --model model --pairs good.bin damaged.bin", "image 5"),
    "SIGTERM": Kind(
        "train tiny.yaml --data good --out OUT", "latse: interrupted: checkpoint", 128 + signal.SIGTERM, True
    ),
}


@dataclass
class Ending:
    """What became of a run: seconds from its failure to its end, and what was wrong with it, if anything."""

    kind: str
    seconds: float
    fault: str = ""


def main(arguments=None):
    """Return 0 if all runs ended as they should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=4, help="at a time (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=60, help="seconds to end in (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/failing-runs"), help="for findings (default: %(default)s)"
    )
    args = parser.parse_args(arguments)
    shutil.rmtree(args.out, ignore_errors=True)
    kinds = [[*KINDS][number % len(KINDS)] for number in range(args.runs)]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(args.processes) as pool:
        folder = Path(name)
        prepare(folder)
        begun = [pool.submit(run, folder, number, kind, args) for number, kind in enumerate(kinds)]
        bar = tqdm(as_completed(begun), total=args.runs, unit=" runs", smoothing=0.05)
        endings = [future.result() for future in bar]
    return report(endings)


def report(endings):
    """Print a line for each kind of failure; return 1 if a run ended wrongly."""
    for kind in KINDS:
        seconds = [ending.seconds for ending in endings if ending.kind == kind] or [0]
        faults = Counter(ending.fault for ending in endings if ending.kind == kind and ending.fault)
        times = f"ended after {statistics.median(seconds):.1f} s (median), {max(seconds):.1f} s (longest)"
        wrong = "; ".join(f"{count} {fault}" for fault, count in faults.items()) or "none wrong"
        print(f"{kind}: {len(seconds)} runs, {times}, {wrong}")
    return int(any(ending.fault for ending in endings))


def prepare(folder):
    """Write the sets, pairs, recipe and model of all runs into a folder."""
    pictures = [(person, picture(person, number)) for person in range(PEOPLE) for number in range(PICTURES)]
    write_shard(folder / "good", pictures, PEOPLE)
    damaged = [(label, data[:200] if place == 7 else data) for place, (label, data) in enumerate(pictures)]
    write_shard(folder / "truncated", damaged, PEOPLE)
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "own.py").write_text(MARGIN)
    images = [picture(number, 0) for number in range(40)]
    write_pairs(folder / "good.bin", images, [True, False] * 10)
    write_pairs(folder / "damaged.bin", [*images[:5], images[5][:200], *images[6:]], [True, False] * 10)
    words = "train tiny.yaml --data good --out trained --set train.iterations=1"
    subprocess.run(
        [sys.executable, "-m", "latse", *words.split()], cwd=folder, check=True, capture_output=True
    )
    for path in (folder / "trained").glob("model-*"):
        path.rename(folder / path.name)


def picture(person, number):
    """A made-up picture as JPEG bytes."""
    noise = np.random.default_rng((person, number)).normal(size=(112, 112, 3))
    pixels = 128 + 400 * cv2.GaussianBlur(noise, (0, 0), 5)
    return cv2.imencode(".jpg", np.clip(pixels, 0, 255).astype(np.uint8))[1].tobytes()


def run(folder, number, name, args):
    """Start one command, wait for its failure and its end."""
    kind, own = KINDS[name], folder / f"run-{number}"
    own.mkdir()
    words = [own.name if word == "OUT" else word for word in kind.words.split()]
    with (own / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "latse", *words],
            cwd=folder,
            stdout=output,  # where MXNet prints an operator's traceback
            stderr=output,
            start_new_session=True,
        )
    failed = until_failure(process, kind, own)
    try:
        process.wait(args.limit)
    except subprocess.TimeoutExpired:
        save_threads(process, own)
    ending = Ending(name, time.monotonic() - failed)
    ending.fault = fault(process, kind, own)
    if members(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if ending.fault:
        shutil.copytree(own, args.out / f"{number}-{name.replace(' ', '-')}")
    shutil.rmtree(own)
    return ending


def until_failure(process, kind, own):
    """Wait until a run says why it fails, or has the signal to end; return when that was."""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() < began + STARTING:
        if kind.terminated and (own / "metrics.jsonl").exists() and (own / "metrics.jsonl").stat().st_size:
            process.terminate()
            break
        if kind.says.encode() in (own / "output.txt").read_bytes():
            break
        time.sleep(0.02)
    return time.monotonic()


def fault(process, kind, own):
    """Say what is wrong with how a run ended, nothing if all is right."""
    end = time.monotonic() + SURVIVING
    if process.poll() is None:
        return "did not end"
    while members(process.pid) and time.monotonic() < end:
        time.sleep(0.1)
    said = (own / "output.txt").read_text(errors="replace")
    faults = {
        f"ended with status {process.returncode}": process.returncode != kind.status,
        "did not say why": kind.says not in said,
        "left a child process": bool(members(process.pid)),
        "left half a file": any(own.glob(".*.part")) or not all(map(whole, own.glob("metrics.jsonl"))),
    }
    return ", ".join(text for text, wrong in faults.items() if wrong)


def whole(metrics):
    """Tell whether the last line of a file is ended."""
    return metrics.read_text()[-1:] in ("", "\n")


def members(session):
    """Return the processes of a session that run: a zombie has ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def save_threads(process, own):
    """Write what the threads of a run are at, where there is gdb."""
    if shutil.which("gdb"):
        words = ["gdb", "-p", str(process.pid), "-batch", "-ex", "thread apply all backtrace 20"]
        with (own / "threads.txt").open("wb") as file:
            subprocess.run(words, stdout=file, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    sys.exit(main())
