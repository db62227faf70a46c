"""Processes of our own: one that dies is one sentence, and none outlives its parent."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from latse.data import workers
from latse.errors import LatseError


def test_results_come_in_order():
    tasks = [(number, 3) for number in range(50)]
    for processes in (1, 3):
        assert list(workers.in_order(pow, tasks, processes, Path("it"))) == [
            number**3 for number in range(50)
        ]


def test_a_process_that_dies_is_one_sentence():
    with pytest.raises(LatseError, match="a process that read train.rec died"):
        list(workers.in_order(os.abort, [()] * 20, 2, Path("train.rec")))


def test_processes_end_with_a_parent_that_is_killed(kill_family):
    script = (
        "from latse.data import workers; import os, itertools\n"
        "for number in workers.in_order(os.getpid, itertools.repeat(()), 2, 'x'): print(number, flush=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert int(parent.stdout.readline()) != parent.pid
    assert kill_family(parent) >= 2
    parent.stdout.close()


def no_room():
    raise MemoryError


def test_a_process_that_lacks_memory_before_its_first_image_is_one_sentence():
    with pytest.raises(LatseError, match="^out of memory at its beginning: fewer --processes need less$"):
        list(workers.run(no_room, (), [()], 1, "look"))


def test_a_process_that_cannot_start_is_the_error_that_is_told(monkeypatch):
    def refuse(_):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", refuse)
    with pytest.raises(BlockingIOError, match="no more processes"):
        list(workers.run(no_room, (), [()], 1, "look"))
