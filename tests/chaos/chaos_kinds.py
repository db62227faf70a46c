"""The kinds of faults, a row each, and what a run must do about each."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import Callable, Optional, Tuple

from chaos_trial import DAMAGED, LAST, SAVED_EVERY, TooLateError, Trial, immutable, mutable

DISK = 32  # MiB of the disk that becomes full
KILL, STOP, CONT, TERM, INT = (getattr(signal, f"SIG{n}") for n in ("KILL", "STOP", "CONT", "TERM", "INT"))
KILLED, TERMINATED, INTERRUPTED = (128 + number for number in (KILL, TERM, INT))
Deed = Callable[[Trial], object]


class ImpossibleError(Exception):
    """This machine does not let the fault be made, as for want of a right."""


def nothing(trial):
    """Do nothing."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes
    ----------
    deed : callable
        Waits for its moment in a run that has been started, and does the fault.
    workers : int
        1: one process; 2: `latse launch` with a server.
    statuses : tuple of int
        With which the faulted command may end; 0: it goes through.
    says : str
        A pattern that its output must have.
    before, between, mend : callable
        What is done before the run; after the run, where not that but what goes on with it is the faulted
        command; and before the last command, which must end the run.
    words : tuple of str
        Further arguments of the faulted command.
    then : int
        Workers of the last command; 0: the same.
    rounded : bool
        Whether moving statistics may differ from the unbroken run's in their last bits.
    compared : bool
        Whether the end is compared with the unbroken run; if not, only its files are.
    extra : str
        A pattern of files that may be there besides those of an unbroken run.
    timeout : int
        Seconds of `latse launch --timeout`.
    """

    deed: Deed
    workers: int = 1
    statuses: Tuple[int, ...] = (1,)
    says: str = ""
    before: Deed = nothing
    between: Optional[Deed] = None
    mend: Deed = nothing
    words: Tuple[str, ...] = ()
    then: int = 0
    rounded: bool = False
    compared: bool = True
    extra: str = ""
    timeout: int = 60


def sends(*numbers, part="", when=Trial.at_iteration):
    """Send signals to a part of a run, one after the other."""

    def deed(trial):
        when(trial)
        process = trial.part(part)
        trial.fault()
        try:
            os.kill(process, numbers[0])
        except ProcessLookupError:
            raise TooLateError from None
        for number in numbers[1:]:
            trial.pause(0.1)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    return deed


def at_any_moment(trial):
    """Wait for a moment of the run, its start and its end too."""
    trial.pause(trial.chance.random() * trial.usual)


def in_a_checkpoint(trial):
    """Wait until a file of a checkpoint is half written."""
    trial.at_iteration()
    trial.until(lambda: any(trial.out.glob(".*.part")) or (trial.out / "state.new.params").exists())


def before_the_first_checkpoint(trial):
    """Wait until the folder is there, but no state."""
    trial.until(trial.out.exists)
    trial.pause(trial.chance.random() * trial.usual / 10)
    if (trial.out / "state.params").exists():
        raise TooLateError


def killed_twice(trial):
    """Kill a run, then the one that goes on with it."""
    sends(KILL, when=lambda trial: trial.at_iteration(1, LAST // 2))(trial)
    trial.ended()
    trial.start()
    sends(KILL, when=lambda trial: trial.at_iteration(LAST // 2 + 1, LAST - 2))(trial)


def killed(trial):
    """Kill the run after its second checkpoint, so that there is one before the last."""
    sends(KILL, when=lambda trial: trial.at_iteration(2 * SAVED_EVERY + 1, LAST - 2))(trial)


def while_running(deed):
    """Do something to files in the first half of the run."""

    def done(trial):
        trial.at_iteration(1, LAST // 2)
        trial.fault()
        deed(trial)

    return done


def limit_files(trial):
    """Let the run write no file longer than a part of its model, as a quota does."""
    limit = trial.chance.randrange(1000, (trial.out / "untrained-0000.params").stat().st_size)
    resource.prlimit(trial.part(), resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def small_disk(trial):
    """Put the run on a small disk of its own."""
    disk = trial.folder / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "none", str(disk)]
    if os.geteuid() or subprocess.run(words, capture_output=True, check=False).returncode:
        raise ImpossibleError("to mount a small disk takes root")
    trial.out = disk / "run"


def fill_disk(trial):
    with (trial.folder / "disk" / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def free_disk(trial):
    (trial.folder / "disk" / "filler").unlink()


def remove_out(trial):
    while trial.out.exists():  # the run may have made a file meanwhile
        shutil.rmtree(trial.out, ignore_errors=True)


def move_out(trial):
    trial.out.rename(trial.folder / "moved")


def move_back(trial):
    assert not trial.out.exists(), "the run has made its folder anew"
    (trial.folder / "moved").rename(trial.out)


def copy_data(trial):
    shutil.copytree(trial.data, trial.folder / "copy")


def truncate_shard(trial):
    path = trial.data / "train.rec"
    os.truncate(path, trial.chance.randrange(1000, path.stat().st_size // 2))


def overwrite_shard(trial):
    """Write zeros over half of the records."""
    path = trial.data / "train.rec"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(trial.chance.randrange(size // 4))
        file.write(bytes(size // 2))


def restore_data(trial):
    for path in (trial.folder / "copy").iterdir():
        shutil.copyfile(path, trial.data / path.name)


def cut(name):
    """Cut a file of the run short; a copy of it is kept."""

    def deed(trial):
        path = trial.out / name
        shutil.copyfile(path, trial.folder / "kept")
        os.truncate(path, trial.chance.randrange(path.stat().st_size))

    return deed


def put_back(name):
    return lambda trial: shutil.copyfile(trial.folder / "kept", trial.out / name)


def flip(*names):
    """Change a bit in each of some files of the run."""

    def deed(trial):
        for path in (trial.out / name for name in names):
            content = bytearray(path.read_bytes())
            content[trial.chance.randrange(len(content))] ^= 1 << trial.chance.randrange(8)
            path.write_bytes(content)

    return deed


def tear_metrics(trial):
    """Leave half a line, as a crash does."""
    with (trial.out / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 1, "lo')


def cut_journal(trial):
    """Cut the journal of the mean faces since the last checkpoint, if anything is in it."""
    journal = max(trial.out.glob("mean_faces.undo-*"))
    if not journal.stat().st_size:
        raise TooLateError
    os.truncate(journal, trial.chance.randrange(journal.stat().st_size))


def lose_state(trial):
    (trial.out / "state.params").unlink()


def choose_another_folder(trial):
    trial.out = trial.folder / "another"


def bar_log(trial):
    (trial.out / "train.log").unlink()
    (trial.out / "train.log").mkdir()


def free_log(trial):
    (trial.out / "train.log").rmdir()


def at_its_end(trial):
    trial.process.wait(trial.limit)


def sets(*settings):
    return tuple(f"--set={setting}" for setting in settings)


SAVED = "latse: interrupted: checkpoint at iteration"
NO_ROOM = "latse: .*(No space left on device|File too large)"
GONE = "latse: .*(is gone|No such file)"
UNREADABLE = "latse: .*train.rec"
DIED = r"the run has ended: .* has died|was killed by SIGKILL"
SILENT = "the run has ended: .*(no sign of life|waits for)"
SHARD = {"before": copy_data, "mend": restore_data}
FULL = {"before": small_disk, "mend": free_disk, "says": NO_ROOM}
BACK = {
    "statuses": (0,),
    "says": "the run goes on from the checkpoint before",
    "extra": DAMAGED,
}
WILD = "schedule.learning_rate=1e30", "train.checkpoint_every=1000"
NOT_FINITE = {"between": nothing, "extra": "not_finite-.*json"}

KINDS = {
    "kill -9 at any moment": Kind(sends(KILL, when=at_any_moment), statuses=(KILLED,)),
    "kill -9 in a checkpoint": Kind(sends(KILL, when=in_a_checkpoint), statuses=(KILLED,)),
    "kill -9 at the start": Kind(sends(KILL, when=before_the_first_checkpoint), statuses=(KILLED,)),
    "kill -9 twice": Kind(killed_twice, statuses=(KILLED,)),
    "SIGTERM": Kind(sends(TERM), statuses=(TERMINATED,), says=SAVED),
    "SIGINT": Kind(sends(INT), statuses=(INTERRUPTED,), says=SAVED),
    "SIGTERM, two": Kind(sends(TERM, TERM), statuses=(TERMINATED,)),
    "SIGINT, two": Kind(sends(INT, INT), statuses=(INTERRUPTED,)),
    "stopped and continued": Kind(sends(STOP, CONT), statuses=(0,)),
    "file size limited": Kind(while_running(limit_files), says=NO_ROOM),
    "disk full": Kind(while_running(fill_disk), **FULL),
    "--out removed": Kind(while_running(remove_out), says=GONE),
    "--out moved away": Kind(while_running(move_out), says=GONE, mend=move_back),
    "--out read-only": Kind(
        while_running(lambda trial: immutable(trial.out)),
        says="latse: cannot write",
        mend=lambda trial: mutable(trial.out),
    ),
    "shard truncated": Kind(while_running(truncate_shard), says=UNREADABLE, **SHARD),
    "shard overwritten": Kind(while_running(overwrite_shard), says=UNREADABLE, **SHARD),
    "shard changed between runs": Kind(
        killed, between=overwrite_shard, says=f"{UNREADABLE}|another data", **SHARD
    ),
    "state cut": Kind(killed, between=cut("state.params"), **BACK),
    "bit of the state flipped": Kind(killed, between=flip("state.params"), **BACK),
    "state lost": Kind(killed, between=lose_state, statuses=(0,)),
    "both states damaged": Kind(
        killed,
        between=flip("state.params", "state.before.params"),
        says="latse: .*state.params is damaged",
        mend=choose_another_folder,
    ),
    "metrics torn": Kind(killed, between=tear_metrics, statuses=(0,)),
    "mean faces cut": Kind(
        killed,
        between=cut("mean_faces.npy"),
        says="latse: cannot read .*mean_faces.npy",
        mend=put_back("mean_faces.npy"),
    ),
    "run.json cut": Kind(
        killed, between=cut("run.json"), says="latse: .*run.json", mend=put_back("run.json")
    ),
    "train.log not writable": Kind(
        killed, between=bar_log, says="latse: cannot write .*train.log", mend=free_log
    ),
    "loss not finite, stop": Kind(
        killed, words=sets(*WILD), says="latse: the loss is not finite at iteration", **NOT_FINITE
    ),
    "loss not finite, skip": Kind(
        killed,
        words=sets(*WILD, "train.not_finite=skip", "train.iterations=1000"),
        says="latse: the loss of 33 iterations in a row is not finite",
        **NOT_FINITE,
    ),
    "made longer": Kind(at_its_end, statuses=(0,), words=sets(f"train.iterations={LAST - 5}")),
    "kill -9 of worker 0": Kind(sends(KILL, part="worker 0"), 2, (1, KILLED), DIED),
    "kill -9 of worker 1": Kind(sends(KILL, part="worker 1"), 2, (1, KILLED), DIED),
    "kill -9 of a server": Kind(sends(KILL, part="server 0"), 2, (1, KILLED), DIED),
    "kill -9 of the scheduler": Kind(sends(KILL, part="scheduler"), 2, (1, KILLED), DIED),
    "kill -9 of the launcher": Kind(sends(KILL), 2, (KILLED,)),
    "worker 0 hangs": Kind(sends(STOP, part="worker 0"), 2, (1, KILLED), SILENT, timeout=20),
    "worker 1 hangs": Kind(sends(STOP, part="worker 1"), 2, (1, KILLED), SILENT, timeout=20),
    "a server hangs": Kind(sends(STOP, part="server 0"), 2, (1, KILLED), SILENT, timeout=20),
    "the scheduler hangs": Kind(sends(STOP, part="scheduler"), 2, (1, KILLED), SILENT, timeout=20),
    "SIGTERM of the launcher": Kind(sends(TERM), 2, (TERMINATED,), SAVED, rounded=True),
    "SIGINT of the launcher": Kind(sends(INT), 2, (INTERRUPTED,), SAVED, rounded=True),
    "SIGTERM of the launcher, two": Kind(sends(TERM, TERM), 2, (TERMINATED, KILLED), rounded=True),
    "SIGTERM of worker 1 alone": Kind(sends(TERM, part="worker 1"), 2, (TERMINATED,), SAVED, rounded=True),
    "disk full, two workers": Kind(while_running(fill_disk), 2, **FULL),
    "--out removed, two workers": Kind(while_running(remove_out), 2, says=GONE),
    "shard truncated, two workers": Kind(while_running(truncate_shard), 2, says=UNREADABLE, **SHARD),
    "from two workers to one": Kind(sends(TERM), 2, (TERMINATED,), SAVED, then=1, compared=False),
    "from one worker to two": Kind(sends(TERM), 1, (TERMINATED,), SAVED, then=2, compared=False),
    "mean faces' journal cut": Kind(
        killed, between=cut_journal, statuses=(0,), says="a journal of the mean faces is cut", compared=False
    ),
}
