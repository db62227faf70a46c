"""Processes for many like tasks: none outlives its parent, and one that dies is an error, not a wait."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

from latse.errors import LatseError

AT, DONE, FAILED = "at", "done", "failed"  # what a message of a worker tells


def in_order(function: Callable, tasks: Iterable[tuple], processes: int, path: Path) -> Iterator[Any]:
    """Iterate the results of `function(*task)` for each task, in order, from so many processes.

    Raises LatseError, naming `path`, if a process dies; what the function raises passes unchanged.
    """
    if processes == 1:
        yield from itertools.starmap(function, tasks)
        return
    try:
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
            yield from _ahead(pool, function, tasks, 4 * processes + 1)
    except BrokenProcessPool as error:
        raise LatseError(f"a process that read {path} died; out of memory?") from error


def in_threads(function: Callable, tasks: Iterable[tuple], threads: int, queue: int = 1) -> Iterator[Any]:
    """Iterate the results of `function(*task)` for each task, in order, from so many threads.

    At most `threads` + `queue` results are held. An error of a task is raised when its turn comes; leaving
    the loop early ends the threads.
    """
    with ThreadPoolExecutor(threads, "latse-ahead") as pool:
        yield from _ahead(pool, function, tasks, threads + queue)


def _ahead(pool: Executor, function: Callable, tasks: Iterable[tuple], most: int) -> Iterator[Any]:
    waiting: deque[Future] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, *task))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent of this process, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def run(
    make: Callable[..., Callable], arguments: tuple, tasks: Iterable, processes: int, advice: str
) -> Iterator[tuple]:
    """Let `processes` processes do the tasks; iterate what they tell, in the order in which it comes.

    Unlike `in_order`, this knows what a process was at when it died.

    Parameters
    ----------
    make : function
        One of a module. Called with `arguments` in each process, it returns the function of a task and of
        `at(name)`, to be called with the name of each thing before the work at it.
    arguments : tuple
        Picklable.
    tasks : iterable
        Picklable; one is drawn when a process is free for it.
    processes : int
        At least 1.
    advice : str
        What to do when a process has died, as the end of a sentence.

    Yields
    ------
    (AT, name) or (DONE, result of a task)

    Raises
    ------
    LatseError
        That of a task; or if a process dies or runs out of memory: then it names what the process was at.
        The other processes are ended, as they are when the caller leaves the loop or dies.
    """
    # A forked process would inherit the locks of the parent's threads, and MXNet where the parent has it.
    context, tasks = multiprocessing.get_context("spawn"), iter(tasks)
    workers: dict[Connection, _Worker] = {}
    try:
        for _, task in zip(range(processes), tasks):
            worker = _Worker(context, make, arguments, advice)
            workers[worker.pipe] = worker
            worker.give(task)
        busy = set(workers)
        while busy:
            for pipe in wait(busy):
                kind, content = workers[pipe].hear()
                if kind == DONE and not workers[pipe].give(next(tasks, None)):
                    busy.remove(pipe)
                yield kind, content
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """One process and the parent's end of the pipe to it."""

    def __init__(self, context: Any, make: Callable[..., Callable], arguments: tuple, advice: str):
        self.pipe, theirs = context.Pipe()
        self._advice = advice
        self._at = "its beginning"
        self._process = context.Process(target=_work, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def give(self, task: Any) -> bool:
        """Send a task and return True; False if it is None."""
        if task is None:
            return False
        try:
            self.pipe.send(task)
        except OSError:
            self._refuse_death()
        return True

    def hear(self) -> tuple:
        try:
            kind, content = self.pipe.recv()
        except (EOFError, OSError):
            self._refuse_death()
        if kind == AT:
            self._at = content
        if kind == FAILED:
            raise LatseError(content)
        return kind, content

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _refuse_death(self) -> None:
        self._process.join()
        status = self._process.exitcode
        how = f"ended with status {status}" if status >= 0 else f"was killed ({signal.Signals(-status).name})"
        raise LatseError(f"a process {how} while at {self._at}: {self._advice}")


def _work(pipe: Connection, make: Callable[..., Callable], arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends its workers
    now = "its beginning"

    def at(name: str) -> None:
        nonlocal now
        now = name
        if not multiprocessing.parent_process().is_alive():
            os._exit(1)
        pipe.send((AT, name))

    try:
        do = make(*arguments)
        while True:
            pipe.send((DONE, do(pipe.recv(), at)))
    except LatseError as error:
        pipe.send((FAILED, str(error)))
    except MemoryError:
        pipe.send((FAILED, f"out of memory at {now}: fewer --processes need less"))
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone
