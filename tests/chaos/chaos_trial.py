"""A trial of the fault campaign: a run that is faulted, what it leaves, how it differs from a whole one."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from latse.data.shards.shard_writer import write_shard
from latse.models import arrays_file

LATSE = sys.executable, "-m", "latse"
PEOPLE, PICTURES = 8, 5
LAST, SAVED_EVERY = 16, 4  # iterations of a run, and between two checkpoints
# Everything that a run remembers: moving statistics, dropout, momentum, mean faces.
ENCODER = """\
from mxnet.gluon import nn

from latse.symbols.encoders import Encoder
from latse.symbols.layers import PReLU, batch_norm


class Small(Encoder):
    def features(self):
        body = nn.HybridSequential(prefix="")
        body.add(nn.Conv2D(8, 16, 16, prefix="conv0_"), batch_norm("bn0_"), PReLU(8, "relu0_"))
        return body
"""
RECIPE = f"""\
encoder: {{name: "small.py:Small"}}
decoder: {{enabled: true, widths: [1, 1, 1, 1]}}
train: {{batch_size: 4, iterations: {LAST}, checkpoint_every: {SAVED_EVERY}, log_every: 1, keep: 1}}
schedule: {{mode: constant, learning_rate: 0.01}}
"""
DAMAGED = "state.damaged.params"
COSTS = {"images_per_second", "seconds", "cpu_seconds", "peak_megabytes"}
MARK = "LATSE_CHAOS"  # a variable by which the processes of a trial are known
SURVIVING = 10.0  # seconds that a process may outlive the one that was started
ROUNDING = 1e-5  # between means of moving averages and moving averages of means


class TooLateError(Exception):
    """The run has ended as if there had been no fault, perhaps before it came."""


class HungError(Exception):
    """A command did not end within the limit."""


@dataclass
class Ending:
    """How a command ended: its status as the shell has it, what it printed, and seconds since the fault."""

    status: int
    said: str
    seconds: float = 0.0


def prepare(folder):
    """Write recipe, encoder and set of all trials into a folder."""
    folder.mkdir(parents=True)
    (folder / "small.py").write_text(ENCODER)
    (folder / "small.yaml").write_text(RECIPE)
    pixels = np.random.default_rng(0).integers(0, 256, (PEOPLE * PICTURES, 112, 112, 3), np.uint8)
    pictures = [cv2.imencode(".jpg", cv2.blur(image, (9, 9)))[1].tobytes() for image in pixels]
    write_shard(folder / "data", [(n // PICTURES, data) for n, data in enumerate(pictures)], PEOPLE)


class Trial:
    """A folder with a set and the runs in it.

    Parameters
    ----------
    folder : Path
        An empty one of this trial.
    origin : Path
        What `prepare` has written.
    chance : random.Random
        Decides moments and places.
    workers : int
        1 trains in one process, more by `latse launch`.
    timeout : int
        Seconds of `latse launch --timeout`.
    limit : float
        Seconds after which a command hangs.
    usual : float
        Seconds that a run takes.
    """

    def __init__(self, folder, origin, chance, workers=1, timeout=60, limit=300.0, usual=10.0):
        self.folder, self.chance, self.workers, self.timeout = folder, chance, workers, timeout
        self.limit, self.usual, self.mark = limit, usual, f"{os.getpid()}-{folder}"
        shutil.copytree(origin, folder)
        (folder / "tmp").mkdir()
        self.data, self.out = folder / "data", folder / "run"
        self.process, self._commands = None, 0
        self._faulted = time.monotonic()

    def start(self, *words, workers=None):
        """Start the run, or what goes on with it; `words` are further arguments of `latse train`."""
        count = workers or self.workers
        run = [*LATSE, "train", "small.yaml", "--data", "data", "--out", str(self.out), "--resume", *words]
        if count > 1:
            options = "-n", count, "-s", 1, "--timeout", self.timeout
            run = [*LATSE, "launch", *map(str, options), "--", *run, "--kvstore", "dist_sync"]
        variables = {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.folder / "tmp"), MARK: self.mark}
        self._commands += 1
        with self._output().open("wb") as output:
            self.process = subprocess.Popen(
                run,
                cwd=self.folder,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self.process

    def _output(self):
        return self.folder / f"output-{self._commands}.txt"

    def until(self, condition):
        """Wait for `condition()` while the run goes on."""
        end = time.monotonic() + self.limit
        while not condition():
            if self.process.poll() is not None:
                raise TooLateError
            if time.monotonic() > end:
                raise HungError
            time.sleep(0.002)

    def at_iteration(self, first=1, last=LAST - 2):
        """Wait until the run has done a random number of iterations, then a moment longer."""
        done = self.chance.randint(first, last)
        self.until(lambda: self.reached() >= done)
        self.pause(self.chance.uniform(0, 0.1))

    def reached(self):
        """Return how many iterations the run has written down."""
        with contextlib.suppress(OSError):
            return (self.out / "metrics.jsonl").read_bytes().count(b"\n")
        return 0

    def pause(self, seconds):
        """Let the run go on for a while."""
        time.sleep(seconds)

    def part(self, name=""):
        """Return the process of a launched part, such as `worker 1`, by default the one that was started."""
        if self.process.poll() is not None:
            raise TooLateError
        if not name:
            return self.process.pid
        found = [pid for pid, variables in self.members() if f"LATSE_NAME={name}".encode() in variables]
        if not found:
            raise TooLateError
        return found[0]

    def members(self):
        """Yield the number and the variables of each living process of this trial."""
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (path / "environ").read_bytes().split(b"\0")  # of a zombie it is empty
                if f"{MARK}={self.mark}".encode() in variables:
                    yield int(path.name), variables

    def fault(self):
        """Note that the fault comes now."""
        self._faulted = time.monotonic()

    def ended(self):
        """Wait for the end of the command; return how it ended, or raise HungError."""
        try:
            status = self.process.wait(self.limit)
        except subprocess.TimeoutExpired as error:
            raise HungError from error
        seconds = time.monotonic() - self._faulted
        said = self._output().read_text(errors="replace")
        return Ending(status if status >= 0 else 128 - status, said, seconds)

    def leftovers(self):
        """Return what is still there some seconds after a command ended: processes."""
        end = time.monotonic() + SURVIVING
        while (left := [pid for pid, _ in self.members()]) and time.monotonic() < end:
            time.sleep(0.05)
        return [f"process {pid} is left" for pid in left]

    def temporary(self):
        """Return the temporary files that a command which was not killed has left."""
        return [
            f"{path.name} is left"
            for path in [*self.folder.glob("tmp/*"), *self.out.glob(".*"), *self.out.glob("state.new*")]
        ]

    def close(self):
        """Kill whatever is left and remove the folder."""
        for pid, _ in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
        for path in (self.out, self.folder / "data"):
            mutable(path)
        if os.path.ismount(self.folder / "disk"):
            subprocess.run(["umount", "--lazy", str(self.folder / "disk")], check=True)
        shutil.rmtree(self.folder)


def immutable(path):
    """Let nobody make or remove a file in a folder: root, too, whom permissions do not stop."""
    if os.geteuid():
        path.chmod(0o555)
    else:
        subprocess.run(["chattr", "+i", str(path)], check=True)


def mutable(path):
    """Undo `immutable`."""
    if path.is_dir():
        path.chmod(0o755) if os.geteuid() else subprocess.run(["chattr", "-i", str(path)], check=False)


def contents(folder):
    """Return every array of a run's files, its metrics without what depends on the machine, and its names."""
    found = {"files": sorted(path.name for path in folder.iterdir())}
    for path in {*folder.glob("*.params")} - {folder / DAMAGED}:
        for name, place in arrays_file.places(path).items():
            if name != arrays_file.DIGEST:
                found[path.name, name] = arrays_file.read(path, place)
    found.update({path.name: np.load(path) for path in folder.glob("*.npy")})
    found["model-symbol.json"] = (folder / "model-symbol.json").read_text()
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    found["metrics"] = [{key: value for key, value in line.items() if key not in COSTS} for line in lines]
    return found


def differences(found, wanted, rounded=False, extra=""):
    """Say in what the contents of two runs differ.

    Where moving statistics may be `rounded` they may differ by `ROUNDING`; files whose names match `extra`
    may be there besides.
    """
    files = [name for name in found["files"] if not re.fullmatch(extra, name)]
    told = [f"{name} is left" for name in files if name not in wanted["files"]]
    told += [f"{name} is missing" for name in wanted["files"] if name not in files]
    for key, value in wanted.items():
        if key == "files" or key not in found:
            continue
        name = "/".join(key) if isinstance(key, tuple) else key
        if not isinstance(value, np.ndarray):
            same = found[key] == value
        elif rounded and re.search("_(moving|running)_(mean|var)$", name):
            same = np.allclose(found[key], value, ROUNDING, ROUNDING)
        else:
            same = found[key].shape == value.shape and found[key].tobytes() == value.tobytes()
        told += [] if same else [f"{name} differs"]
    return told
