"""The mean-face bank: eq. 12, its files, and that a crash leaves no trace."""

import contextlib
import errno
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.train.bank import FACES, STARTED, TOUCHED, MeanFaceBank, remove_traces

SHAPE, CLASSES, MOMENTUM = (3, 4, 5), 6, 0.9
HALF = 2**-10  # what float16 resolves near 1, twice over


def batch(seed, labels):
    """Random images with the given labels."""
    labels = np.asarray(labels, np.float32)
    return np.random.default_rng(seed).integers(0, 256, (len(labels), *SHAPE), np.uint8), labels


def scaled(images):
    """0..255 to [-1, 1]."""
    return images.astype(np.float64) * 2 / 255 - 1


def everything(count):
    return np.ones(count, bool)


class Reference:
    """Eq. 12 image after image in plain numpy, every mean kept as float16."""

    def __init__(self, classes, shape):
        self.faces, self.started = np.zeros((classes, *shape), np.float16), np.zeros(classes, bool)

    def update(self, images, labels, teaches):
        labels = labels.astype(np.int64)
        targets = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
        for label in np.unique(labels):
            mine = labels == label
            for image in targets[mine & teaches]:
                self.faces[label] = moved(self.faces[label], image) if self.started[label] else image
                self.started[label] = True
            if self.started[label]:
                targets[mine] = self.faces[label]
        return targets


def moved(mean, image):
    """Eq. 12 on a float16 mean and a float32 image, to the bits that the bank must have."""
    momentum = np.float32(MOMENTUM)
    return ((1 - momentum) * image + momentum * mean.astype(np.float32)).astype(np.float16)


@pytest.fixture
def open_bank(tmp_path):
    return lambda iteration=0, **other: MeanFaceBank(
        **{
            "folder": tmp_path,
            "classes": CLASSES,
            "shape": SHAPE,
            "momentum": MOMENTUM,
            "iteration": iteration,
            **other,
        }
    )


def test_the_first_image_of_a_person_starts_the_mean(open_bank, tmp_path):
    images, labels = batch(0, [2, 4])
    targets = open_bank().update(images, labels, everything(2))
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, scaled(images).astype(np.float16).astype(np.float32))
    assert np.load(tmp_path / STARTED).tolist() == [False, False, True, False, True, False]


def test_eq_12_image_after_image_also_within_a_batch(open_bank, tmp_path):
    bank, mean = open_bank(), {}
    for seed, people in enumerate([[0, 1, 0], [1, 1, 5], [0, 5, 1], [0, 0, 0]]):
        images, labels = batch(seed, people)
        for image, label in zip(scaled(images), labels):
            mean[label] = MOMENTUM * mean[label] + (1 - MOMENTUM) * image if label in mean else image
        targets = bank.update(images, labels, everything(3))
        np.testing.assert_allclose(targets, [mean[label] for label in labels], rtol=0, atol=4 * HALF)
        stored = np.load(tmp_path / FACES)
        np.testing.assert_array_equal(targets, stored[labels.astype(int)].astype(np.float32))


PEOPLE_OF_A_BATCH = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.booleans()), min_size=1, max_size=9)


@given(batches=st.lists(PEOPLE_OF_A_BATCH, max_size=5), threads=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_targets_and_files_have_the_bits_of_the_plain_loop(tmp_path_factory, batches, threads, seed):
    folder, shape = tmp_path_factory.mktemp("bank"), (3, 5, 7)
    bank, reference = (
        MeanFaceBank(folder, CLASSES, shape, MOMENTUM, 0, threads=threads),
        Reference(CLASSES, shape),
    )
    rng = np.random.default_rng(seed)
    for people in batches:
        labels, teaches = (np.array(column) for column in zip(*people))
        images = rng.integers(0, 256, (len(labels), *shape), np.uint8)
        targets = bank.update(images, labels.astype(np.float32), teaches)
        assert targets.tobytes() == reference.update(images, labels, teaches).tobytes()
    assert np.load(folder / FACES).tobytes() == reference.faces.tobytes()
    assert np.load(folder / STARTED).tobytes() == reference.started.tobytes()
    shutil.rmtree(folder)


def test_float16_is_converted_to_the_bits_of_numpy(tmp_path):
    """Every float16 that a mean can be, moved by every image value."""
    values = np.arange(0x3C01, dtype=np.uint16).view(np.float16)
    values = np.concatenate([values, -values])
    shape = (1, 1, len(values))
    bank, reference = MeanFaceBank(tmp_path, 1, shape, MOMENTUM, 0), Reference(1, shape)
    bank.update(np.zeros((1, *shape), np.uint8), np.zeros(1), everything(1))
    reference.started[0] = True
    for value in range(0, 256, 5):
        faces = np.load(tmp_path / FACES, mmap_mode="r+")
        faces[0, 0, 0] = reference.faces[0, 0, 0] = values
        faces.flush()
        images = np.full((1, *shape), value, np.uint8)
        targets = bank.update(images, np.zeros(1), everything(1))
        assert targets.tobytes() == reference.update(images, np.zeros(1), everything(1)).tobytes()


def test_no_page_of_the_bank_counts_to_the_process(tmp_path):
    """2,000 rows of 75 KB are 150 MB; a mapping would hold them all."""

    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("RssFile", "RssShmem"))) / 1024

    shape, people = (3, 112, 112), 2000
    bank = MeanFaceBank(tmp_path, people, shape, MOMENTUM, 0)
    images = np.zeros((50, *shape), np.uint8)
    before = resident()
    for first in range(0, people, 50):
        bank.update(images, np.arange(first, first + 50), everything(50))
    assert resident() - before < 10


def test_a_label_out_of_range_is_refused_before_anything_changes(open_bank, tmp_path):
    bank = open_bank()
    for label in (-1, CLASSES):
        with pytest.raises(LatseError, match=f"no person {label}, only 0 to {CLASSES - 1}"):
            bank.update(*batch(0, [0, label]), everything(2))
    assert not np.load(tmp_path / STARTED).any()


def test_white_and_black_stay_what_they_are(open_bank):
    bank = open_bank()
    images = np.stack([np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)])
    for _ in range(20):
        targets = bank.update(images, np.array([0, 1]), everything(2))
    np.testing.assert_allclose(targets[0], -1, rtol=0, atol=HALF)
    np.testing.assert_allclose(targets[1], 1, rtol=0, atol=HALF)


def test_a_refused_image_moves_nothing_and_learns_its_persons_mean(open_bank, tmp_path):
    bank = open_bank()
    images, labels = batch(0, [3, 3, 1])
    targets = bank.update(images, labels, np.array([True, False, False]))
    np.testing.assert_array_equal(targets[0], targets[1])
    np.testing.assert_array_equal(targets[0], scaled(images[0]).astype(np.float16))
    np.testing.assert_allclose(targets[2], scaled(images[2]), atol=1e-6)  # no mean yet: the image itself
    assert np.load(tmp_path / STARTED).tolist() == [False, False, False, True, False, False]
    assert not np.load(tmp_path / FACES)[1].any()


@given(labels=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_only_the_batchs_rows_are_touched(tmp_path_factory, labels, seed):
    folder = tmp_path_factory.mktemp("bank")
    bank = MeanFaceBank(folder, CLASSES, SHAPE, MOMENTUM, 0)
    bank.update(*batch(seed, range(CLASSES)), everything(CLASSES))
    before = np.load(folder / FACES)
    bank.update(*batch(seed + 1, labels), everything(len(labels)))
    changed = (np.load(folder / FACES) != before).reshape(CLASSES, -1).any(axis=1)
    assert set(np.flatnonzero(changed)) == set(labels)
    shutil.rmtree(folder)


def test_the_files_are_plain_numpy(open_bank, tmp_path):
    open_bank()
    faces, started = np.load(tmp_path / FACES), np.load(tmp_path / STARTED)
    assert (faces.shape, faces.dtype) == ((CLASSES, *SHAPE), np.float16)
    assert (started.shape, started.dtype) == ((CLASSES,), np.bool_)
    assert not faces.any()
    assert not started.any()


def test_a_new_run_forgets_an_older_bank(open_bank, tmp_path):
    open_bank().update(*batch(0, [0, 1]), everything(2))
    open_bank()
    assert not np.load(tmp_path / STARTED).any()
    assert not np.load(tmp_path / FACES).any()


def test_updates_after_a_checkpoint_are_undone(open_bank, tmp_path):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.flush()
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES), np.load(tmp_path / STARTED)
    bank.update(*batch(1, [1, 2]), everything(2))
    bank.update(*batch(2, [1, 2]), everything(2))
    assert not np.array_equal(np.load(tmp_path / FACES), wanted[0])
    open_bank(7)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted[0])
    np.testing.assert_array_equal(np.load(tmp_path / STARTED), wanted[1])


@pytest.mark.parametrize("cut", [1, 8, 9, 100])
def test_a_torn_last_entry_is_ignored(open_bank, tmp_path, cut):
    """The entry is written before its row changes, so a torn one belongs to a row that did not change."""
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES)
    bank.update(*batch(1, [1]), everything(1))
    journal = max(tmp_path.glob("*undo*"))
    journal.write_bytes(journal.read_bytes() * 2)
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size - cut)
    open_bank(7)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


def test_a_journal_that_is_cut_is_told_of(open_bank, tmp_path, capfd):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.checkpoint(7)
    bank.update(*batch(1, [1, 2]), everything(2))
    journal = max(tmp_path.glob("*undo*"))
    os.truncate(journal, journal.stat().st_size // 2 + 1)
    open_bank(7)
    cut = f"latse: {tmp_path}: a journal of the mean faces is cut: the means of 1 people are newer"
    assert capfd.readouterr().err.startswith(cut)
    open_bank(7)
    assert not capfd.readouterr().err


def test_a_crash_between_the_state_and_the_new_journal_undoes_nothing(open_bank, tmp_path):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.flush()
    wanted = np.load(tmp_path / FACES)
    open_bank(7)  # the journal on disk is still that of the start
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


class Killed(BaseException):
    """Stands for SIGKILL in the middle of a system call."""


def killed_at(patch, number):
    """Let the `number`-th write from now on stop halfway, as SIGKILL may."""
    write, calls = os.pwrite, itertools.count(1)

    def dying(handle, content, offset):
        if next(calls) == number:
            write(handle, memoryview(content)[: len(content) // 2], offset)
            raise Killed
        return write(handle, content, offset)

    patch.setattr(os, "pwrite", dying)


@pytest.mark.parametrize("undone", [1, 2, 3, 4])
def test_death_at_every_write_of_an_update_and_of_the_undoing(open_bank, tmp_path, monkeypatch, undone):
    bank = open_bank(threads=1)
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.flush()
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES), np.load(tmp_path / STARTED)
    deaths = 0
    for number in itertools.count(1):
        try:
            with monkeypatch.context() as patch:
                killed_at(patch, number)
                bank.update(*batch(1, [1, 2, 1]), everything(3))
            break
        except Killed:
            deaths += 1
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            killed_at(patch, undone)
            open_bank(7)
        bank = open_bank(7, threads=1)
        np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted[0])
        assert np.load(tmp_path / STARTED).tobytes() == wanted[1].tobytes()
    assert deaths == 10  # of two people: journal, its mark, twice the state, the face


def test_a_closed_bank_still_goes_back_to_the_checkpoint_before(open_bank, tmp_path):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.flush()
    wanted = np.load(tmp_path / FACES)
    bank.checkpoint(7)
    bank.update(*batch(1, [1, 2]), everything(2))
    bank.flush()
    bank.checkpoint(9)
    bank.close()
    names = {f"mean_faces.undo-{number:08d}" for number in (7, 9)}
    assert {path.name for path in tmp_path.iterdir()} == {FACES, STARTED, *names}
    open_bank(7)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


def test_a_finished_run_leaves_the_mean_faces_alone(open_bank, tmp_path):
    banks = open_bank(), open_bank(worker=1)
    for bank in banks:
        bank.update(*batch(0, [0, 1]), everything(2))
    del bank, banks  # not closed
    remove_traces(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {FACES, STARTED}


def test_journals_of_workers_that_are_gone_are_removed(open_bank, tmp_path):
    banks = open_bank(), open_bank(worker=1)
    for bank in banks:
        bank.update(*batch(0, [0, 1]), everything(2))
        bank.checkpoint(7)
    alone = open_bank(7)
    assert {path.name for path in tmp_path.glob("*undo*")} == {
        "mean_faces.undo-00000000",  # with which the way back to the checkpoint before stays open
        "mean_faces.undo-00000000.1",
        "mean_faces.undo-00000007",
    }
    alone.checkpoint(9)
    assert {path.name for path in tmp_path.glob("*undo*")} == {
        "mean_faces.undo-00000007",
        "mean_faces.undo-00000009",
    }


STEP = st.one_of(
    st.just("checkpoint"),
    st.lists(st.tuples(st.integers(0, CLASSES - 1), st.booleans()), min_size=1, max_size=4),
)


@given(steps=st.lists(STEP, max_size=12), crash=st.integers(0, 12), torn=st.integers(0, 200))
@settings(max_examples=60)
def test_crash_reopen_and_replay_gives_the_bits_of_the_unbroken_run(tmp_path_factory, steps, crash, torn):
    """`crash`: the step before which the process dies; `torn`: bytes of an unfinished journal entry."""
    unbroken, broken = (tmp_path_factory.mktemp(name) for name in ("unbroken", "broken"))

    def run(folder, start, stop):
        bank = MeanFaceBank(folder, CLASSES, SHAPE, MOMENTUM, start)
        targets, reached = {}, start
        for number, step in enumerate(steps[start:stop], start + 1):
            if step == "checkpoint":
                bank.flush()
                bank.checkpoint(number)
                reached = number
            else:
                labels, teaches = zip(*step)
                targets[number] = bank.update(*batch(number, labels), np.array(teaches))
        return targets, reached

    expected, _ = run(unbroken, 0, len(steps))
    _, reached = run(broken, 0, crash)
    journal = max(broken.glob("*undo*"))
    with journal.open("ab") as file:
        file.write(os.urandom(torn % (9 + 2 * int(np.prod(SHAPE)))))
    replayed, _ = run(broken, reached, len(steps))
    for number, targets in replayed.items():
        np.testing.assert_array_equal(targets, expected[number])
    for name in (FACES, STARTED):
        assert (unbroken / name).read_bytes() == (broken / name).read_bytes()
    shutil.rmtree(unbroken)
    shutil.rmtree(broken)


def test_a_missing_or_damaged_file_is_named(open_bank, tmp_path):
    for name in (FACES, STARTED):
        open_bank().close()
        for damage in (lambda path: path.write_bytes(b"no numpy"), lambda path: path.unlink()):
            damage(tmp_path / name)
            with pytest.raises(LatseError, match=str(tmp_path / name)):
                open_bank(7)


def test_a_truncated_bank_is_named(open_bank, tmp_path):
    open_bank().close()
    with (tmp_path / FACES).open("r+b") as file:
        file.truncate(300)
    with pytest.raises(LatseError, match=FACES):
        open_bank(7)


def test_another_shape_is_named(open_bank):
    open_bank().close()
    with pytest.raises(LatseError, match=FACES):
        open_bank(7, classes=CLASSES + 1)
    with pytest.raises(LatseError, match=FACES):
        open_bank(7, shape=(3, 5, 4))


def test_an_unwritable_folder_is_named(open_bank, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LatseError, match=str(tmp_path / "file")):
        open_bank(folder=tmp_path / "file")


def test_a_full_disk_is_found_at_the_start(open_bank, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LatseError, match=f"{FACES}: No space left on device"):
        open_bank()


def test_a_disk_that_fills_up_is_named_and_the_run_can_go_on(open_bank, tmp_path):
    """The journal takes only a part of its second entry: then the second row must not have changed."""
    classes = 20
    bank = open_bank(classes=classes, threads=1)
    bank.update(*batch(0, range(classes)), everything(classes))
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES)
    journal = classes * (9 + 2 * int(np.prod(SHAPE)))
    assert (tmp_path / FACES).stat().st_size < journal - 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal - 1, limits[1]))
    try:
        with pytest.raises(LatseError, match="undo-00000007: File too large"):
            bank.update(*batch(1, range(classes)), everything(classes))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert np.array_equal(np.load(tmp_path / FACES)[-1], wanted[-1])
    open_bank(7, classes=classes)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


FACE, PERSONS = (3, 112, 112), 4  # rows of many pages, which SIGKILL can tear


def a_process(target, *arguments):
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def steady_batch(iteration):
    """The batch of an iteration of the run below."""
    rng = np.random.default_rng(iteration)
    images = rng.integers(0, 256, (5, *FACE), np.uint8)
    return images, rng.integers(0, PERSONS, 5), rng.random(5) < 0.8


def run_until_killed(folder, updates):
    """A run with checkpoints, whose state is the number in the file `state`; it counts its updates."""
    state = folder / "state"
    iteration = int(state.read_text()) if state.exists() else 0
    bank = MeanFaceBank(folder, PERSONS, FACE, MOMENTUM, iteration, threads=1)
    while True:
        bank.update(*steady_batch(iteration))
        updates.value += 1
        iteration += 1
        if iteration % 8 == 0:
            bank.flush()
            (folder / "state.part").write_text(str(iteration))
            (folder / "state.part").rename(state)
            bank.checkpoint(iteration)


def test_a_process_killed_at_any_moment_leaves_the_bits_of_its_checkpoint(tmp_path):
    reference, done, undone = Reference(PERSONS, FACE), 0, 0
    rng = np.random.default_rng()
    for _ in range(25):
        updates = multiprocessing.RawValue("i", 0)  # has no lock, which the dead would keep
        process = a_process(run_until_killed, tmp_path, updates)
        last = rng.integers(0, 20)
        while updates.value < last and process.is_alive():  # however slow the machine is
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if not (tmp_path / "state").exists():
            continue
        iteration = int((tmp_path / "state").read_text())
        for step in range(done, iteration):
            reference.update(*steady_batch(step))
        done = iteration
        ahead = np.load(tmp_path / FACES).tobytes() != reference.faces.tobytes()
        undone += ahead
        MeanFaceBank(tmp_path, PERSONS, FACE, MOMENTUM, iteration)
        assert np.load(tmp_path / FACES).tobytes() == reference.faces.tobytes()
        assert np.load(tmp_path / STARTED).tobytes() == reference.started.tobytes()
    assert undone > 5  # otherwise nothing was put to the test


def halved_system_calls():
    """Let others run in the middle of every face that this process reads or writes, as on a busy machine."""
    read, write = os.preadv, os.pwrite

    def reads(handle, buffers, offset):
        content = memoryview(buffers[0]).cast("B")
        half = len(content) // 2
        done = read(handle, [content[:half]], offset)
        pause(half)
        return done + read(handle, [content[half:]], offset + half)

    def writes(handle, content, offset):
        half = (len(content) + 1) // 2
        pause(half)
        return write(handle, content[:half], offset)

    def pause(size):
        if size > 8:
            time.sleep(0.0001)

    os.preadv, os.pwrite = reads, writes


SHARED_LABELS = np.array([0, 1, 0])


def shared_batch(worker, step):
    return np.random.default_rng((worker, step)).integers(0, 256, (3, *FACE), np.uint8)


def share(folder, worker, steps, together):
    """Update the same two people over and over, and write down what came out."""
    halved_system_calls()
    bank = MeanFaceBank(folder, PERSONS, FACE, MOMENTUM, 7, worker=worker, threads=2)
    together.wait(60)
    found = [bank.update(shared_batch(worker, step), SHARED_LABELS, everything(3)) for step in range(steps)]
    np.save(folder / f"found-{worker}.npy", np.array(found, np.float16))


@pytest.mark.parametrize("label", [0, 1])
def test_several_processes_update_a_row_in_some_order_one_after_the_other(tmp_path, label):
    """Each result must follow, bit by bit, from exactly one other: together they form one chain."""
    workers, steps = 4, 25
    bank = MeanFaceBank(tmp_path, PERSONS, FACE, MOMENTUM, 0)
    bank.update(shared_batch(99, 0), SHARED_LABELS, everything(3))
    bank.flush()
    bank.checkpoint(7)
    start = np.load(tmp_path / FACES)
    together = multiprocessing.get_context("fork").Barrier(workers)
    processes = [a_process(share, tmp_path, worker, steps, together) for worker in range(1, workers + 1)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    mine = np.array([place for place, person in enumerate(SHARED_LABELS) if person == label])
    updates = list(itertools.product(range(1, workers + 1), range(steps)))
    found = {
        worker: np.load(tmp_path / f"found-{worker}.npy")[:, mine[0]] for worker in range(1, workers + 1)
    }
    after = np.array([found[worker][step] for worker, step in updates])
    images = np.array([shared_batch(*update)[mine] for update in updates])
    images = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    part = np.s_[..., 0, 0, :100]
    row, order = start[label], []
    while len(order) < len(updates):
        expected = row[part]
        for image in np.moveaxis(images, 1, 0):
            expected = moved(np.broadcast_to(expected, image[part].shape), image[part])
        [last] = np.flatnonzero((expected == after[part]).all(axis=-1))
        for image in images[last]:
            row = moved(row, image)
        assert row.tobytes() == after[last].tobytes()
        order.append(updates[last])
    assert np.load(tmp_path / FACES)[label].tobytes() == row.tobytes()
    assert sorted(order) == updates
    for worker in range(1, workers + 1):
        assert [step for other, step in order if other == worker] == list(range(steps))
    assert [worker for worker, _ in order] != sorted(worker for worker, _ in order)  # they did take turns
    MeanFaceBank(tmp_path, PERSONS, FACE, MOMENTUM, 7)
    assert np.load(tmp_path / FACES).tobytes() == start.tobytes()


BARRED, TORN = 3, 4


def share_until_killed(folder, worker):
    """Faces of one colour: a row of two was torn."""
    halved_system_calls()
    bank = MeanFaceBank(folder, PERSONS, FACE, MOMENTUM, 7, worker=worker, threads=1)
    rng = np.random.default_rng(worker)
    labels = np.arange(PERSONS)
    while True:
        images = np.broadcast_to(rng.integers(0, 256, (PERSONS, 1, 1, 1), np.uint8), (PERSONS, *FACE))
        try:
            targets = bank.update(images, labels, rng.random(PERSONS) < 0.7)
        except LatseError as error:
            os._exit(BARRED if "half written by a process that died" in str(error) else 1)
        if (targets != targets[:, :1, :1, :1]).any():
            os._exit(TORN)


def test_no_death_of_a_worker_shows_the_others_a_torn_row(tmp_path):
    bank = MeanFaceBank(tmp_path, PERSONS, FACE, MOMENTUM, 0)
    bank.update(np.full((PERSONS, *FACE), 200, np.uint8), np.arange(PERSONS), everything(PERSONS))
    bank.flush()
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES).tobytes(), np.load(tmp_path / STARTED).tobytes()
    rng = np.random.default_rng()
    for _ in range(8):
        bank = MeanFaceBank(tmp_path, PERSONS, FACE, MOMENTUM, 7)
        processes = [a_process(share_until_killed, tmp_path, worker) for worker in (1, 2, 3)]
        for process in processes:
            time.sleep(rng.uniform(0.02, 0.1))
            process.kill()
        for process in processes:
            process.join()
            assert process.exitcode in (-signal.SIGKILL, BARRED)
        MeanFaceBank(tmp_path, PERSONS, FACE, MOMENTUM, 7)
        assert (np.load(tmp_path / FACES).tobytes(), np.load(tmp_path / STARTED).tobytes()) == wanted


def test_a_row_that_a_dead_worker_left_half_written_is_barred(open_bank, tmp_path, monkeypatch):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.flush()
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES)
    other = open_bank(7, worker=1, threads=1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, 4)  # after the journal, its mark and the state
        other.update(*batch(1, [1]), everything(1))
    assert not np.array_equal(np.load(tmp_path / FACES), wanted)
    with pytest.raises(LatseError, match="the mean of person 1 is half written by a process that died"):
        bank.update(*batch(2, [1]), np.zeros(1, bool))
    bank.update(*batch(2, [0, 2]), everything(2))
    open_bank(7)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


def test_workers_note_a_row_once_between_them(open_bank, tmp_path):
    bank = open_bank()
    bank.update(*batch(0, [0, 1, 2]), everything(3))
    bank.flush()
    bank.checkpoint(7)
    other = open_bank(7, worker=1)
    bank.update(*batch(1, [0, 1]), everything(2))
    other.update(*batch(2, [1, 2, 3]), everything(3))
    entry = 9 + 2 * int(np.prod(SHAPE))
    sizes = {path.name: path.stat().st_size // entry for path in tmp_path.glob("*undo*")}
    older = {"mean_faces.undo-00000000": 3}  # of the checkpoint before, for the case that this one is damaged
    assert sizes == {"mean_faces.undo-00000007": 2, "mean_faces.undo-00000007.1": 2, **older}
    wanted = np.load(tmp_path / FACES)
    for one in (other, bank):
        one.flush()
        one.checkpoint(9)
    other.update(*batch(3, [0, 1]), everything(2))
    open_bank(9)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


def test_the_bank_goes_back_to_the_checkpoint_before_the_last(open_bank, tmp_path):
    bank, faces = open_bank(), {}
    other = open_bank(worker=1)
    for number in (7, 9, 12):
        bank.update(*batch(number, [0, 1, number % 4]), everything(3))
        other.update(*batch(number + 1, [1, 2]), everything(2))
        bank.flush()
        faces[number] = np.load(tmp_path / FACES)
        bank.checkpoint(number)
        other.checkpoint(number)
    bank.update(*batch(4, [0, 1, 2, 3]), everything(4))
    names = {path.name for path in tmp_path.glob("*undo*")}
    assert names == {f"mean_faces.undo-{n:08d}{worker}" for n in (9, 12) for worker in ("", ".1")}
    open_bank(9)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), faces[9])
    assert {path.name for path in tmp_path.glob("*undo*")} == {"mean_faces.undo-00000009"}


def test_no_worker_comes_before_worker_0(open_bank, tmp_path):
    open_bank().close()
    with pytest.raises(LatseError, match=TOUCHED):
        open_bank(worker=1)


def test_a_bank_of_before_there_were_several_workers_is_gone_on_with(open_bank, tmp_path):
    """Its files are the two arrays and one journal, in which a row is at most once."""
    faces = np.random.default_rng(0).random((CLASSES, *SHAPE)).astype(np.float16)
    started = np.arange(CLASSES) < 3
    np.save(tmp_path / FACES, faces)
    np.save(tmp_path / STARTED, started)
    old = np.full(SHAPE, 0.5, np.float16)
    (tmp_path / "mean_faces.undo-00000007").write_bytes(np.int64(2).tobytes() + b"\0" + old.tobytes())
    open_bank(7)
    faces[2], started[2] = old, False
    np.testing.assert_array_equal(np.load(tmp_path / FACES), faces)
    np.testing.assert_array_equal(np.load(tmp_path / STARTED), started)
