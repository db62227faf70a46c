"""How a process ends that may have started MXNet: within seconds, with its status, its output flushed."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Callable, NoReturn

PATIENCE = 5.0  # seconds that a process which is told to end has for its clean-up
BROKEN_PIPE = 128 + signal.SIGPIPE
TERMINATED = 128 + signal.SIGTERM


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` in the main thread and end the process with the status that it returns, 0 for None.

    An unexpected exception shows its traceback, status 1; SIGTERM is an exception too, so that `with` blocks
    clean up, and reaches the child processes, status 143; so is a reader of stdout that has left, 141. What
    SIGTERM or Ctrl-C has not ended after some seconds ends then.

    Python's exit handlers run, but no thread is waited for, nor what MXNet is at: its own exit handler drops
    what is queued, and where an operator in Python waits for that, the process never ends.
    """
    _leave(_status(main))


def let_work_end() -> None:
    """Wait for what the devices have begun: an exit handler for processes that do not end by `run`.

    MXNet's own, which comes later, may otherwise wait for ever.
    """
    import mxnet as mx

    with contextlib.suppress(mx.base.MXNetError):  # one that has been raised before
        mx.nd.waitall()


class _Terminated(SystemExit):
    """SIGTERM has come."""


def _status(main: Callable[[], int | None]) -> int:
    try:
        _heed_signals()
        return main() or 0
    except _Terminated:
        print("latse: terminated", file=sys.stderr)
        return TERMINATED
    except SystemExit as end:  # argparse's among them
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return BROKEN_PIPE
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


def _heed_signals() -> None:
    """Raise _Terminated at SIGTERM; some seconds after it or Ctrl-C end the process if it is still there.

    It is where the main thread is inside MXNet, or Python was at a `__del__` or at what MXNet had called,
    which let no exception out.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_insist, args=(reading,), daemon=True).start()
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise _Terminated


def _insist(signals: int) -> None:
    while (number := os.read(signals, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
        pass
    if number == signal.SIGTERM:  # Ctrl-C comes to all processes of a terminal
        _pass_on_sigterm()
    time.sleep(PATIENCE)
    os._exit(128 + number)


def _pass_on_sigterm() -> None:
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread or a child that has ended
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGTERM)


def _leave(status: int) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.kill()  # an exit handler waits for it
    atexit.unregister(let_work_end)
    if "mxnet.base" in sys.modules:
        atexit.unregister(sys.modules["mxnet.base"]._notify_shutdown)
    atexit._run_exitfuncs()
    os._exit(_flushed(status))


def _flushed(status: int) -> int:
    """Flush what was printed; return the status, or another than 0 where that is impossible."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed from the start
            stream.flush()
    except BrokenPipeError:
        return status or BROKEN_PIPE
    except OSError as error:
        print(f"latse: cannot write the output: {error.strerror}", file=sys.stderr)
        return status or 1
    return status
