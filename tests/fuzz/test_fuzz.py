"""A short run over the readers, and that the runner notices what it is there to notice."""

import ctypes
import json
import random
import time

import pytest
import run
from fuzz_inputs import TARGETS, PairFiles, Records

from latse.errors import LatseError


def fuzz(folder, *arguments):
    status = run.main(["--out", str(folder), "--json", str(folder / "fuzz.json"), *map(str, arguments)])
    return status, json.loads((folder / "fuzz.json").read_text())


def test_a_few_thousand_inputs(tmp_path, capfd):
    status, record = fuzz(tmp_path, "--inputs", 3000, "--seed", 1)
    said = capfd.readouterr().out
    assert status == 0 and record["findings"] == [], said
    assert record["inputs"] == 3000 and 200 < record["read"] < 1500
    assert said.startswith("3000 inputs in ")


class Fake:
    """A target whose every fifth input does what should not happen."""

    def __init__(self, deed):
        self.deed = deed

    def write(self, chance, folder):
        (folder / "input").write_bytes(bytes([chance.randrange(5)]))

    def read(self, folder):
        if (folder / "input").read_bytes() != b"\0":
            raise LatseError("a clear sentence")
        self.deed()


def refuse_in_two_lines():
    raise LatseError("one\ntwo")


def take_memory():
    assert bytearray(b"x") * (300 << 20)


@pytest.mark.parametrize(
    "deed, limit, said",
    [
        (lambda: 1 // 0, 60, "ZeroDivisionError"),
        (lambda: time.sleep(9), 1, "more than 1.0 s"),
        (lambda: ctypes.string_at(0), 60, "status -11"),
        (refuse_in_two_lines, 60, "not one line"),
        (take_memory, 60, "MB more memory"),
        (lambda: bytearray(1 << 40), 60, "MemoryError"),
    ],
)
def test_findings_are_reported_and_saved(tmp_path, capfd, monkeypatch, deed, limit, said):
    monkeypatch.setattr(run, "TARGETS", {"fake": lambda: Fake(deed)})
    status, record = fuzz(tmp_path, "--inputs", 20, "--limit", limit, "--processes", 2)
    assert status == 1
    assert record["findings"] and record["findings"] == sorted(
        path.name for path in tmp_path.glob("finding-*")
    )
    first = tmp_path / record["findings"][0]
    assert said in (first / "finding.txt").read_text() and said in capfd.readouterr().out
    assert [path.read_bytes() for path in first.rglob("input")] == [b"\0"]


def test_one_input_again(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "TARGETS", {"fake": lambda: Fake(lambda: 1 // 0)})
    _, record = fuzz(tmp_path, "--inputs", 20)
    number = record["findings"][0].split("-")[1]
    with pytest.raises(ZeroDivisionError):
        fuzz(tmp_path, "--only", number)
    monkeypatch.setattr(run, "TARGETS", {"fake": lambda: Fake(lambda: None)})  # it is mended
    status, record = fuzz(tmp_path, "--only", number)
    assert status == 0 and (record["inputs"], record["findings"]) == (1, [])


def test_it_stops_after_the_time_it_is_given(tmp_path):
    status, record = fuzz(tmp_path, "--inputs", 10**9, "--seconds", 1)
    assert status == 0 and 0 < record["inputs"] < 100_000


@pytest.mark.parametrize("target", TARGETS)
def test_an_input_is_a_function_of_its_number(tmp_path, target):
    made = TARGETS[target]()
    contents = []
    for number in (3, 4, 3):
        made.write(random.Random(number), tmp_path)
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[2] != contents[1]


def test_undamaged_files_are_read(tmp_path):
    for seed in Records().seeds:
        for name, data in seed.items():
            (tmp_path / name).write_bytes(data)
        Records().read(tmp_path)
        for name in seed:
            (tmp_path / name).unlink()
    pairs = PairFiles()
    for content in [*pairs.seeds[:18], *pairs.seeds[-1:], pairs.plain[0]]:
        (tmp_path / "a.bin").write_bytes(content)
        pairs.read(tmp_path)
