"""`latse check-gpu`: every check passes on CPU contexts, and fails when what it checks is broken."""

import argparse
import json
import math
import os
import shutil
import sys

import mxnet as mx
import numpy as np
import pytest

from latse import cli
from latse.bench.gpu_check import command, following, numbers, plans, resume, speed
from latse.bench.gpu_check.checks import CHECKS, Check
from latse.bench.gpu_check.outcome import Outcome, row
from latse.bench.gpu_check.setting import SMALL, Setting
from latse.errors import LatseError
from latse.goals import Figure
from latse.plan import memonger
from latse.train import mixed_learner
from latse.train import verdicts as judging
from latse.train.moving_statistics import with_momentum

DEVICES = [mx.cpu(0), mx.cpu(1)]


# Of which a plan computes batch normalisations again.
DEEPER = """
from mxnet.gluon import nn

from latse.symbols.encoders import Encoder
from latse.symbols.layers import PReLU, batch_norm


class Deeper(Encoder):
    def features(self):
        body = nn.HybridSequential(prefix="")
        body.add(nn.Conv2D(8, 4, 4, prefix="conv0_"))
        for number in range(4):
            body.add(batch_norm(f"norm{number}_"), PReLU(8, f"relu{number}_"))
            body.add(nn.Conv2D(8, 3, padding=1, prefix=f"conv{number + 1}_"))
        return body
"""


def failed(outcome):
    """What a check has failed in, without the networks' names, and its faults."""
    texts = [each.text.split(" (worst")[0].split(": ")[-1] for each in outcome.rows if each.met is False]
    return texts + outcome.faults


@pytest.fixture(scope="module")
def sizes(small_encoder):
    """Sizes of milliseconds: one convolution, few images."""
    own = {"encoders": (small_encoder,), "middle": small_encoder, "timed": (small_encoder,)}
    return SMALL._replace(**own, classes=5, steps=3, judged=32, timed_images=2)


@pytest.fixture
def setting(sizes, monkeypatch, small_encoder):
    monkeypatch.setattr(following, "ENCODER", small_encoder)
    return Setting(DEVICES, sizes)


@pytest.fixture
def failures(setting):
    """Do a check here; return what has failed."""

    def check(name):
        outcome = command.found(name, setting)
        assert outcome.passed == (not outcome.failures)
        return failed(outcome)

    return check


@pytest.mark.parametrize(
    ("name", "count"),
    [("embeddings", 2), ("gradients", 8), ("precision", 3), ("verdicts", 9), ("kvstores", 3), ("speed", 4)],
)
def test_what_is_right_passes(setting, name, count):
    outcome = command.found(name, setting)
    assert (outcome.failures, len(outcome.rows)) == ([], count)


@pytest.fixture
def deeper(sizes, tmp_path):
    (tmp_path / "deeper.py").write_text(DEEPER)
    return Setting(DEVICES[:1], sizes._replace(middle=f"{tmp_path}/deeper.py:Deeper", images=32))


def test_a_step_with_a_plan_passes(deeper):
    outcome = command.found("statistics", deeper)
    assert (outcome.failures, len(outcome.rows)) == ([], 5)


def of_a_device(contexts):
    """Tell whether work is for the devices that are checked, not for the CPU that they are held against."""
    return len(contexts) > 1


def test_one_parameter_that_is_wrong_by_a_hundredth_is_another_embedding(failures, monkeypatch):
    right = numbers.embedded

    def wrong(symbol, parameters, images, devices):
        if of_a_device(devices):
            args = {name: array.copy() for name, array in parameters.args.items()}
            args[next(name for name in args if name.endswith("weight"))][:] *= 1.01
            parameters = parameters._replace(args=args)
        return right(symbol, parameters, images, devices)

    monkeypatch.setattr(numbers, "embedded", wrong)
    assert failures("embeddings") == ["embeddings", "embeddings"]


def test_one_image_of_one_device_that_is_wrong_is_another_embedding(failures, monkeypatch):
    right = numbers.Runner.__call__

    def wrong(runner, *inputs):
        found = right(runner, *inputs)
        if of_a_device(runner._executors):
            found[0][-1, 3] *= 1.1
        return found

    monkeypatch.setattr(numbers.Runner, "__call__", wrong)
    assert failures("embeddings") == ["embeddings", "embeddings"]


@pytest.mark.parametrize(
    ("part", "name", "factor", "fails"),
    [
        ("outputs", "loss", 1.01, "losses"),
        ("gradients", "relu0_gamma", 0.25, "gradients of a parameter"),  # a fault that MXNet's LeakyReLU has
        ("statistics", "bn0_running_var", 1.01, "statistics"),
    ],
)
def test_one_array_of_a_step_that_is_wrong_fails(failures, monkeypatch, part, name, factor, fails):
    right, calls = numbers.one_step, []

    def wrong(training):
        step = right(training)
        calls.append(training)
        if len(calls) % 2:  # the device comes first
            arrays = getattr(step, part)
            arrays[name] = arrays[name] * np.float32(factor)
        return step

    monkeypatch.setattr(numbers, "one_step", wrong)
    assert failures("gradients") == [fails, fails]


def test_statistics_that_a_plan_moves_twice_fail(deeper, monkeypatch):
    right = memonger.plan

    def twice(symbol, *arguments):
        plan = right(symbol, *arguments)
        momentum = 0.9**2  # m·(m·old + (1 - m)·batch) + (1 - m)·batch
        return memonger.Plan(**{**vars(plan), "symbol": with_momentum(plan.symbol, momentum)})

    monkeypatch.setattr(memonger, "plan", twice)
    assert failed(command.found("statistics", deeper)) == ["statistics"]


def test_a_plan_that_computes_no_normalisation_again_shows_nothing(failures):
    assert failures("statistics") == ["batch normalisations that are computed again"]


@pytest.fixture
def weighing(setting, monkeypatch):
    """Do the check of memory with made-up figures, MiB: foreseen without and with a plan, and used."""

    def check(plain, planned, used, used_planned):
        answers = iter([(plain, planned, "a graph"), used, used_planned])
        monkeypatch.setattr(plans, "in_child", lambda *_: next(answers))
        return command.found("memory", setting)

    return check


def test_memory_as_foreseen_passes(weighing):
    outcome = weighing(8000, 3000, 8900, 3900)
    assert outcome.passed
    assert [row.figure.median for row in outcome.rows if "saved" in row.text] == [1]


@pytest.mark.parametrize(
    ("used", "fails"),
    [
        ((15000, 3900), ["memory used"]),
        ((8900, 8900), ["memory used", "memory saved over that foreseen"]),
        ((8900, 1000), ["used over foreseen"]),
    ],
)
def test_memory_that_was_not_foreseen_fails(weighing, used, fails):
    assert failed(weighing(8000, 3000, *used)) == fails


def test_a_network_that_fits_with_its_plan_alone_is_a_remark(weighing):
    outcome = weighing(math.inf, 3000, None, 3900)
    assert outcome.passed and "do not fit into cpu(0)" in outcome.remarks[0]
    outcome = weighing(8000, 3000, 8900, None)
    assert outcome.faults == ["resnet14 does not fit into cpu(0) with a memory plan"]


def test_memory_is_weighed_with_and_without_a_plan(setting, small_encoder):
    plain, planned, graph = plans.foreseen(setting, small_encoder)
    assert planned <= plain
    assert plans.weighed(setting, small_encoder, graph) >= 0


def test_a_loss_scale_that_is_forgotten_fails(failures, monkeypatch):
    right = mixed_learner.MixedLearner._update

    def forgetting(learner):
        scale, learner._scale.value = learner._scale.value, 1.0
        right(learner)
        learner._scale.value = scale

    monkeypatch.setattr(mixed_learner.MixedLearner, "_update", forgetting)
    assert any("losses of 3 steps" in failure for failure in failures("precision"))


def test_a_verdict_that_is_wrong_fails(failures, monkeypatch):
    right = judging.Judge.ranks

    def wrong(judge, batch, ks):
        ranks = right(judge, batch, ks)
        if of_a_device(judge._contexts):
            ranks[batch.record == 31] = 1 - np.minimum(ranks[batch.record == 31], 1)
        return ranks

    monkeypatch.setattr(judging.Judge, "ranks", wrong)
    assert failures("verdicts") == [
        "of 32 verdicts, others than there, not by rounding",
        "of 32 verdicts, others alone",
    ]


def test_verdicts_that_hang_on_rounding_and_are_not_asked_again_fail(failures, monkeypatch):
    monkeypatch.setattr(judging, "DOUBT", 1e-12)
    assert "images asked again, of 8 that hang on rounding" in failures("verdicts")


def test_a_device_that_rounds_by_more_than_the_judge_doubts_fails(failures, monkeypatch):
    right = judging.Judge.likeliest

    def rough(judge, batch):
        own, other, who = right(judge, batch)
        return own + (2e-4 if of_a_device(judge._contexts) else 0), other, who

    monkeypatch.setattr(judging.Judge, "likeliest", rough)
    assert failures("verdicts") == ["difference of two cosines, in a batch against alone"]


def test_devices_whose_gradients_do_not_add_up_fail(failures, monkeypatch):
    right = following.training

    def wrong(devices, *arguments, **options):
        rate = ["schedule.learning_rate=0.0095"] if of_a_device(devices) else []
        return right(devices, *arguments, *rate, **options)

    monkeypatch.setattr(following, "training", wrong)
    assert failures("kvstores") == ["losses of 3 steps"] * 2  # local, device


def test_one_device_needs_no_kvstore(sizes):
    outcome = command.found("kvstores", Setting(DEVICES[:1], sizes))
    assert outcome.passed and not outcome.rows
    assert outcome.remarks == ["cpu(0) is the only device: no KVStore joins several"]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a run leaves: arrays in two forms."""
    folder = tmp_path_factory.mktemp("left")
    mx.nd.save(str(folder / "state.params"), {"arg:a": mx.nd.ones((2, 3)), "arg:b": mx.nd.zeros(4)})
    np.save(folder / "mean_faces.npy", np.arange(6, dtype=np.float16))
    return folder


def test_one_bit_of_one_array_is_seen(left, tmp_path):
    other = shutil.copytree(left, tmp_path / "other")
    assert resume.differing(left, other) == (3, [])
    faces = np.load(other / "mean_faces.npy")
    faces.view(np.uint16)[5] ^= 1
    np.save(other / "mean_faces.npy", faces)
    assert resume.differing(left, other) == (3, ["mean_faces.npy"])
    (other / "state.params").unlink()
    assert resume.differing(left, other)[1] == [
        "mean_faces.npy",
        "state.params: arg:a",
        "state.params: arg:b",
    ]


def test_a_run_that_goes_on_to_other_bits_fails(setting, left, monkeypatch):
    def finish(words):
        folder = shutil.copytree(left, words[words.index("--out") + 1])
        if "--resume" in words:
            mx.nd.save(
                f"{folder}/state.params",
                {"arg:a": mx.nd.ones((2, 3)) * (1 + 2**-23), "arg:b": mx.nd.zeros(4)},
            )

    monkeypatch.setattr(resume, "finish", finish)
    monkeypatch.setattr(resume, "killed", lambda *_: 2)
    outcome = command.found("resume", setting)
    (failure,) = outcome.failures
    assert failure.startswith("of 3 arrays, others in the killed run that went on: 1,")


def test_a_run_that_cannot_be_killed_or_fails_says_why(tmp_path):
    words = [sys.executable, "-c", "import sys; sys.exit('no such data')"]
    with pytest.raises(LatseError, match="^the run that was to be killed ended with status 1: no such data$"):
        resume.killed(words, tmp_path)
    with pytest.raises(LatseError, match="^a run ended with status 1: no such data$"):
        resume.finish(words)


def broken(setting):
    yield row("the first figure", 1.0, at_most=2)
    yield "a remark"
    yield row("the second figure", math.nan, at_most=2)
    yield row("the third figure", 3.0, at_most=2)
    raise mx.MXNetError('Traceback\n  File "x.cc"\nMXNetError: CUDA: an illegal address')


def fine(setting):
    yield row("a figure", np.float32(1.5), "images/s")


@pytest.fixture
def checked(monkeypatch, tmp_path, capsys):
    """Run the command with made-up checks in this process; return status, page, JSON and what was printed."""

    def run(*names):
        checks = {"broken": Check("A broken check", broken), "fine": Check("A fine one", fine)}
        for key in [*CHECKS]:
            monkeypatch.delitem(CHECKS, key)
        for key in names:
            monkeypatch.setitem(CHECKS, key, checks[key])
        monkeypatch.setattr(command, "in_child", lambda task, function, *given, seconds: function(*given))
        page, file = tmp_path / "page.md", tmp_path / "page.json"
        words = ["check-gpu", "--cpus", "2", "--small", "--out", str(page), "--json", str(file)]
        status = cli.main([*words, "--only", *names])
        return status, page.read_text(), json.loads(file.read_text()), capsys.readouterr().out

    return run


def test_a_check_that_raises_is_a_failure_and_the_others_go_on(checked):
    status, page, content, said = checked("broken", "fine")
    assert status == 1
    assert [(check["check"], check["passed"]) for check in content["checks"]] == [
        ("broken", False),
        ("fine", True),
    ]
    first = content["checks"][0]
    assert [row["passed"] for row in first["rows"]] == [True, False]
    assert first["remarks"] == ["a remark"]
    assert first["faults"] == [
        "the second figure: nan is no finite number",
        "MXNet: CUDA: an illegal address",
    ]
    for sentence in (*first["faults"], "1 of 2 checks failed: broken."):
        assert sentence in page and sentence in said
    assert "| the third figure | 3 | at most 2 | **FAIL** |" in page
    assert "| a figure | 1.5 images/s | – | information |" in page


def test_the_page_says_what_it_was_made_with(checked):
    status, page, content, said = checked("fine")
    assert status == 0 and content["passed"] is True
    assert content["kind"] == "check gpu" and content["devices"] == ["cpu(0)", "cpu(1)"]
    assert content["sizes"]["middle"] == SMALL.middle
    made = content["provenance"]
    for fact in (made["date"], made["machine"]["processor"], made["versions"]["mxnet"], "CUDA off", "cpu(1)"):
        assert fact in page
    assert page.rstrip().endswith("1 of 1 checks passed.") and "page.md is the page to send back" in said


def test_who_stops_it_has_a_page_of_what_is_done(checked, monkeypatch, tmp_path):
    right = command.tried

    def stopped(name, setting):
        if name == "broken":
            raise KeyboardInterrupt
        return right(name, setting)

    monkeypatch.setattr(command, "tried", stopped)
    status, page, content, _ = checked("fine", "broken")
    assert status == 130
    assert page.rstrip().endswith("1 of 1 checks passed. 1 of 2 are not done.")
    assert (content["passed"], content["asked"]) == (False, ["fine", "broken"])


def test_a_check_that_is_killed_or_hangs_has_failed(setting, monkeypatch):
    def killed(task, *_, seconds):
        raise LatseError(f"{task} has not ended after {seconds:g} s")

    monkeypatch.setattr(command, "in_child", killed)
    assert command.tried("speed", setting).faults == ["the check speed has not ended after 900 s"]


def test_what_counts_to_the_last_digit_is_done_without_tf32(setting, monkeypatch):
    asked = {}

    def look(_, __, name, *___, seconds):
        asked[name] = os.environ.get("NVIDIA_TF32_OVERRIDE")
        return Outcome(name, "")

    monkeypatch.setattr(command, "in_child", look)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    for name in CHECKS:
        command.tried(name, setting)
    assert {name for name, value in asked.items() if value is None} == {"memory", "verdicts", "speed"}
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ


@pytest.fixture
def gpus(sizes):
    """Two GPUs, which are not there: what differs for them is asked of stand-ins."""
    return Setting([mx.gpu(0), mx.gpu(1)], sizes)


def test_all_gpus_are_taken_unless_some_are_named(monkeypatch):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 2)
    args = argparse.Namespace(gpus=None, cpus=None)
    assert command.devices(args) == [mx.gpu(0), mx.gpu(1)]
    assert command.devices(argparse.Namespace(gpus="1", cpus=None)) == [mx.gpu(1)]


def test_gpus_and_driver_are_what_nvidias_tool_says(monkeypatch):
    line = "0, Tesla V100-SXM2-16GB, 510.47.03, 16160 MiB"
    monkeypatch.setattr(command, "NVIDIA", (sys.executable, "-c", f"print({line!r})"))
    assert command.described() == [line]
    monkeypatch.setattr(command, "NVIDIA", ("/nowhere/nvidia-smi",))
    assert command.described() == []


def test_memory_of_a_gpu_is_what_is_not_free(gpus, monkeypatch):
    monkeypatch.setattr(mx.context, "gpu_memory_info", lambda number: (2**30 * (1 + number), 2**32))
    assert plans._taken(gpus) == 3 * 1024


def test_the_killed_run_is_on_the_first_gpu(gpus, tmp_path):
    words = resume.command(gpus, tmp_path, "killed")
    assert words[words.index("--gpus") + 1] == "0"


def test_gpus_are_joined_by_nccl_where_it_is_built(gpus, monkeypatch):
    asked = []

    def losses(setting, count, kvstore):
        asked.append((count, kvstore))
        return np.array([2.0, 1.0])

    monkeypatch.setattr(following, "fixed_losses", losses)
    monkeypatch.setattr(following, "features", lambda: {"NCCL": True})
    assert command.found("kvstores", gpus).passed
    assert asked == [(1, "local"), (2, "local"), (2, "device"), (2, "nccl")]


def test_gpus_compute_in_float16(gpus, monkeypatch):
    asked = []
    monkeypatch.setattr(following, "training", lambda *changes: asked.append(changes))
    monkeypatch.setattr(following, "losses", lambda _: np.array([2.0, 1.0]))
    assert command.found("precision", gpus).passed
    assert ["train.precision=float16" in changes for changes in asked] == [False, True]


def test_a_training_that_does_not_fit_into_a_gpu_has_no_speed(gpus, monkeypatch):
    def timed(setting, name, kind, devices):
        if kind == "float32":
            raise mx.MXNetError("MXNetError: cudaMalloc failed: out of memory")
        return Figure.of([7.0], "images/s")

    monkeypatch.setattr(speed, "speed", timed)
    outcome = command.found("speed", gpus)
    assert outcome.passed and len(outcome.rows) == len(outcome.remarks) == 2
    assert "float16, 2 × 2 images: training" in outcome.rows[1].text
    assert outcome.remarks[0].endswith("float32, 1 × 2 images: they do not fit into gpu(0)")


def test_without_a_gpu_it_says_how_to_go_on(capsys):
    assert cli.main(["check-gpu"]) == 1
    assert capsys.readouterr().err.startswith("latse: MXNet sees no GPU: `make setup GPU=1` installs")


@pytest.mark.slow
@pytest.mark.deep
def test_all_of_it_passes_on_cpu_contexts(tmp_path):
    """Two minutes on two cores: `make test-deep`, as `make check-gpu CONTEXT=cpu` does it."""
    words = [
        "check-gpu",
        "--cpus",
        "2",
        "--small",
        "--out",
        str(tmp_path / "p.md"),
        "--json",
        str(tmp_path / "p.json"),
    ]
    assert cli.main(words) == 0
    content = json.loads((tmp_path / "p.json").read_text())
    assert [check["check"] for check in content["checks"]] == [*CHECKS]
    assert all(check["passed"] and check["rows"] for check in content["checks"])
