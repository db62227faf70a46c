"""The rooms of the house: who may import whom, and what stands at the top level."""

import ast
import functools
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "latse"

# Room or module at the top of src/latse -> what else it may import of latse; `latse` is __init__.py.
BASE = {
    "arguments",
    "arrays",
    "child",
    "devices",
    "ending",
    "errors",
    "files",
    "form",
    "goals",
    "own_class",
    "provenance",
    "runtime",
    "text_table",
}
ROOMS = {
    "arguments": set(),
    "arrays": {"errors", "files"},
    "ending": set(),
    "errors": set(),
    "text_table": set(),
    "files": {"errors"},
    "form": {"errors"},
    "own_class": {"errors"},
    "runtime": {"errors", "latse"},
    "child": {"errors"},
    "devices": {"errors"},
    "goals": {"form", "text_table"},
    "provenance": {"runtime", "devices"},
    "symbols": {"ending", "errors", "graph", "own_class"},
    "recipes": set(),
    "recipe_keys": {"arguments", "own_class", "symbols"},
    "recipe": {"arguments", "errors", "files", "own_class", "recipes", "recipe_keys"},
    "recipes_arguments": {"arguments"},
    "recipes_command": {"recipe", "recipe_keys", "text_table"},
    "graph": {"errors"},
    "plan": {"errors", "files", "form", "graph"},
    "data": {"arguments", "arrays", "child", "errors", "files", "form", "own_class"},
    "models": BASE | {"form", "graph", "symbols"},
    "cluster": {"arguments", "child", "errors", "files", "runtime"},
    "train": BASE
    | {"latse", "cluster", "data", "graph", "models", "plan", "recipe", "recipe_keys", "symbols"},
    "eval": BASE | {"data", "graph", "models", "symbols"},
    "paper": BASE | {"data", "eval", "models", "plan", "recipe", "recipe_keys", "symbols", "train"},
    "study": BASE | {"data", "eval", "models", "recipe", "train"},
    "bench": BASE
    | {"data", "eval", "graph", "models", "paper", "plan", "recipe", "recipe_keys", "symbols", "train"},
    "data_command": {"data", "paper"},
    "cli": {"ending", "errors", "files", "latse", "runtime"},
    "latse": {"runtime"},
    "__main__": {"cli"},
}
# The inner rooms of data, likewise.
DATA = {
    "images": set(),
    "workers": set(),
    "spool": {"workers"},
    "shards": {"images", "workers"},
    "photographs": {"images", "workers", "spool", "shards"},
    "pairs": {"images", "photographs"},
    "synth": {"images", "workers", "spool", "shards", "photographs", "pairs"},
    "orl": {"images", "photographs", "pairs", "shards"},
    "orl_command": {"orl"},
}


def files(folder):
    """Every Python file below a folder, links followed."""
    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.endswith(".py")
    )


@functools.lru_cache(maxsize=None)
def nodes(file):
    """Every node of a file's tree."""
    return list(ast.walk(ast.parse(file.read_text())))


def imported(file):
    """Every module of latse that a file imports, `from latse import x` as latse.x."""
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            assert [name.name for name in node.names] != ["*"], f"{file} imports everything of {node.module}"
            names = [f"{node.module}.{name.name}" for name in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == "latse")


def found(module):
    """The file of the longest beginning of a dotted name that is a module, and what is left of the name."""
    parts, rest = module.split(".")[1:], []
    while True:
        place = PACKAGE.joinpath(*parts)
        if parts and place.with_suffix(".py").is_file():
            return place.with_suffix(".py"), rest
        if (place / "__init__.py").is_file():
            return place / "__init__.py", rest
        rest.insert(0, parts.pop())


def place(file, folder):
    """The room or module below a folder that a file is; the folder's own name for its __init__.py."""
    first = file.relative_to(folder).parts[0]
    return folder.name if first == "__init__.py" else first.split(".")[0]


def test_dependencies_point_one_way():
    for file in files(PACKAGE):
        room = place(file, PACKAGE)
        for module in imported(file):
            other = place(found(module)[0], PACKAGE)
            assert other in ROOMS[room] | {room}, f"{room} imports {module}"
            if room == other == "data":
                inner, other = place(file, PACKAGE / "data"), place(found(module)[0], PACKAGE / "data")
                assert other in DATA[inner] | {inner}, f"data/{inner} imports {module}"


@pytest.mark.parametrize("folder", [PACKAGE, ROOT / "tests"], ids=["package", "tests"])
def test_every_import_leads_to_a_file_by_path_alone(folder):
    for file in files(folder):
        for module in imported(file):
            path, rest = found(module)
            assert len(rest) <= 1 and defined(path) >= {*rest}, f"{module} is not in {path.relative_to(ROOT)}"


@functools.lru_cache(maxsize=None)
def defined(file):
    """The names that a module gives to something."""
    names = set()
    for node in nodes(file):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {name.asname or name.name for name in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_the_top_level_is_the_promised_one():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    visible = {path.partition("/")[0] for path in listed.splitlines() if not path.startswith(".")}
    promised = {"src", "symbols", "recipes", "eval", "tests", "setup.py", "Makefile"}
    around = {"README.md", "docs", "LICENSE", "CITATION.cff", "CONTRIBUTING.md"}
    assert promised <= visible <= promised | around


def test_parameters_and_attributes_in_docstrings_have_types():
    for file in files(PACKAGE):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                for entry in entries(ast.get_docstring(node) or ""):
                    assert " : " in entry, f"{file.name}: {node.name}: {entry}"


# Other modules that read a text: the kernel's, the package's own recipes.
READERS = {
    "files",
    "ending",
    "runtime",
    "provenance",
    "bench/protocol",
    "bench/plan_command",
    "recipes_command",
}


@pytest.mark.parametrize(
    "code",
    ["p.read_text()", "open(p)", "p.open('rt')", "p.open(newline='')", "open(p, mode='r')", "np.loadtxt(p)"],
)
def test_a_text_that_is_read_in_another_way_is_seen(code):
    assert list(reading(ast.walk(ast.parse(code)))) == [1]
    assert not list(
        reading(ast.walk(ast.parse("p.open('rb'), open(p, 'w'), read_text(p), os.open(p, flags)")))
    )


def test_texts_of_users_are_read_in_one_place():
    for file in files(PACKAGE):
        if file.relative_to(PACKAGE).with_suffix("").as_posix() not in READERS:
            for line in reading(nodes(file)):
                pytest.fail(f"{file}, line {line} reads a text: latse.files.open_text does")


def reading(nodes):
    """The lines that read a text file by a function of Python's or numpy's."""
    for node in nodes:
        if isinstance(node, ast.Call):
            of = node.func.value if isinstance(node.func, ast.Attribute) else None
            name = node.func.attr if of else getattr(node.func, "id", "")
            if (
                of
                and name in ("read_text", "loadtxt", "genfromtxt")
                or (
                    name == "open"
                    and getattr(of, "id", "") not in ("os", "archive")
                    and mode(node, 0 if of else 1) == "r"
                )
            ):
                yield node.lineno


def mode(call, at):
    """The mode of a call of `open`, whose argument number `at` it is."""
    given = [word.value for word in call.keywords if word.arg == "mode"] + call.args[at : at + 1]
    return given[0].value.replace("t", "") if given else "r"


def entries(docstring):
    """The lines of a docstring that begin an entry of its Parameters or Attributes."""
    for section in re.findall(r"^(?:Parameters|Attributes)\n-+\n((?:.+\n?)*)", docstring, re.MULTILINE):
        yield from re.findall(r"^\S.*$", section, re.MULTILINE)
