"""What a message calls things: a file's values as its author wrote them, never as Python has them."""

import datetime
import re

import pytest
import yaml

from latse import recipe as recipes
from latse.cli import main
from latse.errors import LatseError
from latse.recipe_keys import CHANGEABLE, KEYS, OPEN
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
