"""A head that compares a sample of the people: who they are, that all are a dense head, what moves."""

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.cli import main
from latse.symbols.margins import MARGINS
from latse.train import state
from latse.train.tables import LocalTables, SampledHead, Table, sample_size

WITHOUT_PEOPLE = {"triplet"}


@given(st.data(), st.integers(1, 300), st.floats(0.01, 1), st.integers(1, 40), st.integers(0, 10**6))
def test_a_sample_holds_the_people_of_the_batch(data, classes, rate, batch, iteration):
    sample = sample_size(classes, rate, batch)
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=batch, max_size=batch)))
    head = SampledHead(None, classes, sample, 3, 0, 1)
    people = head.people(labels, iteration)
    assert len(people) == sample == len(np.unique(people)) and (np.diff(people) > 0).all()
    assert {*labels.tolist()} <= {*people.tolist()} and 0 <= people[0] <= people[-1] < classes
    np.testing.assert_array_equal(
        people, SampledHead(None, classes, sample, 3, 0, 1).people(labels, iteration)
    )


def test_samples_differ_by_iteration_seed_and_worker():
    labels = np.array([5])
    drawn = [
        SampledHead(None, 1000, 100, *place).people(labels, iteration).tolist()
        for place in ((3, 0, 1), (4, 0, 1), (3, 1, 2))
        for iteration in (0, 1)
    ]
    assert len({*map(tuple, drawn)}) == 6


@pytest.fixture(scope="module")
def train(tiny, people, small_encoder, tmp_path_factory):
    """Run `latse train` with the small encoder, without dropout, and return its folder."""
    folder = tmp_path_factory.mktemp("runs")

    def train(name, *settings, words=()):
        common = f"encoder.name={small_encoder}", "encoder.dropout=0", "train.keep=1", *settings
        options = "--data", people, "--out", folder / name, *(f"--set={setting}" for setting in common)
        assert main(["train", str(tiny), *map(str, [*options, *words])]) == 0
        return folder / name

    return train


def margin_settings(name):
    grouped = ("train.images_per_person=2",) if name == "triplet" else ()
    return f"margin.name={name}", *grouped


@pytest.mark.parametrize("name", sorted(MARGINS.keys() - WITHOUT_PEOPLE))
def test_all_people_are_a_dense_head(train, run_metrics, name):
    """Losses, parameters and every row of the tables, for as many steps as momentum needs to show."""
    settings = *margin_settings(name), "train.iterations=4", "schedule.learning_rate=0.05"
    begin = train(f"{name}-begin", *settings, "train.iterations=1")
    start = "--start", begin / "model"
    dense = train(f"{name}-dense", *settings, words=start)
    sampled = train(f"{name}-all", *settings, "head.kind=sampled", "head.rate=1", words=start)
    assert len(run_metrics(sampled)) == 4
    for one, other in zip(run_metrics(dense), run_metrics(sampled)):
        np.testing.assert_allclose([*other.values()], [*one.values()], rtol=1e-5)
    one, other = (mx.nd.load(str(run / state.FILE)) for run in (dense, sampled))
    tables = [key.partition(":")[2] for key in other if key.startswith("table:")]
    assert "fc7_weight" in tables
    for key, array in one.items():
        part, _, parameter = key.partition(":")
        kinds = {"arg": "table", "momentum": "table_momentum"}
        found = other[f"{kinds[part]}:{parameter}" if parameter in tables else key].asnumpy()
        if key != "digest":
            np.testing.assert_allclose(found, array.asnumpy(), rtol=1e-4, atol=1e-6, err_msg=key)
    models = (mx.nd.load(str(run / "model-0000.params")) for run in (dense, sampled))
    assert {name: array.shape for name, array in next(models).items()} == {
        name: array.shape for name, array in next(models).items()
    }


def test_both_networks_of_a_selection_move_tables_of_their_own(train, run_contents):
    settings = "selection.name=co_teaching", "margin.name=arcface", "head.kind=sampled", "head.rate=0.6"
    unbroken = train("selected", *settings, "train.iterations=4")
    train("selected-half", *settings, "train.iterations=2")
    whole = train("selected-half", *settings, "train.iterations=4", words=["--resume"])
    assert run_contents(whole) == run_contents(unbroken)
    arrays = mx.nd.load(str(whole / state.FILE))
    moved = {key: array.asnumpy() for key, array in arrays.items() if key.startswith("table_momentum:")}
    assert len(moved) == 2 and "table_momentum:fc7_weight" in moved
    assert all(array.any() for array in moved.values())


def test_only_who_is_compared_moves(train):
    settings = "head.kind=sampled", "head.rate=0.2", "train.batch_size=2", "train.iterations=1"
    run = train("moves", *settings)
    before, after = (
        mx.nd.load(str(run / f"{name}-0000.params"))["arg:fc7_weight"] for name in ("untrained", "model")
    )
    moved = (before != after).asnumpy().any(axis=1)
    assert moved.sum() == 2 and before.shape == (5, 512)


def test_a_sampled_head_goes_on_to_the_same_bits(train, run_contents):
    settings = "head.kind=sampled", "head.rate=0.6", "margin.name=adaptiveface", "train.batch_size=3"
    unbroken = train("unbroken", *settings, "train.iterations=6")
    half = train("half", *settings, "train.iterations=4")
    whole = train("half", *settings, "train.iterations=6", words=["--resume"])
    assert half == whole
    assert run_contents(whole) == run_contents(unbroken)


def test_a_sampled_teacher_filters_and_starts_a_student(train, people, tmp_path):
    teacher = train("teacher", "head.kind=sampled", "head.rate=0.5")
    verdicts = tmp_path / "a.keep"
    words = "--data", people, "--teacher", teacher, "--k", "2", "--out", verdicts
    assert main(["filter", *map(str, words)]) == 0
    student = train("student", "filter.k=2", "head.kind=sampled", words=["--verdicts", verdicts])
    assert (student / "model-0000.params").exists()


def test_a_loss_that_compares_no_people_has_no_sample(tiny, people, small_encoder, tmp_path, capsys):
    settings = "margin.name=triplet", "head.kind=sampled", "train.images_per_person=2"
    words = "--data", people, "--out", tmp_path / "run", *(f"--set={setting}" for setting in settings)
    assert main(["train", *map(str, [tiny, *words, f"--set=encoder.name={small_encoder}"])]) == 1
    assert "the loss triplet compares no people: head.kind must be dense" in capsys.readouterr().err
    words = "--data", people, "--out", tmp_path / "run", "--set=head.kind=sampled"
    assert main(["train", *map(str, [tiny, *words, "--set=train.precision=float16_emulated"])]) == 1
    assert "must be dense, or with train.precision float32 also sampled" in capsys.readouterr().err


def test_a_table_that_is_not_finite_ends_the_run(train, monkeypatch, capsys):
    monkeypatch.setattr(LocalTables, "push", lambda tables, *_: tables._rows["fc7_weight"].fill(np.nan))
    with pytest.raises(AssertionError):
        train("spoilt", "head.kind=sampled", "train.iterations=1")
    assert "a number of fc7_weight is not finite" in capsys.readouterr().err


def test_a_skipped_step_counts_for_the_schedule_of_the_tables(tiny_recipe):
    """Rates of the updates 1, 2 and 3 are 0.1, 0.1 and 0.01; the second is skipped."""
    rates = "schedule.mode=step", "schedule.steps=[2]", "schedule.factor=0.1", "schedule.learning_rate=0.1"
    recipe = tiny_recipe(*rates, "train.momentum=0", "train.weight_decay=0", "head.kind=sampled")
    table, gradient = Table("fc7_weight", 5, (3,), {}), np.ones((2, 3), np.float32)
    tables = LocalTables(recipe, [table], 0)
    tables.put("table", table, iter([np.zeros((5, 3), np.float32)]))
    which = np.array([1, 4])
    tables.push({"fc7_weight": gradient}, which)
    tables.skip()
    tables.push({"fc7_weight": gradient}, which)
    expected = np.zeros((5, 3))
    expected[which] = -(0.1 + 0.01) / recipe.train.batch_size
    np.testing.assert_allclose(next(tables.blocks("table", table)), expected, rtol=1e-6)
