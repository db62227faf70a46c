"""Recipes: a checked default, files over it, and one sentence for each mistake."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import latse.recipes
from latse import recipe as recipes
from latse.errors import LatseError
from latse.recipe_keys import KEYS
from latse.recipes_command import tables
from latse.symbols import margins

SHIPPED = sorted(Path(latse.recipes.__file__).parent.glob("*.yaml"))
ONE_OF_EACH_MARGIN = list({recipes.load(path).margin.name: path for path in SHIPPED}.values())


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def empty(write):
    return write("empty.yaml", "")


def refused(path, *overrides):
    """Return the one sentence with which a recipe is refused."""
    with pytest.raises(LatseError) as caught:
        recipes.load(path, overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_the_default_is_the_paper(empty):
    recipe = recipes.load(empty)
    train, schedule = recipe.train, recipe.schedule
    assert (train.batch_size, train.iterations, train.momentum, train.weight_decay) == (768, 24000, 0.9, 5e-4)
    assert (schedule.mode, schedule.learning_rate, schedule.factor) == ("step", 0.1, 0.1)
    assert schedule.steps == [10000, 16000, 20000, 22000]
    assert (recipe.margin.name, recipe.margin.s, recipe.encoder.dropout) == ("linearface", 64, 0.4)
    assert (recipe.decoder.l1_weight, recipe.decoder.similarity_weight) == (1, 1)
    assert recipe.filter.k is None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path):
    recipe = recipes.load(path)
    assert recipes.as_dict(recipe).keys() == recipes.default().keys()


def test_the_page_of_all_keys_is_what_the_code_says():
    written = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    for table in tables():
        assert table in written, "`latse recipes --keys` prints the tables of docs/recipes.md"


def test_there_are_shipped_recipes():
    assert {"orl_teacher", "orl_student"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("colour: {red: 1}", "'colour'"),
        ("train: {batchsize: 3}", "train.batchsize"),
        ("train: {1: 3}", "train.1"),
        ("train: 3", "'train'"),
        ("train:", "'train'"),
        ("schedule: {learning_rate: fast}", "schedule.learning_rate"),
        ("schedule: {learning_rate: null}", "schedule.learning_rate"),
        ("train: {batch_size: true}", "train.batch_size"),
        ("train: {batch_size: 3.0}", "train.batch_size"),
        ("train: {memory_plan: 1}", "train.memory_plan"),
        ("train: {kvstore: 3}", "train.kvstore"),
        ("train: {keep: true}", "train.keep"),
        ("train: {keep: 2.0}", "train.keep"),
        ("decoder: {enabled: 'yes'}", "decoder.enabled"),
        ("decoder: {momentum: true}", "decoder.momentum"),
        ("decoder: {widths: 64}", "decoder.widths"),
        ("decoder: {widths: [64, 32, 16, wide]}", "decoder.widths"),
        ("decoder: {widths: [64, 32, 16, true]}", "decoder.widths"),
        ("schedule: {steps: 10}", "schedule.steps"),
        ("schedule: {steps: [10, twenty]}", "schedule.steps"),
        ("schedule: {steps: [10, true]}", "schedule.steps"),
        ("filter: {k: '3'}", "filter.k"),
        ("filter: {k: true}", "filter.k"),
        ("filter: {k: 1.0}", "filter.k"),
        ("margin: {s: wide}", "margin.s"),
        ("margin: {a: wide}", "margin.a"),
        ("margin: {name: null}", "margin.name"),
        ("margin: {1: 3}", "margin.1"),
        ("margin: {null: 3}", "margin.null"),
        ("margin: {true: 3}", "margin.true"),
        ("schedule: {1.5: 3}", "schedule.1.5"),
        ("1: {a: 3}", "'1'"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_named(write, text, key):
    path = write("wrong.yaml", text)
    sentence = refused(path)
    assert str(path) in sentence
    assert key in sentence


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("encoder.name", ["resnet18"]),
        ("encoder.dropout", ["1", "-0.1"]),
        ("margin.s", [".nan", ".inf", "1e39"]),
        ("margin.a", [".nan"]),
        ("decoder.momentum", ["1", "-0.5", ".nan"]),
        (
            "decoder.widths",
            ["[]", "[64, 32, 16]", "[64, 32, 16, 8, 4]", "[64, 32, 16, 0]", "[64, 32, 16, 15447]"],
        ),
        ("decoder.l1_weight", ["-1", ".inf", "1e-38"]),
        ("decoder.similarity_weight", ["-1"]),
        (
            "decoder.losses",
            ["{l1: 1}", "{own.py:Own: -1}", "{own.py:Own: .inf}", "{own.py:Own: a}", "{1: 1}"],
        ),
        ("regularisers.exclusive", ["-1", ".nan"]),
        ("filter.k", ["0", "-1"]),
        ("train.batch_size", ["0"]),
        ("train.images_per_person", ["0", "-2"]),
        ("train.iterations", ["0"]),
        ("train.momentum", ["1", "-0.1"]),
        ("train.weight_decay", ["-1e-4", ".inf", "1e200", "1e-200"]),
        ("train.kvstore", ["locale", "dist", "''", "Local"]),
        ("train.checkpoint_every", ["0"]),
        ("train.keep", ["some", "''", "0", "-1", "[]", "[2, 1]", "[0, 1]", "[one]"]),
        ("train.log_every", ["0"]),
        ("schedule.mode", ["cosinus"]),
        ("schedule.learning_rate", ["0", "-0.1", ".nan", ".inf", "1e200", "3.41e38", "1.17e-38"]),
        ("schedule.factor", ["0", "1.1"]),
        ("schedule.steps", ["[10, 5]", "[5, 5]", "[1, 3, 2]", "[0]", "[0, 1]", "[-1, 3]"]),
        ("schedule.warmup", ["-1", "24000"]),
    ],
)
def test_a_value_out_of_range_is_named(empty, key, values):
    for value in values:
        assert key in refused(empty, f"{key}={value}")


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("train.kvstore", "head.kind=sampled"),
        ("train.kvstore", "train.precision=float16"),
        ("train.compression_threshold", "train.compression_threshold=0.5"),
    ],
)
def test_servers_that_move_parameters_take_whole_gradients_in_float32(empty, key, other):
    assert recipes.load(empty, ["train.kvstore=dist_async"]).train.kvstore == "dist_async"
    assert refused(empty, "train.kvstore=dist_async", other).startswith(f"--set: {key} is ")


@pytest.mark.parametrize("key", [name for name, key in KEYS.items() if int in key.types or list in key.types])
@pytest.mark.parametrize("number", [2**31, 10**12, 10**400, -(2**31)])
def test_a_number_that_no_machine_holds_is_named(empty, key, number):
    value = [number] * 4 if type(KEYS[key].default) is list else number
    must = f"must be {KEYS[key].must.says}, and no number above 2147483647 in size"
    assert refused(empty, f"{key}={value}") == f"--set: {key} is {value}, {must}"


def test_an_unknown_margin_or_margin_parameter_is_named(write):
    path = write("wrong.yaml", "margin: {name: arcface, a: 0.88}")
    sentence = refused(path)
    assert str(path) in sentence
    assert "'arcface' has no parameter 'a'" in sentence
    assert "'circle'" in refused(write("wrong.yaml", "margin: {name: circle}"))


def test_a_scale_out_of_range_is_named(empty):
    for value in ("0", "-64"):
        assert f"margin.s: s is {float(value)}, must be positive" in refused(empty, f"margin.s={value}")


def test_a_margin_takes_its_own_parameters_and_has_all_of_them(write):
    recipe = recipes.load(write("arc.yaml", "margin: {name: arcface, s: 30, m2: 1}"))
    assert recipes.as_dict(recipe.margin) == {"name": "arcface", "s": 30.0, "m2": 1.0}
    recipe = recipes.load(write("line.yaml", "margin: {name: linearface, a: 1}"))
    assert recipes.as_dict(recipe.margin) == {"name": "linearface", "s": 64.0, "a": 1.0, "b": 0.88}


@pytest.mark.parametrize("name", margins.MARGINS)
@pytest.mark.parametrize("path", ONE_OF_EACH_MARGIN, ids=lambda path: path.stem)
def test_a_shipped_recipe_takes_every_margin(path, name):
    """A margin's own parameters go, but for s where the other has it; all those of the other are there."""
    shipped, parameters = recipes.as_dict(recipes.load(path).margin), margins.parameters(name)
    changed = recipes.as_dict(recipes.load(path, [f"margin.name={name}"]).margin)
    scale = {key: shipped[key] for key in ("s",) if key in parameters}
    assert changed == (shipped if name == shipped["name"] else {"name": name, **parameters, **scale})
    for own in shipped.keys() - {"name"} - parameters.keys():
        assert f"has no parameter '{own}'" in refused(path, f"margin.name={name}", f"margin.{own}=1")


LINEAR = {"name": "linearface", "s": 64.0, "a": 0.88, "b": 0.88}
ARCFACE = {"name": "arcface", "s": 64.0, "m2": 0.5}


@pytest.mark.parametrize(
    ("name", "margin", "encoder", "decoder", "k"),
    [
        ("casia_arcface", ARCFACE, "resnet50", False, None),
        ("casia_sphereface", {"name": "sphereface", "s": 64.0, "m1": 1.35}, "resnet50", False, None),
        ("casia_cosface", {"name": "cosface", "s": 64.0, "m3": 0.35}, "resnet50", False, None),
        ("casia_teacher", LINEAR, "resnet50", False, None),
        ("casia_linearface_088_1", {**LINEAR, "b": 1.0}, "resnet50", False, None),
        ("casia_linearface_1_1", {**LINEAR, "a": 1.0, "b": 1.0}, "resnet50", False, None),
        ("casia_student_ts", LINEAR, "resnet50", False, 3),
        ("casia_gen", LINEAR, "resnet50", True, None),
        ("casia_student", LINEAR, "resnet50", True, 3),
        *((f"ms1mv2_arcface_r{n}_teacher", ARCFACE, f"resnet{n}", False, None) for n in (34, 50, 100)),
        *(
            (f"ms1mv2_arcface_r{n}_student_k{k}", ARCFACE, f"resnet{n}", False, k)
            for n in (34, 50, 100)
            for k in (1, 3)
        ),
        ("ms1mv2_student", LINEAR, "resnet100", True, 3),
        ("ms1mv3_student", LINEAR, "resnet100", True, 3),
    ],
)
def test_the_recipe_of_a_row(name, margin, encoder, decoder, k):
    """What a row of Tables 1 to 6 names; all else is §4.1's, the default."""
    recipe = recipes.load(recipes.SHIPPED / f"{name}.yaml")
    assert recipes.as_dict(recipe.margin) == margin
    assert (recipe.encoder.name, recipe.decoder.enabled, recipe.filter.k) == (encoder, decoder, k)
    settings, default = recipes.as_dict(recipe), recipes.as_dict(recipes.default())
    default["train"].update({"kvstore": "device", "memory_plan": True})
    assert settings["decoder"]["widths"] == [512, 256, 128, 64]
    for section in ("train", "schedule", "regularisers"):
        assert settings[section] == default[section]


def test_what_is_changed_of_a_shipped_recipe():
    path = recipes.SHIPPED / "casia_teacher.yaml"
    assert recipes.changed("casia_teacher", recipes.load(path)) == {}
    other = recipes.load(path, ["train.iterations=6", "encoder.name=resnet_tiny", "margin.a=0.88"])
    assert recipes.changed("casia_teacher", other) == {"encoder.name": "resnet_tiny", "train.iterations": 6}
    arcface = recipes.load(path, ["margin.name=arcface"])
    assert recipes.changed("casia_teacher", arcface) == {"margin.name": "arcface", "margin.m2": 0.5}
    assert recipes.changed("nobody's", other) is None


def test_another_margin_keeps_the_scale_if_it_has_one_and_there_and_back_is_the_default(write):
    path = write("wide.yaml", "margin: {s: 30, a: 1}")
    other = recipes.load(write("arc.yaml", "base: wide.yaml\nmargin: {name: arcface}")).margin
    assert recipes.as_dict(other) == {"name": "arcface", "s": 30.0, "m2": 0.5}
    there_and_back = recipes.load(path, ["margin.name=arcface", "margin.name=linearface"]).margin
    assert recipes.as_dict(there_and_back) == {"name": "linearface", "s": 30.0, "a": 0.88, "b": 0.88}
    assert recipes.as_dict(recipes.load(path, ["margin.name=softmax"]).margin) == {"name": "softmax"}


def test_the_same_margin_keeps_its_parameters(write):
    path = write("wide.yaml", "margin: {s: 30, a: 1}")
    assert recipes.load(path, ["margin.name=linearface"]).margin.a == 1


OWN_MARGIN = """\
from latse.symbols.margins import Margin


class Own(Margin):
    def __init__(self, classes, s=64.0, c=0.1):
        super().__init__(classes, s)
        self._c = c

    def target_logit(self, F, theta):
        return self._s * (F.cos(theta) - self._c * theta)
"""


def test_a_margin_in_a_file_is_found_from_the_recipe_or_from_here(write, tmp_path, monkeypatch):
    file = write("own.py", OWN_MARGIN)
    path = write("own.yaml", "margin: {name: 'own.py:Own', c: 0.2}")
    whole = {"name": f"{file}:Own", "s": 64.0, "c": 0.2}
    assert recipes.as_dict(recipes.load(path).margin) == whole
    monkeypatch.chdir(tmp_path)
    assert recipes.as_dict(recipes.load("own.yaml").margin) == whole
    changed = recipes.load(write("empty.yaml", ""), ["margin.name=own.py:Own", "margin.c=0.2"]).margin
    assert recipes.as_dict(changed) == whole
    assert "has no parameter 'd'" in refused(path, "margin.d=1")
    assert "nowhere.py" in refused(write("none.yaml", "margin: {name: 'nowhere.py:Own'}"))


@pytest.mark.parametrize("k", [None, 1, 3])
def test_k(write, k):
    assert recipes.load(write("k.yaml", f"filter: {{k: {'null' if k is None else k}}}")).filter.k == k


@pytest.mark.parametrize("text", ["1", "1.0", "1e0", "1.0e0", "10e-1"])
def test_a_float_may_be_written_in_any_way(write, text):
    recipe = recipes.load(write("float.yaml", f"schedule: {{learning_rate: {text}}}"))
    assert recipe.schedule.learning_rate == 1.0
    assert type(recipe.schedule.learning_rate) is float


@given(rate=st.floats(1e-12, 1e6))
def test_a_float_survives_the_command_line(tiny, rate):
    assert recipes.load(tiny, [f"schedule.learning_rate={rate!r}"]).schedule.learning_rate == rate


def test_a_base_is_read_first_and_paths_are_relative_to_the_file(write, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    write("inner/root.yaml", "train: {iterations: 10, batch_size: 2}\nmargin: {a: 1}")
    write("inner/middle.yaml", "base: root.yaml\ntrain: {iterations: 20, log_every: 7}")
    path = write("top.yaml", "train: {log_every: 5}\nbase: inner/middle.yaml")
    monkeypatch.chdir(tmp_path / "inner")
    recipe = recipes.load(path, ["margin.b=2"])
    assert (recipe.train.batch_size, recipe.train.iterations, recipe.train.log_every) == (2, 20, 5)
    assert (recipe.margin.a, recipe.margin.b) == (1, 2)


def test_a_mistake_in_a_base_names_the_base(write):
    base = write("base.yaml", "train: {batchsize: 3}")
    assert str(base) in refused(write("top.yaml", "base: base.yaml"))


def test_a_shipped_recipe_goes_by_its_name_from_any_folder(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = recipes.load(recipes.SHIPPED / "orl_teacher.yaml")
    (tmp_path / "orl_teacher").mkdir()  # a run's folder, say
    assert recipes.load("orl_teacher") == shipped
    path = write("mine.yaml", "base: orl_teacher\ntrain: {batch_size: 3}")
    assert recipes.load(path, ["train.batch_size=8"]) == shipped
    assert recipes.load(path).train.batch_size == 3
    write("orl_teacher.yaml", "train: {iterations: 9}")
    assert recipes.load("orl_teacher") == shipped
    assert recipes.load("orl_teacher.yaml").train.iterations == 9
    assert recipes.load("studies/../orl_teacher") == shipped


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.batch_size", 0),
        ("train.batch_size", "many"),
        ("margin.a", -1),
        ("margin.q", 1),
        ("train.q", 1),
    ],
)
def test_an_error_says_whether_file_base_or_set_is_at_fault(write, key, value):
    section, name = key.split(".")
    base = write("base.yaml", "train: {iterations: 9}")
    top = write("top.yaml", f"base: base.yaml\n{section}: {{{name}: {value}}}")
    assert refused(top).startswith(f"{top}: ")
    assert refused(base, f"{key}={value}").startswith("--set: ")
    assert refused(write("above.yaml", "base: top.yaml\ntrain: {log_every: 3}")).startswith(
        f"{top} (base of "
    )


def test_an_error_about_two_keys_says_what_set_both(write):
    path = write("warm.yaml", "schedule: {warmup: 20}")
    sentence = refused(path, "train.iterations=10")
    assert sentence == (
        f"{path}: schedule.warmup is 20, must be a whole number from 0 to train.iterations - 1 "
        "(train.iterations is 10, set by --set)"
    )
    assert "(train.batch_size is 768, set by the default)" in refused(path, "train.images_per_person=7")


def test_the_parameter_that_spoils_a_margin_is_the_one_that_is_named(write):
    path = write("wrong.yaml", "margin: {name: arcface, m2: 9}")
    assert refused(path, "margin.s=30").startswith(f"{path}: margin.m2: m2 is 9.0")
    assert refused(path, "margin.m2=0.3", "margin.s=0").startswith("--set: margin.s: s is 0.0")


def test_a_cycle_of_bases_is_refused(write):
    one = write("one.yaml", "base: two.yaml")
    two = write("two.yaml", "base: one.yaml")
    assert "its own base" in refused(one)
    assert "its own base" in refused(two)
    assert "its own base" in refused(write("self.yaml", "base: self.yaml"))
    assert "its own base" in refused(write("roundabout.yaml", "base: ../" + one.parent.name + "/one.yaml"))


def test_a_cycle_through_links_is_refused(write, tmp_path):
    (tmp_path / "again").symlink_to(tmp_path)
    assert "its own base" in refused(write("loop.yaml", "base: again/loop.yaml"))
    (tmp_path / "itself.yaml").symlink_to(tmp_path / "itself.yaml")
    assert "cannot read the recipe" in refused(tmp_path / "itself.yaml")


def test_a_missing_file_or_base_is_named(write, tmp_path):
    assert "nowhere.yaml" in refused(tmp_path / "nowhere.yaml")
    assert "nowhere.yaml" in refused(write("top.yaml", "base: nowhere.yaml"))
    assert str(tmp_path) in refused(tmp_path)


@pytest.mark.parametrize(
    "text", ["train: {", "train: [1", "\tx", "- 1\n- 2", "just words", "3", "a: !!python/none"]
)
def test_what_is_no_mapping_in_yaml_is_named(write, text):
    path = write("wrong.yaml", text)
    assert str(path) in refused(path)


def test_what_is_no_text_is_named(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert str(path) in refused(path)


@pytest.mark.parametrize(
    "override",
    ["", "train", "train.iterations", "iterations=3", ".iterations=3", "train.=3", "train.iterations=["],
)
def test_a_malformed_override_is_refused(empty, override):
    assert "--set" in refused(empty, override)


def test_overrides_win_in_their_order(tiny):
    recipe = recipes.load(
        tiny, ["train.iterations=7", "schedule.steps=[1, 2]", "train.iterations=8", "filter.k=null"]
    )
    assert (recipe.train.iterations, recipe.schedule.steps, recipe.filter.k) == (8, [1, 2], None)
    assert "--set" in refused(tiny, "train.colour=red")


def test_a_recipe_is_frozen_and_leaves_the_default_alone(tiny):
    recipe = recipes.load(tiny, ["schedule.steps=[1]"])
    with pytest.raises(AttributeError):
        recipe.train.iterations = 3
    assert recipes.default().schedule.steps == [10000, 16000, 20000, 22000]


def test_generative_losses_in_files_are_found_from_the_recipe(write):
    text = "from latse.symbols.losses import GenerativeLoss\nclass Own(GenerativeLoss):\n    pass\n"
    file = write("own.py", text)
    path = write("own.yaml", "decoder: {losses: {'own.py:Own': 2}}")
    assert recipes.load(path).decoder.losses == {f"{file}:Own": 2}
    wrong = refused(write("wrong.yaml", "decoder: {losses: {'own.py:No': 1}}"))
    assert "wrong.yaml: decoder.losses: " in wrong
    assert "own.py has no class No over latse.symbols.losses.GenerativeLoss" in wrong
