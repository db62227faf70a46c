"""The documents: every path, link, command and target that they name is there."""

import itertools
import re
from pathlib import Path

import pytest

from latse.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = ("src", "symbols", "eval", "recipes", "tests", "docs", ".ci")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def expanded(path):
    """A path for each choice in its braces, as a shell has it."""
    parts = [part.split(",") for part in re.split(r"[{}]", path)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def anchors(page):
    """What a link may name behind `#`: the headings of a page as GitHub writes them, and its own anchors."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {*words, *re.findall(r'<a id="([^"]+)">', text)}


@pages
def test_every_path_in_a_page_exists(page):
    named = [word for code in re.findall(r"`([^`\n]+)`", page.read_text()) for word in code.split()]
    for path in itertools.chain(*(expanded(word) for word in named if word.split("/")[0] in ROOMS)):
        if "/" in path and "PREFIX" not in path and "NAME" not in path:
            assert [*ROOT.glob(path)], f"{page.name} names {path}"


@pages
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


@pages
def test_every_command_and_target_exists(page):
    text = page.read_text()
    assert {*re.findall(r"\blatse ([a-z]+(?:-[a-z]+)*)\b", "\n".join(code(text)))} <= {*COMMANDS}
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        name for line in re.findall(r"^([a-z0-9 -]+):", makefile, re.MULTILINE) for name in line.split()
    }
    assert {*re.findall(r"\bmake ([a-z][a-z0-9-]+)(?![\w-])", "\n".join(code(text)))} <= targets


def code(text):
    """What stands between backticks, and the lines that are indented by four spaces."""
    return [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^ {4}\S.*$", text, re.MULTILINE)]


def test_make_help_and_the_page_of_commands_name_the_same_targets():
    lines = re.findall(r"^([a-z0-9 -]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    page = (ROOT / "docs" / "commands.md").read_text()
    cells = re.findall(r"^\| (`.*?) \|", page[page.index("## make") : page.index("## latse")], re.MULTILINE)
    tables = {f"table-{number}" for number in range(1, 7)}  # `table-1` … `table-6`
    named = {*re.findall(r"`([\w-]+)`", " ".join(cells))}
    assert named | tables == {name for line in lines for name in line.split()}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900
