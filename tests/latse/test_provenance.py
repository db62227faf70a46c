"""Where a result comes from."""

import argparse
import subprocess

import mxnet as mx

from latse.provenance import commit, provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_it_names_command_versions_and_device():
    found = provenance(argparse.Namespace(command_line=["eval", "--model", "a b,0"]), [mx.cpu()])
    assert found["command"] == "latse eval --model 'a b,0'"
    assert found["versions"]["mxnet"] == mx.__version__
    assert found["device"].startswith("cpu(0) of ")
    assert provenance(argparse.Namespace(command_line=[]))["device"].startswith("the processor of ")


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
