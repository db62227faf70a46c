"""The rooms of the house: who may import whom, and what stands at the top level."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "symbols": {"latse.errors", "latse.own_class", "latse.symbols"},
    "src/data": {"latse.errors", "latse.files", "latse.own_class", "latse.data"},
    "eval": {
        "latse.checkpoint",
        "latse.data",
        "latse.devices",
        "latse.errors",
        "latse.eval",
        "latse.files",
        "latse.inference",
        "latse.own_class",
        "latse.provenance",
        "latse.runtime",
        "latse.symbols",
    },
}


def imported(file):
    """Every module of latse that a file imports, `from latse import x` as latse.x."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            assert [name.name for name in node.names] != ["*"], f"{file} imports everything of {node.module}"
            inside = node.module == "latse"
            yield from (f"latse.{name.name}" if inside else node.module for name in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_dependencies_point_one_way(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for module in imported(file):
            if module.partition(".")[0] == "latse":
                allowed = any(module == way or module.startswith(way + ".") for way in ROOMS[room])
                assert allowed, f"{file.relative_to(ROOT)} imports {module}"


def test_what_several_rooms_share_stands_on_errors_alone():
    for name in ("files", "own_class"):
        inside = {module for module in imported(ROOT / "src" / f"{name}.py") if module.startswith("latse")}
        assert inside <= {"latse.errors"}


def test_the_top_level_is_the_promised_one():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    visible = {path.partition("/")[0] for path in listed.splitlines() if not path.startswith(".")}
    promised = {"src", "symbols", "recipes", "eval", "tests", "setup.py", "Makefile"}
    around = {"README.md", "docs", "LICENSE", "CITATION.cff", "CONTRIBUTING.md"}
    assert promised <= visible <= promised | around
