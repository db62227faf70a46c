"""The tables: the paper's text, the published figures, and runs made up file by file."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from latse.errors import LatseError
from latse.eval import tables

SETTINGS = {"encoder": {"name": "resnet50"}, "train": {"iterations": 24000}}
CASIA = {"images": 490_000, "people": 10572}


def table(number, folder="nowhere"):
    (found,) = [one for one in tables.filled(folder) if one.number == number]
    return found


def row(number, name, folder="nowhere"):
    (found,) = [one for one in table(number, folder).rows if one.name == name]
    return found


@pytest.fixture
def run(tmp_path):
    """Write the run.json of a run of a recipe, and results beside it."""

    def write(recipe="casia_teacher", folder=None, changed=None, data=CASIA, seed=0, **results):
        place = tmp_path / (folder or recipe)
        place.mkdir(parents=True)
        record = {
            "recipe": recipe,
            "seed": seed,
            "settings": SETTINGS,
            "changed": changed or {},
            "data": data,
        }
        (place / "run.json").write_text(json.dumps(record))
        for name, content in results.items():
            (place / f"{name}.json").write_text(json.dumps(content))
        return place

    return write


def origin(recipe="casia_teacher", source="out/run/model,0", seed=0, settings=SETTINGS):
    return {"recipe": recipe, "seed": seed, "settings": settings, "source": source}


def verification(models, accuracies, pairs=6000):
    """`models`: title -> origin; `accuracies`: set -> title -> fraction."""
    results = {
        name: {"pairs": pairs, "results": {title: {"accuracy": one} for title, one in of.items()}}
        for name, of in accuracies.items()
    }
    return {"kind": "verification", "models": models, "sets": results}


def identification(rank_1, tar, size=1_000_000, **sizes):
    figures = {str(size): {"rank_1": rank_1}, **{name: {"rank_1": one} for name, one in sizes.items()}}
    model = {"origin": origin(), "sizes": figures, "tar_at_far": {"1e-06": tar}}
    return {"kind": "identification", "distractors": size, "models": {"student": model}}


def test_the_paper_has_six_tables_with_these_rows_to_train():
    """The issue's list, written down here a second time."""
    depths = [
        f"ms1mv2_arcface_r{depth}_{end}"
        for depth in (34, 50, 100)
        for end in ("teacher", "student_k1", "student_k3")
    ]
    casia = [
        *("casia_arcface", "casia_sphereface", "casia_cosface"),
        *("casia_teacher", "casia_linearface_088_1", "casia_linearface_1_1"),
    ]
    recipes = {one.number: [row.recipe for row in one.rows if row.recipe] for one in tables.tables()}
    assert recipes == {
        1: [f"{name}.yaml" for name in casia],
        2: [f"{name}.yaml" for name in depths],
        3: [f"{name}.yaml" for name in depths],
        4: [f"casia_{name}.yaml" for name in ("teacher", "student_ts", "gen", "student")],
        5: ["ms1mv2_arcface_r100_teacher.yaml", "ms1mv2_student.yaml"],
        6: [
            f"{n}.yaml"
            for n in ("casia_arcface", "casia_student", "ms1mv2_arcface_r100_teacher", "ms1mv3_student")
        ],
    }


def test_figures_are_percent_of_the_table_s_columns():
    for one in tables.tables():
        assert set(one.columns) <= tables.COLUMNS.keys()
        for row in one.rows:
            published = row.published.figures if row.published else {}
            assert row.paper.keys() <= set(one.columns)
            assert published.keys() <= set(one.columns)
            assert all(50 < figure < 100 for figure in (*row.paper.values(), *published.values()))
            assert row.ours is None
            assert row.published is None or row.published.source


@pytest.mark.parametrize(
    ("number", "name", "figures"),
    [
        (1, "LinearFace(a=0.88, b=0.88)", (99.55, 97.01, 94.66)),
        (1, "SphereFace", (99.42,)),
        (2, "resnet50", (99.80, 95.80, 92.74)),
        (2, "resnet100(k=3)", (99.83, 96.10, 98.71)),
        (3, "resnet34(k=1)", (97.61, 98.03)),
        (4, "LinearFace+TS+Gen", (94.58, 90.33, 95.91)),
        (5, "Proposed LATSE", (99.82, 96.20, 93.48)),
        (6, "Proposed LATSE,r (large)", (99.14, 99.19)),
    ],
)
def test_the_paper_s_figures(number, name, figures):
    assert tuple(row(number, name).paper.values()) == figures


def test_table_2_repeats_what_insightface_published_of_other_training_data():
    """Its baselines on LFW and CFP-FP are the model zoo's of January 2018, not trained on MS1MV2."""
    for name, lfw, cfp_fp in (("resnet34", 99.65, 92.12), ("resnet50", 99.80, 92.74)):
        found = row(2, name)
        assert found.published.figures == {"lfw": lfw, "cfp_fp": cfp_fp}
        assert {key: found.paper[key] for key in ("lfw", "cfp_fp")} == found.published.figures
        assert "not on MS1MV2" in found.published.source


def test_nothing_is_ours_where_nothing_was_run(tmp_path):
    assert tables.filled(tmp_path) == tables.filled(tmp_path / "nowhere") == tables.tables()
    assert tables.text(table(4)).count("not run") == 4 * 3


def test_a_run_fills_its_row_in_every_table_that_has_it(run, tmp_path):
    accuracies = {"lfw": {"student": 0.99}, "agedb_30": {"student": 0.9}, "orl": {"student": 0.5}}
    place = run(verification=verification({"student": origin()}, accuracies))
    ours = tables.Measured({"lfw": 99.0, "agedb_30": 90.0}, str(place), ())
    assert row(1, "LinearFace(a=0.88, b=0.88)", tmp_path).ours == ours
    assert row(4, "LinearFace", tmp_path).ours == tables.Measured({"agedb_30": 90.0}, str(place), ())
    others = [
        one for number in (1, 4) for one in table(number, tmp_path).rows if one.recipe != "casia_teacher.yaml"
    ]
    assert [one.ours for one in others] == [None] * len(others)
    assert [table(number, tmp_path) for number in (2, 3, 5, 6)] == [table(number) for number in (2, 3, 5, 6)]


@pytest.mark.parametrize(
    "other",
    [
        origin(source="out/run/untrained,0"),
        origin(source="out/run/model,150"),
        origin(seed=1),
        origin(recipe="casia_student"),
        origin(settings={}),
        {"source": "pixels"},
    ],
    ids=["untrained", "earlier", "seed", "recipe", "settings", "baseline"],
)
def test_only_the_run_s_own_last_checkpoint_counts(run, tmp_path, other):
    accuracies = {"lfw": {"other": 0.6}}
    place = run(verification=verification({"other": other}, accuracies))
    assert table(1, tmp_path) == table(1)
    both = verification({"other": other, "mine": origin()}, {"lfw": {"other": 0.6, "mine": 0.7}})
    (place / "verification.json").write_text(json.dumps(both))
    assert row(1, "LinearFace(a=0.88, b=0.88)", tmp_path).ours.figures == {"lfw": pytest.approx(70)}


def test_megaface_takes_the_largest_gallery(run, tmp_path):
    run("casia_student", identification=identification(0.9, 0.8, **{"10": 0.99, "100000": 0.95}))
    assert row(6, "Proposed LATSE,r (CASIA)", tmp_path).ours is None  # that is another recipe's model
    model = identification(0.9, 0.8, **{"10": 0.99, "100000": 0.95})
    model["models"]["student"]["origin"] = origin("casia_student")
    run("casia_student", "again", identification=model)
    ours = row(6, "Proposed LATSE,r (CASIA)", tmp_path).ours
    assert (ours.figures, ours.differences) == ({"megaface_id": 90.0, "megaface_ver": 80.0}, ())


def test_megaface_s_verification_is_missing_where_that_far_was_not_measured(run, tmp_path):
    result = identification(0.9, None)
    result["models"]["student"]["origin"] = origin("casia_student")
    run("casia_student", identification=result)
    assert row(6, "Proposed LATSE,r (CASIA)", tmp_path).ours.figures == {"megaface_id": 90.0}
    (line,) = [one for one in tables.text(table(6, tmp_path)).splitlines() if one.startswith("  ours [")]
    assert line.endswith("90.00       not run")


def test_what_is_otherwise_is_said(run, tmp_path):
    changed = {"encoder.name": "resnet_tiny", "train.iterations": 6}
    few = {"images": 15, "people": 5}
    judged = verification({"student": origin()}, {"lfw": {"student": 1.0}}, pairs=48)
    place = run(changed=changed, data=few, verification=judged)
    differences = row(1, "LinearFace(a=0.88, b=0.88)", tmp_path).ours.differences
    assert differences == (
        "encoder.name=resnet_tiny",
        "train.iterations=6",
        "trained on 5 people instead of the 10,572 of faces_webface_112x112",
        "LFW on 48 pairs instead of 6,000",
    )
    shown = tables.text(table(1, tmp_path))
    number = re.search(r"ours, changed \[(\d)\]\s+100\.00\s+not run\s+not run", shown).group(1)
    assert f"[{number}] {'; '.join([str(place), *differences])}" in shown.splitlines()


def test_a_warm_start_is_said(run, tmp_path):
    place = run(verification=verification({"student": origin()}, {"lfw": {"student": 1.0}}))
    record = json.loads((place / "run.json").read_text())
    record.update({"start": "0123", "from": {"start": "zoo/r50,0"}})
    (place / "run.json").write_text(json.dumps(record))
    ours = row(1, "LinearFace(a=0.88, b=0.88)", tmp_path).ours
    assert ours.differences == ("started from zoo/r50,0",)


def test_a_run_that_does_not_say_what_is_changed_is_not_taken_for_the_recipe(run, tmp_path):
    place = run(verification=verification({"student": origin()}, {"lfw": {"student": 1.0}}))
    record = json.loads((place / "run.json").read_text())
    del record["changed"]
    (place / "run.json").write_text(json.dumps(record))
    assert "not compared" in row(1, "LinearFace(a=0.88, b=0.88)", tmp_path).ours.differences[0]


def test_the_run_nearest_to_the_row_counts(run, tmp_path):
    def judged(accuracy):
        return verification({"student": origin()}, {"lfw": {"student": accuracy}})

    run(folder="a", changed={"train.iterations": 6}, verification=judged(0.1))
    run(folder="b/deep/down", verification=judged(0.2))
    run(folder="c", verification=judged(0.3))
    run(folder="d")  # not judged at all
    ours = row(1, "LinearFace(a=0.88, b=0.88)", tmp_path).ours
    assert (ours.figures, Path(ours.folder).name) == ({"lfw": 20.0}, "down")


def test_the_text_has_paper_published_and_ours_below_each_other(run, tmp_path):
    judged = verification({"x": origin("casia_arcface")}, {"cfp_fp": {"x": 0.955}}, pairs=7000)
    run("casia_arcface", verification=judged)
    lines = tables.text(table(1, tmp_path)).splitlines()
    assert lines[0].startswith("Table 1. ")
    assert lines[2].split() == ["LFW", "CFP-FP", "AgeDB-30"]
    paper, published, ours = lines[4:7]
    assert paper.split() == ["ArcFace", "99.53", "95.56", "95.15"]
    assert published.split() == ["published", "[1]", "99.53", "95.56", "95.15"]
    assert re.split(r"\s\s+", ours.strip()) == ["ours [2]", "not run", "95.50", "not run"]
    assert lines[7].split() == ["SphereFace", "99.42", "-", "-"]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"kind": "identification", "models": {}}'])
def test_a_damaged_file_is_named(run, tmp_path, content):
    place = run()
    (place / "verification.json").write_text(content)
    with pytest.raises(LatseError, match="verification.json"):
        tables.filled(tmp_path)


def test_tables_can_be_written_as_json(run, tmp_path):
    run(verification=verification({"student": origin()}, {"lfw": {"student": 1.0}}))
    written = json.loads(json.dumps([dataclasses.asdict(one) for one in tables.filled(tmp_path)]))
    assert written[0]["rows"][3]["ours"]["figures"] == {"lfw": 100.0}
