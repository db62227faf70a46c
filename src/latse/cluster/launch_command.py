"""`latse launch`: start scheduler, servers and workers, here or over ssh, and end them together."""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Iterator, NamedTuple

from latse.child import end_with_parent
from latse.cluster.launcher import GRACE, Launcher
from latse.cluster.meeting import FAILED
from latse.cluster.place import (
    HOST,
    LAUNCHER,
    NAME,
    PORT,
    ROLE,
    SCHEDULER,
    SERVER,
    SERVERS,
    TIMEOUT,
    WORKER,
    WORKERS,
    Place,
)
from latse.errors import LatseError, check_range
from latse.files import read_lines
from latse.runtime import threads

LOCAL = "127.0.0.1"
USUAL_PORT = 9091
SIGNALS = (signal.SIGINT, signal.SIGTERM)
BAR = 10.0  # seconds between two states of a progress bar
NODE_HOST = "DMLC_NODE_HOST"  # where a part listens


class Part(NamedTuple):
    """A process of a run.

    Attributes
    ----------
    name : str
        Such as `worker 1`.
    role, host : str
        What it is, and where.
    process : Popen
        It, or the ssh that runs it.
    """

    name: str
    role: str
    host: str
    process: subprocess.Popen


def run(args: argparse.Namespace) -> int:
    """Run until all parts have ended; return 0, or the status of the first one that failed.

    Raises LatseError for bad arguments and a file of hosts that cannot be read.
    """
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not words:
        raise LatseError("what is to be launched? Write it at the end, as in -- latse train …")
    hosts = _hosts(args.hosts)
    workers = len(hosts) if args.workers is None else args.workers
    servers = workers if args.servers is None else args.servers
    check_range("--workers", workers, 1)
    check_range("--servers", servers, 1)
    roles = [
        (SCHEDULER, 0),
        *((SERVER, n) for n in range(servers)),
        *((WORKER, n) for n in range(workers)),
    ]
    port = args.port or (USUAL_PORT if args.hosts else _free_port())
    check_range("--port", port, 1, 65534)
    common = {HOST: hosts[0], PORT: port, WORKERS: workers, SERVERS: servers, TIMEOUT: args.timeout}
    parts = []
    try:
        for role, number in roles:
            host = hosts[number % len(hosts)]
            name = role if role == SCHEDULER else f"{role} {number}"
            variables = {**common, ROLE: role, NODE_HOST: host, NAME: name}
            if not args.hosts and "OMP_NUM_THREADS" not in os.environ:
                variables["OMP_NUM_THREADS"] = max(1, threads() // workers) if role == WORKER else 1
            started = _started(words, {key: str(value) for key, value in variables.items()}, host, args.hosts)
            parts.append(Part(name, role, host, started))
        own = Place(LAUNCHER, workers, servers, hosts[0], port, LAUNCHER, args.timeout)
        return _watched(parts, own if args.hosts else None)
    finally:
        _kill(parts)


def _hosts(file: str | None) -> list[str]:
    if file is None:
        return [LOCAL]
    hosts = [line.strip() for _, line in read_lines(file) if line.strip() and not line.startswith("#")]
    for host in hosts:
        if host.startswith("-") or len(host.split()) > 1:
            raise LatseError(f"{file}: '{host}' is no address of a host, one a line")
    if not hosts:
        raise LatseError(f"{file} names no host")
    return hosts


def _free_port() -> int:
    """Return a port that is free here, and the next one too."""
    while True:
        with socket.create_server((LOCAL, 0)) as first:
            port = first.getsockname()[1]
            with contextlib.suppress(OSError), socket.create_server((LOCAL, port + 1)):
                return port


def _started(
    words: list[str], variables: dict[str, str], host: str, is_remote: str | None
) -> subprocess.Popen:
    """Start one part in a session of its own, its output in one pipe."""
    if is_remote:
        settings = [f"{name}={value}" for name, value in variables.items()]
        inner = f"cd {shlex.quote(str(Path.cwd()))} && exec env {shlex.join([*settings, *words])}"
        words, variables = ["ssh", "-o", "BatchMode=yes", host, inner], {}
    try:
        return subprocess.Popen(
            words,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - no thread has begun
        )
    except OSError as error:
        raise LatseError(f"{words[0]} cannot be started: {error.strerror or error}") from error


def _watched(parts: list[Part], place: Place | None) -> int:
    """Show what the parts print until all have ended; return the status of the run.

    `place` is the launcher's in a run over hosts.
    """
    ends: queue.SimpleQueue[Part | str] = queue.SimpleQueue()  # parts, or why the run has to end
    shown = threading.Lock()
    for part in parts:
        threading.Thread(target=_follow, args=(part, shown, ends), daemon=True).start()
    launcher = Launcher(place, ends.put) if place else None
    left, failed, sentence = len(parts), 0, ""
    with _passing_on(parts, launcher):
        while left:
            end = _next(ends, GRACE if failed else None)
            if end is None:  # they have had their time
                break
            if isinstance(end, str):
                failed = failed or FAILED
                sentence = sentence or _said(f"the run ends: {end}")
                continue
            left -= 1
            if end.process.returncode and not failed:
                failed = _status(end.process.returncode)
                how = _how(end.process.returncode)
                sentence = _said(f"{end.name} on {end.host} {how}; {left} others end")
    if launcher and left:
        launcher.end(sentence)
    elif launcher:
        launcher.leave()
    return failed


def _next(ends: queue.SimpleQueue[Part | str], seconds: float | None) -> Part | str | None:
    until = None if seconds is None else time.monotonic() + seconds
    while until is None or time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            return ends.get(timeout=0.2)  # short: a signal is heeded in between
    return None


def _follow(part: Part, shown: threading.Lock, ends: queue.SimpleQueue[Part | str]) -> None:
    """Show what a part prints, and say when it has ended."""
    reader = threading.Thread(target=_show, args=(part, shown), daemon=True)
    reader.start()
    part.process.wait()
    reader.join(GRACE)  # what the part has started and left behind may hold the pipe for ever
    ends.put(part)


def _show(part: Part, shown: threading.Lock) -> None:
    """Print what a part prints, each line with its name."""
    assert part.process.stdout is not None
    for line in _printed(part.process.stdout):
        with shown:
            print(f"[{part.name}] {line}", flush=True)


def _printed(pipe: IO[bytes]) -> Iterator[str]:
    """Yield lines; of what a progress bar writes over itself, something every few seconds, and the last."""
    rest, shown = b"", time.monotonic()
    while piece := os.read(pipe.fileno(), 1 << 16):
        *lines, rest = re.split(rb"(?<=[\r\n])", rest + piece)
        for line in lines:
            if line.endswith(b"\n") or time.monotonic() - shown > BAR:
                shown = time.monotonic()
                yield line.decode(errors="backslashreplace").rstrip("\r\n")
    if rest:
        yield rest.decode(errors="backslashreplace")


@contextlib.contextmanager
def _passing_on(parts: list[Part], launcher: Launcher | None) -> Iterator[None]:
    """Pass the first SIGINT or SIGTERM on to the workers, who save what they have; the next one ends all."""
    came: list[int] = []

    def heed(number: int, _: object) -> None:
        came.append(number)
        if len(came) == 1:
            launcher.signal(number) if launcher else _signal(parts, number)
        elif len(came) == 2:
            launcher.end("it was interrupted twice") if launcher else _kill(parts)

    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    # Whoever is told would end this process before the workers have saved what they have.
    told = signal.set_wakeup_fd(-1)
    before = {number: signal.signal(number, heed) for number in heeded}
    try:
        yield
    finally:
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(parts: list[Part], number: int) -> None:
    for part in parts:
        if part.role == WORKER and part.process.poll() is None:
            part.process.send_signal(number)


def _kill(parts: list[Part]) -> None:
    for part in parts:
        if part.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(part.process.pid, signal.SIGKILL)


def _how(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    return f"was killed by {signal.Signals(-status).name}"


def _status(status: int) -> int:
    return status if status > 0 else 128 - status


def _said(text: str) -> str:
    print(f"latse: {text}", file=sys.stderr, flush=True)
    return text
