"""Processes for many like tasks: none outlives its parent, and one that dies is an error, not a wait."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
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

    They tell (AT, name) before the work at each thing of a task, and (DONE, seconds of a processor) after a
    task. Unlike `in_order`, this returns no results, but knows what a process was at when it died.

    `make`, of a module, is called with `arguments` in each process. It returns the function of a task and of
    `at(name)`, which is to be called before the work at each thing. Arguments and tasks are picklable; a task
    is drawn when a process is free for it.

    Raises the LatseError of a task, or one that names what a process was at when it ran out of memory or
    died; after a death it ends with `advice`, what to do. The other processes are ended, as they are when the
    caller leaves the loop or dies.
    """
    # A forked process would inherit the locks of the parent's threads, and MXNet where the parent has it.
    context, tasks = multiprocessing.get_context("spawn"), iter(tasks)
    workers: dict[Connection, BaseProcess] = {}
    names: dict[Connection, str] = {}  # what each is at
    try:
        for _, task in zip(range(processes), tasks):
            pipe, theirs = context.Pipe()
            worker = context.Process(target=_work, args=(theirs, make, arguments, task), daemon=True)
            worker.start()
            workers[pipe] = worker
            theirs.close()  # so that the end of the process is the end of the pipe
        busy = set(workers)
        while busy:
            for pipe in busy.intersection(wait(busy)):
                name = names.get(pipe, "its beginning")
                try:
                    kind, content = pipe.recv()
                    if kind == DONE and (task := next(tasks, None)) is not None:
                        pipe.send(task)
                    elif kind == DONE:
                        busy.remove(pipe)
                except (EOFError, OSError) as error:
                    raise LatseError(f"a process {_fate(workers[pipe])} while at {name}: {advice}") from error
                if kind == FAILED:
                    raise LatseError(content or f"out of memory at {name}: fewer --processes need less")
                if kind == AT:
                    names[pipe] = content
                yield kind, content
    finally:
        for pipe, worker in workers.items():
            worker.kill()
            worker.join()
            pipe.close()


def _fate(process: BaseProcess) -> str:
    process.join()
    status = process.exitcode
    return f"ended with status {status}" if status >= 0 else f"was killed ({signal.Signals(-status).name})"


def _work(pipe: Connection, make: Callable[..., Callable], arguments: tuple, task: Any) -> None:
    _end_with_parent()
    try:
        do = make(*arguments)
        while True:
            started = time.process_time()
            do(task, lambda name: pipe.send((AT, name)))
            pipe.send((DONE, time.process_time() - started))
            task = pipe.recv()
    except LatseError as error:
        pipe.send((FAILED, str(error)))
    except MemoryError:
        pipe.send((FAILED, ""))
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone
