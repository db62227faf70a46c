"""`latse bench all`: the benchmarks of docs/performance.md, one by one, each in a process of its own.

A result that is there already is kept if the same command on the same machine wrote it with the same code, so
that what was stopped goes on. Results of changed files (`+` behind the commit) are always measured again. A
benchmark that fails does not keep the others from running.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from latse import provenance
from latse.bench.benchmark import SOURCES, add_peers, peer
from latse.bench.result import read
from latse.errors import LatseError
from latse.files import make_folder
from latse.paper.plan_arguments import PAPERS_SETTING

CLASSES = "10572"  # CASIA-WebFace's people, as `latse bench train` has by default
FACE_IMAGE_ITER = SOURCES / "image_iter.py"


@dataclass(frozen=True)
class Job:
    """A command line of `latse` without --json; on one core and one thread unless it needs `all_cores`.

    One that `plans` writes a memory plan besides.
    """

    name: str
    arguments: tuple[str, ...]
    all_cores: bool = False
    plans: bool = False

    def command(self, folder: Path) -> list[str]:
        """Return the arguments of `latse` that write FOLDER/NAME.json; a plan goes into FOLDER/plans."""
        plan = ("--out", str(folder / "plans" / f"{self.name}.json")) if self.plans else ()
        return [*self.arguments, *plan, "--json", str(folder / f"{self.name}.json")]

    def bounds(self) -> list[str]:
        """Return the words before the command that keep it on the last processor this process may use."""
        if self.all_cores:
            return []
        pinning = ["taskset", "-c", str(max(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
        return ["env", "OMP_NUM_THREADS=1", *pinning]


def jobs(peers: str | None) -> list[Job]:
    """Return all benchmarks, with the peers from the folder `peers` where they use some."""
    with_peers = ("--peers", peers) if peers else ()
    reader = peer(peers, FACE_IMAGE_ITER)
    face_image_iter = ("--peer", str(reader)) if reader else ()

    def train(encoder: str) -> Job:
        sizes = ("--classes", CLASSES, "--repeats", "3")
        return Job(f"train-{encoder}", ("bench", "train", "--encoder", encoder, *sizes, *with_peers))

    def compare(name: str, recipe: str) -> Job:
        sizes = ("--classes", CLASSES, "--batch-size", "32", "--repeats", "3")
        return Job(f"plan-{name}", ("bench", "plan", recipe, *sizes, *with_peers), all_cores=True)

    encoder, classes, batch_size = map(str, PAPERS_SETTING)
    papers_setting = ("--set", f"encoder.name={encoder}", "--classes", classes, "--batch-size", batch_size)
    return [
        train("resnet34"),
        train("resnet50"),
        compare("resnet50", "ms1mv2_arcface_r50_teacher"),
        compare("resnet100", "ms1mv2_arcface_r100_teacher"),
        compare("resnet100-student", "ms1mv2_student"),
        Job("device", ("plan", "ms1mv2_student", *papers_setting), plans=True),
        Job("filter", ("bench", "filter")),
        Job("bank", ("bench", "bank")),
        Job("head", ("bench", "head")),
        Job("loader", ("bench", "loader", *face_image_iter), all_cores=True),
        Job("embed", ("bench", "embed")),
        Job("search", ("bench", "search", "--distractors", "300000"), all_cores=True),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `latse bench all`."""
    parser.add_argument("folder", metavar="FOLDER", help="where the results go: FOLDER/NAME.json")
    add_peers(
        parser,
        "insightface/, its sources, and torch/, a virtual environment; without it, equivalent graphs written "
        "here stand for them where there are some",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {_names(jobs(None))}")


def run(args: argparse.Namespace) -> None:
    """Run what has no result yet.

    Raises LatseError if a name is unknown, the folder cannot be made, or, at the end, if a benchmark failed.
    """
    known = jobs(args.peers)
    unknown = set(args.only or ()) - {job.name for job in known}
    if unknown:
        raise LatseError(f"there is no benchmark {min(unknown)!r}: --only takes {_names(known)}")
    chosen = [job for job in known if args.only is None or job.name in args.only]
    folder = make_folder(args.folder)
    failed = []
    for number, job in enumerate(chosen, 1):
        said = f"[{number}/{len(chosen)}] {job.name}"
        if stands(job, folder):
            print(f"{said}: its result is there", flush=True)
            continue
        bounds, command = job.bounds(), job.command(folder)
        print(f"{said}: {shlex.join([*bounds[1:], 'latse', *command])}", flush=True)
        done = subprocess.run([*bounds, sys.executable, "-m", "latse", *command], check=False)
        if done.returncode:
            failed.append(job.name)
    if failed:
        raise LatseError(f"{len(failed)} of {len(chosen)} benchmarks failed: {', '.join(failed)}")


def stands(job: Job, folder: Path) -> bool:
    """Tell whether FOLDER/NAME.json is of this command, this code and this machine."""
    try:
        origin: Mapping[str, Any] = read(folder / f"{job.name}.json").provenance
    except LatseError:  # missing, damaged or something else: it is written anew
        return False
    commit = str(origin["commit"])
    return (
        bool(re.fullmatch("[0-9a-f]{7,40}", commit))
        and provenance.is_same_code(Path(__file__).parent, commit)
        and origin["command"] == shlex.join(["latse", *job.command(folder)])
        and origin["machine"] == provenance.machine()
    )


def _names(known: list[Job]) -> str:
    return ", ".join(job.name for job in known)
