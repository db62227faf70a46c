"""Which devices a command runs on."""

from __future__ import annotations

import argparse
import platform

import mxnet as mx

from latse.errors import LatseError, check_range

MOST_CPUS = 4096


def contexts(args: argparse.Namespace) -> list[mx.Context]:
    """Return the devices that the arguments name.

    Raises LatseError for a malformed list, a GPU that is not there, or CPU contexts that are not 1 to 4096.
    """
    if args.gpus is None:
        check_range("--cpus", args.cpus, 1, MOST_CPUS)
        return [mx.cpu(number) for number in range(args.cpus)]
    numbers = args.gpus.split(",")
    present = mx.context.num_gpus()
    for number in numbers:
        if not (number.isascii() and number.isdigit()) or numbers.count(number) > 1:
            raise LatseError(f"--gpus {args.gpus}: write different numbers with commas, as in 0,1")
        if not present:
            raise LatseError(f"--gpus {args.gpus}: MXNet sees no GPU; for CUDA, `make setup GPU=1`")
        if int(number) >= present:
            raise LatseError(f"--gpus {args.gpus}: there is no GPU {number}, MXNet sees {present}")
    return [mx.gpu(int(number)) for number in numbers]


def share(batch_size: int, devices: list[mx.Context], name: str = "train.batch_size") -> int:
    """Return how many images of a batch each device gets.

    Raises LatseError, which calls the size by its `name`, if they cannot get equally many.
    """
    if batch_size % len(devices):
        raise LatseError(f"{name} {batch_size} cannot be split over {len(devices)} devices")
    return batch_size // len(devices)


def describe(devices: list[mx.Context]) -> str:
    """Return one line on the devices (none: the processor) and the machine, for the record of a result."""
    names = ", ".join(map(str, devices)) or "the processor"
    return f"{names} of {platform.platform()} {platform.machine()}"
