import json
from types import SimpleNamespace

import mxnet as mx
import pytest

from latse.bench import dmlc_rule, result
from latse.bench import plan_command as bench_plan
from latse.bench.contender import Race
from latse.child import in_child
from latse.cli import main
from latse.errors import LatseError
from latse.graph.nodes import Node
from latse.plan import memonger
from latse.plan.plan_graph import PlanGraph
from latse.train.training import traced

CPU = mx.cpu()
COMMAND = ["bench", "plan", "--classes", "7"]
FIGURES = (
    bench_plan.PLANNED,
    bench_plan.PLANNED_FALL,
    bench_plan.RESIDENT_FALL,
    bench_plan.RATIO,
    bench_plan.PROCESSOR_RATIO,
)
OURS = [bench_plan.PLAIN, bench_plan.RULE, bench_plan.LEAST, bench_plan.TIMED]


def names(symbol):
    """The nodes of a Symbol that are computed again."""
    nodes = json.loads(symbol.tojson())["nodes"]
    return [node["name"] for node in nodes if "__force_mirroring__" in node.get("attrs", {})]


@pytest.fixture(scope="module")
def teacher(tiny_recipe):
    """The graph of a ResNet-34 with its head, batch 2."""
    return PlanGraph(*traced(tiny_recipe("encoder.name=resnet34"), 5, 2))


@pytest.fixture(scope="module")
def student(tiny_recipe):
    """The graph of a student with decoder, batch 2."""
    return PlanGraph(*traced(tiny_recipe("decoder.enabled=true"), 5, 2))


@pytest.fixture(scope="module")
def compared(tiny, tmp_path_factory):
    """The JSON of a comparison."""
    path = tmp_path_factory.mktemp("compare") / "tiny.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PEERS", raising=False)
        assert main([*COMMAND, str(tiny), "--batch-size", "2", "--repeats", "2", "--json", str(path)]) == 0
    return path


def test_stages_end_where_insightface_marks_them(teacher):
    marked = [teacher.nodes[i].name for i in sorted(dmlc_rule.stage_ends(teacher))]
    units = [3, 4, 6, 3]
    assert len(marked) == sum(units)
    assert [name for name in marked if name.endswith("_sc_fwd")] == [
        f"stage{n}_unit1_sc_fwd" for n in (1, 2, 3, 4)
    ]
    # All sums but the last of each stage are the input, and so the shortcut, of a unit that keeps the shape.
    sums = [name.split("__plus")[0] for name in marked if not name.endswith("_sc_fwd")]
    assert sums == [f"stage{n}_unit{unit}" for n, count in enumerate(units, 1) for unit in range(1, count)]


def test_stages_of_a_decoder_end_at_its_shortcuts(student):
    marked = [student.nodes[i].name for i in dmlc_rule.stage_ends(student)]
    in_decoder = [name for name in marked if name.startswith("decoder")]
    assert len(in_decoder) == 8
    assert sum(name.endswith("_sc_fwd") for name in in_decoder) == 4


def test_stages_by_hand():
    # Six nodes of 4, 4, 8, 2, 2, 100 bytes behind a variable; a stage may end at nodes 2, 4 and 5.
    nodes = SimpleNamespace(
        nodes=[Node("null", "data"), *[Node("relu", "x")] * 6], sizes=[[50], [4], [4], [8], [2], [2], [100]]
    )
    ends = frozenset({2, 4, 5})
    assert dmlc_rule.stages(nodes, ends, 0) == dmlc_rule.Stages(frozenset({2, 4, 5}), 8, 10)
    assert dmlc_rule.stages(nodes, ends, 7) == dmlc_rule.Stages(frozenset({2, 4}), 6, 10)
    assert dmlc_rule.stages(nodes, ends, 8) == dmlc_rule.Stages(frozenset({4}), 2, 18)
    assert dmlc_rule.stages(nodes, ends, 20) == dmlc_rule.Stages(frozenset(), 0, 0)


def test_rule_keeps_the_ends_of_stages_and_what_may_not_be_repeated(teacher):
    ends = dmlc_rule.stage_ends(teacher)
    again = names(dmlc_rule.marks(teacher, ends).on(teacher.symbol()))
    assert again
    assert not {teacher.nodes[i].name for i in ends}.intersection(again)
    assert not [name for name in again if "dropout" in name or "custom" in name]


def test_rule_finds_less_than_the_plain_graph_takes(teacher):
    shapes = {"data": (2, 3, 112, 112), "softmax_label": (2,)}
    found = dmlc_rule.search(teacher.symbol(), shapes, CPU)
    assert found.megabytes < memonger.planned_megabytes(teacher.symbol(), shapes, CPU)
    assert names(found.symbol)


def test_comparison_measures_all_rows(compared):
    content = json.loads(compared.read_text())
    assert list(content["contenders"]) == OURS
    for figures in content["contenders"].values():
        assert len(figures[bench_plan.STEP]["values"]) == len(figures[bench_plan.PROCESSOR]["values"]) == 2
        assert figures[bench_plan.RESIDENT]["median"] > figures[bench_plan.PLANNED]["median"] / 2 > 0
    plain, *_, timed = content["contenders"].values()
    assert set(plain[bench_plan.RATIO]["values"] + plain[bench_plan.PROCESSOR_RATIO]["values"]) == {1.0}
    assert plain[bench_plan.PLANNED_FALL]["median"] == 0
    ratios = [a / b for a, b in zip(timed[bench_plan.STEP]["values"], plain[bench_plan.STEP]["values"])]
    assert timed[bench_plan.RATIO]["values"] == pytest.approx(ratios)
    fall = 100 * (1 - timed[bench_plan.PLANNED]["median"] / plain[bench_plan.PLANNED]["median"])
    assert timed[bench_plan.PLANNED_FALL]["median"] == pytest.approx(fall)
    assert (
        content["contenders"][bench_plan.LEAST][bench_plan.PLANNED]["median"]
        < plain[bench_plan.PLANNED]["median"]
    )


def test_comparison_is_a_result_for_the_page(compared):
    read = result.read(compared)
    assert read.kind == "plan compare"
    assert read.setting["batch size"] == "2"
    bounded = {goal.text: goal.at_most for goal in read.goals if goal.bound is not None}
    title = bench_plan.judged(read.contenders)
    assert bounded == {f"{bench_plan.RATIO}, {title}": bench_plan.TIME_RATIO}
    least = next(goal for goal in read.goals if goal.text.startswith("planned memory that no plan"))
    assert 0 < least.figure.median <= read.contenders[bench_plan.LEAST][bench_plan.PLANNED].median


@pytest.mark.parametrize(("ratio", "title"), [(1.25, bench_plan.LEAST), (1.26, bench_plan.TIMED)])
def test_goals_of_resnet50_and_resnet100(tiny_recipe, ratio, title):
    """They are for the plan of the least memory where that takes at most 1.25 times the plain step's time."""
    figures = {
        title: {name: bench_plan.Figure.of([1.0]) for name in FIGURES}
        for title in (bench_plan.LEAST, bench_plan.TIMED)
    }
    figures[bench_plan.LEAST][bench_plan.RATIO] = bench_plan.Figure.of([2.0, ratio, 1.0])
    rows = [bench_plan.Row(title, "", 1.0, bench_plan.PLAIN, 1.0, 1.0) for title in figures]
    wanted = {}
    for encoder, batch_size in (("resnet50", 32), ("resnet50", 8), ("resnet100", 32)):
        recipe = tiny_recipe(f"encoder.name={encoder}", f"train.batch_size={batch_size}")
        found = bench_plan.goals(rows, figures, recipe)
        bounds = {goal.text: goal.bound for goal in found}
        assert bounds.pop(f"{bench_plan.RATIO}, {title}") == bench_plan.TIME_RATIO
        wanted[encoder, batch_size] = {text: bound for text, bound in bounds.items() if bound is not None}
    resident, planned = f"resident fall, {title}", f"planned memory, {title}"
    assert wanted == {
        ("resnet50", 32): {resident: 45, planned: 850},
        ("resnet50", 8): {resident: 45},
        ("resnet100", 32): {f"planned fall, {title}": 60},
    }


def test_short_of_memory_contenders_run_one_after_the_other(tiny, tmp_path, monkeypatch, capsys):
    together = []

    def race(commands, repeats, title):
        together.append([*commands])
        answer = {"seconds": 1.0, "processor_seconds": 1.0}
        return {name: Race([answer] * repeats, {"rise_megabytes": 20.0}, {}) for name in commands}

    rows = [bench_plan.Row(title, mx.sym.var("x"), 10.0, bench_plan.PLAIN, 1.0, 1.0) for title in OURS]
    monkeypatch.setattr(bench_plan, "in_child", lambda *_: rows)
    monkeypatch.setattr(bench_plan, "race", race)
    for megabytes in (10.0, 1e9):
        monkeypatch.setattr(bench_plan, "_available_megabytes", lambda megabytes=megabytes: megabytes)
        assert main([*COMMAND, str(tiny), "--json", str(tmp_path / "x.json")]) == 0
    assert together == [*([title] for title in OURS), OURS]
    printed = capsys.readouterr().out
    assert "one after the other" in printed and "took turns" in printed


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        (["encoder.name=resnet50"], True),
        (["encoder.name=resnet_tiny"], False),
        (["encoder.name=resnet50", "decoder.enabled=true"], False),
        (["encoder.name=resnet50", "filter.k=1"], False),
    ],
)
def test_networks_that_insightface_has(tiny_recipe, overrides, known):
    assert bench_plan.is_insightfaces(tiny_recipe(*overrides)) == known


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--repeats", "1"], "--repeats 1: must be at least 2"),
        (["--peers", "nowhere"], "--peers nowhere: there is no such folder"),
    ],
)
def test_bad_options_are_one_sentence(tiny, options, sentence, capsys):
    assert main([*COMMAND, str(tiny), *options]) == 1
    assert capsys.readouterr().err.startswith(f"latse: {sentence}")


def test_a_gpu_is_refused(tiny, monkeypatch, capsys):
    monkeypatch.setattr("latse.paper.plan_command.contexts", lambda _: [mx.gpu(0)])
    assert main([*COMMAND, str(tiny)]) == 1
    assert "on the CPU, not on gpu" in capsys.readouterr().err


def test_an_error_of_the_search_comes_back():
    with pytest.raises(LatseError, match="cannot be inferred"):
        in_child("the search", bench_plan.our_rows, mx.sym.FullyConnected(num_hidden=3), {})
