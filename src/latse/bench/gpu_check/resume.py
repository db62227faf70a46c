"""A run that is killed and goes on has the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator, Sequence

import cv2
import numpy as np
from tqdm import tqdm

from latse.bench.gpu_check.outcome import row
from latse.bench.gpu_check.setting import Setting
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.goals import Goal
from latse.models import checkpoint
from latse.train import state

PEOPLE, PICTURES = 6, 4
ITERATIONS = 8
CHANGES = (
    "encoder.name=resnet_tiny",
    "decoder.enabled=true",
    "decoder.widths=[8, 8, 8, 8]",
    "train.memory_plan=false",
    "train.batch_size=8",
    "train.checkpoint_every=2",
    f"train.iterations={ITERATIONS}",
    "schedule.mode=constant",
    "schedule.learning_rate=0.01",
)
# cuDNN has kernels that add in any order, and chooses by their speed.
REPEATABLE = {"MXNET_ENFORCE_DETERMINISM": "1", "MXNET_CUDNN_AUTOTUNE_DEFAULT": "0"}
LOOKS = 0.002  # seconds between two looks at what a run has done


def rows(setting: Setting) -> Iterator[Goal]:
    """Train a student three times, once killed by SIGKILL, and compare all arrays that the runs leave."""
    with tempfile.TemporaryDirectory(prefix="latse-check-gpu-") as temporary:
        folder = Path(temporary)
        write_shard(folder / "people", pictures(), PEOPLE)
        for name in tqdm(("unbroken", "again", "killed"), "runs", unit="run"):
            words = command(setting, folder, name)
            if name == "killed":
                reached = killed(words, folder / name)
                words.append("--resume")
            finish(words)
        yield row(f"iteration, of {ITERATIONS}, after which the run was killed", reached, at_least=1)
        for title, name in (("a second run", "again"), ("the killed run that went on", "killed")):
            count, different = differing(folder / "unbroken", folder / name)
            yield row(f"of {count} arrays, others in {title}", len(different), at_most=0)


def pictures() -> list[tuple[int, bytes]]:
    """Return labels and PNG files of made-up people, noise of another scale for each."""
    rng = np.random.default_rng(0)
    found = []
    for person in range(PEOPLE):
        face = rng.integers(0, 256, (7, 7, 3), np.uint8)
        for _ in range(PICTURES):
            picture = cv2.resize(face, (112, 112)) // 2 + rng.integers(0, 128, (112, 112, 3), np.uint8)
            found.append((person, cv2.imencode(".png", picture)[1].tobytes()))
    return found


def command(setting: Setting, folder: Path, name: str) -> list[str]:
    """Return the words of the run that fills `folder`/`name`."""
    device = ["--gpus", str(setting.device.device_id)] if setting.is_gpu else []
    changes = [word for change in CHANGES for word in ("--set", change)]
    where = ["--data", str(folder / "people"), "--out", str(folder / name)]
    return [sys.executable, "-m", "latse", "train", "casia_teacher", *where, *device, *changes]


def killed(words: Sequence[str], folder: Path) -> int:
    """Start a run, kill it at its first checkpoint, and return the iteration that it has reached.

    Raises LatseError if it ends before that.
    """
    run = subprocess.Popen(
        words, env={**os.environ, **REPEATABLE}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while not (folder / state.FILE).exists():
            if run.poll() is not None:
                raise LatseError(f"the run that was to be killed {_ended(run.returncode, run.stderr.read())}")
            time.sleep(LOOKS)
        run.send_signal(signal.SIGKILL)
    finally:
        run.kill()
        run.communicate()
    reached = state.load(folder).iteration
    if reached >= ITERATIONS:
        raise LatseError("the run that was to be killed was faster than that")
    return reached


def finish(words: Sequence[str]) -> None:
    """Run a command to its end; raise LatseError if it fails, with its last line."""
    done = subprocess.run(words, env={**os.environ, **REPEATABLE}, capture_output=True, check=False)
    if done.returncode:
        raise LatseError(f"a run {_ended(done.returncode, done.stderr)}")


def _ended(status: int, said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return f"ended with status {status}: {lines[-1]}"


def differing(folder: Path, other: Path) -> tuple[int, list[str]]:
    """Return how many arrays the models and states of a run hold, and those that another one has not so."""
    expected, found = arrays(folder), arrays(other)
    names = sorted({*expected, *found})
    return len(names), [name for name in names if expected.get(name) != found.get(name)]


def arrays(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each array in the files of a run, mean faces among them."""
    found = {
        f"{path.name}: {name}": array.asnumpy().tobytes()
        for path in folder.glob("*.params")
        for name, array in checkpoint.read_arrays(path).items()
    }
    return {**found, **{path.name: np.load(path).tobytes() for path in folder.glob("*.npy")}}
