"""Paths: whatever name the system takes for a file or folder, every command takes."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from latse import cli
from latse.data import orl_command
from latse.data.photographs.align import TEMPLATE
from latse.data.shards.shard_writer import write_shard
from latse.eval import margins_arguments, model_arguments
from latse.models import run_folder

DOCS = Path(__file__).parents[2] / "docs"
# A folder in another: what means something to shells, lists, options, patterns and formulas, and no UTF-8.
ODD = Path("-a 'b' \"c\"\n%s,1=x[0]*?{}$;#\\", os.fsdecode(b"$_caf\xe9 \xff"))
OWN = """\
import numpy as np
from latse.data.photographs.align import TEMPLATE
from latse.data.photographs.detect import Face
from latse.eval.protocol import Protocol
from latse.symbols.encoders.resnet import ResNetTiny
from latse.symbols.margins.family import CosFace

class Middle:
    def detect(self, photograph):
        return [Face(np.array([0, 0, 112, 112]), 0.9, TEMPLATE)]

class Spread(Protocol):
    def images(self):
        return np.arange(2 * 3 * 112 * 112, dtype=np.uint8).reshape(2, 3, 112, 112)

    def judge(self, features):
        return {"spread": features.std()}

class Own(CosFace):
    pass

class Encoder(ResNetTiny):
    pass
"""
RECIPE = """\
encoder: {name: resnet_tiny}
train: {batch_size: 4, iterations: 1}
schedule: {mode: constant, learning_rate: 0.01}
"""
STAGES = """\
base: tiny.yaml
decoder: {enabled: true, widths: [8, 8, 8, 8]}
train: {iterations: 3, checkpoint_every: 1, keep: all}
"""
STUDY = "recipe: tiny.yaml\nseeds: [0]\nrows: {line: {}}\nplots: {dots: {rows: [line], dots: accuracy}}\n"
RESULT = '{"asked": {"row": "line", "seed": 0, "settings": {}}, "sets": {"a": {"accuracy": 1}}}'
PAIRS = "1 1\nAnn\t1\t2\nAnn\t1\tBob\t1\n"
# (command, its words, in which @ is the odd folder); all end with status 0.
TAKEN = [
    ("study-page", "@/study.yaml --results @/found --page @/page.md --pictures @/out/pictures"),
    ("data align", "@/faces/Ann/Ann_0001.jpg --out @/out/al --detector @/own.py:Middle --json @/out/a.json"),
    ("data align", "@/faces/Ann/Ann_0001.jpg --out @/out/al-2 --landmarks @/five.csv"),
    ("data bin-to-npz", "@/pairs.bin @/out/plain.npz"),
    ("data clean", "@/set @/out/clean --verdicts @/verdicts.keep --k 5"),
    ("data clean", "@/noisy @/out/clean-2 --verdicts @/refused.tsv --move --merge"),
    ("data check", "@/set --json @/out/check.json --repair @/out/repaired --processes 1"),
    ("data fetch-orl", "--out @/out/orl --train-people 1,2 --test-people 3,4"),
    ("data merge", "@/set @/others @/out/merged"),
    (
        "data overlap",
        "@/set --pairs @/pairs.bin --model pca --train-data @/set --list @/out/o.tsv --sheet @/out/o.png "
        "--json @/out/o.json",
    ),
    ("data overlap", "@/set --pairs @/pairs.bin --without @/out/apart"),
    ("data noise", "@/set @/out/noise --distractor 0.2 --distractors @/others"),
    ("data pack", "@/faces @/out/pack --detector @/own.py:Middle --json @/out/p.json --processes 1"),
    (
        "data pack",
        "@/list.txt @/out/pack-2 --root @/faces --landmarks @/five.csv --processes 1 "
        "--leave-out Ann/Ann_0001.jpg",
    ),
    ("data pairs", "@/faces @/out/drawn.bin --pairs 2 --folds 1"),
    ("data pairs", "@/faces @/out/listed.bin --list @/pairs.txt"),
    ("data unpack", "@/set @/out/unpacked"),
    ("inspect", "@/net,0 --data @/set --pairs @/pairs.bin --json @/out/inspection.json"),
    (
        "train",
        "@/tiny.yaml --data @/set --out @/out/run --teacher @/run/student/model,0 "
        "--start @/run/student/model,0 --set filter.k=5",
    ),
    ("train", "@/tiny.yaml --data @/set --out @/out/run-2 --verdicts @/verdicts.keep --set filter.k=5"),
    ("recipes", "@/tiny.yaml"),
    ("filter", "--data @/set --teacher @/run/student/model,0 --out @/out/v.keep --json @/out/f.json"),
    ("filter", "--data @/set --teacher @/run/student/model,0 --centres dominant --out @/out/d.keep"),
    ("filter", "--data @/set --teacher pca --train-data @/set --centres means --out @/out/m.keep --check"),
    (
        "filter",
        "--data @/noisy --teacher pixels --centres means --out @/out/n.keep --list @/out/r.tsv "
        "--sheet @/out/r.png",
    ),
    ("plan", "@/tiny.yaml --data @/set --out @/out/plan.json --json @/out/planned.json"),
    ("plan", "--symbol @/net-symbol.json --shape data=1,3,112,112 --out @/out/s.json --planned @/out/g.json"),
    ("embed", "@/net,0 @/faces --out @/out/own.npy"),
    ("embed", "pca @/faces --out @/out/pca.npy --train-data @/set"),
    (
        "compare",
        "@/faces/Ann/Ann_0001.jpg @/faces/Ann/Ann_0001.jpg --aligned --model pca --train-data @/set "
        "--json @/out/c.json",
    ),
    (
        "eval",
        "--model @/net,0 net=@/net,0 @/rows-{set}.npy @/model.onnx pca --train-data @/set "
        "--pairs @/pairs.bin --json @/out/eval.json --figure @/out/eval.png --generated @/out/g.png "
        "--curves @/out/c.png",
    ),
    ("eval", "--model @/net,0 --protocol @/own.py:Spread"),
    (
        "identify",
        "--model @/net,0 pca --train-data @/set --probes @/set --distractors @/others "
        "--write-features @/out/kit --json @/out/i.json --figure @/out/i.png",
    ),
    (
        "identify",
        "--probe-features @/kit/probes --distractor-features @/kit/distractors --ending _pixels.bin "
        "--probe-list @/kit/probes.json --distractor-list @/kit/distractors.json --noisy-probes @/noisy.txt "
        "--noisy-distractors @/noisy.txt",
    ),
    ("figures", "--run @/run --data @/set --pairs @/pairs.bin --out @/out/figures --only 3"),
    (
        "figures",
        "--run @/run --data @/set --pairs @/pairs.bin --out @/out/figures --only 4 --k 5 "
        "--verdicts @/verdicts.keep",
    ),
    ("tables", "--only 1 --runs @ --json @/out/tables.json"),
    ("import", "@/run/student/model,0 --out @/out/imported --json @/out/im.json"),
    ("encoders list", "@/own.py:Encoder"),
    ("margins check", "@/own.py:Own --json @/out/m.json --classes 20"),
    ("margins plot", "arcface @/own.py:Own @/own.py:Own,m3=0.3 --out @/out/margins --classes 20"),
    ("report", "@/run --out @/out/report.html"),
    ("export", "@/run/student/model,0 --onnx @/out/m.onnx --plain @/out/plain --json @/out/x.json"),
    ("bench embed", "--model @/run/student/model,0 --batch-size 1 --repeats 1 --json @/out/e.json"),
    ("bench loader", "--data @/set --batch-size 4 --repeats 1 --threads 1 --json @/out/l.json"),
    ("bench page", "@/results --out @/out/page.md --chart @/out/chart.png --notes @/notes"),
]
# The same where it would take long, or much more than a folder; all are refused with a sentence.
REFUSED = [
    ("data overlap", "@/set --pairs @/none.bin --model @/net,0"),
    ("data synth-truth", "@/set --processes 1"),
    ("data synth", "--out @/set --people 2 --images 2 --sheet @/out/s.png --json @/out/s.json"),
    ("train", "@/tiny.yaml --data @/set --out @/out/run-3 --plan @/none"),
    (
        "compare",
        "@/faces/Ann/Ann_0001.jpg @/faces/Ann/Ann_0001.jpg --model @/net,0 --calibration @/none.json",
    ),
    ("templates", "--data @/set --model @/net,0 --train-data @/set --json @/out/t.json --photographs @/set"),
    ("figures", "--run @/run --data @/set --pairs @/pairs.bin --out @/out/f --only 4 --k 5 --teacher @/no,0"),
    (
        "tables",
        "--only 6 --data MS1MV3=@/set --pairs @/pairs.bin --runs @/out/r --probes @/set --distractors @/none "
        "--probe-list @/none --noisy-probes @/none --distractor-list @/none --noisy-distractors @/none",
    ),
    ("bench bank", "--people 1 --folder @/none --recipe @/none.yaml --json @/out/b.json"),
    ("bench loader", "--data @/set --repeats 1 --threads 1 --peer @/none.py"),
    ("bench head", "--repeats 0 --json @/out/x.json"),
    ("bench filter", "--repeats 0 --json @/out/x.json"),
    ("bench plan", "@/tiny.yaml --data @/set --json @/out/x.json --peers @/none --repeats 0"),
    ("bench search", "--probes 0 --json @/out/x.json"),
    ("bench train", "--json @/out/x.json --torch-python @/none --peers @/none"),
    (
        "study",
        "@/tiny.yaml --data @/set --others @/none --pairs @/none --out @/out/study --results @/kept "
        "--identification @/none",
    ),
    ("launch", "--hosts @/none -- true"),
    ("check-gpu", "--cpus 0 --out @/out/gpu.md --json @/out/gpu.json"),
    ("bench all", "@/out/all --peers @/none --only nothing"),
]
# What is no path.
NUMBERS = {int, float, orl_command.parse_people, margins_arguments._classes}
WORDS = {"leave_out", "set", "rows", "shape", "gpus", "kvstore", "ending", "parameters", "words"}
NAMES = {
    ("bench all", "only"),
    *((name, "encoder") for name in ("import", "bench embed", "bench filter", "bench train")),
}


def commands(parser, words=()):
    """Yield (name, parser) of every command below a parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in (item for action in below for item in action.choices.items()):
        yield from commands(command, (*words, name))
    if not below:
        yield " ".join(words), parser


def parser_of(name):
    """Return a new parser of a command: some declare their arguments when they first parse."""
    return dict(commands(cli._parser([name.split()[0]])))[name]


def test_no_path_of_a_command_is_forgotten(monkeypatch):
    for place, name in ((run_folder, "check"), (model_arguments, "check"), (model_arguments, "existing")):
        monkeypatch.setattr(place, name, lambda *_: None)  # "@" is no folder here
    every = {first: dict(commands(cli._parser([first]))) for first in cli.COMMANDS}
    for name in (name for first, names in every.items() for name in names if name.split()[0] == first):
        parser, tried = parser_of(name), []
        for words in (words for command, words in TAKEN + REFUSED if command == name):
            parser = parser_of(name)
            tried.append(parser.parse_args(words.split()))
        for action in parser._actions:
            is_path = action.nargs != 0 and action.type not in NUMBERS and not action.choices
            if is_path and action.dest not in WORDS and (name, action.dest) not in NAMES:
                assert any("@" in str(getattr(args, action.dest)) for args in tried), (name, action.dest)


def latse(command, words, folder):
    return cli.main([*command.split(), *(word.replace("@", str(folder)) for word in words.split())])


@pytest.fixture(scope="module")
def odd(tmp_path_factory, people, pairs_file, pictures, save_network):
    """The odd folder, with what the commands read."""
    folder = tmp_path_factory.mktemp("paths") / ODD
    shutil.copytree(people, folder / "set")
    shutil.copy(pairs_file, folder / "pairs.bin")
    write_shard(folder / "others", [(0, pictures[0][1]), (1, pictures[3][1]), (1, pictures[4][1])], 2)
    for person, number in (("Ann", 1), ("Ann", 2), ("Bob", 1)):
        path = folder / "faces" / person / f"{person}_{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[number + 5 * (person == "Bob")][1])
    points = ",".join(map(str, TEMPLATE.ravel()))
    files = [*(folder / "faces").rglob("*.jpg")]
    quoted = ['"{}"'.format(str(file).replace('"', '""')) for file in files]
    (folder / "five.csv").write_text(
        "".join(f"{file},{points}\n" for file in [*quoted, *(f"{f.parent.name}/{f.name}" for f in files)]),
        errors="surrogateescape",
    )
    for name, text in {
        "own.py": OWN,
        "tiny.yaml": RECIPE,
        "stages.yaml": STAGES,
        "study.yaml": STUDY,
        "page.md": "<!-- study: plot dots --><!-- end -->",
        "pairs.txt": PAIRS,
        "list.txt": "".join(f"{file.parent.name}/{file.name}\t{file.parent.name}\n" for file in files),
        "noisy.txt": "3.png\n1\tdistractors/1.png\n",
    }.items():
        (folder / name).write_text(text)
    (folder / "found" / "line").mkdir(parents=True)
    (folder / "found" / "line" / "seed-0.json").write_text(RESULT)
    save_network(folder / "net")
    np.save(folder / "rows-pairs.npy", np.random.default_rng(0).normal(size=(96, 4)))
    (folder / "results").mkdir()
    shutil.copy(DOCS / "performance_results" / "head.json", folder / "results")
    shutil.copytree(DOCS / "performance_notes", folder / "notes")
    for command, words in (
        ("train", "@/stages.yaml --data @/set --out @/run/student"),
        ("filter", "--data @/set --teacher @/run/student/model,0 --out @/verdicts.keep"),
        ("data noise", "@/set @/noisy --mislabel 0.3"),
        ("filter", "--data @/noisy --teacher pixels --centres means --out @/n.keep --list @/refused.tsv"),
        ("export", "@/run/student/model,0 --onnx @/model.onnx"),
        ("identify", "--model pixels --probes @/set --distractors @/others --write-features @/kit"),
    ):
        assert latse(command, words, folder) == 0
    shutil.copy(folder / "run" / "student" / "metrics.jsonl", folder)  # of the run of `net`
    return folder


@pytest.mark.parametrize("command, words", TAKEN)
def test_every_command_takes_every_path(odd, command, words, capsys):
    assert latse(command, words, odd) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command, words", REFUSED)
def test_every_command_refuses_with_a_sentence(odd, command, words, capsys):
    assert latse(command, words, odd) == 1
    assert capsys.readouterr().err.startswith("latse: ")


@pytest.mark.parametrize("setting", ["LC_ALL=C", "PYTHONIOENCODING=ascii"])
def test_whatever_the_locale_what_is_said_can_be_printed(odd, setting):
    name, value = setting.split("=")
    out = odd / f"é {name}.npz"
    done = subprocess.run(
        [sys.executable, "-m", "latse", "data", "bin-to-npz", odd / "pairs.bin", out],
        env={**os.environ, name: value},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.exists() and done.stdout.endswith(b".npz: 48 pairs of 24 images\n")
