"""Every loss under the trainer: it falls within ten steps, and what it remembers survives a resume."""

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.symbols.margins import MARGINS
from latse.symbols.running import is_running
from latse.train import state
from latse.train.trainer import Trainer
from latse.train.training import Training
from latse.train.verdicts import KeepAll

# Beside the defaults: a margin at which triplets cost something from the start, and what adds to a loss.
FURTHER = {"triplet": ["margin.m=1"]}
REGULARISED = ["regularisers.hyperspherical_energy=1", "regularisers.exclusive=1"]
LOSSES = [
    *((name, FURTHER.get(name, [])) for name in MARGINS),
    ("sphereface", REGULARISED),
    ("sphereface_annealed", REGULARISED),
    ("adacos", REGULARISED),
]
OWN_MARGIN = """\
from latse.symbols.margins import Margin


class Own(Margin):
    def target_logit(self, F, theta):
        return self._s * (F.cos(theta) - 0.1 * theta)
"""


class Crash(BaseException):
    """Stands for the death of the process."""


@pytest.fixture(scope="module")
def couples(tmp_path_factory, pictures):
    """The folder of a shard of four people with two pictures each."""
    folder = tmp_path_factory.mktemp("couples")
    write_shard(folder, [pictures[3 * person + number] for person in range(4) for number in range(2)], 4)
    return folder


@pytest.fixture
def losses(couples, tiny_recipe, small_encoder, tmp_path, run_metrics):
    """Train ten steps on all eight pictures at once, without dropout; return the loss of each step."""
    train = "train.batch_size=8", "train.iterations=10", "train.checkpoint_every=10"

    def losses(*overrides):
        recipe = tiny_recipe(f"encoder.name={small_encoder}", "encoder.dropout=0", *train, *overrides)
        Trainer(Training.of(recipe, 4, [mx.cpu()], 3), Shard(couples), tmp_path, KeepAll()).run()
        return [line["loss"] for line in run_metrics(tmp_path)]

    return losses


@pytest.mark.parametrize(
    ("name", "overrides"), LOSSES, ids=[" ".join([name, *more]) for name, more in LOSSES]
)
def test_ten_steps_lower_the_loss(losses, name, overrides):
    found = losses(f"margin.name={name}", *overrides)
    assert len(found) == 10
    assert found[0] > 0
    assert np.mean(found[-3:]) < 0.7 * found[0]


@pytest.mark.parametrize(("name", "overrides"), [("linearface", []), ("triplet", FURTHER["triplet"])])
def test_without_learning_it_does_not_fall(losses, name, overrides):
    """What the test above owes to learning: the pictures are the same ones, mirrored or not."""
    found = losses(f"margin.name={name}", *overrides, "schedule.learning_rate=1e-9")
    assert np.mean(found[-3:]) > 0.8 * found[0]


@pytest.fixture
def run(people, tiny_recipe, small_encoder, tmp_path):
    """Train four iterations into a folder of that name and return its state."""

    def run(folder, *overrides, devices=1):
        (tmp_path / folder).mkdir(exist_ok=True)
        contexts = [mx.cpu(number) for number in range(devices)]
        recipe = tiny_recipe(f"encoder.name={small_encoder}", "train.iterations=4", *overrides)
        Trainer(Training.of(recipe, 5, contexts, 3), Shard(people), tmp_path / folder, KeepAll()).run()
        return state.load(tmp_path / folder)

    return run


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("adacos", 1),
        ("adacos", 2),
        ("centre_loss", 1),
        ("centre_loss", 2),
        ("adaptiveface", 1),
        ("sphereface_annealed", 1),
    ],
)
def test_what_a_loss_remembers_survives_a_resume(run, tmp_path, run_contents, monkeypatch, name, devices):
    """Scale, margins, centres and λ of a run that dies after its first checkpoint are those of another."""
    last = run("unbroken", f"margin.name={name}", devices=devices)
    with monkeypatch.context() as patch:
        step = Trainer._step

        def dying(self, iteration, batch):
            if iteration == 3:
                raise Crash
            return step(self, iteration, batch)

        patch.setattr(Trainer, "_step", dying)
        with pytest.raises(Crash):
            run("broken", f"margin.name={name}", devices=devices)
    saved = state.load(tmp_path / "broken")
    assert saved.iteration == 2
    for key in saved.arg_params.keys() - {"fc7_weight"}:
        if key.startswith("fc7_"):
            assert (saved.arg_params[key].asnumpy() != last.arg_params[key].asnumpy()).any(), key
    run("broken", f"margin.name={name}", devices=devices)
    assert run_contents(tmp_path / "broken") == run_contents(tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("name", "key"), [("adacos", "fc7_scale_running"), ("centre_loss", "fc7_centre_running")]
)
def test_what_a_loss_remembers_has_neither_rate_nor_decay_nor_momentum(run, name, key):
    """After one iteration at another rate and decay the weights are others, this is the same."""
    settings = f"margin.name={name}", "train.iterations=1"
    one = run("one", *settings)
    other = run("other", *settings, "schedule.learning_rate=0.02", "train.weight_decay=0.1")
    assert is_running(key)
    assert key not in one.momentum
    assert one.momentum.keys() == {name for name in one.arg_params if not is_running(name)}
    assert (one.arg_params[key].asnumpy() == other.arg_params[key].asnumpy()).all()
    assert (one.arg_params["fc7_weight"].asnumpy() != other.arg_params["fc7_weight"].asnumpy()).any()


def test_the_centres_that_move_are_those_of_the_people_of_the_batch(run, people):
    last = run("one", "margin.name=centre_loss", "train.iterations=1")
    moved = np.flatnonzero(last.arg_params["fc7_centre_running"].asnumpy().any(axis=1))
    assert set(moved) == set(BatchStream(Shard(people), 4, seed=3).batch(0).label)
    assert len(moved) < 5


def test_a_margin_of_ones_own_trains_and_its_file_is_part_of_the_run(tiny, people, tmp_path, capsys):
    counting = "from pathlib import Path\nPath(__file__).with_suffix('.runs').open('a').write('x')\n"
    (tmp_path / "own.py").write_text(counting + OWN_MARGIN)
    (tmp_path / "own.yaml").write_text(f"base: {tiny}\nmargin: {{name: 'own.py:Own', s: 32}}\n")

    def train():
        arguments = ["--data", people, "--out", tmp_path / "out", "--resume", "--set", "train.iterations=1"]
        return main(["train", *map(str, [tmp_path / "own.yaml", *arguments])])

    assert train() == 0
    assert train() == 0
    assert "the run is finished" in capsys.readouterr().out
    assert (tmp_path / "own.runs").read_text() == "x"  # executed once in this process, for both runs
    (tmp_path / "own.py").write_text(counting + OWN_MARGIN.replace("0.1", "0.2"))
    assert train() == 1
    assert (tmp_path / "own.runs").read_text() == "xx"
    assert "holds a run with another margin (" in capsys.readouterr().err
