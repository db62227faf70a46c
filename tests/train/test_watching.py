"""A run that goes on can be watched: by its report, and by TensorBoard."""

import json
import re
import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from latse.cli import main
from latse.train.trainer import Trainer


@pytest.fixture
def train(tiny, people, tmp_path, small_encoder):
    """Train six iterations, a checkpoint every second, into OUT."""
    order = (
        "train",
        tiny,
        "--data",
        people,
        "--out",
        tmp_path / "out",
        "--set",
        f"encoder.name={small_encoder}",
    )
    return lambda *words: main([*map(str, order), "--set", "train.log_every=1", *words])


@pytest.fixture
def cut_off(monkeypatch):
    """Have a run end, as by a crash, in an iteration."""

    def cut(iteration):
        step = Trainer._step

        def fail(self, i, batch):
            if i == iteration:
                raise MemoryError
            return step(self, i, batch)

        monkeypatch.setattr(Trainer, "_step", fail)

    yield cut
    monkeypatch.undo()


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    """Read the events as TensorBoard does: file by file in order of time, purged at each start."""
    scalars = {}
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack_from("<Q", content)
            event, content = Event.FromString(content[12 : 12 + size]), content[16 + size :]
            if event.HasField("session_log"):
                scalars = {key: value for key, value in scalars.items() if key[1] < event.step}
            for value in event.summary.value:
                scalars[value.tag, event.step] = value.simple_value
    return scalars


def expected(folder):
    return {
        (name, line["iteration"]): pytest.approx(value, rel=1e-6)
        for line in lines(folder)
        for name, value in line.items()
        if name != "iteration"
    }


def test_tensorboard_gets_every_line(train, tmp_path, capsys):
    assert train("--tensorboard") == 0
    assert events(tmp_path / "out") == expected(tmp_path / "out")
    assert f"watch: tensorboard --logdir {tmp_path}/out/tensorboard\n" in capsys.readouterr().out


def test_tensorboard_passes_over_what_a_crash_undid(train, tmp_path, cut_off):
    cut_off(5)  # the checkpoint of iteration 4 is the last
    assert train("--tensorboard") == 1
    assert ("loss", 5) in events(tmp_path / "out")
    cut_off(4)
    assert train("--tensorboard", "--resume") == 1
    assert events(tmp_path / "out") == expected(tmp_path / "out")
    assert lines(tmp_path / "out")[-1]["iteration"] == 4


def test_without_the_package_nothing_begins(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert train("--tensorboard") == 1
    assert capsys.readouterr().err == "latse: tensorboardX is not installed; pip install tensorboardX\n"
    assert not (tmp_path / "out").exists()
    assert train() == 0
    assert not (tmp_path / "out" / "tensorboard").exists()


@pytest.mark.parametrize("iteration", [0, 3])
def test_the_page_that_train_names_shows_the_run_so_far(train, tmp_path, cut_off, iteration, capsys):
    cut_off(iteration)
    assert train() == 1
    (page,) = re.findall(r"^watch: latse (.*), as often as you like; ", capsys.readouterr().out, re.MULTILINE)
    assert main(page.split()) == 0
    shown = (tmp_path / "out" / "report.html").read_text()
    assert ("out is not finished: 3 of 6 iterations so far." in shown) == (iteration == 3)
    assert ('id="training"' in shown) == (iteration == 3)
    assert "train.batch_size" in shown
