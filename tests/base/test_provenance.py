"""Where a result comes from."""

import argparse
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import mxnet as mx

from latse.provenance import commit, is_same_code, machine, provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_it_names_command_versions_and_device():
    found = provenance(argparse.Namespace(command_line=["eval", "--model", "a b,0"]), [mx.cpu()])
    assert found["command"] == "latse eval --model 'a b,0'"
    assert found["versions"]["mxnet"] == mx.__version__
    assert found["device"].startswith("cpu(0) of ")
    assert provenance(argparse.Namespace(command_line=[]))["device"].startswith("the processor of ")


def test_it_names_the_machine_and_the_moment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = datetime.now(timezone.utc).replace(microsecond=0)
    found = provenance(argparse.Namespace(command_line=[]))
    assert before <= datetime.fromisoformat(found["date"]) <= datetime.now(timezone.utc)
    assert found["threads"] == 3
    assert 1 <= found["cores"] <= found["machine"]["processors"] == os.cpu_count()
    assert found["machine"] == machine() and found["machine"]["processor"]
    assert found["machine"]["memory_gibibytes"] > 0


def test_a_processor_that_linux_does_not_show_is_named_by_python(monkeypatch):
    def refused(path, *_, **__):
        raise PermissionError(f"{path}: permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    assert machine()["processor"] == (platform.processor() or platform.machine())


def test_the_commit_of_a_checkout_shows_changes(tmp_path):
    assert commit(tmp_path) is None
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one")
    assert commit(tmp_path) is None, "a folder of files that git does not know"
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    clean = commit(tmp_path)
    assert len(clean) == 12 and int(clean, 16) >= 0
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == clean + "+"


def test_a_changed_document_is_no_changed_code(tmp_path):
    git(tmp_path, "init")
    for name in ("docs/page.md", "src/code.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("one")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "docs/page.md").write_text("two")
    first = commit(tmp_path / "src")
    assert not first.endswith("+") and is_same_code(tmp_path / "src", first)
    git(tmp_path, "commit", "-a", "-m", "two")
    assert commit(tmp_path / "src") != first and is_same_code(tmp_path / "src", first)
    assert not is_same_code(tmp_path / "src", "0123456789ab")
    (tmp_path / "src/code.py").write_text("two")
    assert commit(tmp_path / "src").endswith("+") and not is_same_code(tmp_path / "src", first)
