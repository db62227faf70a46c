"""The command `latse check-gpu`: each check in a process of its own, then a page of all."""

from __future__ import annotations

import argparse
import subprocess
import time
from typing import Any, Mapping

import mxnet as mx
from mxnet.test_utils import environment

from latse.bench.gpu_check.checks import CHECKS
from latse.bench.gpu_check.outcome import VERDICTS, Outcome, page, verdict
from latse.bench.gpu_check.setting import PAPERS, SMALL, Setting
from latse.child import in_child
from latse.devices import contexts
from latse.errors import LatseError
from latse.files import make_parents, write_json, write_text
from latse.graph.nodes import sentence
from latse.provenance import provenance
from latse.runtime import mxnet_build

KIND = "check gpu"
PATIENCE = 900.0  # seconds that a check may take
NVIDIA = (
    "nvidia-smi",
    "--query-gpu=index,name,driver_version,memory.total",
    "--format=csv,noheader",
)


def run(args: argparse.Namespace) -> int:
    """Check, print and write the page; return 1 if a check has failed; raise LatseError for bad input."""
    setting = Setting(devices(args), SMALL if args.small else PAPERS)
    make_parents(args.out, args.json)
    made = provenance(args, setting.devices)
    graphics = described()
    outcomes: list[Outcome] = []
    names = [*dict.fromkeys(args.only)]
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {CHECKS[name].title} ...", flush=True)
        outcome = tried(name, setting)
        outcomes.append(outcome)
        print(f"    {name}: {VERDICTS[outcome.passed]}, {outcome.seconds:.0f} s", flush=True)
        print(*(f"    {failure}\n" for failure in outcome.failures), sep="", end="", flush=True)
        # After each: who stops here has a page of those that are done.
        write_json(args.json, as_json(outcomes, names, made, setting, graphics))
        write_text(args.out, page(outcomes, len(names), facts(made, graphics)))
    print(verdict(outcomes, len(names)))
    print(f"{args.out} is the page to send back, {args.json} the same for programs")
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def devices(args: argparse.Namespace) -> list[mx.Context]:
    """Return the devices that the arguments name, by default every GPU; raise LatseError if there is none."""
    if args.gpus is None and args.cpus is None:
        present = mx.context.num_gpus()
        if not present:
            raise LatseError(
                "MXNet sees no GPU: `make setup GPU=1` installs it for CUDA, and --cpus 2 --small tries all "
                "checks without one"
            )
        args.gpus = ",".join(map(str, range(present)))
    return contexts(args)


def tried(name: str, setting: Setting) -> Outcome:
    """Do a check in a process of its own, in its environment; one that is killed or hangs has failed."""
    began = time.perf_counter()
    try:
        with environment(dict(CHECKS[name].environment)):
            outcome = in_child(f"the check {name}", found, name, setting, seconds=PATIENCE)
    except LatseError as error:
        outcome = Outcome(name, CHECKS[name].title, faults=[str(error)])
    outcome.seconds = time.perf_counter() - began
    return outcome


def found(name: str, setting: Setting) -> Outcome:
    """Do a check here; what it raises is a fault, and what it has found until then stays."""
    outcome = Outcome(name, CHECKS[name].title)
    try:
        for said in CHECKS[name].rows(setting):
            outcome.add(said)
    except LatseError as error:
        outcome.faults.append(str(error))
    except mx.MXNetError as error:
        outcome.faults.append(f"MXNet: {sentence(error)}")
    except Exception as error:  # whatever it is, the other checks go on
        outcome.faults.append(f"{type(error).__name__}: {error}")
    return outcome


def described() -> list[str]:
    """Return a line on each GPU, with its driver; nothing where NVIDIA's tool is not there."""
    try:
        done = subprocess.run(NVIDIA, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def as_json(
    outcomes: list[Outcome], asked: list[str], made: Mapping[str, Any], setting: Setting, graphics: list[str]
) -> dict[str, Any]:
    """Return what the file of JSON says."""
    return {
        "kind": KIND,
        "provenance": made,
        "devices": [*map(str, setting.devices)],
        "sizes": setting.sizes._asdict(),
        "mxnet": mxnet_build(),
        "graphics": graphics,
        "passed": len(outcomes) == len(asked) and all(outcome.passed for outcome in outcomes),
        "asked": asked,
        "checks": [outcome.as_json() for outcome in outcomes],
    }


def facts(made: Mapping[str, Any], graphics: list[str]) -> dict[str, str]:
    """Return what the head of the page says, by title."""
    machine = made["machine"]
    return {
        "command": f"`{made['command']}`",
        "commit": made["commit"] or "not from a checkout",
        "date": made["date"],
        "device": made["device"],
        "GPUs and driver": "; ".join(graphics) or "nvidia-smi says nothing",
        "processor": f"{machine['processor']}, {machine['processors']} of them, {made['threads']} threads",
        "memory": f"{machine['memory_gibibytes']} GiB",
        "built": mxnet_build(),
        "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
    }
