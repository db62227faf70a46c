"""A contender answers, and one that fails says why and leaves nothing behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import pytest

from latse.bench import graph_step
from latse.bench.contender import Contender, race, served
from latse.errors import LatseError

COUNTER = """
import os, sys
from latse.bench.protocol import serve

def build():
    print("chatter while it builds")
    count = []
    def step():
        print("chatter in a step", flush=True)
        count.append(1)
        if len(count) == 3:
            {failure}
        return {{"count": len(count), "threads": os.environ["OMP_NUM_THREADS"],
                 "processors": sorted(os.sched_getaffinity(0))}}
    return {{"planned_megabytes": None, "parameters": 7}}, step

serve(build)
"""


def counter(title="one", failure="pass"):
    return Contender(title, [sys.executable, "-c", COUNTER.format(failure=failure)])


def test_a_contender_steps_and_weighs_itself():
    with counter() as contender:
        assert contender.facts["parameters"] == 7
        answer = contender.step()
        assert answer["seconds"] > 0 and answer["processor_seconds"] > 0
        memory = contender.memory()
        assert memory["peak_megabytes"] > memory["rise_megabytes"] >= 0
        assert answer["count"] == 1
        assert answer["processors"] == sorted(os.sched_getaffinity(0))
        child = contender._child
    assert child.returncode == 0


def test_turns_are_taken_after_a_first_step_each():
    commands = {title: [sys.executable, "-c", COUNTER.format(failure="pass")] for title in "ab"}
    raced = race(commands, 4, "turns")
    assert [*raced] == ["a", "b"]
    for one in raced.values():
        assert [answer["count"] for answer in one.answers] == [2, 3, 4, 5]
        assert (
            one.seconds == [answer["seconds"] for answer in one.answers] and len(one.processor_seconds) == 4
        )
        assert one.memory["peak_megabytes"] > 0 and one.facts["parameters"] == 7


@pytest.mark.parametrize(
    "failure, reason",
    [
        ("raise RuntimeError('too hot')", "one ended with status 1: RuntimeError: too hot"),
        ("os.kill(os.getpid(), 9)", "one ended with status -9: chatter in a step"),
        ("os._exit(0)", "one ended with status 0: chatter in a step"),
    ],
)
def test_a_child_that_dies_says_why_and_is_no_zombie(failure, reason):
    with pytest.raises(LatseError) as caught, counter(failure=failure) as contender:
        for _ in range(3):
            contender.step()
    assert str(caught.value) == reason
    assert contender._child.poll() is not None
    assert not Path(f"/proc/{contender._child.pid}").exists()


@pytest.mark.parametrize(
    "code, reason",
    [
        ("print('hello')", "one says no ready: hello"),
        ("", "one ended with status 0: it said nothing"),
        ("import no_such_module", "No module named 'no_such_module'"),
        (
            "from latse.errors import LatseError\nraise LatseError('no recipe')",
            "ended with status 1: no recipe",
        ),
    ],
)
def test_a_child_that_does_not_get_ready_is_one_sentence(code, reason):
    with pytest.raises(LatseError, match=reason) as caught, Contender("one", [sys.executable, "-c", code]):
        pass
    assert "\n" not in str(caught.value)


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(LatseError, match="cannot start one: /no/python"), Contender("one", ["/no/python"]):
        pass


def test_an_interrupted_parent_does_not_wait_for_the_step():
    contender = counter(failure="import time; time.sleep(600)")
    with pytest.raises(KeyboardInterrupt), contender:
        contender.step()
        contender.step()
        contender._child.stdin.write("step\n")
        contender._child.stdin.flush()
        raise KeyboardInterrupt
    assert contender._child.returncode == -9


def test_a_killed_parent_leaves_no_child():
    script = f"""
import os, sys
from latse.bench.contender import Contender
with Contender("one", [sys.executable, "-c", {COUNTER.format(failure="pass")!r}]) as contender:
    print(contender._child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    child = Path(f"/proc/{int(done.stdout)}/cmdline")
    deadline = time.monotonic() + 30
    while child.exists() and child.read_bytes():  # a zombie's is empty: nobody here may wait for it
        assert time.monotonic() < deadline
        time.sleep(0.05)


SHAPES = {"data": (4, 5), "softmax_label": (4,)}


def graph_file(folder):
    data, label = mx.sym.var("data"), mx.sym.var("softmax_label")
    scores = mx.sym.FullyConnected(mx.sym.BatchNorm(data), num_hidden=3, name="fc")
    loss = mx.sym.MakeLoss(-mx.sym.pick(mx.sym.log_softmax(scores), label), name="loss")
    loss.save(str(folder / "symbol.json"))
    return folder / "symbol.json"


def test_any_symbol_can_contend(tmp_path):
    with Contender(
        "graph", served(graph_step.contender, graph_file(tmp_path), SHAPES, classes=3)
    ) as contender:
        assert contender.facts["parameters"] == 5 * 3 + 3 + 2 * 5
        assert contender.facts["planned_megabytes"] == 0
        assert contender.step()["seconds"] > 0


def test_a_missing_symbol_is_named(tmp_path):
    missing = tmp_path / "no.json"
    graph = Contender("graph", served(graph_step.contender, missing, SHAPES, 3))
    with pytest.raises(LatseError, match=f"{missing} is missing"), graph:
        pass


def test_made_up_inputs_are_those_of_a_loader():
    shapes = {"data": (2, 3, 4, 4), "softmax_label": (2,), "keep": (2,), "mean_face": (2, 3, 4, 4)}
    inputs = graph_step.made_up(shapes, classes=3)
    assert {name: array.shape for name, array in inputs.items()} == shapes
    assert inputs["data"].dtype == "uint8" and inputs["data"].max() > 200
    assert set(inputs["softmax_label"]) <= {0, 1, 2} and set(inputs["keep"]) <= {0, 1}
    assert -1 <= inputs["mean_face"].min() < 0 < inputs["mean_face"].max() <= 1
