"""`latse recipes`: the shipped ones, one of them whole, and the page of all keys."""

import re
from pathlib import Path

import yaml

from latse import recipe as recipes
from latse.cli import main
from latse.recipe_keys import KEYS

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def printed(capsys, *arguments):
    assert main(["recipes", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_page_has_every_key_and_every_shipped_recipe(capsys):
    first_cells = re.findall(r"^\| `?([\w.]+)`? \|", PAGE.read_text(), re.MULTILINE)
    default = recipes.as_dict(recipes.default())
    assert {f"{section}.{key}" for section, keys in default.items() for key in keys} <= {*first_cells}
    assert {path.stem for path in recipes.SHIPPED.rglob("*.yaml")} <= {*first_cells}
    assert {*printed(capsys, "--keys").splitlines()} <= {*PAGE.read_text().splitlines()}
    assert all(key.meaning.endswith(".") for key in KEYS.values())


def test_the_shipped_recipes_are_listed_with_what_they_train(capsys):
    lines = printed(capsys).splitlines()
    shipped, studies = (
        sorted(path.stem for path in folder.glob("*.yaml")) for folder in (recipes.SHIPPED, recipes.STUDIES)
    )
    assert [line.split()[0] for line in lines] == ["recipes:", *shipped, "studies,", *studies]
    assert all(line.endswith((".", ":")) for line in lines)


def test_a_recipe_is_shown_whole_with_what_set_each_value(capsys, tmp_path):
    text = printed(capsys, "orl_student", "--set", "filter.k=1", "--set", "margin.name=arcface")
    expected = recipes.load("orl_student", ["filter.k=1", "margin.name=arcface"])
    assert yaml.safe_load(text) == recipes.as_dict(expected)
    origins = {line.split(":")[0].strip(): line.partition("# ")[2] for line in text.splitlines()}
    assert origins["enabled"] == "orl_student"
    assert origins["batch_size"] == "orl_teacher (base of orl_student)"
    assert (origins["k"], origins["m2"]) == ("--set", "the default")
    assert re.search(r"^  name: arcface +# --set$", text, re.MULTILINE)
    (tmp_path / "again.yaml").write_text(text)
    assert recipes.load(tmp_path / "again.yaml") == expected


def test_a_wrong_recipe_is_one_sentence(capsys):
    assert main(["recipes", "orl_techer"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot read the recipe orl_techer" in error and "`latse recipes` lists" in error
    assert error.endswith("; did you mean orl_teacher?\n")
    for wrong, near in (
        ("train.batchsize=3", "train.batch_size"),
        ("trian.batch_size=3", "train"),
        ("schedule.lr=1", None),
    ):
        assert main(["recipes", "orl_teacher", "--set", wrong]) == 1
        error = capsys.readouterr().err
        assert error.endswith(f"; did you mean {near}?\n") if near else "did you mean" not in error
