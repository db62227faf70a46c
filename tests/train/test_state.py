"""state.params: everything of a run between two iterations."""

import resource
import shutil

import mxnet as mx
import numpy as np
import pytest

from latse.errors import LatseError
from latse.train import state


def made_up(iteration=7, size=5):
    array = mx.nd.array(np.random.default_rng(size).normal(size=(3, size)))
    return state.RunState(
        iteration, {"fc_weight": array}, {"bn_moving_mean": array + 1}, {"fc_weight": array + 2}
    )


def same(one, other):
    return one.iteration == other.iteration and all(
        mine.keys() == theirs.keys()
        and all((mine[key].asnumpy() == theirs[key].asnumpy()).all() for key in mine)
        for mine, theirs in zip(one[1:], other[1:])
    )


@pytest.mark.parametrize("iteration", [0, 7, 2**24 + 1, 2**40])
def test_what_is_saved_is_loaded(tmp_path, iteration):
    state.save(tmp_path, made_up(iteration))
    assert same(state.load(tmp_path), made_up(iteration))
    assert [path.name for path in tmp_path.iterdir()] == [state.FILE]


def test_no_state_is_none(tmp_path):
    assert state.load(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b"no array at all"),
        lambda path: mx.nd.save(str(path), {"arg:fc_weight": mx.nd.ones(1)}),
        lambda path: mx.nd.save(str(path), [mx.nd.ones(1)]),
        lambda path: mx.nd.save(str(path), {"iteration": mx.nd.ones(1), "gradient:fc": mx.nd.ones(1)}),
        lambda path: mx.nd.save(str(path), {"iteration": mx.nd.ones(3)}),
    ],
)
def test_a_damaged_state_is_named(tmp_path, damage):
    state.save(tmp_path, made_up())
    damage(tmp_path / state.FILE)
    with pytest.raises(LatseError, match=state.FILE):
        state.load(tmp_path)


@pytest.mark.parametrize("missing", [100_000, 3000, 200, 1])  # MXNet does not look at the last 4096 bytes
def test_a_full_disk_is_named_and_the_older_state_stays(tmp_path, missing):
    other = tmp_path / "other"
    other.mkdir()
    state.save(other, made_up(8, size=10_000))
    space = (other / state.FILE).stat().st_size - missing
    shutil.rmtree(other)
    state.save(tmp_path, made_up())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (space, limits[1]))
    try:
        with pytest.raises(LatseError, match=f"{state.NEW}: File too large"):
            state.save(tmp_path, made_up(8, size=10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert same(state.load(tmp_path), made_up())
    assert [path.name for path in tmp_path.iterdir()] == [state.FILE]


@pytest.mark.parametrize("renamed", [False, True])
def test_an_interruption_between_two_renamings_loses_nothing(tmp_path, monkeypatch, renamed):
    state.save(tmp_path, made_up(7))
    replace = state.Path.replace

    def interrupted(path, target):
        if path.name != state.FILE or renamed:
            replace(path, target)
        if path.name == state.FILE:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(state.Path, "replace", interrupted)
        state.save(tmp_path, made_up(8))
    assert {path.name for path in tmp_path.iterdir()} == {state.FILE, *[state.BEFORE] * renamed}
    assert same(state.load(tmp_path), made_up(8))


def test_the_state_before_the_last_stays_and_takes_its_place(tmp_path):
    said = []
    for number in (7, 8, 9):
        state.save(tmp_path, made_up(number))
    assert {path.name for path in tmp_path.iterdir()} == {state.FILE, state.BEFORE}
    state.recover(tmp_path, said.append)
    assert same(state.load(tmp_path), made_up(9)) and not said
    content = bytearray((tmp_path / state.FILE).read_bytes())
    content[200] ^= 1  # a bit of a number, which no length tells of
    (tmp_path / state.FILE).write_bytes(content)
    with pytest.raises(LatseError, match="is damaged"):
        state.load(tmp_path)
    state.recover(tmp_path, said.append)
    assert same(state.load(tmp_path), made_up(8))
    (sentence,) = said
    assert f"{tmp_path / state.FILE} is damaged" in sentence
    assert sentence.endswith(f"it is {state.DAMAGED} now, and the run goes on from the checkpoint before, 8")
    assert (tmp_path / state.DAMAGED).read_bytes() == content
    state.save(tmp_path, made_up(10))
    state.forget_before(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {state.FILE, state.DAMAGED}


def test_a_state_that_was_renamed_when_the_process_died_takes_its_place(tmp_path):
    state.save(tmp_path, made_up(7))
    (tmp_path / state.FILE).rename(tmp_path / state.BEFORE)
    state.recover(tmp_path, pytest.fail)
    assert same(state.load(tmp_path), made_up(7))


def test_where_both_states_are_damaged_the_last_is_named(tmp_path):
    for number in (7, 8):
        state.save(tmp_path, made_up(number))
    for name in (state.FILE, state.BEFORE):
        (tmp_path / name).write_bytes(b"")
    state.recover(tmp_path, pytest.fail)
    with pytest.raises(LatseError, match=state.FILE):
        state.load(tmp_path)


def test_a_state_of_an_older_version_has_no_digest(tmp_path):
    state.save(tmp_path, made_up(7))
    arrays = mx.nd.load(str(tmp_path / state.FILE))
    del arrays[state.DIGEST]
    mx.nd.save(str(tmp_path / state.FILE), arrays)
    assert same(state.load(tmp_path), made_up(7))
