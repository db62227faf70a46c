"""Arguments of several commands. What parsers need imports nothing slow, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import importlib
import os
from typing import Any, Callable

SET = "--set"
SYNCHRONOUS = ("dist_sync", "dist_sync_device")
ASYNCHRONOUS = "dist_async"
DISTRIBUTED = (*SYNCHRONOUS, ASYNCHRONOUS)  # these join the workers of `latse launch`
KVSTORES = ("local", "device", "nccl", *DISTRIBUTED)


def later(module: str, function: str = "run") -> Callable[..., Any]:
    """Return a function of a module that is imported when it is called."""

    def call(*arguments: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*arguments)

    return call


def add_set_argument(parser: Any, summary: str) -> None:
    """Declare `--set` of a command, whose words `latse.recipe.load` takes as overrides."""
    parser.add_argument(SET, action="append", default=[], metavar="SECTION.KEY=VALUE", help=summary)


def add_processes_argument(parser: Any, summary: str) -> None:
    """Declare `--processes`, by default as many as there are processors."""
    number = len(os.sched_getaffinity(0))
    whole = f"{summary} (default: one for each processor, %(default)s)"
    parser.add_argument("--processes", type=int, default=number, metavar="N", help=whole)


def add_batch_size_argument(parser: Any, size: int = 32) -> None:
    """Declare `--batch-size` of a command that embeds images, with its default."""
    parser.add_argument(
        "--batch-size", type=int, default=size, metavar="N", help="images per batch (default: %(default)s)"
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--gpus` and `--cpus`, which exclude each other; `latse.devices.contexts` reads them."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--gpus", metavar="0,1,…", help="numbers of the GPUs; default: one CPU context")
    group.add_argument(
        "--cpus", type=int, default=1, metavar="N", help="CPU contexts, each a device of its own (default 1)"
    )
