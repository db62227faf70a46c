"""A set that is published takes away what was said of the set before it."""

import cv2
import numpy as np
import pytest

from latse.cli import main
from latse.data.shards.noise import read_truth
from latse.data.shards.shard_writer import write_shard
from latse.data.shards.staging import SIDE_FILES, staged
from latse.errors import LatseError

SIZE = (8, 6)


def write_people(folder, people):
    pixels = np.random.default_rng(0).integers(0, 256, (4 * people, *SIZE, 3), dtype=np.uint8)
    pictures = [cv2.imencode(".png", image)[1].tobytes() for image in pixels]
    write_shard(folder, [(number // 4, picture) for number, picture in enumerate(pictures)], people, SIZE)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_set_in_the_place_of_a_noisy_one_has_no_truth(tmp_path):
    original, noisy = tmp_path / "set", tmp_path / "noisy"
    write_people(original, 3)
    assert main(["data", "noise", str(original), str(noisy), "--mislabel", "0.5"]) == 0
    assert len(read_truth(noisy).record) == 12
    write_people(noisy, 3)
    assert names(noisy) == {"property", "train.idx", "train.rec"}
    with pytest.raises(LatseError, match="was not made by"):
        read_truth(noisy)


def test_no_command_replaces_a_set(tmp_path, capsys):
    original, mine = tmp_path / "set", tmp_path / "mine"
    write_people(original, 3)
    write_people(mine, 2)
    before = {path: path.read_bytes() for path in mine.iterdir()}
    noise = ["noise", str(original), str(mine), "--mislabel", "0.5"]
    for arguments in (noise, ["check", str(original), "--repair", str(mine)]):
        assert main(["data", *arguments]) == 1
        assert "holds a set already: remove it, or choose another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in mine.iterdir()} == before


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
