"""Classes by name, shipped and a user's own."""

import pickle
from typing import Protocol, runtime_checkable

import pytest

from latse.errors import LatseError
from latse.own_class import Registry, source

FILE = """
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

with Path(__file__).with_suffix(".runs").open("a") as runs:
    runs.write("x")


@dataclass
class Cube:
    side: float = 1.0

    def area(self):
        return 6 * self.side**2


class Sphere:
    pass
"""


class Disc:
    pass


@runtime_checkable
class Sided(Protocol):
    def area(self):
        """Whatever has one is a body."""


BODY = Registry("body", {"disc": Disc}, Sided, "with an area")


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


def test_a_file_is_executed_once_whatever_is_asked_of_it(own, monkeypatch):
    cube = BODY.find(f"{own}:Cube")
    assert dict(BODY.parameters(f"{own}:Cube")) == {"side": 1.0}
    assert BODY.create(f"{own}:Cube", side=2.0) == cube(2.0)
    with pytest.raises(LatseError, match="own.py has no class Sphere with an area$"):
        BODY.find(f"{own}:Sphere")
    monkeypatch.chdir(own.parent)
    assert BODY.find("own.py:Cube") is cube  # by another path
    assert pickle.loads(pickle.dumps(cube(3.0))) == cube(3.0)
    assert own.with_suffix(".runs").read_text() == "x"


def test_an_edited_file_is_executed_again(own):
    first = BODY.find(f"{own}:Cube")
    own.write_text(FILE.replace("1.0", "2.0"))  # as long as before, perhaps within the same second
    assert (first().side, BODY.create(f"{own}:Cube").side) == (1.0, 2.0)


def test_a_file_that_failed_is_tried_again(own, tmp_path):
    own.write_text(f"{FILE}\n\nTEXT = Path(__file__).with_suffix('.txt').read_text()\n")
    with pytest.raises(LatseError, match="^cannot run .*own.py: FileNotFoundError"):
        BODY.find(f"{own}:Cube")
    own.with_suffix(".txt").write_text("1")
    assert BODY.create(f"{own}:Cube").side == 1.0


def test_shipped_ones_go_by_name():
    assert BODY.find("disc") is Disc
    with pytest.raises(LatseError, match="^unknown body 'cone'; there are disc and FILE.py:CLASS$"):
        BODY.create("cone")
    with pytest.raises(LatseError, match=r"FILE.py:CLASS; did you mean disc\?$"):
        BODY.create("discs")
    with pytest.raises(LatseError, match="^the body 'disc' has no parameter 'side'; it has none$"):
        BODY.create("disc", side=1.0)


def test_a_whole_number_is_given_where_the_default_is_one(own):
    own.write_text(FILE.replace("float = 1.0", "float = 1"))
    made = BODY.create(f"{own}:Cube", side=24.0).side
    assert made == 24 and type(made) is int
    for wrong in (24.5, float("nan"), float("inf")):
        with pytest.raises(LatseError, match="^side is .*, must be a whole number as its default 1 is$"):
            BODY.create(f"{own}:Cube", side=wrong)
    with pytest.raises(LatseError, match="^side is 1000000000000, must be at most 2147483647 in size$"):
        BODY.create(f"{own}:Cube", side=1e12)


def test_only_a_python_file_with_a_class_is_a_source():
    assert [source(name) for name in ("own.py", "own.txt:Cube", "disc")] == [None] * 3
    assert str(source("C:/a/own.py:Cube")) == "C:/a/own.py"
