"""Where a result comes from: the command, the code, the versions, the device."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Sequence

from latse.runtime import cores, threads, versions

# What git is asked about: the code, neither documents nor tests.
_CODE = (":/", ":(top,exclude)docs", ":(top,exclude)*.md", ":(top,exclude)tests")


def provenance(args: argparse.Namespace, contexts: Sequence[Any] | None = None) -> dict[str, Any]:
    """Return what every JSON of a measurement says of itself.

    Parameters
    ----------
    args : Namespace
        As `latse.cli` parsed it; `args.command_line` is the command.
    contexts : sequence of mx.Context, optional
        The devices that were computed on; without any, numpy's: the machine is named all the same.

    Returns
    -------
    dict
        `command` as it can be given to a shell; `commit` of the code, with `+` where files of it are changed,
        None outside of a git checkout; `versions`; `device`; `machine`; `cores` that this process may run on
        and `threads` it computes with; `date`, when this was asked (ISO 8601, UTC).
    """
    from latse import devices  # which imports mxnet

    return {
        "command": shlex.join(["latse", *args.command_line]),
        "commit": commit(Path(__file__).parent),
        "versions": versions(),
        "device": devices.describe(list(contexts or [])),
        "machine": machine(),
        "cores": cores(),
        "threads": threads(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def machine() -> dict[str, Any]:
    """Return what tells this machine from others: `processor`, number of `processors`, `memory_gibibytes`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gibibytes": round(memory / 2**30, 1),
    }


def _processor() -> str:
    """Return the model's name as Linux says it, elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def commit(folder: Path) -> str | None:
    """Return the commit of a folder's checkout, a `+` behind it if code is changed; None outside of git.

    Documents and tests do not count: neither changes what a result is made with.
    """
    if not _git(folder, "ls-files", "--", "."):  # a package installed below somebody's own checkout
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return f"{_git(folder, 'rev-parse', '--short=12', 'HEAD')}{'+' if changed else ''}"


def is_same_code(folder: Path, older: str) -> bool:
    """Tell whether the code in a folder's checkout is that of the commit `older`.

    Files that were changed since then count, committed or not; False where git does not know the commit.
    """
    return _git(folder, "diff", "--quiet", older, "--", *_CODE) is not None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
