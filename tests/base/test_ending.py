"""How a process ends: with its status, soon, and with all that it printed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latse.child import in_child

ENDS = "import atexit, sys; from latse import ending; atexit.register(print, 'handled')\n"
# A user's loss whose file leaves behind a thread and an operator that never end.
NEVER = """
import threading
import mxnet as mx

class Never(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        began.set()
        threading.Event().wait()

@mx.operator.register("never")
class NeverProp(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):
        return Never()

began = threading.Event()
threading.Thread(target=threading.Event().wait).start()
result = mx.nd.Custom(mx.nd.ones(1), op_type="never")
began.wait()
"""


def start(*arguments, **options):
    """Start Python in a process of its own."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments], **{"stdout": pipe, "stderr": pipe, "text": True, **options}
    )


def ended(process):
    """Status, stdout and stderr of a process, which must end within a minute."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def run(body, **options):
    """What becomes of a process whose work is `body`."""
    code = f"{ENDS}def main():\n    {body}\nending.run(main)"
    return ended(start("-c", code, **options))


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("print('done')", 0, ""),
        ("return 3", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("sys.exit('no use')", 1, "no use\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('never')",
            143,
            "latse: terminated\n",
        ),
    ],
)
def test_the_status_is_that_of_the_work_and_exit_handlers_run(body, status, says):
    code, out, err = run(body)
    assert code == status and err.endswith(says) and bool(err) == bool(says)
    assert out == ("done\n" if "done" in body else "") + "handled\n"


def test_a_reader_that_has_left_ends_the_process_without_a_word():
    process = start("-c", "from latse import ending; ending.run(lambda: print('x' * 999_999))")
    process.stdout.close()
    process.stdout = None
    assert ended(process)[::2] == (141, "")


def test_output_that_cannot_be_written_is_a_failure(monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with Path("/dev/full").open("w") as full:
        status, _, err = ended(start("-c", "from latse import ending; ending.run(print)", stdout=full))
    assert (status, err) == (1, "latse: cannot write the output: No space left on device\n")


def test_sigterm_lets_blocks_clean_up_and_reaches_children(tmp_path):
    body = f"""
    import subprocess, tempfile, time
    with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
        child = subprocess.Popen(["sleep", "1000"])
        try:
            print(child.pid, flush=True)
            time.sleep(1000)
        finally:
            print(child.wait())"""
    process = start("-c", f"{ENDS}def main():{body}\nending.run(main)")
    process.stdout.readline()
    process.terminate()
    assert ended(process) == (143, f"{-signal.SIGTERM}\nhandled\n", "latse: terminated\n")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("raised", ["raise ValueError('enough')", "class Wrong: pass"])
def test_a_command_ends_though_a_thread_and_an_operator_never_do(tmp_path, raised):
    """MXNet's exit handler and Python's end of threads would wait for ever."""
    (tmp_path / "never.py").write_text(NEVER + raised)
    status, out, err = ended(start("-m", "latse", "margins", "check", f"{tmp_path}/never.py:Wrong"))
    assert status == 1 and err.startswith("latse: ") and err.count("\n") == 1


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_that_waits_for_mxnet(tmp_path, number, status):
    patience = "from latse import ending\nending.PATIENCE = 1\n"
    waits = "print('waits', flush=True)\nresult.wait_to_read()"
    (tmp_path / "never.py").write_text(NEVER + patience + waits)
    process = start("-m", "latse", "margins", "check", f"{tmp_path}/never.py:Wrong")
    assert process.stdout.readline() == "waits\n"
    process.send_signal(number)
    began = time.monotonic()
    assert ended(process)[0] == status
    assert time.monotonic() - began < 30


def test_a_training_that_ends_its_iteration_first_has_the_time_it_takes():
    body = """
    import os, signal, time
    from latse.train.interruption import Interruption
    ending.PATIENCE = 0.1
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    return interruption.number"""
    assert run(body) == (signal.SIGTERM, "handled\n", "")


@pytest.mark.usefixtures("heeded")
def test_a_training_that_waits_for_mxnet_ends_at_the_second_signal():
    """Python itself learns of both only afterwards, and takes them for one."""
    training = """
from latse.train.interruption import Interruption
ending.PATIENCE = 1
def main():
    with Interruption():
        print("waits", flush=True)
        result.wait_to_read()
ending.run(main)"""
    process = start("-c", NEVER + ENDS + training)
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


def leave_behind(status):
    """Begin what never ends, in a child process."""
    exec(NEVER, {"__name__": __name__})
    return status


def test_a_child_that_has_answered_is_not_waited_for():
    assert in_child("the test", leave_behind, 3) == 3
