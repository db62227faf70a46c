"""Measure what the mean faces of two workers cost where one worker owns all, or each owns half.

    python tests/cluster/mean_faces_trial.py

Prints what travels in an iteration and how long it takes; then what it would take to send all means of the
second worker to the first, where each owns half, as a checkpoint in the first one's folder would need it.
Two processes over the loopback; 1.6 GB of disk.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from latse.cluster.alone import Alone
from latse.cluster.exchange import Exchange
from latse.cluster.launch_command import LOCAL, _free_port
from latse.cluster.meeting import Host, Member
from latse.cluster.place import Place
from latse.train.bank import FACES
from latse.train.owned_bank import OwnedBank

SHAPE, MOMENTUM = (3, 112, 112), 0.9
WAYS = {"the first worker owns all": ("0", "1"), "each owns half": ("0", "0")}  # with the folder of each
BLOCK = 500  # faces that travel at once


class Met(Alone):
    """A worker of this trial."""

    def __init__(self, place, rank):
        self.rank, self.count = rank, place.workers
        self.member = Member(place._replace(role="worker", name=f"worker {rank}"))

    def gather(self, what, value):
        return self.member.gather(self.rank, what, value)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument(
        "--batch", type=int, default=768, help="images of an iteration (default: %(default)s)"
    )
    parser.add_argument("--iterations", type=int, default=10)
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    for way, folders in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            place = Place("scheduler", 2, 1, LOCAL, _free_port(), "scheduler", 600.0)
            host = Host(place, print)
            work = [
                spawn.Process(target=worker, args=(place, rank, Path(folder, own), args, way))
                for rank, own in enumerate(folders)
            ]
            for process in work:
                process.start()
            for process in work:
                process.join()
            host.close()
            assert not any(process.exitcode for process in work)


def worker(place, rank, folder, args, way):
    workers, sent = Met(place, rank), []
    swap = Exchange.swap

    def counted(exchange, parts):
        sent.append(len(parts[1 - rank]))
        return swap(exchange, parts)

    Exchange.swap = counted
    bank = OwnedBank(workers, folder, args.people, SHAPE, MOMENTUM, 0)
    random = np.random.default_rng(rank)
    images = random.integers(0, 256, (args.batch // 2, *SHAPE), np.uint8)
    seconds = []
    for number in range(args.iterations):
        labels = random.choice(args.people, len(images), replace=False)
        workers.gather(f"iteration {number}", None)
        begin = time.perf_counter()
        bank.update(images, labels, np.ones(len(images), bool))
        seconds.append(time.perf_counter() - begin)
    say(workers, way, sum(sent) / args.iterations, seconds)
    if len(bank._owners) > 1:
        sent.clear()
        say(workers, "all means to the first worker", *gathered(workers, bank, folder, args.people, sent))
    bank.close()
    workers.member.leave()


def gathered(workers, bank, folder, people, sent):
    """Send the first worker the means of the other, which writes them down; return bytes and seconds."""
    begin, shape = time.perf_counter(), (-1, *SHAPE)
    workers.gather("all means", None)
    faces = np.load(folder / FACES, mmap_mode="r")
    with (folder / "all").open("wb") as file:
        for first in range(1, people, 2 * BLOCK):
            own = faces[first : first + 2 * BLOCK : 2].tobytes() if workers.rank else b""
            (_, content) = bank._exchange.swap([own, b""])
            if workers.rank == 0:
                np.frombuffer(content, np.float16).reshape(shape).tofile(file)
    bank.flush()
    return sum(sent), [time.perf_counter() - begin]


def say(workers, what, sent, seconds):
    """Print bytes and seconds of both workers."""
    told = [json.loads(each) for each in workers.gather(what, json.dumps([sent, seconds]))]
    if workers.rank == 0:
        bytes_of = " and ".join(f"{sent / 1e6:.1f}" for sent, _ in told)
        took = [max(pair) for pair in zip(*(seconds for _, seconds in told))]
        spread = f"{statistics.median(took):.3f} ({min(took):.3f} to {max(took):.3f})"
        print(f"{what} | MB sent by the first and the second: {bytes_of} | seconds: {spread}", flush=True)


if __name__ == "__main__":
    main()
