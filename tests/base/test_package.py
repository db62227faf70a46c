"""What is packed is the whole package, once, and it works without the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "latse"
SHIPPED = {".py", ".yaml", ".j2"}
BUILD = """
import sys
from setuptools import build_meta
for hook, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    getattr(build_meta, "build_" + hook)(folder)
"""
USE = """
from latse import cli, recipe
assert cli.main(["margins", "list"]) == 0
print(recipe.__file__, recipe.load("orl_student").decoder.enabled, sep="\\n")
"""


def python(*arguments, cwd, **variables):
    """Run python in a folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(source, **folders):
    """Call build hooks of the setuptools at hand, without the network; return the one file in each folder."""
    for folder in folders.values():
        folder.mkdir()
    python("-c", BUILD, *(word for pair in folders.items() for word in pair), cwd=source)
    return [next(folder.iterdir()) for folder in folders.values()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the package is made of, links as links: a build leaves nothing in the real one."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "symbols", "eval", "recipes"):
        litter = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=litter)
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def packed(checkout, tmp_path_factory):
    """The source distribution, the wheel and the editable wheel of the checkout."""
    folder = tmp_path_factory.mktemp("packed")
    return build(checkout, sdist=folder / "sdist", wheel=folder / "wheel", editable=folder / "editable")


@pytest.fixture(scope="module")
def installed(packed, tmp_path_factory):
    """A folder of nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("installed")
    options = "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", folder
    python("-m", "pip", "install", *options, packed[1], cwd=folder)
    return folder


def shipped():
    """Modules, recipes, studies and templates as paths from the folder of `latse`, links followed."""
    return sorted(
        (Path(folder) / name).relative_to(PACKAGE.parent).as_posix()
        for folder, _, names in os.walk(PACKAGE, followlinks=True)
        for name in names
        if Path(name).suffix in SHIPPED
    )


def of_latse(names):
    return sorted(name for name in names if PurePosixPath(name).suffix in SHIPPED and name != "setup.py")


def test_the_list_holds_what_the_links_lead_to():
    assert {
        "latse/cli.py",
        "latse/symbols/margins/family.py",
        "latse/eval/verification.py",
        "latse/recipes/orl_student.yaml",
        "latse/recipes/studies/orl_losses.yaml",
        "latse/bench/summary.md.j2",
        "latse/paper/report.html.j2",
        "latse/paper/report_blocks.html.j2",
    } <= set(shipped())


def test_a_wheel_holds_everything_once(packed):
    with zipfile.ZipFile(packed[1]) as wheel:
        names = wheel.namelist()
    assert of_latse(names) == shipped()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"latse"}


def test_a_source_distribution_holds_everything_once_and_makes_the_same_wheel(packed, tmp_path):
    with tarfile.open(packed[0]) as sources:
        members = [member for member in sources.getmembers() if not member.isdir()]
        sources.extractall(tmp_path)
    assert all(member.isfile() for member in members)  # no link that leads out of the archive
    inner = [member.name.split("/", 1)[1] for member in members]
    assert of_latse(inner) == ["src/" + name for name in shipped()]
    assert {"README.md", "LICENSE", "setup.py"} <= {*inner}
    (unpacked,) = tmp_path.iterdir()
    (wheel,) = build(unpacked, wheel=tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(packed[1]) as theirs:
        assert {(file.filename, file.CRC) for file in ours.infolist()} == {
            (file.filename, file.CRC) for file in theirs.infolist()
        }


def test_an_editable_install_is_a_plain_path(packed, checkout):
    with zipfile.ZipFile(packed[2]) as wheel:
        (entry,) = (name for name in wheel.namelist() if "dist-info" not in name)
        assert entry.endswith(".pth")
        assert wheel.read(entry).decode().split() == [str(checkout / "src")]


def test_an_installed_wheel_works_without_the_checkout(installed, tmp_path):
    said = python(installed / "bin" / "latse", "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert said.startswith("latse 0.1.0, mxnet 1.9.1: ")
    said = python("-c", USE, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert any(line.startswith("linearface ") for line in said)
    assert said[-2:] == [str(installed / "latse" / "recipe.py"), "True"]
