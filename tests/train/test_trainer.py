"""The training loop: what a run leaves behind, resuming to the same bits, several devices."""

import json
import shutil
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Shard
from latse.errors import LatseError
from latse.models import checkpoint
from latse.symbols.networks import IMAGE_SHAPE
from latse.train import learners, state
from latse.train.bank import MeanFaceBank
from latse.train.learner import Learner
from latse.train.precision import DivergenceError
from latse.train.state import RunState
from latse.train.trainer import Trainer
from latse.train.training import Training, TrainingGraph, inference, traced
from latse.train.verdicts import KeepAll


class EveryOther:
    """A filter that refuses people 1 and 3."""

    def keep(self, batch):
        return (batch.label % 2 == 0).astype(np.float32)


class Crash(BaseException):
    """Stands for the death of the process."""


def trained(recipe, contexts, symbol=None, seed=3):
    """The training of the recipe's graph, or of a symbol with the student's inputs or some of them."""
    if symbol is None:
        return Training.of(recipe, 5, contexts, seed)
    size = recipe.train.batch_size
    known = {"data": IMAGE_SHAPE, "softmax_label": (), "keep": (), "mean_face": IMAGE_SHAPE}
    present = symbol.list_arguments()
    shapes = {name: (size, *shape) for name, shape in known.items() if name in present}
    return Training(recipe, 5, contexts, TrainingGraph(symbol, shapes), inference(recipe), seed)


@pytest.fixture
def trainer(people, quick_student, tiny_recipe):
    """Make a trainer of the quick student; `overrides` go into the recipe."""

    def make(folder, *overrides, devices=1, seed=3, symbol=quick_student, teacher=None):
        folder.mkdir(exist_ok=True)
        contexts = [mx.cpu(number) for number in range(devices)]
        recipe = tiny_recipe("decoder.enabled=true", *overrides)
        training = trained(recipe, contexts, symbol, seed)
        return Trainer(training, Shard(people), folder, teacher or EveryOther())

    return make


def on_fixed_statistics(symbol):
    """A graph of which a batch may be split anywhere: BatchNorms on their moving statistics, no dropout."""
    nodes = json.loads(symbol.tojson())
    for node in nodes["nodes"]:
        if node["op"] == "BatchNorm":
            node["attrs"]["use_global_stats"] = "True"
        elif node["op"] == "Dropout":
            node["attrs"]["p"] = "0"
    return mx.sym.load_json(json.dumps(nodes))


def test_a_run_leaves_models_metrics_and_log(trainer, tmp_path, run_metrics):
    trainer(tmp_path / "run", "train.log_every=3", "train.checkpoint_every=4").run()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model-symbol.json",
        "model-0000.params",
        "model-0004.params",
        "model-0006.params",
        "untrained-symbol.json",
        "untrained-0000.params",
        "state.params",
        "metrics.jsonl",
        "train.log",
        "mean_faces.npy",
        "mean_faces_started.npy",
    }
    for line in run_metrics(tmp_path / "run"):
        assert set(line) == {"iteration", "epoch", "lr", "loss", "dloss", "l1", "ssim", "kept"}
        assert line["lr"] == 0.01
        assert 0 <= line["kept"] <= 1
        similarity = line["loss"] - line["dloss"] - line["l1"]  # the graph's; SSIM = 1 - 2·SimLoss, eq. 13
        rounding = 10 * np.finfo(np.float32).eps * line["loss"]
        assert line["ssim"] == pytest.approx(1 - 2 * similarity, abs=rounding)
    assert "checkpoint 4" in (tmp_path / "run" / "train.log").read_text()


KEPT = {"all": {2, 4, 6, 7}, "1": {7}, "3": {4, 6, 7}, "9": {2, 4, 6, 7}, "[2, 7]": {2, 7}, "[3, 4]": {4}}


def numbered(folder):
    return {int(path.stem.split("-")[1]) for path in folder.glob("model-*.params")}


@pytest.mark.parametrize("keep", KEPT)
def test_the_checkpoints_of_the_recipe_stay(trainer, tmp_path, keep):
    settings = "train.iterations=7", f"train.keep={keep}"
    trainer(tmp_path, *settings).run()
    assert numbered(tmp_path) == {0, *KEPT[keep]}


@pytest.mark.parametrize(("keep", "call", "stored"), [("1", 5, {4}), ("[6]", 5, {4}), ("[2, 6]", 5, {2, 4})])
def test_the_newest_checkpoint_stays_until_the_next(trainer, tmp_path, monkeypatch, keep, call, stored):
    with monkeypatch.context() as patch:
        crash_at(patch, Trainer, "_step", call)
        with pytest.raises(Crash):
            trainer(tmp_path, f"train.keep={keep}").run()
    assert numbered(tmp_path) == stored


@pytest.mark.parametrize("keep", ["1", "[2]"])
@pytest.mark.parametrize(
    ("owner", "name", "call"), [(state, "save", 2), (state, "save", 3), (Path, "unlink", 1)]
)
def test_a_run_that_gives_checkpoints_up_resumes_to_the_same_files(
    trainer, tmp_path, run_contents, monkeypatch, keep, owner, name, call
):
    trainer(tmp_path / "unbroken", f"train.keep={keep}").run()
    with monkeypatch.context() as patch:
        crash_at(patch, owner, name, call)
        with pytest.raises(Crash):
            trainer(tmp_path / "broken", f"train.keep={keep}").run()
    trainer(tmp_path / "broken", f"train.keep={keep}").run()
    assert run_contents(tmp_path / "broken") == run_contents(tmp_path / "unbroken")


def test_many_checkpoints_make_the_json_of_the_network_once(trainer, tmp_path, monkeypatch):
    """MXNet never frees its memory."""
    made, tojson = [], mx.sym.Symbol.tojson
    monkeypatch.setattr(mx.sym.Symbol, "tojson", lambda symbol: made.append(symbol) or tojson(symbol))
    counts = []
    for name, every in (("few", 6), ("many", 1)):
        made.clear()
        trainer(tmp_path / name, f"train.checkpoint_every={every}").run()
        counts.append(len(made))
    assert counts[0] == counts[1] > 0


def test_the_seed_decides(trainer, tmp_path, run_contents):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        trainer(tmp_path / name, seed=seed).run()
    one, again, other = (run_contents(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert one["metrics"] != other["metrics"]
    name = "untrained-0000.params", "arg:fc7_weight"
    assert one[name] != other[name]


def crash_at(monkeypatch, owner, name, call):
    """Let the process die before the call number `call` (from 1) of a function."""
    original, calls = getattr(owner, name), []

    def dying(*arguments, **named):
        calls.append(name)
        if len(calls) == call:
            raise Crash
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, dying)


PLACES = [
    (Trainer, "_step", (1, 2, 3, 4, 6)),
    (MeanFaceBank, "_note", (1, 4, 6)),
    (MeanFaceBank, "update", (1, 3, 6)),
    (MeanFaceBank, "checkpoint", (1, 3)),
    (MeanFaceBank, "close", (1,)),
    (state, "save", (1, 2, 3)),
    (state.ModelWriter, "save", (1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(owner, name, call) for owner, name, calls in PLACES for call in calls],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_run_that_dies_anywhere_resumes_to_the_same_bits(
    trainer, tmp_path, run_contents, unbroken, monkeypatch, owner, name, call
):
    with monkeypatch.context() as patch:
        crash_at(patch, owner, name, call)
        with pytest.raises(Crash):
            trainer(tmp_path / "broken", "train.log_every=4").run()
    trainer(tmp_path / "broken", "train.log_every=4").run()
    assert run_contents(tmp_path / "broken") == unbroken


@pytest.fixture(scope="module")
def unbroken(people, quick_student, tiny_recipe, tmp_path_factory, run_contents):
    """What the run above holds if nothing happens to it."""
    folder = tmp_path_factory.mktemp("unbroken")
    recipe = tiny_recipe("decoder.enabled=true", "train.log_every=4")
    Trainer(trained(recipe, [mx.cpu()], quick_student), Shard(people), folder, EveryOther()).run()
    return run_contents(folder)


@pytest.mark.parametrize("update_on_kvstore", ["1", "0"])
@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("kvstore", ["local", "device"])
def test_several_devices_resume_to_the_same_bits(
    trainer, tmp_path, run_contents, monkeypatch, devices, kvstore, update_on_kvstore
):
    """Where the KVStore does not update, as Module has it for large weights, each device has a momentum."""
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", update_on_kvstore)
    settings = f"train.kvstore={kvstore}", "train.batch_size=6"
    trainer(tmp_path / "unbroken", *settings, devices=devices).run()
    with monkeypatch.context() as patch:
        crash_at(patch, Trainer, "_step", 4)
        with pytest.raises(Crash):
            trainer(tmp_path / "broken", *settings, devices=devices).run()
    trainer(tmp_path / "broken", *settings, devices=devices).run()
    assert run_contents(tmp_path / "broken") == run_contents(tmp_path / "unbroken")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("update_on_kvstore", ["1", "0"])
def test_a_run_may_go_on_with_another_number_of_devices(
    trainer, tmp_path, run_metrics, monkeypatch, before, after, update_on_kvstore
):
    """It takes over the whole state, whichever way the optimiser numbers its arrays."""
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", update_on_kvstore)
    with monkeypatch.context() as patch:
        crash_at(patch, Trainer, "_step", 5)
        with pytest.raises(Crash):
            trainer(tmp_path / "moved", devices=before).run()
    saved = state.load(tmp_path / "moved")
    mover = trainer(tmp_path / "moved", devices=after)
    captured = learners.create(mover._training, saved).capture(saved.iteration)
    assert saved.momentum.keys() == saved.arg_params.keys()
    for mine, theirs in zip(captured[1:], saved[1:]):
        assert {name: array.asnumpy().tobytes() for name, array in mine.items()} == {
            name: array.asnumpy().tobytes() for name, array in theirs.items()
        }
    mover.run()
    assert [line["iteration"] for line in run_metrics(tmp_path / "moved")] == [1, 2, 3, 4, 5, 6]


def crashed(trainer, folder, monkeypatch, *overrides):
    with monkeypatch.context() as patch:
        crash_at(patch, Trainer, "_step", 4)
        with pytest.raises(Crash):
            trainer(folder, *overrides).run()


def interrupted(trainer, folder, monkeypatch, *overrides):
    """Stop a run after three iterations, as a signal does."""
    asked = iter([False, False, True])
    assert trainer(folder, *overrides).run(asked_to_stop=lambda: next(asked)) == 3


@pytest.mark.parametrize("broken_off", [crashed, interrupted])
def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    trainer, tmp_path, run_contents, monkeypatch, broken_off
):
    settings = "train.checkpoint_every=1", "train.keep=1"
    trainer(tmp_path / "unbroken", *settings).run()
    folder = tmp_path / "broken"
    broken_off(trainer, folder, monkeypatch, *settings)
    (folder / state.FILE).write_bytes((folder / state.FILE).read_bytes()[:-1])
    said = []
    state.recover(folder, said.append)
    assert "goes on from the checkpoint before, 2" in said[0]
    trainer(folder, *settings).run()
    (folder / state.DAMAGED).unlink()
    assert run_contents(folder) == run_contents(tmp_path / "unbroken")


def test_a_folder_that_is_gone_at_a_checkpoint_is_not_made_anew(trainer, tmp_path, monkeypatch):
    folder, capture = tmp_path / "run", Learner.capture

    def removed_at(learner, iteration):
        if iteration:
            shutil.rmtree(folder)
        return capture(learner, iteration)

    monkeypatch.setattr(Learner, "capture", removed_at)
    with pytest.raises(LatseError, match=f"{folder} is gone"):
        trainer(folder).run()
    assert not folder.exists()


def test_a_resumed_run_needs_its_momentum(trainer, tmp_path, run_contents, monkeypatch):
    trainer(tmp_path / "unbroken").run()
    crashed(trainer, tmp_path / "forgetful", monkeypatch)
    monkeypatch.setattr(state, "restore", lambda *_: None)
    trainer(tmp_path / "forgetful").run()
    assert run_contents(tmp_path / "forgetful") != run_contents(tmp_path / "unbroken")


def test_a_resumed_run_needs_its_mean_faces(trainer, tmp_path, run_contents, monkeypatch):
    trainer(tmp_path / "unbroken").run()
    crashed(trainer, tmp_path / "forgetful", monkeypatch)
    monkeypatch.setattr(MeanFaceBank, "_undo", lambda bank, iteration: None)
    trainer(tmp_path / "forgetful").run()
    assert run_contents(tmp_path / "forgetful") != run_contents(tmp_path / "unbroken")


def test_without_momentum_there_is_none_to_keep(trainer, tmp_path, run_contents, monkeypatch):
    trainer(tmp_path / "unbroken", "train.momentum=0").run()
    crashed(trainer, tmp_path / "broken", monkeypatch, "train.momentum=0")
    trainer(tmp_path / "broken", "train.momentum=0").run()
    assert run_contents(tmp_path / "broken") == run_contents(tmp_path / "unbroken")


def test_a_schedule_goes_on_where_it_was(trainer, tmp_path, run_metrics, monkeypatch):
    settings = "schedule.mode=cosine", "schedule.warmup=2"
    trainer(tmp_path / "unbroken", *settings).run()
    crashed(trainer, tmp_path / "broken", monkeypatch, *settings)
    trainer(tmp_path / "broken", *settings).run()
    rates = [line["lr"] for line in run_metrics(tmp_path / "broken")]
    assert rates == [line["lr"] for line in run_metrics(tmp_path / "unbroken")]
    assert len(set(rates)) >= 5


def test_a_refused_sample_moves_no_mean_unless_asked(trainer, tmp_path):
    for name, overrides in (("strict", ()), ("lax", ("filter.refused_in_mean=true",))):
        trainer(tmp_path / name, *overrides).run()
    started = {
        name: np.load(tmp_path / name / "mean_faces_started.npy").tolist() for name in ("strict", "lax")
    }
    assert started == {"strict": [True, False, True, False, True], "lax": [True] * 5}


def test_a_mirrored_image_moves_the_mean_mirrored_unless_asked(trainer, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        MeanFaceBank, "update", lambda bank, images, *_: seen.append(images) or np.zeros(images.shape)
    )
    batches = []
    for overrides in ((), ("decoder.mirrored_in_mean=false",)):
        one = trainer(tmp_path / str(len(overrides)), *overrides, teacher=KeepAll())
        batches += [one._stream.batch(number) for number in range(one._recipe.train.iterations)]
        one.run()
    mirrored = np.concatenate([batch.mirrored for batch in batches[: len(batches) // 2]])
    assert 0 < mirrored.sum() < len(mirrored)
    as_seen, as_held = np.split(np.concatenate(seen), 2)
    np.testing.assert_array_equal(
        as_seen, np.concatenate([batch.image for batch in batches])[: len(mirrored)]
    )
    np.testing.assert_array_equal(as_held[mirrored], as_seen[mirrored][..., ::-1])
    np.testing.assert_array_equal(as_held[~mirrored], as_seen[~mirrored])


def test_weight_decay_spares_biases_and_shifts(trainer, tmp_path):
    """With a learning rate that only decay can be seen at, weights shrink and biases stay."""
    recipe = (
        "encoder.dropout=0",
        "train.iterations=1",
        "train.weight_decay=1e6",
        "schedule.learning_rate=1e-7",
    )
    one = trainer(tmp_path / "run", *recipe, "decoder.enabled=false", symbol=None, teacher=KeepAll())
    one._learner, one._bank, one._head = learners.create(one._training), None, None
    module = one._learner._module
    before = {name: array.asnumpy() for name, array in module.get_params()[0].items()}
    ones = {name: np.where(array == 0, 1, array) for name, array in before.items()}
    module.set_params({name: mx.nd.array(array) for name, array in ones.items()}, module.get_params()[1])
    one._step(0, one._stream.batch(0))
    after = {name: array.asnumpy() for name, array in module.get_params()[0].items()}
    shrunk = {name for name in after if np.allclose(after[name], 0.9 * ones[name], rtol=1e-3, atol=1e-4)}
    kept = {name for name in after if np.allclose(after[name], ones[name], rtol=1e-3, atol=1e-4)}
    assert kept == {name for name in after if name.endswith(("bias", "beta"))}
    assert shrunk == after.keys() - kept


def test_what_each_iteration_learns_from(trainer, people, tmp_path, monkeypatch):
    """The batches of the seed, the teacher's verdicts, the iteration's number, mean faces by eq. 12."""
    seen, seeds, step = [], [], Learner.step

    def watched(self, inputs, seed):
        seen.append(inputs)
        seeds.append(seed)
        return step(self, inputs, seed)

    monkeypatch.setattr(Learner, "step", watched)
    trainer(tmp_path / "run", "decoder.momentum=0.7", "train.images_per_person=2").run()
    stream, means = BatchStream(Shard(people), 4, seed=3, images_per_person=2), {}
    assert len(seen) == len({*seeds}) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)  # as MXNet takes them
    for number, inputs in enumerate(seen):
        batch = stream.batch(number)
        kept = batch.label % 2 == 0
        expected = {
            "data": batch.image,
            "softmax_label": batch.label,
            "keep": kept,
            "iteration": [number] * 4,
        }
        assert all((inputs[name] == array).all() for name, array in expected.items())
        faces = batch.image / 127.5 - 1
        for label, face in zip(batch.label[kept], faces[kept]):
            means[label] = 0.7 * means[label] + 0.3 * face if label in means else face
        targets = [means.get(label, face) for label, face in zip(batch.label, faces)]
        # Each update rounds to float16, of which the next keeps 0.7.
        np.testing.assert_allclose(inputs["mean_face"], targets, rtol=0, atol=2**-12 / (1 - 0.7))


def copied(captured):
    """A state that the next step does not change."""
    parts = ({name: array.copy() for name, array in part.items()} for part in captured[1:])
    return RunState(captured.iteration, *parts)


def in_parts(training, before, inputs, parts):
    """Losses and gradients of a batch in parts, one after the other, from the state before a step."""
    symbol, shapes = training.graph.for_batch(training.graph.batch_size // parts)
    requests = {name: "null" if name in shapes else "write" for name in symbol.list_arguments()}
    executor = symbol.simple_bind(mx.cpu(), requests, **shapes)
    executor.copy_params_from(before.arg_params, before.aux_params)
    losses, gradients = [], dict.fromkeys(before.arg_params, 0.0)
    for rows in np.split(np.arange(training.graph.batch_size), parts):
        executor.forward(is_train=True, **{name: mx.nd.array(inputs[name][rows]) for name in shapes})
        executor.backward()
        losses.extend(executor.outputs[0].asnumpy())
        for name in gradients:
            gradients[name] = gradients[name] + executor.grad_dict[name].asnumpy().astype(np.float64)
    return losses, gradients


@pytest.mark.parametrize("kvstore, devices", [("local", 1), ("local", 2), ("device", 2), ("local", 4)])
@pytest.mark.parametrize("network", ["teacher", "student"])
def test_devices_share_a_batch(
    trainer, tmp_path, tiny_recipe, quick_student, monkeypatch, network, kvstore, devices
):
    """Each step is that of the mean gradient, of whatever parts of the batch, from where the step began.

    The losses of a whole run may not be compared: a rounding at which a PReLU's operand changes its sign
    changes the gradient, and the next losses by a thousand roundings.
    """
    overrides = "train.weight_decay=0", "train.iterations=3", f"train.kvstore={kvstore}"
    if network == "teacher":
        overrides = *overrides, "decoder.enabled=false"
        plain, teacher = traced(tiny_recipe(*overrides), 5, 4).symbol, KeepAll()
    else:
        plain, teacher = quick_student, EveryOther()
    seen, step = [], Learner.step

    def watched(self, inputs, seed):
        before = copied(self.capture(0))
        losses = step(self, inputs, seed)["loss"]
        seen.append((before, inputs, losses, copied(self.capture(0))))
        return {"loss": losses}

    monkeypatch.setattr(Learner, "step", watched)
    run = trainer(
        tmp_path / "run", *overrides, devices=devices, symbol=on_fixed_statistics(plain), teacher=teacher
    )
    run.run()
    assert len(seen) == 3
    for before, inputs, losses, after in seen:
        expected, gradients = in_parts(run._training, before, inputs, devices)
        assert_close(losses, np.array(expected))
        for name, gradient in gradients.items():
            old = before.momentum[name].asnumpy() if before.momentum else 0
            momentum = 0.9 * old - 0.01 * gradient / 4
            assert_close(after.momentum[name].asnumpy(), momentum)
            assert_close(after.arg_params[name].asnumpy(), before.arg_params[name].asnumpy() + momentum)
    assert len({inputs["keep"].sum() for _, inputs, *_ in seen}) > 1 or network == "teacher"


def assert_close(found, expected):
    """But for a few roundings of the largest number."""
    rounding = 4 * np.finfo(np.float32).eps * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)


def test_a_state_is_on_the_cpu_whatever_the_device(people, quick_student, tiny_recipe, tmp_path):
    """Here the second CPU context stands for a GPU."""
    recipe = tiny_recipe("decoder.enabled=true")
    run = Trainer(trained(recipe, [mx.cpu(1)], quick_student), Shard(people), tmp_path, EveryOther())
    run.run()
    captured = run._learner.capture(6)
    assert captured.momentum.keys() == captured.arg_params.keys()
    assert {array.context for arrays in captured[1:] for array in arrays.values()} == {mx.cpu(0)}


def test_a_batch_that_the_devices_cannot_share_is_refused(trainer, tmp_path):
    with pytest.raises(LatseError, match="batch_size 4 cannot be split over 3 devices"):
        trainer(tmp_path, devices=3)


def test_a_loss_that_is_not_finite_ends_the_run(trainer, tmp_path, run_metrics):
    wild = trainer(tmp_path / "run", "schedule.learning_rate=1e30")
    with pytest.raises(LatseError, match="the loss is not finite at iteration"):
        wild.run()
    assert not list((tmp_path / "run").glob("model-*"))
    assert len(list((tmp_path / "run").glob("not_finite-*.json"))) == 1


@pytest.fixture
def sometimes_not_finite(monkeypatch):
    """Make the loss of some iterations, from 1, not finite."""

    def make(*iterations):
        outputs, calls = Learner._outputs, []

        def not_finite(learner):
            calls.append(learner)
            found = outputs(learner)
            if len(calls) in iterations:
                found["loss"][1] = np.inf
            return found

        monkeypatch.setattr(Learner, "_outputs", not_finite)

    return make


def test_a_batch_whose_loss_is_not_finite_is_left_out(trainer, tmp_path, run_metrics, sometimes_not_finite):
    sometimes_not_finite(3)
    one = trainer(tmp_path / "run", "train.not_finite=skip", "train.log_every=1")
    one.run()
    lines = run_metrics(tmp_path / "run")
    assert [line.get("skipped", 0) for line in lines] == [0, 0, 1, 0, 0, 0]
    assert "loss" not in lines[2] and all(np.isfinite(line["loss"]) for line in lines if line is not lines[2])
    assert "iteration 3 skipped: the loss is not finite" in (tmp_path / "run" / "train.log").read_text()
    (file,) = (tmp_path / "run").glob("not_finite-*.json")
    content = json.loads(file.read_text())
    batch = one._stream.batch(2)
    assert (file.name, content["iteration"]) == ("not_finite-0000003.json", 3)
    assert [image["record"] for image in content["images"]] == batch.record.tolist()
    assert [image["label"] for image in content["images"]] == batch.label.tolist()
    assert [image["loss"] == "inf" for image in content["images"]] == [False, True, False, False]


def test_too_many_batches_in_a_row_end_the_run(trainer, tmp_path, sometimes_not_finite, monkeypatch):
    monkeypatch.setattr("latse.train.trainer.PATIENCE", 2)
    sometimes_not_finite(1, 3, 4, 5)
    with pytest.raises(DivergenceError, match="the loss of 3 iterations in a row is not finite, the last 5"):
        trainer(tmp_path / "run", "train.not_finite=skip").run()


def test_an_undecodable_image_ends_the_run_and_names_its_record(people, tmp_path, tiny_recipe, quick_student):
    broken = shutil.copytree(people, tmp_path / "people")
    content = bytearray((broken / "train.rec").read_bytes())
    at = content.find(b"\xff\xd8\xff")
    content[at : at + 500] = bytes(500)
    (broken / "train.rec").write_bytes(bytes(content))
    recipe = tiny_recipe("decoder.enabled=true")
    (tmp_path / "run").mkdir()
    run = Trainer(trained(recipe, [mx.cpu()], quick_student), Shard(broken), tmp_path / "run", EveryOther())
    with pytest.raises(LatseError, match=r"train\.rec: record 1 "):
        run.run()


def test_the_students_checkpoint_is_a_model_of_its_own(trainer, tmp_path):
    """A student, one iteration: what MXNet itself can load, and what comes out of it."""
    trainer(tmp_path / "run", "train.iterations=1", "decoder.widths=[32, 32, 16, 16]", symbol=None).run()
    symbol, arg_params, aux_params = mx.model.load_checkpoint(str(tmp_path / "run" / "model"), 0)
    assert symbol.list_outputs() == ["fc1_output", "generated_output"]
    assert set(symbol.list_arguments()) == ({"data"} | arg_params.keys()) - {"fc7_weight"}
    assert set(symbol.list_auxiliary_states()) == aux_params.keys()
    assert arg_params["fc7_weight"].shape == (5, 512)
    module = mx.mod.Module(symbol, label_names=None)
    module.bind([("data", (2, 3, 112, 112))], for_training=False)
    module.init_params(arg_params=arg_params, aux_params=aux_params, allow_extra=True)
    module.forward(mx.io.DataBatch([mx.nd.random.uniform(0, 255, (2, 3, 112, 112))]), is_train=False)
    embedding, generated = (array.asnumpy() for array in module.get_outputs())
    assert embedding.shape == (2, 512)
    assert np.isfinite(embedding).all()
    assert generated.shape == (2, 3, 112, 112)
    assert np.abs(generated).max() <= 1
    untrained = checkpoint.load(tmp_path / "run" / "untrained", 0)[1]
    assert any((untrained[name].asnumpy() != arg_params[name].asnumpy()).any() for name in untrained)
