"""Tell the product small lies, one at a time, and see which of them the tests notice (`make mutants`).

A lie is a place in the code and one operator of cosmic-ray there: a number one larger, `<` for `<=`, a loop
that never runs. Places are drawn with a seed, each as likely as the next, then one operator that fits. The
tests of the same room run on a copy of the checkout, the mirrored file first, until one fails. Outcomes are
kept in a JSON file, so an interrupted run goes on where it stopped; `--survivors` tries survivors once more.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import queue
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).parents[2]
# Room of tests -> the files that are lied about.
MUTATED = {
    "symbols": ["symbols/**/*.py"],
    "train": ["src/latse/train/[!_]*.py"],
    "data": [
        "src/latse/data/images.py",
        "src/latse/data/pairs/*s.py",
        "src/latse/data/photographs/align.py",
        "src/latse/data/shards/[lrs]*.py",
    ],
    "eval": ["eval/[!_]*.py"],
}
# What a command says of itself is no protocol; drawing is judged by eye.
LEFT_OUT = re.compile(r"_command\.py$|/(canvas|figures|margin_curves)\.py$")
# Equal for what stands here (`is` for `==`), or an error in any line that runs (`&` of two floats).
SENSELESS = re.compile(r"_Is(Not)?(_|$)|_(Bit\w+|[LR]Shift|UAdd|Invert)$|Invert_|UAdd_|Variable")
MINUTES_AT_MOST, BYTES_AT_MOST, SIDE_BY_SIDE = 30, 16 << 30, 2


def operators() -> dict:
    """Return the operators that are used, by name."""
    names = sorted(name for name in plugins.operator_names() if not SENSELESS.search(name))
    return {name: plugins.get_operator(name)() for name in names}


def is_annotation(node) -> bool:
    """Say whether a node of parso's tree is in a type annotation, which nothing evaluates."""
    while node.parent is not None:
        child, node = node, node.parent
        if (
            node.type == "tfpdef"
            or (node.type == "annassign" and child is node.children[1])
            or (node.type == "funcdef" and child is node.annotation)
        ):
            return True
    return False


def is_unnamed_exception(node) -> bool:
    """Say whether a node is `except module.Error` or `except (*ERRORS, …)`: cosmic-ray renames names only."""
    return node.type == "except_clause" and bool(set(".*") & set(node.children[1].get_code()))


def places(file: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Return (line, column) -> the mutations there, each an operator and its occurrence in the file."""
    nodes = list(ast_nodes(get_ast((ROOT / file).read_text())))
    found = defaultdict(list)
    for name, operator in operators().items():
        positions = ((node, start) for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (node, start) in enumerate(positions):
            if not is_annotation(node) and not is_unnamed_exception(node):
                found[start].append((name, occurrence))
    return found


def sample(count: int, seed: int) -> list[dict]:
    """Draw mutants: places without repetition over all files, then an operator for each."""
    files = {
        path.relative_to(ROOT).as_posix(): room
        for room, patterns in MUTATED.items()
        for pattern in patterns
        for path in ROOT.glob(pattern)
        if not LEFT_OUT.search(path.as_posix())
    }
    every = [(file, *item) for file in sorted(files) for item in sorted(places(file).items())]
    rng = random.Random(seed)
    drawn = rng.sample(every, min(count, len(every)))
    return [mutant(files[file], file, start, *rng.choice(choices)) for file, start, choices in drawn]


def mutant(room: str, file: str, start: tuple[int, int], operator: str, occurrence: int) -> dict:
    """Describe one lie; `key` changes with the file it is told about."""
    before = (ROOT / file).read_text()
    after = mutate_code(before, operators()[operator], occurrence)
    changed = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    described = {"room": room, "file": file, "line": start[0], "operator": operator, "occurrence": occurrence}
    key = hashlib.sha256(f"{described}{before}".encode()).hexdigest()[:16]
    return {
        "key": key,
        **described,
        "change": [line for line in changed if not re.match(r"@@|---|\+\+\+", line)],
    }


class Tree:
    """A copy of what git knows of the checkout, whose tests run in processes of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(
            listed, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).exists():
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)

    def tests_of(self, room: str, file: str = "") -> list[str]:
        """Return the room's test files: of the file's name, that name the module, of its inner room."""
        near = Path(file)

        def distance(test: Path) -> tuple:
            elsewhere = test.parent.name != near.parent.name
            return test.stem != f"test_{near.stem}", near.stem not in test.read_text(), elsewhere, test

        tests = (self.folder / "tests" / room).rglob("test_*.py")
        return [str(test.relative_to(self.folder)) for test in sorted(tests, key=distance)]

    def test(self, files: list[str], seconds: float) -> dict:
        """Run test files until one fails; return what came of it, by which test, in how long."""
        options = ["-x", "-q", "-rfE", "--tb=no", "-m", "not deep", "-p", "no:cacheprovider"]
        ours = {
            "PYTHONPATH": str(self.folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        start = time.perf_counter()
        with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory() as temporary:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, f"--basetemp={temporary}/pytest", *files],
                cwd=self.folder,
                env={**os.environ, **ours},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                with contextlib.suppress(ProcessLookupError):  # what a test has started too
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            said.seek(0)
            failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said.read(), re.MULTILINE)
        if status in (-signal.SIGTERM, -signal.SIGINT):  # nothing that a lie does
            raise RuntimeError("somebody else ended pytest")
        return {
            "outcome": "survived" if status == 0 else "noticed",
            "by": failed[1] if failed else f"exit status {status}",
            "seconds": round(time.perf_counter() - start, 1),
        }

    def test_with(self, mutant: dict, seconds: float) -> dict:
        """Tell the lie and run the tests of its room."""
        path = self.folder / mutant["file"]
        truth = path.read_text()
        path.write_text(mutate_code(truth, operators()[mutant["operator"]], mutant["occurrence"]))
        try:
            return self.test(self.tests_of(mutant["room"], mutant["file"]), seconds)
        finally:
            path.write_text(truth)


def judge(mutants: list[dict], keep) -> None:
    """Test every room as it is, then its mutants, two side by side; call `keep(mutant and its outcome)`."""
    trees, limits = queue.SimpleQueue(), {}

    @contextlib.contextmanager
    def a_tree() -> Iterator[Tree]:
        tree = trees.get()
        yield tree
        trees.put(tree)

    def unchanged(room: str) -> None:
        with a_tree() as tree:
            said = tree.test(tree.tests_of(room), 60 * MINUTES_AT_MOST)
        if said["outcome"] == "noticed":
            raise RuntimeError(f"without any lie fails {said['by']}")
        limits[room] = 60 + 3 * said["seconds"]

    def lie(mutant: dict) -> None:
        with a_tree() as tree:
            keep({**mutant, **tree.test_with(mutant, limits[mutant["room"]])})

    with contextlib.ExitStack() as stack:
        for _ in range(SIDE_BY_SIDE):
            trees.put(Tree(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        pool = stack.enter_context(ThreadPoolExecutor(SIDE_BY_SIDE))
        for step, items in ((unchanged, sorted({mutant["room"] for mutant in mutants})), (lie, mutants)):
            list(pool.map(step, items))


def main() -> None:
    """Draw, test, write the JSON file, print the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("out/mutants/mutants.json"))
    parser.add_argument("--survivors", action="store_true", help="try once more what survived")
    args = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_AS, (BYTES_AT_MOST, BYTES_AT_MOST)
    )  # of every process of the tests too
    args.json.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(args.json.read_text())["mutants"] if args.json.exists() else {}
    drawn, lock = sample(args.count, args.seed), threading.Lock()

    def keep(mutant: dict) -> None:
        with lock:
            results[mutant["key"]] = mutant
            print("{outcome:9}{file}:{line} {operator} by {by} in {seconds} s".format(**mutant), flush=True)
            text = json.dumps({"seed": args.seed, "count": args.count, "mutants": results}, indent=1)
            partial = args.json.with_suffix(".partial")
            partial.write_text(text + "\n")
            partial.replace(args.json)

    again = {key for key, mutant in results.items() if args.survivors and mutant["outcome"] == "survived"}
    judge([mutant for mutant in drawn if mutant["key"] not in results.keys() - again], keep)
    survivors = [mutant for mutant in drawn if results[mutant["key"]]["outcome"] == "survived"]
    print(f"\n{len(drawn) - len(survivors)} of {len(drawn)} lies were noticed; survivors:")
    for mutant in survivors:
        print(f"\n{mutant['file']}:{mutant['line']} ({mutant['operator']})", *mutant["change"], sep="\n  ")


if __name__ == "__main__":
    main()
