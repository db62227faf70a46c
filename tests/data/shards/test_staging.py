"""A set that is published takes away what was said of the set before it."""

import os
from pathlib import Path

import pytest
from small_sets import write_people

from latse.cli import main
from latse.data.shards.noise import read_truth
from latse.data.shards.staging import SIDE_FILES, staged
from latse.errors import LatseError


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_set_in_the_place_of_a_noisy_one_has_no_truth(tmp_path):
    original, noisy = tmp_path / "set", tmp_path / "noisy"
    write_people(original, [4] * 3)
    assert main(["data", "noise", str(original), str(noisy), "--mislabel", "0.5"]) == 0
    assert len(read_truth(noisy).record) == 12
    write_people(noisy, [4] * 3)
    assert names(noisy) == {"property", "train.idx", "train.rec"}
    with pytest.raises(LatseError, match="was not made by"):
        read_truth(noisy)


@pytest.mark.parametrize("lacking", ["", "property", "train.idx"])
def test_no_command_replaces_a_set(tmp_path, capsys, lacking):
    original, mine = tmp_path / "set", write_people(tmp_path / "mine", [4, 4])
    write_people(original, [4] * 3)
    if lacking:
        (mine / lacking).unlink()
    before = {path: path.read_bytes() for path in mine.iterdir()}
    noise = ["noise", str(original), str(mine), "--mislabel", "0.5"]
    orl = ["fetch-orl", "--out", str(mine)]
    for arguments in (noise, orl, ["check", str(original), "--repair", str(mine)]):
        assert main(["data", *arguments]) == 1
        assert "holds a set already: remove it, or choose another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in mine.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "name"),
    [(["fetch-orl"], "orl.bin"), (["synth", "--people", "1", "--images", "2"], "cross-age.bin")],
)
def test_pairs_of_another_set_are_not_replaced(words, name, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"mine")
    assert main(["data", *words, "--out", str(tmp_path)]) == 1
    assert f"{name} is there already: remove it, or choose another name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_kill_while_a_set_is_published_leaves_its_manifest_beside_what_there_is(tmp_path, monkeypatch):
    """Else its own command would take what is left for that of another."""
    steps = []
    for name in ("replace", "unlink"):
        done = getattr(Path, name)

        def step(path, *arguments, done=done):
            done(path, *arguments)
            steps.append(names(tmp_path) - {".staged"})

        monkeypatch.setattr(Path, name, step)
    for _ in range(2):
        with staged(tmp_path) as stage:
            for name in ("orl.bin", "orl.json", "property", "train.rec"):
                (stage / name).write_text("new")
    visible = [{name for name in step if name[0] != "."} for step in steps]
    assert len(visible) >= 12
    assert all("orl.json" in step for step in visible if step)
    assert all(len(step) == 4 for step in visible if "property" in step)


def test_every_file_is_on_the_disk_before_one_takes_its_place(tmp_path, monkeypatch):
    synced, fsync, replace = set(), os.fsync, Path.replace

    def noting(handle):
        synced.add(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def after_all(path, target):
        assert synced == {"property", "train.idx", "train.rec"}
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "replace", after_all)
    with staged(tmp_path) as stage:
        for name in ("property", "train.idx", "train.rec"):
            (stage / name).write_text("new")
    assert names(tmp_path) == {"property", "train.idx", "train.rec"}


def test_a_set_replaces_side_files_but_what_is_no_set_does_not(tmp_path):
    for name in (*SIDE_FILES, "mine.txt"):
        (tmp_path / name).write_text("older")
    with staged(tmp_path) as stage:
        (stage / "else.txt").write_text("new")
    assert names(tmp_path) == {*SIDE_FILES, "mine.txt", "else.txt"}
    with staged(tmp_path) as stage:
        (stage / "property").write_text("new")
        (stage / SIDE_FILES[0]).write_text("new")
    assert names(tmp_path) == {"mine.txt", "else.txt", "property", SIDE_FILES[0]}
    assert (tmp_path / SIDE_FILES[0]).read_text() == "new"
