"""Runs under a selection, by `latse train`: resumed, planned, on two devices, and what they tell."""

import json

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.data.shards.loader import BatchStream
from latse.data.shards.noise import CLEAN, add_noise, read_truth
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.models import checkpoint
from latse.symbols.names import TWIN
from latse.symbols.selection import SELECTIONS
from latse.train import state
from latse.train.trainer import Trainer

# At the iterations of these runs each of them keeps some samples and drops others.
PARAMETERS = {
    "co_teaching": {"noise_rate": 0.5, "ramp": 2},
    "co_mining": {"noise_rate": 0.5, "ramp": 2},
    "mentornet_predefined": {"percentile": 0.5, "burn_in": 1, "lambda2": 5.0},
}
TWO = [name for name, strategy in SELECTIONS.items() if strategy.networks == 2]


class Crash(BaseException):
    """Stands for the death of the process."""


@pytest.fixture(scope="module")
def noisy(people, tmp_path_factory):
    """The folder of the made-up people, 40 % of them under wrong labels."""
    folder = tmp_path_factory.mktemp("noise") / "noisy"
    add_noise(people, folder, 0.4, 0.0, 0)
    return folder


@pytest.fixture
def train(tiny, people, small_encoder, tmp_path):
    """Run `latse train` with a small network and a selection into a folder of that name."""

    def train(folder, name, *changes, data=people, options=()):
        own = [f"selection.{key}={value}" for key, value in PARAMETERS.get(name, {}).items()]
        settings = f"encoder.name={small_encoder}", "train.iterations=4", f"selection.name={name}", *own
        words = [word for setting in (*settings, *changes) for word in ("--set", setting)]
        return main(
            ["train", *map(str, [tiny, "--data", data, "--out", tmp_path / folder, *words, *options])]
        )

    return train


@pytest.mark.parametrize("name", [*SELECTIONS])
def test_a_run_that_dies_goes_on_to_the_same_bits(train, tmp_path, run_contents, monkeypatch, name):
    assert train("unbroken", name) == 0
    step = Trainer._step
    with monkeypatch.context() as patch:

        def dying(self, iteration, batch):
            if iteration == 3:
                raise Crash
            return step(self, iteration, batch)

        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(Crash):
            train("broken", name)
    assert state.load(tmp_path / "broken").iteration == 2
    assert train("broken", name, options=["--resume"]) == 0
    assert run_contents(tmp_path / "broken") == run_contents(tmp_path / "unbroken")


@pytest.mark.parametrize("name", TWO)
def test_two_networks_differ_and_the_model_is_the_first(train, tmp_path, pairs_file, name):
    assert train("run", name) == 0
    found = state.load(tmp_path / "run")
    first = {key for key in found.arg_params if not key.startswith((TWIN, "selection_"))}
    assert {key for key in found.arg_params if key.startswith(TWIN)} == {f"{TWIN}{key}" for key in first}
    assert {f"{TWIN}{key}" for key in found.momentum if key in first} <= found.momentum.keys()
    for key in ("conv0_weight", "fc7_weight", "pre_fc1_weight"):
        assert not np.allclose(found.arg_params[key].asnumpy(), found.arg_params[f"{TWIN}{key}"].asnumpy())
    _, args, aux = checkpoint.load(tmp_path / "run" / "model", 0)
    assert {*args} == first and not any(key.startswith(TWIN) for key in aux)
    for key in first:
        assert (args[key].asnumpy() == found.arg_params[key].asnumpy()).all()
    assert main(["eval", "--model", str(tmp_path / "run"), "--pairs", str(pairs_file)]) == 0


def test_the_first_network_begins_as_it_would_alone(train, tmp_path):
    assert train("two", "co_teaching", "train.iterations=1") == 0
    assert train("alone", "null", "train.iterations=1") == 0
    two, alone = (checkpoint.load(tmp_path / folder / "untrained", 0)[1] for folder in ("two", "alone"))
    assert two.keys() == alone.keys()
    assert all((two[key].asnumpy() == alone[key].asnumpy()).all() for key in alone)


@pytest.mark.parametrize("name", ["de_coupling", "mentornet_predefined"])
def test_a_memory_plan_changes_no_loss(train, run_metrics, tmp_path, name):
    assert train("plain", name, "encoder.dropout=0") == 0
    assert train("planned", name, "encoder.dropout=0", "train.memory_plan=true") == 0
    plain, planned = (run_metrics(tmp_path / folder) for folder in ("plain", "planned"))
    assert len(plain) == 4
    for line, other in zip(plain, planned):
        assert line["kept"] == other["kept"]
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)


@pytest.mark.parametrize("name", [*SELECTIONS])
def test_mixed_precision_trains(train, run_metrics, tmp_path, name):
    assert train("single", name, "encoder.dropout=0") == 0
    half = "train.precision=float16_emulated", "train.loss_scale=128"
    assert train("half", name, "encoder.dropout=0", *half) == 0
    single, half = (run_metrics(tmp_path / folder) for folder in ("single", "half"))
    assert all(line["skipped"] == 0 for line in half)
    assert [line["dloss"] for line in half] == pytest.approx([line["dloss"] for line in single], rel=0.02)


def test_each_device_selects_from_its_share(train, run_metrics, tmp_path):
    """Half of a batch of four: two of them on one device, one of two on each of two."""
    settings = "selection.ramp=0", "selection.noise_rate=0.5", "train.iterations=1"
    steps = []
    step = Trainer._step

    def recorded(self, iteration, batch):
        steps.append(step(self, iteration, batch))
        return steps[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", recorded)
        patch.setattr("latse.train.train_command.contexts", lambda args: [mx.cpu(0), mx.cpu(1)])
        assert train("two", "co_teaching", *settings) == 0
    assert [steps[0]["kept"][half].sum() for half in (slice(2), slice(2, 4))] == [1, 1]


def test_precision_and_recall_are_those_of_the_samples_kept(train, noisy, run_metrics, tmp_path):
    kept, step = [], Trainer._step

    def recorded(self, iteration, batch):
        values = step(self, iteration, batch)
        kept.append(values["kept"])
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", recorded)
        assert train("run", "co_teaching", "train.log_every=4", "train.checkpoint_every=4", data=noisy) == 0
    (line,) = run_metrics(tmp_path / "run")
    truth = read_truth(noisy)
    right = dict(zip(truth.record, truth.kind == CLEAN))
    stream = BatchStream(Shard(noisy), 4, 0)
    labels = np.array([right[record] for number in range(4) for record in stream.batch(number).record])
    kept = np.concatenate(kept) > 0
    assert 0 < labels.sum() < 16 and 0 < kept.sum() < 16
    assert line["kept"] == kept.mean()
    assert line["precision"] == pytest.approx(labels[kept].mean())
    assert line["recall"] == pytest.approx(kept[labels].mean())


def test_a_set_without_known_noise_has_neither(train, run_metrics, tmp_path):
    assert train("run", "co_teaching", "train.iterations=1") == 0
    assert not {"precision", "recall"} & run_metrics(tmp_path / "run")[0].keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("filter.k", 1),
        ("decoder.enabled", "true"),
        ("margin.name", "adacos"),  # the weights would weigh its scale's step, too
        ("margin.name", "centre_loss"),
    ],
)
def test_what_no_selection_goes_with_is_refused(train, capsys, key, value):
    assert train("run", "co_teaching", f"{key}={value}") == 1
    error = capsys.readouterr().err
    assert (
        "selection.name is co_teaching, must be null with decoder.enabled, filter.k or a margin.name" in error
    )
    assert f"({key} is {value}, set by --set)" in error


def test_a_strategy_of_ones_own_is_part_of_the_run(train, tmp_path, run_metrics, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from latse.symbols.selection import Selection\n\n"
        "class Below(Selection):\n"
        "    def __init__(self, most=3.0):\n        super().__init__()\n        self._most = most\n\n"
        "    def weights(self, F, losses, scores, label):\n        return [losses[0] < self._most]\n"
    )
    settings = "selection.most=0.5", "margin.name=arcface", "train.iterations=1"
    assert train("run", f"{path}:Below", *settings) == 0
    assert run_metrics(tmp_path / "run")[0]["kept"] == 0
    assert run_metrics(tmp_path / "run")[0]["loss"] == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["selection"] == {"name": "mine.py:Below", "most": 0.5}
    path.write_text(path.read_text() + "\n# another\n")
    assert train("run", f"{path}:Below", *settings, options=["--resume"]) == 1
    assert "holds a run with another selection" in capsys.readouterr().err


def test_networks_of_many_people_are_compared(train, pictures, run_metrics, tmp_path):
    """From 17 people on MXNet fails at the second iteration if this is a dense layer without a gradient."""
    write_shard(
        tmp_path / "many", [(person, picture) for person, (_, picture) in enumerate(2 * pictures)], 30
    )
    assert train("run", "de_coupling", data=tmp_path / "many") == 0
    assert len(run_metrics(tmp_path / "run")) == 4


def test_a_warm_start_is_the_first_networks(train, tmp_path, capsys):
    assert train("teacher", "null", "train.iterations=1") == 0
    start = ["--start", tmp_path / "teacher"]
    assert train("run", "co_teaching", "train.iterations=1", options=start) == 0
    assert "second network: begins anew, the checkpoint has no twin_bn0_beta and" in capsys.readouterr().out
