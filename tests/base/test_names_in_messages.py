"""What a message calls things: a file's values as its author wrote them, never as Python has them."""

import copy
import datetime
import functools
import hashlib
import json
import math
import operator
import re

import mxnet as mx
import pytest
import yaml

from latse import recipe as recipes
from latse.bench import result
from latse.cli import main
from latse.data.shards import verdict_file
from latse.data.shards.names import read_names
from latse.errors import LatseError
from latse.eval import candidates, compare_command, figures, megaface
from latse.graph.nodes import Graph
from latse.paper import paper_tables, report_command
from latse.plan import file as plan_file
from latse.recipe_keys import CHANGEABLE, KEYS, OPEN
from latse.study import study_file
from latse.train import run_record

# What a message must not hold; "list", "set" and "bytes" are English, too.
PYTHON = re.compile(
    r"\b(None|True|False|NoneType|str|int|float|bool|dict|tuple|ndarray|CfgNode|datetime\S*|date\(.*|\w+Error)\b"
    r"|<class|object at|<unicode|unhashable|subscriptable|indices must|has no attribute|iterable"
)
WRONG = [
    "a word",
    7,
    -2.5,
    True,
    None,
    [1, "two"],
    {"a": 1},
    {},
    [],
    datetime.date(2001, 1, 1),
    b"\xff",
    {"a"},
]
PARAMETERS = [f"{section}.{key}" for section in OPEN for key in recipes.load("orl_student")[section]]


@pytest.mark.parametrize("key", {**KEYS, **dict.fromkeys(PARAMETERS)})
def test_a_wrong_type_in_a_recipe_is_told_in_yaml_and_with_what_may_be_there(tmp_path, key):
    section, name = key.split(".")
    types = KEYS[key].types if key in KEYS else (float,)
    must = KEYS[key].must.says if key in KEYS else "a number"
    for value in WRONG:
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({section: {name: value}}))
        try:
            recipes.load(path)
        except LatseError as error:
            sentence = str(error)
            assert not PYTHON.search(sentence.replace(str(path), "")), sentence
            assert sentence.startswith(f"{path}: {key}")
            if type(value) not in (*types, int):
                assert sentence == f"{path}: {key} is {recipes.in_yaml(value)}, must be {must}"
        else:
            assert type(value) in types or (type(value) is int and float in types)


@pytest.mark.parametrize("key", KEYS)
def test_a_setting_of_a_run_that_is_another_is_told_as_the_recipe_writes_it(tmp_path, key):
    section, name = key.split(".")
    new = {**dict.fromkeys(run_record.DECISIVE), "settings": recipes.as_dict(recipes.load("orl_student"))}
    for value in ["a word", 7, -2.5, True, None, [1, "two"]]:
        old = {**new, "settings": {**new["settings"], section: {**new["settings"][section], name: value}}}
        if key in CHANGEABLE or value == new["settings"][section][name]:
            run_record.gone_on(tmp_path, old, new, 3)
        else:
            with pytest.raises(LatseError) as caught:
                run_record.gone_on(tmp_path, old, new, 3)
            assert f"({key}: {recipes.in_yaml(value)}, not " in str(caught.value)
            assert not PYTHON.search(str(caught.value).replace(str(tmp_path), ""))
    for value in ("a word", 7, None, [1]):
        with pytest.raises(LatseError) as caught:
            run_record.gone_on(tmp_path, {**new, "settings": value}, new, 3)
        assert not PYTHON.search(str(caught.value).replace(str(tmp_path), ""))


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "false", "0", "''"),
        "train: [1, 2]",
        "null: {a: 1}",
        "true: {a: 1}",
        "2001-01-01: {a: 1}",
        "train: {2001-01-01: 1}",
        "train: {null: 1}",
        "base: [a]",
        "base: {a: 1}",
        "base: 2001-01-01",
        "a: 2001-02-31",
        "a: !!bool maybe",
        "a: !!int one",
        "a: !!timestamp one",
        "a: b: c",
        "a: [",
        "a: \x01",
        "[" * 5000,
    ],
)
def test_what_is_no_recipe_is_told_in_words(tmp_path, capsys, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert main(["recipes", str(path)]) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith(f"latse: {path}")
    assert sentence.count("\n") == 1
    assert not PYTHON.search(sentence.replace(str(path), "")), sentence


RATES, PROVENANCE = {"0.01": 0.5}, {"command": "latse eval", "versions": {"latse": "0.1.0"}}
JUDGED = {
    **{"accuracy": 0.9, "std": 0.1, "threshold": 1.5, "exact": {"accuracy": 0.9, "std": 0.1}},
    "val_at_far_1e-3": {"val": 0.5, "far": 0.001},
    **{"tar_at_far": RATES, "unresolved_far": ["0.001"], "auc": 0.9, "eer": 0.1},
    "intervals": {
        **{"unit": "people", "level": 0.95, "samples": 9},
        **{"accuracy": [0.8, 1.0], "auc": None, "eer": [0.0, 0.2], "tar_at_far": {"0.01": [0.4, 0.6]}},
    },
    "restoration": {"ssim": 0.5, "ssim_to_other": 0.4, "ssim_of_average": 0.3},
    "roc": {"far": [0.5, 1.0], "tar": [0.6, 1.0], "low": [0.5, 1.0], "high": [0.7, 1.0]},
    "histogram": {"edges": [-1.0, 0.0, 1.0], "same": [1, 2], "different": [2, 1]},
}
RUN = {
    "recipe": "casia_teacher",
    "settings": {"train": {"batch_size": 4}, "encoder": {"name": "resnet_tiny"}},
    "changes": [{"iteration": 2, "key": "train.keep", "from": 1, "to": 2}],
    **{"data": {"people": 5}, "changed": {"train.keep": 1}, "start": "a,0", "from": {"start": "a,0"}},
}
MODELS = {"m": {"origin": {"recipe": "casia_teacher", "source": "out/model,0", "settings": RUN["settings"]}}}
SEARCHED = {"tpir_at_fpir": RATES, "rank": {"1": 0.8}}
FIGURE = {"unit": "s", "median": 2.0, "min": 1.0, "max": 3.0}
SYMBOL = mx.sym.FullyConnected(mx.sym.relu(mx.sym.Variable("data")), num_hidden=2, name="fc1")


def written_verdicts(path, header):
    text = json.dumps(header).encode()
    content = b"LATSEKP2" + len(text).to_bytes(4, "little") + text + b"\0" * 3
    path.write_bytes(content + hashlib.blake2b(content, digest_size=32).digest())


def written_json(path, content):
    path.write_text(json.dumps(content))


def written_yaml(path, content):
    path.write_text(yaml.safe_dump(content))


def gathered(path):
    return report_command.gather(path.parent)


def read_tables(path):
    if not (path.parent / "run.json").exists():
        written_json(path.parent / "run.json", RUN)
    paper_tables.filled(path.parent)


# A file that somebody hands over: its name, what it holds, what writes it, and what reads it.
FILES = {
    "memory plan": (
        "plan.json",
        {
            **{"kind": "memory plan", "graph": plan_file.digest(Graph.read(SYMBOL))},
            **{"recomputed": [1], "kept": [], "read": []},
        },
        written_json,
        lambda path: plan_file.read_plan(path, SYMBOL),
    ),
    "list of images": (
        "list.json",
        {"path": ["a/1.png", "b/2.png"], "id": ["a", "b"]},
        written_json,
        megaface.read_image_list,
    ),
    "verdicts": (
        "a.keep",
        {"ks": [1, 3], "images": 3, **dict.fromkeys(verdict_file.BINDING, "0123")},
        written_verdicts,
        verdict_file.read,
    ),
    "names": (
        "pack.json",
        {"people": ["Ann", None], "files": {}},
        written_json,
        lambda path: read_names(path.parent, 2),
    ),
    "study": (
        "study.yaml",
        {
            "recipe": "orl_student",
            "seeds": [0, 1],
            "noise": {"some": {"mislabel": 0.2}},
            "claims": {"it helps": ["plain", "noisy"]},
            "rows": {"plain": {"train": {"keep": 1}}, "other": None, "noisy": {"noise": "some"}},
        },
        written_yaml,
        study_file.read_study,
    ),
    "benchmark": (
        "train.json",
        {
            "kind": "bench train",
            "provenance": {
                **{"command": "latse bench", "commit": None, "versions": {"latse": "1"}, "device": "cpu"},
                **{"cores": 2, "threads": 1, "date": "2026-01-01"},
                "machine": {"processor": "x", "processors": 2, "memory_gibibytes": 7.5},
            },
            "setting": {"batch_size": 4},
            "contenders": {"ours": {"step": FIGURE}},
            "goals": [{"text": "speed", "figure": FIGURE, "at_least": 1}],
        },
        written_json,
        result.read,
    ),
    "record of a run": ("run.json", RUN, written_json, lambda path: run_record.read(path.parent)),
    "run, for the report": ("run.json", RUN, written_json, gathered),
    "run, for the tables": ("run.json", RUN, written_json, read_tables),
    "metrics": (
        "metrics.jsonl",
        {"iteration": 1, "dloss": 2.0, "lr": 0.1},
        written_json,
        figures.read_metrics,
    ),
    "verification": (
        "verification.json",
        {
            **{"kind": "verification", "provenance": PROVENANCE, "models": MODELS},
            "sets": {"lfw": {"pairs": 3, "different_pairs": 1, "people": 2, "results": {"m": JUDGED}}},
        },
        written_json,
        gathered,
    ),
    "verification, for the tables": (
        "verification.json",
        {
            **{"kind": "verification", "models": MODELS},
            "sets": {"lfw": {"pairs": 3, "results": {"m": {"accuracy": 0.9}}}},
        },
        written_json,
        read_tables,
    ),
    "identification": (
        "identification.json",
        {
            **{"kind": "identification", "provenance": PROVENANCE, "probes": 3, "mates": 2, "distractors": 9},
            "left_out": {"probes": 1, "distractors": None},
            "models": {
                "m": {
                    **MODELS["m"],
                    "sizes": {"9": {"rank_1": 0.5, "cmc": {"1": 0.5, "2": 0.6}}},
                    **{"tar_at_far": {"1e-06": 0.5}, "unresolved_far": ["1e-06"]},
                }
            },
        },
        written_json,
        lambda path: (read_tables(path), gathered(path)),
    ),
    "calibration": (
        "eval.json",
        {
            **{"kind": "verification", "models": {"m": {"source": "pixels"}}},
            "sets": {
                "lfw": {
                    "results": {
                        "m": {
                            **{"threshold_at_far": {"0.01": 1.5}, "cosine_at_far": {"0.01": 0.25}},
                            **{"unresolved_far": ["0.001"]},
                            "intervals": {"cosine_at_far": {"0.01": [0.2, 0.3]}},
                        }
                    }
                }
            },
        },
        written_json,
        lambda path: compare_command.calibration(path, candidates.open_model("m=pixels")),
    ),
    "templates": (
        "templates.json",
        {
            **{"kind": "templates", "provenance": PROVENANCE},
            "models": {
                "m": {
                    **{"tar_at_far": RATES, "unresolved_far": ["0.01"], "tar_at_nearest_far": RATES},
                    **{**SEARCHED, "open_set": {"G1": SEARCHED}},
                }
            },
        },
        written_json,
        gathered,
    ),
    "figures": (
        "figures.json",
        {"kind": "figures", "provenance": PROVENANCE, "figures": {}, "absent": {"5": "no decoder"}},
        written_json,
        gathered,
    ),
}


def places(content, where=()):
    """Every place in a content, its own first, as the keys and numbers that lead there."""
    yield where
    parts = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, part in parts:
        yield from places(part, (*where, key))


def last(where):
    """The last key on the way to a place, that of a list for what is in it."""
    return next((key for key in reversed(where) if isinstance(key, str)), "")


def at(content, where):
    """What is at a place."""
    return functools.reduce(operator.getitem, where, content)


def replaced(content, where, value):
    """The content with another value at a place."""
    if not where:
        return value
    whole = copy.deepcopy(content)
    at(whole, where[:-1])[where[-1]] = value
    return whole


@pytest.mark.parametrize("title", FILES)
def test_a_wrong_type_in_a_file_is_told_by_key_and_with_what_may_be_there(tmp_path, title):
    name, content, write, read = FILES[title]
    path = tmp_path / name
    write(path, content)
    read(path)
    for where in places(content):
        held = at(content, where)
        for value in ["a word", 7, -2.5, True, None, [1, "two"], {"a": 1}, {}, [], math.nan, 10**400]:
            write(path, replaced(content, where, value))
            try:
                read(path)
            except LatseError as error:
                sentence = str(error)
                assert str(path) in sentence and "\n" not in sentence
                said = sentence.replace(str(path), "")
                assert not PYTHON.search(said), sentence
                if type(value) is not type(held):
                    assert last(where) in said, sentence
                    assert re.search(r"must|, not ", said), sentence


@pytest.mark.parametrize("title", ["verification", "identification", "templates"])
def test_a_report_of_odd_figures_is_a_page_or_one_sentence(tmp_path, title):
    """What is right by itself may be at odds with the rest: other numbers, or a part that is empty."""
    name, content, write, _ = FILES[title]
    odd = [
        re.sub(r"(?<=[ \[])-?\d+(\.\d+)?(?=[],}])", number, json.dumps(content))
        for number in ("7", "0", "-2")
    ]
    odd += [
        json.dumps(replaced(content, where, type(held)()))
        for where in places(content)
        for held in [at(content, where)]
        if isinstance(held, (list, dict))
    ]
    for text in odd:
        (tmp_path / name).write_text(text)
        try:
            report_command.page(gathered(tmp_path / name), {})
        except LatseError as error:
            assert str(tmp_path / name) in str(error)
            assert not PYTHON.search(str(error).replace(str(tmp_path), ""))
