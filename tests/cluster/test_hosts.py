"""`latse launch --hosts` over a stand-in for ssh, whose signals do not reach what it runs."""

import os
import re
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from latse.cli import main
from latse.cluster import launch_command
from latse.cluster.launch_command import Part
from latse.cluster.launcher import Launcher
from latse.cluster.place import Place
from latse.train import state

# As behind a real ssh, the part is in a session of its own, and its output breaks when the client dies.
# Each host has a folder of its own where the others have theirs.
SSH = """\
#!/bin/bash
set -o pipefail
setsid --wait sh -c "${4/$LATSE_TEST\\/here/$LATSE_TEST\\/$3}" 2>&1 | cat
"""
HOSTS = OTHER, FIRST = "127.0.0.1", "127.0.0.2"  # MXNet makes the last one worker 0


@pytest.fixture
def over_hosts(launched, tmp_path, heeded):
    """Launch over two addresses of this machine; whatever is left of the run is killed."""
    token = f"LATSE_TEST={tmp_path}"

    def remote():
        """Return the processes behind the ssh clients by name."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it has ended
                continue
            if token in variables:
                found.update({text[11:]: process for text in variables if text.startswith("LATSE_NAME=")})
        return found

    def launch(recipe, *settings, hosts=HOSTS, out="run"):
        for name in ("bin", "here", *hosts):
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "bin" / "ssh").write_text(SSH)
        (tmp_path / "bin" / "ssh").chmod(0o755)
        (tmp_path / "hosts").write_text("\n".join(hosts))
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        more = "--hosts", tmp_path / "hosts", "--port", launch_command._free_port()
        named = {"PATH": path, "LATSE_TEST": str(tmp_path)}
        process = launched(
            recipe, out, *settings, workers=len(hosts), more=more, cwd=tmp_path / "here", **named
        )
        return process, remote

    yield launch
    for process in remote().values():
        os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture
def endless(over_hosts, recipe, tmp_path, until):
    """Launch a run that does not end by itself, and wait until it trains; return launcher and processes."""

    def launch():
        metrics = tmp_path / FIRST / "run" / "metrics.jsonl"
        process, remote = over_hosts(recipe, "train.iterations=1000000", "train.checkpoint_every=1000000")
        until(lambda: process.poll() is not None or metrics.exists() and metrics.stat().st_size)
        assert {*remote()} == {"scheduler", "server 0", "worker 0", "worker 1"}
        return process, remote

    return launch


def test_a_signal_reaches_workers_on_other_hosts(endless, finished, tmp_path, until):
    process, remote = endless()
    process.send_signal(signal.SIGTERM)
    status, output = finished(process)
    assert status == 128 + signal.SIGTERM, output
    assert "latse: interrupted: checkpoint at iteration" in output
    assert "has died" not in output and "the run ends" not in output
    assert (tmp_path / FIRST / "run" / "state.params").exists()
    until(lambda: not remote(), 20)


def test_a_second_signal_ends_all_at_once(endless, finished, until):
    process, remote = endless()
    stopped = int(remote()["worker 1"].name)
    os.kill(stopped, signal.SIGSTOP)  # the others wait for it
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    status, output = finished(process)
    assert status == 1, output
    assert "latse: the run ends: it was interrupted twice" in output
    ended = r"the run has ended: launcher \(127.0.0.1, process \d+\): it was interrupted twice"
    assert re.search(rf"\[worker 0\] latse: {ended}", output), output
    until(lambda: {*remote()} == {"worker 1"}, 20)
    os.kill(stopped, signal.SIGCONT)
    until(lambda: not remote(), 20)


@pytest.fixture
def killed(over_hosts, tmp_path, until, finished):
    """Launch a run, kill one of its parts after the next checkpoint."""

    def kill(name, *settings):
        process, remote = over_hosts(*settings)
        folder = tmp_path / FIRST / "run"
        before = state.reached(folder)
        until(lambda: state.reached(folder) > before)
        os.kill(int(remote()[name].name), signal.SIGKILL)
        status, output = finished(process)
        assert re.search(rf"the run has ended: {name} \(127.0.0.., process \d+\) has died, after ", output)
        assert status and not (folder / "model-0000.params").exists()

    return kill


def test_mean_faces_need_no_shared_file_system(
    over_hosts, drawing, small_encoder, people, tmp_path, finished
):
    settings = f"encoder.name={small_encoder}", "train.iterations=6"
    status, output = finished(over_hosts(drawing, *settings)[0])
    assert status == 0 and "has died" not in output and "the run ends" not in output, output
    words = "train", drawing, "--data", people, "--out", tmp_path / "one", *(f"--set={s}" for s in settings)
    assert main([*map(str, words)]) == 0
    for name in ("mean_faces.npy", "mean_faces_started.npy"):
        one, two = (np.load(folder / name) for folder in (tmp_path / "one", tmp_path / FIRST / "run"))
        np.testing.assert_array_equal(one, two)
    assert not (tmp_path / OTHER / "run").exists()


@pytest.mark.deep
def test_a_run_over_hosts_goes_on_to_the_same_bits(
    over_hosts, drawing, small_encoder, tmp_path, finished, killed, run_contents
):
    settings = drawing, f"encoder.name={small_encoder}", "train.iterations=30"
    status, output = finished(over_hosts(*settings, out="unbroken")[0])
    assert status == 0, output
    for name in ("worker 1", "worker 0"):
        killed(name, *settings)
    status, output = finished(over_hosts(*settings)[0])
    assert status == 0, output
    assert run_contents(tmp_path / FIRST / "run") == run_contents(tmp_path / FIRST / "unbroken")


def test_a_run_that_another_host_has_is_refused(over_hosts, recipe, people, tmp_path, finished, run_contents):
    theirs = tmp_path / OTHER / "run"
    words = "train", recipe, "--data", people, "--out", theirs, "--set=train.iterations=4"
    assert main([*map(str, words)]) == 0
    before = run_contents(theirs)
    status, output = finished(over_hosts(recipe)[0])
    where = (
        f"on {OTHER} this run is at iteration 4, on {FIRST}, whose worker is to read and write it now, at 0"
    )
    assert status == 1 and f"run: {where}" in output
    assert run_contents(theirs) == before
    assert not (tmp_path / FIRST / "run" / "run.json").exists()


def test_a_run_ends_on_all_hosts_when_its_launcher_is_killed(endless, until):
    process, remote = endless()
    process.kill()
    until(lambda: not remote(), 20)


@pytest.mark.deep
def test_a_run_ends_on_all_hosts_when_an_ssh_dies(endless, finished, until):
    process, remote = endless()
    (client,) = (
        int(child)
        for path in Path(f"/proc/{process.pid}/task").glob("*/children")
        for child in path.read_text().split()
        if b"LATSE_NAME=worker 1" in Path("/proc", child, "cmdline").read_bytes().replace(b"'", b"")
    )
    os.kill(client, signal.SIGKILL)
    status, output = finished(process)
    assert status == 128 + signal.SIGKILL, output
    assert re.search(r"latse: worker 1 on 127.0.0.2 was killed by SIGKILL; \d others end", output), output
    until(lambda: not remote(), 20)


def test_a_launcher_does_not_wait_for_ever_for_hosts_that_are_down(monkeypatch, capfd):
    """Nobody answers where the scheduler listens, and no ssh ends."""
    monkeypatch.setattr(launch_command, "GRACE", 0.1)
    process = launch_command._started(["sleep", "600"], {}, "127.0.0.1", None)
    port = launch_command._free_port()
    with socket.create_server(("127.0.0.1", port + 1)):
        place = Place("launcher", 1, 1, "127.0.0.1", port, "launcher", 1.0)
        try:
            assert launch_command._watched([Part("worker 0", "worker", "127.0.0.1", process)], place) == 1
        finally:
            process.kill()
            process.wait()
    assert "latse: the run ends: the scheduler has given no sign of life for 1 s" in capfd.readouterr().err


def test_a_launcher_that_finds_no_scheduler_says_so(capfd, until):
    said, place = [], Place("launcher", 1, 1, "127.0.0.1", launch_command._free_port(), "launcher", 0.1)
    launcher = Launcher(place, said.append)
    sentence = "has not answered for 0 s: Ctrl-C and SIGTERM do not reach the workers\n"
    printed = []
    until(lambda: printed.append(capfd.readouterr().err) or "".join(printed).endswith(sentence), 20)
    launcher.leave()
    assert not said
