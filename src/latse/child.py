"""A process of our own that does one thing and ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Callable

from tqdm import tqdm

from latse.errors import LatseError


def end_with_parent() -> None:
    """Let the kernel end this process with the one that started it, however that ends (Linux).

    To be called by a child that is of use to its parent alone. Not from a `preexec_fn`, which forks: where
    MXNet is at work, the fork may never come back.
    """
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def in_child(task: str, function: Callable[..., Any], *arguments: Any, seconds: float | None = None) -> Any:
    """Call a function in a process that ends with the call: none of its memory stays in this one's pool.

    Parameters
    ----------
    task : str
        What an error calls it.
    function : callable
        One of a module, which the process imports.
    *arguments : object
        Its arguments, which must be picklable like what it returns.
    seconds : float, optional
        How long the function may take; by default as long as it likes.

    Raises
    ------
    LatseError
        If the process is killed, which a machine short of memory does, or takes longer; what the function
        raises passes.
    """
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), _begin) as pool:
            child = pool.submit(os.getpid).result()
            try:
                return pool.submit(function, *arguments).result(seconds)
            except TimeoutError as error:
                raise LatseError(f"{task} has not ended after {seconds:g} s") from error
            finally:  # its end is not waited for: where MXNet is at work, it may never come
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
    except BrokenProcessPool as error:
        raise LatseError(f"{task} was killed: the machine may be short of memory") from error


def _begin() -> None:
    """Prepare a process that will be killed."""
    end_with_parent()
    tqdm.set_lock(threading.RLock())  # its own holds a semaphore, which would stay behind
