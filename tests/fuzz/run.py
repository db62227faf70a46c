"""Feed the readers of records, indices and pairs with damaged files, and report all but a LatseError.

    python tests/fuzz/run.py --inputs 1000000 --seed 0 --processes 2

An input is a function of the seed and its number alone. What is reported: any exception that is no
LatseError, a LatseError that is not one line, a crash, an input that takes longer than --limit seconds,
memory above a bound. Each finding is saved with its files below --out; `--only NUMBER` reads it again.
"""

import argparse
import faulthandler
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from fuzz_inputs import TARGETS
from tqdm import tqdm

from latse.errors import LatseError

MEMORY = 256 << 20  # bytes that reading may add to a process
SAVED = 3  # inputs of each kind of finding
RENEWED = 10_000  # inputs that a process reads
STEP = 200  # inputs between two signs of life
STUCK = 120  # seconds without one, after which a process is ended


class TooSlowError(BaseException):
    """An input took longer than allowed; no reader catches this by accident."""


def main(arguments=None):
    """Return 0 if there is no finding."""
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    counts = run(args)
    seconds = time.monotonic() - start
    findings = sorted(path.name for path in args.out.glob("finding-*"))
    print(f"{sum(counts)} inputs in {seconds:.0f} s: {counts[0]} read, {counts[1]} refused,", end=" ")
    print(f"{len(findings)} findings")
    for name in findings:
        print((args.out / name / "finding.txt").read_text())
    if args.json:
        record = {"inputs": sum(counts), "read": counts[0], "refused": counts[1], "seconds": seconds}
        record.update(seed=args.seed, processes=args.processes, findings=findings)
        args.json.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if findings else 0


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after so many (default: never)"
    )
    parser.add_argument("--processes", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--limit", type=float, default=5.0, help="seconds for an input (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/fuzz"), help="for findings (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write the counts as JSON")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="read this input only, with its traceback")
    return parser.parse_args(arguments)


def run(args):
    """Read all inputs in processes of their own; return how many were read and how many refused."""
    for older in args.out.glob("finding-*"):
        shutil.rmtree(older)
    context = multiprocessing.get_context("fork")
    targets = [target() for target in TARGETS.values()]
    if args.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            refused = Worker(args, targets, Path(folder)).read_one(args.only)
            return 1 - refused, refused
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        end = time.monotonic() + args.seconds
        shares = [
            Share(context, args, targets, Path(folder, str(first)), end) for first in range(args.processes)
        ]
        watch(args, shares)
        for share in shares:
            if share.process.exitcode:
                what = f"the process ended with status {share.process.exitcode}"
                save(args, share.count[2], what, share.folder)
    return [sum(share.count[kind] for share in shares) for kind in (0, 1)]


class Share:
    """The inputs of one process, or of several, one after the other.

    MXNet keeps some 60 kB of each graph that its oneDNN backend has changed until the process ends.
    """

    def __init__(self, context, args, targets, folder, end):
        folder.mkdir()
        self.count = context.Array("q", 3)  # read, refused, number of the current one
        self.folder, self._context = folder, context
        self._about, self._end = (args, targets, folder), end
        self._left = range(int(folder.name), args.inputs, args.processes)
        self._begin()

    def is_at_work(self):
        """Tell whether a process is at work; begin another one where that is done and there is more."""
        is_done = not self.process.is_alive() and not self.process.exitcode
        if is_done and self._left and time.monotonic() < self._end:
            self._begin()
        return self.process.is_alive()

    def _begin(self):
        now, self._left = self._left[:RENEWED], self._left[RENEWED:]
        about = *self._about, now, self._end, self.count
        self.process = self._context.Process(target=work, args=about)
        self.process.start()


def watch(args, shares):
    with tqdm(total=args.inputs, unit="input", smoothing=0.05) as bar:
        while sum(share.is_at_work() for share in shares):
            shares[0].process.join(0.5)
            bar.update(sum(share.count[0] + share.count[1] for share in shares) - bar.n)
            time.sleep(0.1)


def work(args, targets, folder, numbers, end, count):
    with (folder / "traceback.txt").open("w") as log:
        try:
            read_all(Worker(args, targets, folder), log, numbers, end, count)
        except BaseException:
            traceback.print_exc(file=log)
            raise


def read_all(worker, log, numbers, end, count):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libjpeg and libpng say of each damaged image
    signal.signal(signal.SIGALRM, too_slow)
    for crash in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL):
        signal.signal(crash, signal.SIG_DFL)  # MXNet's handlers would end the process with status 255
    faulthandler.enable(log)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MEMORY, used + 2 * MEMORY))
    for done, number in enumerate(numbers):
        if done % STEP == 0:
            faulthandler.dump_traceback_later(STUCK, exit=True, file=log)  # for what hangs outside of Python
            if time.monotonic() > end:
                break
        count[2] = number
        count[worker.read_one(number)] += 1
    faulthandler.cancel_dump_traceback_later()


def too_slow(*_):
    raise TooSlowError


class Worker:
    """Makes inputs in its folder, reads them and saves what should not happen."""

    def __init__(self, args, targets, folder):
        self.args, self.targets, self.folder = args, targets, folder
        self.seen = {}
        self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def read_one(self, number):
        """Return 0 if input `number` was read, 1 if it was refused."""
        chance = random.Random(f"{self.args.seed}/{number}")
        target = chance.choice(self.targets)
        folder = self.folder / type(target).__name__
        folder.mkdir(exist_ok=True)
        target.write(chance, folder)
        refused = 0
        try:
            signal.setitimer(signal.ITIMER_REAL, self.args.limit)
            try:
                target.read(folder)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except LatseError as error:
            refused = 1
            if not str(error).isprintable() or len(str(error)) > 500:
                self.report(number, folder, f"not one line: {error!r}", error)
        except TooSlowError as error:
            self.report(number, folder, f"more than {self.args.limit} s", error)
        except Exception as error:
            self.report(number, folder, f"{type(error).__name__}: {error}", error)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > self.peak + MEMORY:
            self.report(number, folder, f"{(peak - self.peak) >> 20} MB more memory", None)
        self.peak = peak
        return refused

    def report(self, number, folder, what, error):
        if self.args.only is not None:
            raise error
        where = traceback.extract_tb(error.__traceback__)[-1] if error else None
        kind = (type(error), where and (where.filename, where.lineno))
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if self.seen[kind] <= SAVED:
            lines = (
                "".join(traceback.format_exception(type(error), error, error.__traceback__)) if error else ""
            )
            save(self.args, number, f"{what}\n{lines}", folder)


def save(args, number, text, folder):
    place = args.out / f"finding-{number}"
    shutil.copytree(
        folder, place, dirs_exist_ok=True
    )  # an input can be found twice: an error, and its memory
    again = f"python tests/fuzz/run.py --seed {args.seed} --only {number}"
    with (place / "finding.txt").open("a") as finding:
        finding.write(f"Input {number}: {text[:5000]}\nAgain: {again}\n")


if __name__ == "__main__":
    sys.exit(main())
