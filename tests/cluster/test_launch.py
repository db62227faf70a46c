"""`latse launch`: real processes that train one network, what they have in common with one, how they end."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (2, 1), (4, 2)])
def test_workers_train_as_one_would(
    launched, recipe, alone, run_metrics, tmp_path, workers, servers, finished, parameters
):
    status, output = finished(launched(recipe, tmp_path / "run", workers=workers, servers=servers))
    assert status == 0, output
    for one, together in zip(run_metrics(alone), run_metrics(tmp_path / "run")):
        assert one.keys() == together.keys()
        np.testing.assert_allclose([*one.values()], [together[key] for key in one], rtol=1e-5)
    one, together = parameters(alone), parameters(tmp_path / "run")
    assert one.keys() == together.keys()
    for name, array in one.items():
        np.testing.assert_allclose(together[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert {path.name for path in alone.iterdir()} == {path.name for path in (tmp_path / "run").iterdir()}
    assert output.count("images/s") == 1  # the bar of worker 0, in its last state
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["train"]["kvstore"] == "dist_sync"


def test_gradients_are_sent_as_their_signs_times_the_threshold(
    launched, recipe, people, tmp_path, finished, parameters
):
    """One step, whose gradients are those of one process that sends nothing."""
    rate, batch, threshold = 0.05, 4, 0.01
    sizes = ("iterations=1", "momentum=0", "weight_decay=0", "checkpoint_every=1")
    settings = (
        *(f"train.{size}" for size in sizes),
        "schedule.mode=constant",
        f"schedule.learning_rate={rate}",
    )
    words = "--data", people, "--out", tmp_path / "whole", *(f"--set={setting}" for setting in settings)
    assert main(["train", *map(str, [recipe, *words])]) == 0
    parted = {"MXNET_KVSTORE_BIGARRAY_BOUND": "1000"}  # large arrays lie on both servers
    compressed = *settings, f"train.compression_threshold={threshold}"
    status, output = finished(launched(recipe, tmp_path / "compressed", *compressed, servers=2, **parted))
    assert status == 0, output
    untrained = mx.nd.load(str(tmp_path / "whole" / "untrained-0000.params"))
    found = {kind: parameters(tmp_path / kind) for kind in ("whole", "compressed")}
    found["begin"] = {name: array.asnumpy() for name, array in untrained.items()}
    counts = np.zeros(5, int)
    for name, begin in found["begin"].items():
        whole, sent = ((found[kind][name] - begin) * -batch / rate for kind in ("whole", "compressed"))
        times = np.rint(sent / threshold)
        np.testing.assert_allclose(sent, times * threshold, atol=threshold / 50, err_msg=name)
        assert abs(times).max(initial=0) <= 2  # once by each worker
        tolerance = threshold / 50
        assert (whole[times == 2] >= 2 * threshold - tolerance).all(), name
        assert (whole[times == -2] <= -2 * threshold + tolerance).all(), name
        counts += [(times == number).sum() for number in range(-2, 3)]
    assert (counts > 0).all()


def test_a_killed_run_goes_on_to_the_same_bits(
    launched, drawing, small_encoder, finished, killed_and_compared
):
    settings = f"encoder.name={small_encoder}", "train.iterations=9"
    out = killed_and_compared(drawing, settings, "worker 1")
    status, output = finished(launched(drawing, out, *settings))
    assert status == 0 and f"{out}: the run is finished, 9 iterations" in output


def test_the_mean_faces_of_two_workers_are_those_of_one(
    launched, drawing, small_encoder, people, tmp_path, finished
):
    settings = f"encoder.name={small_encoder}", "train.iterations=5"
    assert finished(launched(drawing, tmp_path / "two", *settings))[0] == 0
    words = "train", drawing, "--data", people, "--out", tmp_path / "one", *(f"--set={s}" for s in settings)
    assert main([*map(str, words)]) == 0
    for name in ("mean_faces.npy", "mean_faces_started.npy"):
        np.testing.assert_array_equal(*(np.load(tmp_path / run / name) for run in ("one", "two")))


def test_a_run_goes_on_with_another_number_of_workers(
    launched, recipe, alone, people, run_metrics, tmp_path, finished
):
    out = tmp_path / "run"
    stopped = ["train", recipe, "--data", people, "--out", out, "--set=train.checkpoint_every=2"]
    assert main([*map(str, stopped), "--set=train.iterations=4"]) == 0
    status, output = finished(launched(recipe, out))
    assert status == 0, output
    assert "train.kvstore local until iteration 4, then dist_sync" in output
    assert len(run_metrics(out)) == len(run_metrics(alone))


@pytest.mark.parametrize("part", ["scheduler", "server 0", "worker 0"])
def test_a_part_that_dies_or_hangs_ends_the_run(
    launched, drawing, small_encoder, until, tmp_path, part, finished, parts
):
    number = signal.SIGSTOP if part == "server 0" else signal.SIGKILL
    out = tmp_path / "run"
    settings = f"encoder.name={small_encoder}", "train.iterations=100000"
    process = launched(drawing, out, *settings, timeout=4 if part == "server 0" else 60)
    until((out / "state.params").exists)
    pids = parts(process)
    assert {*pids} == {"scheduler", "server 0", "worker 0", "worker 1"}
    os.kill(pids[part], number)
    status, output = finished(process)
    assert status not in (0, None)
    said = {
        "scheduler": r"the run has ended: the scheduler has died",
        "server 0": r"the run has ended: server 0 \(127.0.0.1, process \d+\) has given no sign of life for ",
        "worker 0": r"the run has ended: worker 0 \(127.0.0.1, process \d+\) has died, after ",
    }
    assert re.search(said[part], output), output
    until(lambda: not any(Path("/proc", str(pid)).exists() for pid in pids.values()), 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_is_passed_on_and_a_checkpoint_written(
    launched, drawing, small_encoder, until, tmp_path, number, heeded, finished
):
    out = tmp_path / "run"
    settings = f"encoder.name={small_encoder}", "train.iterations=100000", "train.checkpoint_every=100000"
    process = launched(drawing, out, *settings)
    until(lambda: (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size)
    process.send_signal(number)
    status, output = finished(process)
    assert status == 128 + number, output
    assert "latse: interrupted: checkpoint at iteration" in output and "has died" not in output
    assert (out / "state.params").exists()


def test_bad_input_of_one_worker_ends_all_with_its_sentence(launched, recipe, people, tmp_path, finished):
    data = shutil.copytree(people, tmp_path / "data")
    process = launched(recipe, tmp_path / "run", words=("--data", data, "--set=train.batch_size=5"))
    status, output = finished(process)
    sentence = "train.batch_size 5 cannot be split over 2 workers"
    assert status == 1 and f"latse: {sentence}" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-n", "0", "--", "true"], "--workers is 0, must be at least 1"),
        (["-n", "1", "-s", "0", "--", "true"], "--servers is 0, must be at least 1"),
        (["-n", "1"], "what is to be launched? Write it at the end, as in -- latse train …"),
        (
            ["-n", "1", "--", "no-such-command"],
            "no-such-command cannot be started: No such file or directory",
        ),
        (["-n", "1", "--port", "65535", "--", "true"], "--port is 65535, must be 1 to 65534"),
    ],
)
def test_what_cannot_be_launched_is_one_sentence(options, sentence, capsys):
    assert main(["launch", *options]) == 1
    assert capsys.readouterr().err.strip().startswith(f"latse: {sentence}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no host"),
        ("-oProxyCommand=x\n", "'-oProxyCommand=x' is no address"),
        ("a b\n", "'a b' is no"),
    ],
)
def test_a_file_of_hosts_holds_addresses(tmp_path, text, sentence, capsys):
    (tmp_path / "hosts").write_text(text)
    assert main(["launch", "-n", "1", "--hosts", str(tmp_path / "hosts"), "--", "true"]) == 1
    assert sentence in capsys.readouterr().err


def test_parts_go_round_the_hosts_by_ssh(tmp_path, monkeypatch, capfd):
    (tmp_path / "ssh").write_text('#!/bin/sh\necho "$3: $4"\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "hosts").write_text("# ours\n10.0.0.1\n10.0.0.2\n")
    words = ["launch", "-n", "3", "-s", "1", "--hosts", str(tmp_path / "hosts"), "--", "echo", "a b"]
    assert main(words) == 0
    lines = capfd.readouterr().out.splitlines()
    where = {line.partition("] ")[0][1:]: line.partition("] ")[2] for line in lines}
    at = {name: text.partition(":")[0] for name, text in where.items()}
    assert at == {
        "scheduler": "10.0.0.1",
        "server 0": "10.0.0.1",
        "worker 0": "10.0.0.1",
        "worker 1": "10.0.0.2",
        "worker 2": "10.0.0.1",
    }
    assert where["worker 1"].endswith("echo 'a b'") and f"cd {Path.cwd()}" in where["worker 1"]
    for word in ("DMLC_PS_ROOT_URI=10.0.0.1", "DMLC_PS_ROOT_PORT=9091", "DMLC_NODE_HOST=10.0.0.2"):
        assert word in where["worker 1"]


def test_a_kvstore_of_another_kind_is_refused(recipe, people, tmp_path, capsys, monkeypatch):
    words = ["train", str(recipe), "--data", str(people), "--out", str(tmp_path / "run")]
    assert main([*words, "--kvstore", "dist_sync"]) == 1
    assert (
        "train.kvstore dist_sync joins several workers: `latse launch` starts them" in capsys.readouterr().err
    )
    named = {
        "ROLE": "worker",
        "PS_ROOT_URI": "127.0.0.1",
        "PS_ROOT_PORT": 1,
        "NUM_WORKER": 1,
        "NUM_SERVER": 1,
    }
    for name, value in named.items():
        monkeypatch.setenv(f"DMLC_{name}", str(value))
    assert main(words) == 1
    kinds = "dist_sync, dist_sync_device, dist_async"
    sentence = f"DMLC_ROLE is set, so train.kvstore must be one of {kinds}, not local"
    assert sentence in capsys.readouterr().err


def test_only_training_serves_others(monkeypatch, capsys):
    monkeypatch.setenv("DMLC_ROLE", "server")
    assert main(["encoders", "list"]) == 1
    assert (
        capsys.readouterr().err
        == "latse: DMLC_ROLE is server: of all commands latse train alone serves others\n"
    )
