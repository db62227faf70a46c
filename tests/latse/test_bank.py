"""The mean-face bank: eq. 12, its files, and that a crash leaves no trace."""

import errno
import os
import resource
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.train.bank import FACES, STARTED, MeanFaceBank

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
@settings(max_examples=30, deadline=None)
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
    [journal] = tmp_path.glob("*undo*")
    journal.write_bytes(journal.read_bytes() * 2)
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size - cut)
    open_bank(7)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


def test_a_crash_between_the_state_and_the_new_journal_undoes_nothing(open_bank, tmp_path):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.flush()
    wanted = np.load(tmp_path / FACES)
    open_bank(7)  # the journal on disk is still that of the start
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


def test_a_crash_while_undoing_is_undone_the_next_time(open_bank, tmp_path, monkeypatch):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES)
    bank.update(*batch(1, [0, 1]), everything(2))
    with monkeypatch.context() as patch:
        patch.setattr(MeanFaceBank, "flush", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_bank(7)
    open_bank(7)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)


def test_a_closed_bank_leaves_no_journal(open_bank, tmp_path):
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.close()
    assert {path.name for path in tmp_path.iterdir()} == {FACES, STARTED}


STEP = st.one_of(
    st.just("checkpoint"),
    st.lists(st.tuples(st.integers(0, CLASSES - 1), st.booleans()), min_size=1, max_size=4),
)


@given(steps=st.lists(STEP, max_size=12), crash=st.integers(0, 12), torn=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
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
    [journal] = broken.glob("*undo*")
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
    bank = open_bank()
    bank.update(*batch(0, [0, 1]), everything(2))
    bank.checkpoint(7)
    wanted = np.load(tmp_path / FACES)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(LatseError, match="undo-00000007: File too large"):
            bank.update(*batch(1, [0, 1]), everything(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    open_bank(7)
    np.testing.assert_array_equal(np.load(tmp_path / FACES), wanted)
