"""`latse train` as a user meets it: runs, killed runs, and one sentence for each mistake."""

import json
import os
import re
import shlex
import shutil
import signal
import time

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.cluster.alone import Alone
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.files import digest, locked
from latse.models import checkpoint
from latse.train import state, train_command
from latse.train.interruption import Interruption
from latse.train.learner import Learner
from latse.train.trainer import Trainer

# A decoder that takes a moment, for one iteration.
NARROW = ["--set=decoder.enabled=true", "--set=decoder.widths=[8, 8, 8, 8]", "--set=train.iterations=1"]


@pytest.fixture
def train(tiny, people, tmp_path):
    """Run `latse train` here with the tiny recipe; the output goes to `tmp_path / "out"` unless told."""

    def train(*arguments, recipe=tiny, data=people, out=tmp_path / "out"):
        return main(["train", *map(str, [recipe, "--data", data, "--out", out, *arguments])])

    return train


@pytest.fixture
def refused(train, tmp_path, capsys):
    """Run it, check that it fails with one sentence and without a model, and return the sentence."""

    def refused(*arguments, **places):
        assert train(*arguments, **places) == 1
        error = capsys.readouterr().err
        assert "Traceback" not in error
        sentence = error.strip().splitlines()[-1]
        assert sentence.startswith("latse: ")
        assert not list(tmp_path.glob("out/**/model-*"))
        return sentence

    return refused


@pytest.fixture(scope="module")
def teacher(tiny, people, tmp_path_factory):
    """The folder of a teacher, trained for a moment."""
    folder = tmp_path_factory.mktemp("teacher")
    assert main(["train", str(tiny), "--data", str(people), "--out", str(folder), "--seed", "5"]) == 0
    return folder


@pytest.fixture(scope="module")
def filtered(tiny):
    """A recipe for a student with the teacher's filter but no decoder, which would be slow here."""
    path = tiny.parent / "filtered.yaml"
    path.write_text("base: tiny.yaml\nfilter: {k: 3}\n")
    return path


def test_what_a_run_leaves(teacher, run_metrics):
    assert {"model-symbol.json", "untrained-0000.params", "state.params", "train.log"} <= {
        path.name for path in teacher.iterdir()
    }
    assert sorted(path.name for path in teacher.glob("model-*.params")) == [
        f"model-000{number}.params" for number in (0, 2, 4, 6)
    ]
    last, sixth = (checkpoint.load(teacher / "model", number)[1] for number in (0, 6))
    assert all((last[name].asnumpy() == sixth[name].asnumpy()).all() for name in last)
    assert [line["iteration"] for line in run_metrics(teacher)] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in run_metrics(teacher)] == [0, 0, 0, 0, 1, 1]
    for line in (teacher / "metrics.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {
            "iteration",
            "epoch",
            "lr",
            "loss",
            "dloss",
            "kept",
            "images_per_second",
            "seconds",
            "cpu_seconds",
            "peak_megabytes",
        }


def test_the_record_of_a_run(teacher, people):
    record = json.loads((teacher / "run.json").read_text())
    assert (record["recipe"], record["seed"], record["teacher"]) == ("tiny", 5, None)
    assert record["settings"]["train"]["iterations"] == 6
    assert record["settings"]["encoder"] == {"name": "resnet_tiny", "dropout": 0.4}
    assert record["data"] == {"images": 15, "people": 5, "digest": Shard(people).digest()}
    assert record["from"] == {"data": str(people), "teacher": None, "verdicts": None, "start": None}
    assert record["versions"]["mxnet"] == mx.__version__
    assert "cpu(0)" in record["device"]


def test_mxnet_itself_takes_the_model(teacher):
    symbol, arg_params, aux_params = mx.model.load_checkpoint(str(teacher / "model"), 0)
    assert symbol.list_outputs() == ["fc1_output"]
    assert set(symbol.list_arguments()) == ({"data"} | arg_params.keys()) - {"fc7_weight"}
    assert arg_params["fc7_weight"].shape == (5, 512)
    module = mx.mod.Module(symbol, label_names=None)
    module.bind([("data", (2, 3, 112, 112))], for_training=False)
    module.init_params(arg_params=arg_params, aux_params=aux_params, allow_extra=True)
    module.forward(mx.io.DataBatch([mx.nd.random.uniform(0, 255, (2, 3, 112, 112))]), is_train=False)
    embedding = module.get_outputs()[0].asnumpy()
    assert embedding.shape == (2, 512)
    assert np.isfinite(embedding).all()
    untrained = checkpoint.load(teacher / "untrained", 0)
    assert untrained[0].list_outputs() == ["fc1_output"]
    for name in ("fc7_weight", "conv0_weight", "pre_fc1_weight"):
        assert (untrained[1][name].asnumpy() != arg_params[name].asnumpy()).any()


def test_a_student_under_the_filter(train, teacher, filtered, tmp_path, run_metrics):
    """Of five people, the top five are all; the top one of an untrained teacher are few."""
    kept = {}
    for k in (1, 5):
        out = tmp_path / f"top-{k}"
        assert (
            train("--teacher", teacher / "untrained", "--set", f"filter.k={k}", recipe=filtered, out=out) == 0
        )
        kept[k] = np.mean([line["kept"] for line in run_metrics(out)])
        record = json.loads((out / "run.json").read_text())
        assert record["teacher"] == digest(teacher / "untrained-0000.params")
        assert record["from"]["teacher"] == str(teacher / "untrained")
    assert kept[5] == 1
    assert kept[1] < 0.8


def test_a_teacher_of_another_set_is_warned_of(train, teacher, filtered, people, pictures, tmp_path, capsys):
    other, words = tmp_path / "other", ("--teacher", teacher / "model", "--set=train.iterations=1")
    write_shard(other, [((label + 1) % 5, content) for label, content in pictures], 5)
    warning = f"warning: the teacher {teacher}/model learned another set ({people}) than {other}: the labels"
    assert train(*words, recipe=filtered, data=other) == 0
    assert capsys.readouterr().err.count(warning) == 1
    assert warning in (tmp_path / "out" / "train.log").read_text()
    asked = ["filter", "--data", str(other), "--teacher", f"{teacher}/model", "--out", str(tmp_path / "keep")]
    assert main(asked) == 0 and warning in capsys.readouterr().err
    assert train(*words, recipe=filtered, out=tmp_path / "same") == 0
    (teacher / "run.json").rename(teacher / "run")
    assert train(*words, recipe=filtered, data=other, out=tmp_path / "unknown") == 0
    (teacher / "run").rename(teacher / "run.json")
    assert "warning" not in capsys.readouterr().err


def test_a_memory_plan_changes_no_loss(train, tmp_path, run_metrics, capsys):
    """Neither before the first step nor after it, but for a thousandth of what the step changes."""
    losses = {}
    for name, plan, rate in (("plain", "false", 1e-3), ("planned", "true", 1e-3), ("still", "false", 1e-30)):
        changes = f"train.memory_plan={plan}", f"schedule.learning_rate={rate}", "train.iterations=2"
        assert train(*(f"--set={change}" for change in changes), out=tmp_path / name) == 0
        losses[name] = [line["loss"] for line in run_metrics(tmp_path / name)]
        assert ("memory plan" in capsys.readouterr().out) == (plan == "true")
    assert json.loads((tmp_path / "planned" / "memory-plan.json").read_text())["recomputed"]
    assert not (tmp_path / "plain" / "memory-plan.json").exists()
    learned = abs(losses["plain"][1] - losses["still"][1])
    assert learned > 0.01 * losses["plain"][1]
    assert losses["planned"] == pytest.approx(losses["plain"], rel=0, abs=learned / 1000)


@pytest.fixture(scope="module")
def plan(tiny, people, tmp_path_factory):
    """The file of a memory plan of the tiny graph."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    assert main(["plan", str(tiny), "--data", str(people), "--time", "1.1", "--out", str(path)]) == 0
    return path


def test_a_plan_file_is_loaded_and_kept_for_the_resumed_run(train, plan, tmp_path, capsys):
    assert train("--plan", plan, "--set", "train.iterations=1", out=tmp_path / "run") == 0
    kept = tmp_path / "run" / "memory-plan.json"
    assert json.loads(kept.read_text()) == json.loads(plan.read_text())
    other = tmp_path / "other"
    assert train("--plan", plan, *NARROW, out=other) == 1
    assert "memory plan of another graph" in capsys.readouterr().err
    assert not (other / "run.json").exists()  # nothing has begun
    assert train(*NARROW, out=other) == 0


def test_a_run_keeps_its_plan(train, plan, tmp_path, capsys):
    path, out, again = plan, tmp_path / "run", tmp_path / "again.json"
    again.write_text(json.dumps({**json.loads(path.read_text()), "predicted_time": 1.05}))
    assert train("--plan", path, "--set", "train.iterations=1", out=out) == 0
    own = (out / "memory-plan.json").read_bytes()
    (out / "state.params").unlink()  # as if killed before the first checkpoint
    assert train("--plan", again, "--set", "train.iterations=1", "--resume", out=out) == 1
    assert "goes on with its own memory plan" in capsys.readouterr().err
    assert train("--plan", path, "--set", "train.iterations=1", "--resume", out=out) == 0
    assert (out / "memory-plan.json").read_bytes() == own


def test_a_run_that_began_without_a_plan_takes_none(train, plan, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("--set", "train.iterations=1", out=out) == 0
    (out / "state.params").unlink()  # as if killed before the first checkpoint
    assert train("--plan", plan, "--set", "train.iterations=1", "--resume", out=out) == 1
    assert "goes on without a memory plan" in capsys.readouterr().err
    assert not (out / "memory-plan.json").exists()


def test_a_plan_in_the_folder_of_the_run_is_taken(train, plan, tmp_path):
    out = tmp_path / "run"
    own = out / "memory-plan.json"
    out.mkdir()
    content = plan.read_bytes()
    own.write_bytes(content)
    assert train("--plan", own, "--set", "train.iterations=1", out=out) == 0
    assert own.read_bytes() == content


def test_what_killed_writers_left_is_removed(train, tmp_path):
    out = tmp_path / "run"
    assert train("--set", "train.iterations=1", out=out) == 0
    theirs = out / ".verification.json.abc.part"  # of a command that may be at work
    names = "state.params", "model-0001.params", "untrained-0000.params", "run.json", "metrics.jsonl"
    names += "memory-plan.json", "not_finite-0000001.json", "not_finite-0000001-1.json", "mean_faces.shared"
    left = [out / f".{name}.abc.part" for name in names]
    left += [out / "mean_faces.touched", out / "mean_faces.undo-00000001", out / "mean_faces.shared"]
    for path in (theirs, *left):
        path.touch()
    assert train("--set", "train.iterations=1", "--resume", out=out) == 0
    assert theirs.exists() and not any(path.exists() for path in left)


def test_a_record_that_is_none_is_refused(train, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text("[]")
    assert train("--resume", out=out) == 1
    assert "run.json: it is [], must be an object with keys" in capsys.readouterr().err


def test_a_plan_that_no_run_has_is_replaced(train, tiny, people, tmp_path):
    """One that a run left which was killed before it began."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "memory-plan.json").write_text("{}")
    assert train(out=out) == 0
    assert not (out / "memory-plan.json").exists()


def test_a_finished_run_is_left_alone(train, teacher, capsys, monkeypatch):
    before = {path.name: path.read_bytes() for path in teacher.iterdir()}
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("trained again"))
    assert train("--seed", 5, "--resume", out=teacher) == 0
    assert "finished" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in teacher.iterdir()} == before


def test_another_run_in_the_folder_is_refused(refused, teacher, tmp_path, filtered):
    out = shutil.copytree(teacher, tmp_path / "kept")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert "--resume" in refused("--seed", 5, out=out)
    assert "another seed (5, not 6)" in refused("--seed", 6, "--resume", out=out)
    other = "--set", "train.weight_decay=0.02"
    assert "train.weight_decay: 0.0005, not 0.02" in refused("--seed", 5, "--resume", *other, out=out)
    assert "other settings (filter.k: null, not 3)" in refused(
        "--seed", 5, "--resume", "--teacher", teacher / "model", recipe=filtered, out=out
    )
    (out / "run.json").write_text("{")
    assert "run.json" in refused("--seed", 5, "--resume", out=out)
    (out / "run.json").write_bytes(before["run.json"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_run_of_an_older_version_goes_on(train, teacher, tmp_path):
    """A key of a recipe that it did not have is at its default."""
    out = shutil.copytree(teacher, tmp_path / "older")
    kept = json.loads((out / "run.json").read_text())
    settings = kept["settings"]
    older = {section: values for section, values in settings.items() if section != "regularisers"}
    older["decoder"] = {key: value for key, value in settings["decoder"].items() if key != "momentum"}
    (out / "run.json").write_text(json.dumps({**kept, "settings": older}))
    assert train("--seed", 5, "--resume", "--set=train.iterations=8", out=out) == 0
    settings["train"]["iterations"] = 8
    assert json.loads((out / "run.json").read_text())["settings"] == settings


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("arguments", [(), ("--resume",)])
def test_a_state_without_a_record_is_refused(refused, teacher, tmp_path, arguments):
    out = shutil.copytree(teacher, tmp_path / "kept")
    (out / "run.json").unlink()
    before = files(out)
    assert "holds the state of a run but no run.json" in refused("--seed", 5, *arguments, out=out)
    assert files(out) == before


def other_labels(images):
    return [(len(images) // 3 - 1 - label, content) for label, content in images]


def other_order(images):
    return images[::-1]


def other_pictures(images):
    return [(label, images[number - 3][1]) for number, (label, _) in enumerate(images)]


def other_pixels(images):
    """As many bytes, and labels as they were: only what the images show is another thing."""
    return [(label, content[::-1]) for label, content in images]


def other_last_picture(images):
    """Longer than it was, which moves no other image."""
    return [*images[:-1], (images[-1][0], images[-1][1] + bytes(8))]


@pytest.mark.parametrize(
    "change", [other_labels, other_order, other_pictures, other_pixels, other_last_picture]
)
def test_other_data_in_the_same_folder_are_refused(refused, teacher, pictures, tmp_path, change):
    """Another run, though there are as many images of as many people."""
    out, data = shutil.copytree(teacher, tmp_path / "kept"), tmp_path / "people"
    before = files(out)
    write_shard(data, change(pictures), 5)
    assert (len(Shard(data)), Shard(data).classes) == (15, 5)
    assert "another data (digest: " in refused("--seed", 5, "--resume", data=data, out=out)
    write_shard(data, pictures[1:], 5)
    assert "another data (images: 15, not 14)" in refused("--seed", 5, "--resume", data=data, out=out)
    assert files(out) == before


@pytest.fixture(scope="module")
def student(filtered, people, teacher, tmp_path_factory):
    """The folder of a run under the filter of a copy of the teacher, both below one folder."""
    folder = tmp_path_factory.mktemp("student")
    shutil.copytree(teacher, folder / "teacher")
    arguments = [
        filtered,
        "--data",
        people,
        "--out",
        folder / "student",
        "--teacher",
        folder / "teacher/model",
    ]
    assert main(["train", *map(str, arguments), "--set", "train.iterations=1"]) == 0
    return folder


def test_data_and_teacher_may_move(train, student, filtered, people, tmp_path, capsys, monkeypatch):
    moved = shutil.copytree(student, tmp_path / "moved")
    data = shutil.copytree(people, tmp_path / "people", copy_function=shutil.copyfile)
    arguments = "--resume", "--teacher", f"{moved}/teacher/model,6", "--set", "train.iterations=1"
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("trained again"))
    assert train(*arguments, recipe=filtered, data=data, out=moved / "student") == 0
    assert "finished" in capsys.readouterr().out


def test_another_or_a_retrained_teacher_is_refused(refused, student, filtered, tmp_path):
    moved = shutil.copytree(student, tmp_path / "moved")
    before = files(moved / "student")

    def with_teacher(name):
        arguments = "--resume", "--teacher", moved / "teacher" / name, "--set", "train.iterations=1"
        return refused(*arguments, recipe=filtered, out=moved / "student")

    assert "holds a run with another teacher" in with_teacher("model,2")
    shutil.copy(moved / "teacher" / "model-0002.params", moved / "teacher" / "model-0000.params")
    assert "holds a run with another teacher" in with_teacher("model")
    assert files(moved / "student") == before


def test_two_runs_into_one_folder_are_refused(train, refused, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with locked(out):
        assert refused() == refused("--resume") == f"latse: another process is at work in {out}"
        assert not list(out.iterdir())
    assert train("--set", "train.iterations=1") == 0


def test_a_run_keeps_its_folder_to_itself(train, tmp_path, monkeypatch):
    """From before its record is written to the end of training."""

    def run(*_):
        with pytest.raises(LatseError, match="another process is at work"), locked(tmp_path / "out"):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", run)
    assert train() == 130
    with locked(tmp_path / "out"):
        pass


def initial(folder):
    """The parameters before the first iteration, in numpy."""
    _, args, aux = checkpoint.load(folder / "untrained", 0)
    return {name: array.asnumpy() for part in (args, aux) for name, array in part.items()}


def test_a_warm_start_takes_all_that_fits(train, teacher, tmp_path, capsys):
    """A run that begins with a teacher's parameters begins where that ended, centres and statistics too."""
    assert train("--start", teacher / "model", "--set", "train.iterations=1") == 0
    printed = capsys.readouterr().out
    assert f"{teacher / 'model'}: encoder resnet_tiny: taken" in printed
    assert f"{teacher / 'model'}: class centres: taken" in printed
    started, (_, args, aux) = initial(tmp_path / "out"), checkpoint.load(teacher / "model", 0)
    expected = {name: array.asnumpy() for part in (args, aux) for name, array in part.items()}
    expected["fc1_gamma"] = np.ones(512)  # which the graph ignores
    assert started.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(started[name], array, err_msg=name)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["start"] == digest(teacher / "model-0000.params")
    assert record["from"]["start"] == str(teacher / "model")


def test_a_warm_start_for_other_people_and_a_decoder(train, teacher, pictures, tmp_path, capsys, monkeypatch):
    """What does not fit begins as it would without a start, and is said; no step is taken here."""
    monkeypatch.setattr(Trainer, "_step", lambda self, *_: {"loss": np.zeros(2), "kept": np.ones(2)})
    write_shard(tmp_path / "more", [*pictures, (5, pictures[0][1])], 6)
    arguments = *NARROW, "--set", "train.batch_size=2"
    assert train(*arguments, data=tmp_path / "more", out=tmp_path / "cold") == 0
    capsys.readouterr()
    start = "--start", teacher / "model"
    assert train(*arguments, *start, data=tmp_path / "more", out=tmp_path / "warm") == 0
    printed = capsys.readouterr().out
    assert "class centres: begins anew, fc7_weight of the checkpoint is (5, 512), not (6, 512)" in printed
    assert "decoder: begins anew, the checkpoint has no decoder_" in printed
    warm, cold = initial(tmp_path / "warm"), initial(tmp_path / "cold")
    given = checkpoint.load(teacher / "model", 0)[1]
    np.testing.assert_array_equal(warm["pre_fc1_weight"], given["pre_fc1_weight"].asnumpy())
    for name in ("fc7_weight", "decoder_conv0_weight"):
        assert warm[name].shape == cold[name].shape
        assert warm[name].std() == pytest.approx(cold[name].std(), rel=0.2)
    again = "--start", tmp_path / "warm" / "model"
    assert train(*arguments, *again, data=tmp_path / "more", out=tmp_path / "again") == 0
    assert "decoder: taken" in capsys.readouterr().out
    _, args, aux = checkpoint.load(tmp_path / "warm" / "model", 0)
    args["fc1_gamma"] = mx.nd.ones((512,))
    for name, array in initial(tmp_path / "again").items():
        np.testing.assert_array_equal(array, {**args, **aux}[name].asnumpy(), err_msg=name)


def test_what_only_the_loss_of_the_start_or_of_the_run_has(train, teacher, tmp_path, capsys):
    arguments = "--set", "train.iterations=1", "--set", "margin.name=softmax_bias"
    assert train(*arguments, "--start", teacher / "model") == 0
    assert "fc7_bias: begins anew, the checkpoint has no fc7_bias" in capsys.readouterr().out


def test_what_the_checkpoint_has_and_the_run_has_not(train, teacher, tmp_path, capsys):
    symbol, args, aux = checkpoint.load(teacher / "model", 0)
    more = {"decoder_conv0_weight": mx.nd.ones((3, 3)), "decoder_conv0_bias": mx.nd.ones((3,))}
    checkpoint.save(tmp_path / "more", 0, symbol, {**args, **more, "bn_data_gamma": mx.nd.ones((3,))}, aux)
    assert train("--set", "train.iterations=1", "--start", tmp_path / "more") == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line.rpartition("more: ")[2] for line in lines if line.startswith(str(tmp_path / "more"))]
    assert said == [
        "encoder resnet_tiny: taken",
        "class centres: taken",
        "decoder: not taken, the recipe has none",
        "bn_data_gamma: not taken, the recipe has none",
    ]


def test_what_stands_beside_the_parts_is_taken_where_it_fits(train, teacher, tmp_path, capsys):
    symbol, args, aux = checkpoint.load(teacher / "model", 0)
    bias = mx.nd.arange(5)
    checkpoint.save(tmp_path / "biased", 0, symbol, {**args, "fc7_bias": bias}, aux)
    arguments = "--set", "train.iterations=1", "--set", "margin.name=softmax_bias"
    assert train(*arguments, "--set", "schedule.learning_rate=1e-9", "--start", tmp_path / "biased") == 0
    assert "fc7_bias: taken" in capsys.readouterr().out
    found = state.load(tmp_path / "out").arg_params["fc7_bias"].asnumpy()
    np.testing.assert_allclose(found, bias.asnumpy(), atol=1e-4)


def test_the_start_decides_the_run(train, refused, teacher, tmp_path, monkeypatch):
    arguments = "--set", "train.iterations=1"
    out = tmp_path / "warm"
    assert train(*arguments, "--start", teacher / "model", out=out) == 0
    assert "another start" in refused("--resume", *arguments, out=out)
    assert "another start" in refused("--resume", *arguments, "--start", teacher / "model,2", out=out)
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("trained again"))
    assert train("--resume", *arguments, "--start", teacher / "model,6", out=out) == 0  # the same bytes


def test_a_warm_run_that_was_interrupted_goes_on(train, teacher, tmp_path, monkeypatch, run_contents, capsys):
    start = "--start", teacher / "model"
    assert train(*start, out=tmp_path / "whole") == 0
    step = Trainer._step

    def interrupted(self, iteration, batch):
        if iteration == 3:
            raise KeyboardInterrupt
        return step(self, iteration, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        assert train(*start) == 130
    capsys.readouterr()
    assert train(*start, "--resume") == 0
    assert "taken" not in capsys.readouterr().out
    assert run_contents(tmp_path / "out") == run_contents(tmp_path / "whole")


def test_a_network_of_gluoncvs_zoo_is_trained_and_is_a_start(train, tmp_path, capsys):
    chosen = [f"--set={key}" for key in ("encoder.name=gluoncv/mobilenet0.25", "train.checkpoint_every=1")]
    assert train(*chosen, "--set=train.iterations=2") == 0
    whole = checkpoint.load(tmp_path / "out" / "model", 0)
    assert whole[0].list_outputs() == ["fc1_output"] and "mobilenet0_conv0_weight" in whole[1]
    start = f"{tmp_path / 'out' / 'model'},1"
    assert train(*chosen, "--set=train.iterations=1", "--start", start, out=tmp_path / "warm") == 0
    assert f"{start}: encoder gluoncv/mobilenet0.25: taken" in capsys.readouterr().out


def test_a_student_of_128_numbers_has_a_teacher_of_as_many(train, people, tmp_path, capsys):
    y1 = ["--set=encoder.name=y1", "--set=train.iterations=1"]
    assert train(*y1, out=tmp_path / "teacher") == 0
    teacher = ["--teacher", f"{tmp_path / 'teacher' / 'model'},0"]
    verdicts = tmp_path / "verdicts.keep"
    assert main(["filter", "--data", str(people), "--out", str(verdicts), *teacher]) == 0
    narrow = ["--set=decoder.enabled=true", "--set=decoder.widths=[8, 8, 8, 8]", "--set=filter.k=5"]
    assert train(*y1, *narrow, *teacher, out=tmp_path / "asked") == 0
    assert train(*y1, *narrow, "--verdicts", verdicts, out=tmp_path / "stored") == 0
    asked, stored = (checkpoint.load(tmp_path / folder / "model", 0) for folder in ("asked", "stored"))
    for name, array in asked[1].items():
        assert (array.asnumpy() == stored[1][name].asnumpy()).all()
    assert asked[1]["fc7_weight"].shape == (5, 128) and asked[1]["decoder_expand_weight"].shape == (392, 128)


def test_a_wrong_start_is_one_sentence_and_no_run_is_begun(refused, teacher, tmp_path):
    def wrong(text, *arguments):
        sentence = refused("--start", text, *arguments)
        assert not (tmp_path / "out" / "run.json").exists()
        return sentence

    assert "nobody-0000.params" in wrong(tmp_path / "nobody")
    other = wrong(teacher / "model", "--set", "encoder.name=resnet34")
    assert other.endswith("model-0000.params holds resnet_tiny, but the recipe trains resnet34")
    symbol, args, aux = checkpoint.load(teacher / "model", 0)
    del args["relu0_gamma"], aux["bn0_running_var"]
    args["pre_fc1_bias"] = mx.nd.zeros((7,))
    checkpoint.save(tmp_path / "broken", 0, symbol, args, aux)
    sentence = wrong(tmp_path / "broken")
    assert "2 missing (relu0_gamma, bn0_running_var) and 1 of another shape (pre_fc1_bias is" in sentence
    checkpoint.save(tmp_path / "nan", 0, symbol, {**args, "fc1_beta": mx.nd.array([np.nan])}, aux)
    assert "nan-0000.params: fc1_beta holds a number that is not finite" in wrong(tmp_path / "nan")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "train.batchsize=3"), "; did you mean train.batch_size?"),
        (
            ("--kvstore", "locale"),
            "latse: --kvstore: train.kvstore is locale, must be one of local, device, nccl, dist_sync",
        ),
        (("--kvstore", "nccl"), "needs the GPU build"),
        (("--kvstore", ""), "latse: the argument after --kvstore is empty"),
        (("--cpus", 0), "--cpus is 0, must be 1 to 4096"),
        (("--cpus", 3), "train.batch_size 4 cannot be split over 3 devices"),
        (("--gpus", "99"), "GPU"),
        (("--seed", -1), "--seed -1"),
        (("--seed", 2**31), f"--seed {2**31}"),
        (("--set", "filter.k=3"), "name the teacher with --teacher"),
    ],
)
def test_a_wrong_argument_is_one_sentence(refused, tmp_path, arguments, sentence):
    if "nccl" in arguments and mx.runtime.Features().is_enabled("NCCL"):
        pytest.skip("this is the GPU build")
    assert sentence in refused(*arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [10**9, 2**31 - 1])
def test_a_batch_that_no_machine_holds_is_one_sentence(refused, size):
    sentence = refused("--set", f"train.batch_size={size}")
    assert sentence.startswith("latse: this takes more memory than there is")
    assert "train.batch_size" in sentence


def test_a_missing_recipe_or_shard_is_named(refused, people, tmp_path):
    assert "nowhere.yaml" in refused(recipe=tmp_path / "nowhere.yaml")
    assert "nowhere" in refused(data=tmp_path / "nowhere")
    for name in ("train.rec", "train.idx", "property"):
        folder = shutil.copytree(people, tmp_path / name)
        (folder / name).unlink()
        assert name in refused(data=folder)
    (tmp_path / "photographs" / "empty").mkdir(parents=True)
    for folder in (tmp_path / "nowhere", tmp_path / "photographs", tmp_path / "photographs" / "empty"):
        missing = "there is no train.rec (`latse data pack` makes one of photographs)"
        assert refused(data=folder) == f"latse: {folder} is no training set: {missing}"
    folder = shutil.copytree(people, tmp_path / "nobody")
    (folder / "property").write_text("0,112,112")
    assert refused(data=folder) == f"latse: {folder} holds no person or no image: property is 0,112,112"
    (folder / "property").write_text("536870912\n,8,8")
    begins = f"latse: {folder / 'property'} is 536870912 ,8,8: labels are float32"
    assert refused(data=folder).startswith(begins)
    assert not (tmp_path / "out").exists()


def test_a_truncated_shard_is_named(refused, people, tmp_path):
    folder = shutil.copytree(people, tmp_path / "cut")
    content = (folder / "train.rec").read_bytes()
    (folder / "train.rec").write_bytes(content[: len(content) // 2 // 4 * 4])
    assert "train.rec" in refused(data=folder)
    assert not (tmp_path / "out").exists()


def test_a_label_beyond_the_classes_is_named(refused, people, tmp_path):
    folder = shutil.copytree(people, tmp_path / "labels")
    (folder / "property").write_text("4,112,112")
    assert "record 13 has the label 4; property has 4 classes" in refused(data=folder)
    assert not (tmp_path / "out").exists()


def test_two_sets_in_one_folder_are_refused(refused, people, pairs_file, tmp_path, capsys):
    """What people do who "join" sets: both are numbered from 0, so that strangers would share labels."""
    folder = shutil.copytree(people, tmp_path / "joined")
    for name in ("rec", "idx"):
        (folder / f"train.{name}").rename(folder / f"train-00000.{name}")
        shutil.copy(people / f"train.{name}", folder / f"train-00001.{name}")
    sentence = refused(data=folder)
    assert f"{folder}/train-00000.rec and train-00001.rec share the labels 0, 1, 2, … (5 in all)" in sentence
    assert "`latse data merge SET… OUT`" in sentence
    for file in ("X-0000.params", "X-symbol.json"):
        (tmp_path / file).touch()
    for command in (
        *("filter --data {joined} --teacher {x},0 --out {out}", "plan orl_teacher --data {joined}"),
        *("data noise {joined} {out}", "data merge {people} {joined} {out}", "data unpack {joined} {out}"),
        *("eval --model pca --train-data {joined} --pairs {pairs}", "tables --data casia={joined} --only 1"),
        "identify --model pca --train-data {people} --probes {joined}",
    ):
        places = {"pairs": pairs_file, "out": tmp_path / "out", "x": tmp_path / "X"}
        words = command.format(joined=folder, people=people, **places).split()
        assert main(words) == 1
        assert capsys.readouterr().err.strip().splitlines()[-1] == sentence
    assert not (tmp_path / "out").exists()


def test_images_of_another_size_are_refused(refused, people, tmp_path):
    folder = shutil.copytree(people, tmp_path / "size")
    (folder / "property").write_text("5,96,112")
    assert "112x112" in refused(data=folder)


def test_an_output_that_cannot_be_written_is_named(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(out=tmp_path / "file")
    assert str(tmp_path / "file") in refused(out=tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log", "model-0002.params", "run.json"])
def test_a_file_that_cannot_be_written_is_named(train, tmp_path, capsys, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    assert train("--resume") == 1
    assert str(tmp_path / "out" / name) in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_state_that_cannot_be_read_or_written_is_named(train, refused, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda *_: (out / "state.params").mkdir() or 6)
        assert train() == 0
    assert str(out / "state.params") in refused("--resume")
    assert {path.name for path in out.iterdir()} == {"run.json", "state.params"}


def test_a_wrong_teacher_is_one_sentence_and_no_run_is_begun(
    train, refused, teacher, filtered, people, tmp_path
):
    def wrong(text, **places):
        sentence = refused("--teacher", text, recipe=filtered, **places)
        assert not (tmp_path / "out" / "run.json").exists()
        return sentence

    assert f"there is no {tmp_path / 'nobody-0000.params'}: write" in wrong(tmp_path / "nobody")
    assert f"{teacher / 'model-0009.params'} is missing" in wrong(f"{teacher / 'model'},9")
    assert "PREFIX,NUMBER" in wrong(f"{teacher / 'model'},nine")
    shard = tmp_path / "more"
    shutil.copytree(people, shard)
    (shard / "property").write_text("6,112,112")
    assert "knows 5 people, the data have 6" in wrong(teacher / "model", data=shard)
    assert train("--teacher", teacher / "model", "--set", "train.iterations=1", recipe=filtered) == 0


def advised(sentence):
    """The words after `latse` of the command that a sentence ends with."""
    program, *words = shlex.split(sentence.rpartition(": ")[2])
    assert program == "latse"
    return words


def test_a_loss_that_is_not_finite_ends_the_run(refused, tiny, people, tmp_path):
    out = tmp_path / "out put"
    sentence = refused("--set", "schedule.learning_rate=1e30", "--set", "train.checkpoint_every=100", out=out)
    begin = "the loss is not finite at iteration"
    assert begin in sentence and f"{out} has no checkpoint yet, begin anew at a tenth of the rate" in sentence
    assert not (out / "state.params").exists()
    assert advised(sentence) == [
        *("train", str(tiny), "--data", str(people), "--out", str(out)),
        *("--set", "schedule.learning_rate=1e30", "--set", "train.checkpoint_every=100"),
        *("--resume", "--set", "schedule.learning_rate=1e+29"),
    ]


def test_no_checkpoint_is_written_of_a_parameter_that_is_not_finite(refused, tmp_path):
    sentence = refused("--set=schedule.learning_rate=1e38", "--set=train.checkpoint_every=1")
    assert "a parameter is not finite after iteration 1" in sentence and "no checkpoint yet" in sentence
    assert not (tmp_path / "out" / "state.params").exists()


def infinite_at(iteration, monkeypatch):
    """Let the loss of an iteration be infinite, unless the rate has been lowered."""
    step, seen = Learner.step, []

    def wild(self, inputs, seed):
        values = step(self, inputs, seed)
        seen.append(inputs["iteration"][0] + 1)
        if seen[-1] == iteration and self.learning_rate == 0.01:
            values["loss"] = values["loss"] * np.inf
        return values

    monkeypatch.setattr(Learner, "step", wild)


class Second(Alone):
    """The second of two workers, who says what the first says."""

    rank, count = 1, 2

    def gather(self, what, value):
        return [(True, None) if what == train_command.AIM else value] * 2


@pytest.mark.parametrize(
    ("iteration", "where"), [(2, "has no checkpoint yet"), (4, "that of iteration 2 in ")]
)
def test_another_worker_advises_as_well(train, tmp_path, monkeypatch, capsys, iteration, where):
    infinite_at(iteration, monkeypatch)
    monkeypatch.setattr(train_command, "_workers", lambda recipe: Second())
    assert train() == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    images = tmp_path / "out" / f"not_finite-{iteration:07d}-1.json"
    assert f"the loss is not finite at iteration {iteration}, whose images are in {images}; " in sentence
    assert where in sentence and advised(sentence)[-1] == "schedule.learning_rate=0.001"
    assert images.exists()


@pytest.mark.parametrize(("iteration", "reached"), [(2, 0), (4, 2)])
def test_the_command_that_the_sentence_advises_goes_on(
    train, tmp_path, monkeypatch, capsys, run_metrics, iteration, reached
):
    infinite_at(iteration, monkeypatch)
    out = tmp_path / "out"
    assert train() == 1
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    there = f"go on from the last checkpoint, that of iteration 2 in {out}," if reached else "begin anew"
    images = f"whose images are in {out / f'not_finite-{iteration:07d}.json'}; "
    assert f"the loss is not finite at iteration {iteration}, {images}" in sentence and there in sentence
    assert main(advised(sentence)) == 0
    began = "goes on from iteration 2 of 6; schedule.learning_rate 0.01 until iteration 2, then 0.001"
    anew = "begins anew, there is no checkpoint yet"
    assert f"{out}: {began if reached else anew}\n" in capsys.readouterr().out
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["schedule"]["learning_rate"] == 0.001
    change = {"iteration": 2, "key": "schedule.learning_rate", "from": 0.01, "to": 0.001}
    assert record["changes"] == ([change] if reached else [])
    rates = {line["iteration"]: line["lr"] for line in run_metrics(out)}
    assert rates == {number: 0.01 if number <= reached else 0.001 for number in range(1, 7)}


def test_a_command_that_did_not_help_is_not_made_longer(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Learner, "step", lambda *_: {"loss": np.full(4, np.nan)})
    assert train() == 1
    words = advised(capsys.readouterr().err.strip())
    assert main(words) == 1
    assert advised(capsys.readouterr().err.strip()) == [*words[:-1], "schedule.learning_rate=0.0001"]


def test_a_command_may_have_options_in_any_place(tiny, people, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Learner, "step", lambda *_: {"loss": np.full(4, np.nan)})
    words = ["train", "--set", "train.log_every=1", "--data", str(people), "--out", str(tmp_path / "out")]
    assert main([*words, "--", str(tiny)]) == 1
    again = advised(capsys.readouterr().err.strip())
    assert again == [*words, "--resume", "--set", "schedule.learning_rate=0.001", "--", str(tiny)]
    assert main(again) == 1
    assert advised(capsys.readouterr().err.strip())[-3] == "schedule.learning_rate=0.0001"


def test_a_finished_run_goes_on_to_more_iterations(train, teacher, tmp_path, run_contents, capsys):
    """As far as its schedule is the same, to the bits of a run that was told so at once."""
    more = "--seed", 5, "--set", "train.iterations=8"
    assert train(*more, out=tmp_path / "whole") == 0
    out = shutil.copytree(teacher, tmp_path / "longer")
    capsys.readouterr()
    assert train(*more, "--resume", out=out) == 0
    assert f"{out}: goes on from iteration 6 of 8; train.iterations 6" in capsys.readouterr().out
    assert run_contents(out) == run_contents(tmp_path / "whole")
    record = json.loads((out / "run.json").read_text())
    assert record["changes"] == [{"iteration": 6, "key": "train.iterations", "from": 6, "to": 8}]


@pytest.mark.usefixtures("heeded")
def test_the_last_model_of_a_run_that_goes_on_gets_its_number(train, tmp_path, monkeypatch):
    """Though `train.keep` had given that number up; what is called the last is the last."""
    out = tmp_path / "out"
    assert train("--set=train.keep=[2]") == 0
    before = files(out)
    assert {name for name in before if name.startswith("model-0")} == {
        "model-0000.params",
        "model-0002.params",
    }
    interrupt_at(1, monkeypatch)
    monkeypatch.setattr(Trainer, "_checkpoint", lambda *_: None)
    assert train("--set=train.keep=[2]", "--resume", "--set=train.iterations=9") == 130
    assert files(out)["model-0006.params"] == before["model-0000.params"]
    assert not (out / "model-0000.params").exists()


def test_what_a_run_cannot_change(train, teacher, tmp_path, capsys, monkeypatch):
    out = shutil.copytree(teacher, tmp_path / "kept")
    before = files(out)
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("trained again"))
    for change, sentence in {
        "train.iterations=5": "has reached iteration 6: train.iterations is 5, must be at least that",
        "schedule.mode=cosine": "is finished, 6 iterations: other settings (schedule.mode constant until "
        "iteration 6, then cosine) need a larger train.iterations",
        "train.batch_size=5": "holds a run with other settings (train.batch_size: 4, not 5): choose another",
    }.items():
        assert train("--seed", 5, "--resume", f"--set={change}", out=out) == 1
        assert sentence in capsys.readouterr().err
    (out / "run.json").write_text(json.dumps({**json.loads(before["run.json"]), "settings": [3]}))
    assert train("--seed", 5, "--resume", out=out) == 1
    assert "run.json: settings is [3], must be an object with keys" in capsys.readouterr().err
    (out / "run.json").write_bytes(before["run.json"])
    assert files(out) == before


def interrupt_at(iteration, monkeypatch, *signals):
    """Send this process signals, by default one Ctrl-C, during the iteration of that place, from 1."""
    step, calls = Trainer._step, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == iteration:
            for number in signals or (signal.SIGINT,):
                os.kill(os.getpid(), number)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", interrupted)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_writes_a_checkpoint(
    train, teacher, tmp_path, monkeypatch, capsys, run_contents, number, status
):
    out, handlers = tmp_path / "out", [signal.getsignal(each) for each in Interruption.SIGNALS]
    with monkeypatch.context() as patch:
        interrupt_at(3, patch, number)
        assert train("--seed", 5) == status
    assert [signal.getsignal(each) for each in Interruption.SIGNALS] == handlers
    sentence = (
        f"interrupted: checkpoint at iteration 3, {out}/model,3; the same command with --resume goes on"
    )
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"latse: {sentence}"
    assert train("--seed", 5, "--resume") == 0
    assert f"{out}: goes on from iteration 3 of 6\n" in capsys.readouterr().out
    expected = run_contents(teacher)
    found = {name: array for name, array in run_contents(out).items() if "model-0003.params" not in name}
    assert found == expected


@pytest.mark.usefixtures("heeded")
def test_an_interrupted_run_may_end_where_it_stands(train, tmp_path, monkeypatch):
    """With the model that is its last, and the changes of before that trained nothing forgotten."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        assert train() == 130
    monkeypatch.setattr(Trainer, "_step", lambda *_: pytest.fail("trained again"))
    for _ in range(2):
        assert train("--resume", "--set=train.iterations=3") == 0
        assert (out / "model-0000.params").read_bytes() == (out / "model-0003.params").read_bytes()
    changes = json.loads((out / "run.json").read_text())["changes"]
    assert changes == [{"iteration": 3, "key": "train.iterations", "from": 6, "to": 3}]


def test_a_run_whose_other_worker_was_interrupted_ends_as_by_sigterm(train, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "run", lambda *_: 3)
    assert train() == 128 + signal.SIGTERM
    assert "interrupted: checkpoint at iteration 3" in capsys.readouterr().err


@pytest.mark.usefixtures("heeded")
def test_a_second_interruption_does_not_wait(train, tmp_path, monkeypatch, capsys):
    interrupt_at(3, monkeypatch, signal.SIGINT, signal.SIGINT)
    assert train() == 130
    where, last = capsys.readouterr().err.strip().splitlines()[-2:]
    reached = "the last checkpoint is that of iteration 2; the same command with --resume goes on"
    assert where.endswith(f"latse: {tmp_path}/out: {reached}") and last == "latse: interrupted"
    assert state.load(tmp_path / "out").iteration == 2


@pytest.mark.usefixtures("heeded")
def test_a_run_that_is_interrupted_in_its_last_iteration_is_done(train, tmp_path, monkeypatch, capsys):
    interrupt_at(2, monkeypatch)
    assert train("--set", "train.iterations=2") == 0
    assert "interrupted" not in capsys.readouterr().err


@pytest.mark.usefixtures("heeded")
def test_an_interrupted_run_keeps_no_more_checkpoints(train, tmp_path, monkeypatch):
    arguments = "--set=train.keep=1", "--set=train.iterations=4"
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        assert train(*arguments) == 130
    out = tmp_path / "out"
    assert [path.name for path in out.glob("model-*.params")] == ["model-0003.params"]
    assert train(*arguments, "--resume") == 0
    assert sorted(path.name for path in out.glob("model-*.params")) == [
        "model-0000.params",
        "model-0004.params",
    ]


@pytest.mark.usefixtures("heeded")
def test_the_first_signal_is_not_passed_on_to_who_ends_processes_that_take_long(train, monkeypatch):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    try:
        interrupt_at(1, monkeypatch, signal.SIGTERM)
        assert train() == 143
        assert signal.set_wakeup_fd(before) == writing
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_what_is_ignored_stays_ignored(train, tmp_path, monkeypatch, heeded):
    """A shell has Ctrl-C ignored by what runs in the background."""
    interrupt_at(1, monkeypatch)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # `heeded` undoes that
    assert train("--set", "train.iterations=2") == 0


def test_a_run_ends_with_what_comes_next(train, people, tmp_path, capsys):
    data, one = shutil.copytree(people, tmp_path / "my people"), "--set=train.iterations=1"
    assert train(one) == 0
    model = f"{tmp_path / 'out' / 'model'},0"
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == [f"model: {model}", f"next: latse eval --model {model} --pairs FILE.bin"]
    for name in ("b.bin", "a.bin"):
        (data / name).touch()
    assert train(one, "--resume", data=data) == 0
    finished, *last = capsys.readouterr().out.splitlines()
    assert "the run is finished, 1 iterations" in finished
    assert shlex.split(last[-1]) == [
        *("next:", "latse", "eval", "--model", model, "--pairs"),
        *(str(data / "a.bin"), str(data / "b.bin")),
    ]


def test_an_interrupted_run_says_so_and_goes_on(train, teacher, tmp_path, monkeypatch, capsys, run_contents):
    step, calls = Trainer._step, []

    def interrupted(self, iteration, batch):
        calls.append(iteration)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, iteration, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        assert train("--seed", 5) == 130
    assert "latse: interrupted" in capsys.readouterr().err
    assert state.load(tmp_path / "out").iteration == 2
    assert train("--seed", 5, "--resume") == 0
    assert run_contents(tmp_path / "out") == run_contents(teacher)


def test_resume_starts_a_run_that_is_not_there(train, tmp_path):
    assert train("--resume", "--set", "train.iterations=1") == 0
    assert (tmp_path / "out" / "model-0000.params").exists()


def killed_at(process, folder, lines):
    """Wait until metrics.jsonl has `lines` lines and kill the process there and then."""
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < lines):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def killed_again_and_again(latse_process, arguments, folder, lines):
    """Start the run, kill it at each of `lines`, resume it to its end; return how often it was killed."""
    kills = 0
    for count in lines:
        kills += killed_at(latse_process(*arguments, "--resume", "--out", folder), folder, count)
    process = latse_process(*arguments, "--resume", "--out", folder)
    output = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return kills


# Long enough that what is to come to a process does not come too late.
LONG = "--set=train.iterations=24", "--set=train.checkpoint_every=3"


@pytest.fixture(scope="module")
def unbroken(latse_process, tiny, people, tmp_path_factory, run_contents):
    """What a process of that length holds if nothing happens to it."""
    folder = tmp_path_factory.mktemp("unbroken")
    process = latse_process("train", tiny, "--data", people, *LONG, "--out", folder)
    process.communicate(timeout=300)
    assert process.returncode == 0
    return run_contents(folder)


@pytest.mark.slow
def test_a_killed_teacher_resumes_to_the_same_bits(
    latse_process, tiny, people, tmp_path, unbroken, run_contents
):
    arguments = "train", tiny, "--data", people, *LONG
    lines = sorted(np.random.default_rng(24).choice(np.arange(1, 17), 3, replace=False))
    kills = killed_again_and_again(latse_process, arguments, tmp_path / "broken", lines)
    assert kills == 3, lines
    assert run_contents(tmp_path / "broken") == unbroken, lines


@pytest.mark.slow
@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_process_ends_and_resumes_to_the_same_bits(
    latse_process, tiny, people, tmp_path, unbroken, run_contents, until, number, status
):
    """But for the checkpoint that the interruption adds."""
    arguments = "train", tiny, "--data", people, *LONG, "--out", tmp_path
    broken = latse_process(*arguments)
    until((tmp_path / "metrics.jsonl").exists)
    until(lambda: (tmp_path / "metrics.jsonl").read_text().count("\n") >= 3)
    broken.send_signal(number)
    error = broken.communicate(timeout=300)[1]
    assert broken.returncode == status
    reached = int(re.search(r"latse: interrupted: checkpoint at iteration (\d+), ", error)[1])
    resumed = latse_process(*arguments, "--resume")
    assert f"goes on from iteration {reached} of 24" in resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0
    found, added = run_contents(tmp_path), f"model-{reached:04}.params"
    assert any(added in name for name in found)
    if reached % 3:
        found = {name: array for name, array in found.items() if added not in name}
    assert found == unbroken


@pytest.mark.slow
def test_a_killed_student_resumes_to_the_same_bits(
    latse_process, tiny, people, teacher, tmp_path, run_contents
):
    arguments = [
        *("train", tiny, "--data", people, "--teacher", teacher / "model"),
        *(*NARROW[:2], "--set=filter.k=3", "--set=train.batch_size=2"),
    ]
    process = latse_process(*arguments, "--out", tmp_path / "unbroken")
    kills = killed_again_and_again(latse_process, arguments, tmp_path / "broken", [3])
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert kills == 1
    broken, unbroken = run_contents(tmp_path / "broken"), run_contents(tmp_path / "unbroken")
    assert {"mean_faces.npy", "mean_faces_started.npy"} <= unbroken.keys()
    assert [line["iteration"] for line in unbroken["metrics"]] == [1, 2, 3, 4, 5, 6]
    assert broken == unbroken
