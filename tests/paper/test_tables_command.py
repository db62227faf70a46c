"""`latse tables`: a table end to end on a handful of made-up people, and its commands for the real sets."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from latse import recipe as recipes
from latse.cli import main
from latse.data.pairs.pairs import read_pairs
from latse.data.shards.records import Shard
from latse.paper import tables_command
from latse.paper.paper_tables import DATA_SETS, TABLES
from latse.paper.tables_arguments import NUMBERS

TINY = ("encoder.name=resnet_tiny", "train.batch_size=4", "train.iterations=1", "train.memory_plan=false")
TINY += ("decoder.widths=[8, 8, 8, 8]",)
CHANGES = [word for change in TINY for word in ("--set", change)]


def run(*arguments):
    return main(["tables", *map(str, arguments)])


@pytest.fixture(scope="module")
def shard(tmp_path_factory, people, pairs_file):
    """The five made-up people, and the pairs of eight others as if they were LFW and CALFW."""
    folder = tmp_path_factory.mktemp("sets") / "faces_emore"
    shutil.copytree(people, folder)
    for name in ("lfw", "calfw", "cfp_ff"):
        shutil.copy(pairs_file, folder / f"{name}.bin")
    return folder


@pytest.fixture
def commands(monkeypatch):
    """The commands that would run; each leaves the files that the real one does, without any content."""
    done, real = [], subprocess.run

    def fake(words, **options):
        if "latse" not in words:
            return real(words, **options)
        words = words[words.index("latse") + 1 :]
        done.append(words)
        if words[0] == "train":
            model = Path(words[words.index("--out") + 1]) / "model-0000.params"
            model.exists() or model.touch()  # a finished run is left as it is
        else:
            kind = {"eval": "verification", "identify": "identification"}[words[0]]
            command = {"command": " ".join(["latse", *words])}
            content = {"kind": kind, "provenance": command, "models": {}, "sets": {}}
            Path(words[words.index("--json") + 1]).write_text(json.dumps(content))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", fake)
    return done


def trained(done):
    return [Path(words[1]).stem for words in done if words[0] == "train"]


@pytest.fixture(scope="module")
def refined(tmp_path_factory, pictures, pairs_file):
    """The five people as if they were FaceScrub's, some of the eight as MegaFace's, one noisy of each."""
    folder = tmp_path_factory.mktemp("megaface")
    probes = {f"{person}/{number}.jpg": jpeg for number, (person, jpeg) in enumerate(pictures)}
    images = read_pairs(pairs_file).images[:8].transpose(0, 2, 3, 1)[..., ::-1]
    distractors = {f"1/2/{n}.png": cv2.imencode(".png", image)[1].tobytes() for n, image in enumerate(images)}
    for name, files in (("probes", probes), ("distractors", distractors)):
        for path, content in files.items():
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_bytes(content)
        (folder / f"{name}.json").write_text(json.dumps({"path": list(files)}))
    (folder / "probes.txt").write_text("# noisy\n0.jpg\n")
    (folder / "distractors.txt").write_text("1\t1/2/3.png\n")
    words = []
    for name in ("probe", "distractor"):
        words += [f"--{name}s", folder / f"{name}s", f"--{name}-list", folder / f"{name}s.json"]
        words += [f"--noisy-{name}s", folder / f"{name}s.txt"]
    return words


def line_of_ours(shown, folder):
    """Return the cells and the remarks of the line that shows the run in a folder."""
    (remarks,) = [line for line in shown.splitlines() if line.split("] ")[-1].startswith(f"{folder};")]
    (ours,) = [line for line in shown.splitlines() if f"ours, changed {remarks[:3]}" in line]
    return ours.split(remarks[:3])[1].split(), remarks


def test_tables_end_to_end(shard, refined, tmp_path, capfd, one_process):
    """Table 5's two rows and LATSE's teacher are trained, and judged on the sets there are.

    Table 6's rows on cleaned MegaFace share one of the runs. All are shown as changed.
    """
    out, written = tmp_path / "runs", tmp_path / "tables.json"
    given = "--only", 5, 6, "--data", f"MS1MV2={shard}", "--runs", out, "--json", written
    with one_process():
        assert run(*given, *CHANGES, "--kvstore", "local", *refined) == 0
    shown = capfd.readouterr().out
    assert shown.startswith("Table 5. ")
    pairs, megaface = shown.split("\n\nTable 6. ")
    names = ("ms1mv2_arcface_r100_teacher", "ms1mv2_student")
    for name in names:
        judged = json.loads((out / name / "verification.json").read_text())["sets"]
        assert judged.keys() == {"lfw", "calfw"}  # not cfp_ff, which is in no table
        percent = [100 * judged[one]["results"][name]["accuracy"] for one in ("lfw", "calfw")]
        cells, remarks = line_of_ours(pairs, out / name)
        assert cells == [*(f"{one:.2f}" for one in percent), "not", "run"]
        for change in TINY[:3]:
            assert change in remarks
        assert "trained on 5 people instead of the 85,742 of faces_emore" in remarks
        assert "LFW on 48 pairs instead of 6,000" in remarks
    assert (out / "ms1mv2_teacher" / "run.json").exists()
    judged = json.loads((out / names[0] / "identification.json").read_text())
    assert judged["left_out"] == {"probes": 1, "distractors": 1}
    cells, remarks = line_of_ours(megaface, out / names[0])
    model = judged["models"][names[0]]
    figures = model["sizes"]["7"]["rank_1"], model["tar_at_far"]["1e-06"]
    assert cells == [f"{100 * figure:.2f}" for figure in figures]
    assert "Identification on 7 distractors instead of 1,000,000" in remarks
    assert "15 probes instead of 3,530" in remarks
    assert "not refined" not in remarks
    table, _ = json.loads(written.read_text())["tables"]
    assert [row["recipe"] for row in table["rows"] if row["ours"]] == [f"{name}.yaml" for name in names]


def test_without_data_nothing_is_trained(commands, tmp_path, capsys):
    assert run("--runs", tmp_path / "nowhere") == 0
    shown = capsys.readouterr().out
    assert [line[:8] for line in shown.splitlines() if line.startswith("Table")] == [
        f"Table {number}." for number in range(1, 7)
    ]
    assert "changed" not in shown
    assert commands == []
    assert not (tmp_path / "nowhere").exists()


def test_every_row_of_a_given_set_is_trained_once_after_its_teacher(commands, shard, tmp_path):
    assert run("--data", f"casia={shard}", "--runs", tmp_path) == 0
    rows = {row.recipe for table in TABLES for row in table.rows if row.recipe}
    casia = {name[: -len(".yaml")] for name in rows if name.startswith("casia")}
    assert set(trained(commands)) == casia
    seen = set()
    for words in commands:
        if words[0] == "train":
            seen.add(Path(words[1]).stem)
            teacher = words[words.index("--teacher") + 1] if "--teacher" in words else None
            assert teacher in (None, f"{tmp_path}/casia_teacher/model,0")
            assert teacher is None or "casia_teacher" in seen
    judged = [words[words.index("--model") + 1].split("=")[0] for words in commands if words[0] == "eval"]
    assert sorted(judged) == sorted(casia)


def test_judged_again_only_for_other_sets_or_a_newer_model(commands, shard, tmp_path):
    def judged(*more):
        commands.clear()
        assert (
            run("--only", 6, "--data", f"MS1MV3={shard}", "--runs", tmp_path, "--probes", shard, *more) == 0
        )
        return [words[0] for words in commands if words[0] != "train"]

    assert judged() == ["eval", "identify"]
    assert judged() == []
    assert judged("--distractors", shard) == ["identify"]
    assert judged("--distractors", shard, "--pairs", shard / "lfw.bin") == ["eval"]
    os.utime(tmp_path / "ms1mv3_student" / "model-0000.params", (2**31, 2**31))
    assert judged("--distractors", shard, "--pairs", shard / "lfw.bin") == ["eval", "identify"]


@pytest.fixture
def megaface(tmp_path):
    """What MegaFace is made of, all empty: option -> path."""
    folder = tmp_path / "mega"
    files = {"probe-list": "p.json", "noisy-probes": "p.txt"}
    files.update({"distractor-list": "d.json", "noisy-distractors": "d.txt"})
    for name in ("probes", "distractors"):
        (folder / name).mkdir(parents=True)
    for name in files.values():
        (folder / name).touch()
    return {
        name: folder / file
        for name, file in {"probes": "probes", "distractors": "distractors", **files}.items()
    }


def options(inputs, *names):
    return [word for name in names for word in (f"--{name}", str(inputs[name]))]


@pytest.mark.parametrize(
    "lists", [(), ("probe-list", "noisy-probes", "distractor-list", "noisy-distractors")]
)
def test_megaface_is_judged_where_probes_are_given(commands, shard, tmp_path, megaface, lists):
    given = options(megaface, "distractors", *lists, "probes")
    assert run("--only", 6, "--data", f"MS1MV3={shard}", "--runs", tmp_path, *given, "--cpus", 2) == 0
    (identify,) = [words for words in commands if words[0] == "identify"]
    folder = tmp_path / "ms1mv3_student"
    order = ("probes", *lists[:2], "distractors", *lists[2:])
    model = ["--model", f"ms1mv3_student={folder}/model,0", "--json", f"{folder}/identification.json"]
    assert identify == ["identify", *options(megaface, *order), *model, "--cpus", "2"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["distractors"], "--distractors goes with --probes, which is missing"),
        (["probes", "noisy-probes"], "--noisy-probes goes with --probe-list"),
        (["probes", "distractor-list"], "--distractor-list goes with --distractors"),
        (["probes", "distractors", "noisy-distractors"], "--noisy-distractors goes with --distractor-list"),
    ],
)
def test_inputs_of_megaface_that_need_another_are_one_sentence(
    commands, shard, tmp_path, capsys, megaface, names, sentence
):
    given = options(megaface, *names)
    assert run("--only", 6, "--data", f"MS1MV3={shard}", "--runs", tmp_path, *given) == 1
    assert sentence in capsys.readouterr().err
    assert commands == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"kind": "verification"}', " lacks the key provenance, which must be an object with keys"),
        ('{"provenance": 3}', ": provenance is 3, must be an object with keys"),
        ("[]", ": it is [], must be an object with keys"),
    ],
)
def test_a_judgement_of_unknown_origin_is_one_sentence(commands, shard, tmp_path, capsys, content, said):
    given = "--only", 6, "--data", f"MS1MV3={shard}", "--runs", tmp_path
    assert run(*given) == 0
    judged = tmp_path / "ms1mv3_student" / "verification.json"
    judged.write_text(content)
    assert run(*given) == 1
    (error,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert error == f"latse: {judged}{said}"


def test_options_reach_every_training(commands, shard, tmp_path):
    given = "--only", 2, "--data", f"MS1MV2={shard}", "--runs", tmp_path, "--seed", 7, "--kvstore", "device"
    assert run(*given, *CHANGES, "--cpus", 2) == 0
    trainings = [words for words in commands if words[0] == "train"]
    assert len(trainings) >= 9
    for words in trainings:
        assert " ".join(words).endswith(f"--seed 7 --resume {following(words)}--kvstore device --cpus 2")


def following(words):
    teacher = f"--teacher {words[words.index('--teacher') + 1]} " if "--teacher" in words else ""
    return teacher + " ".join(CHANGES) + " "


def test_a_failed_training_ends_it(monkeypatch, shard, tmp_path, capsys):
    monkeypatch.setattr(subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 1))
    assert run("--only", 1, "--data", f"CASIA={shard}", "--runs", tmp_path) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("latse: latse train failed, see above: latse train")
    assert "casia_arcface" in error


def test_a_student_s_teacher_is_a_row_of_the_same_depth_without_filter():
    for row in {row.recipe for table in TABLES for row in table.rows if row.recipe}:
        recipe, teacher = recipes.load(recipes.SHIPPED / row), tables_command.teacher_of(row)
        assert (teacher is None) == (recipe.filter.k is None)
        if teacher:
            below = recipes.load(recipes.SHIPPED / teacher)
            assert (below.encoder, below.margin) == (recipe.encoder, recipe.margin)
            assert (below.filter.k, below.decoder.enabled) == (None, False)


def test_a_dry_run_plans_every_recipe(commands, shard, small_encoder, tmp_path, capsys):
    """Images and epochs are §4.1's iterations times the batch over the shard's 15; nothing is trained."""
    figures = tmp_path / "dry.json"
    tiny = "--set", f"encoder.name={small_encoder}", "--set", "train.batch_size=16", *CHANGES[-2:]
    given = "--only", 4, "--data", f"CASIA={shard}", "--dry-run", "--cpus", 8
    assert run(*given, *tiny, "--json", figures) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [f"casia_{name}" for name in ("teacher", "student_ts", "gen", "student")]
    assert [line.split()[0] for line in lines[2:6]] == names
    assert lines[2].split()[1:5] == ["24,000", "16", "384,000", "25600.0"]
    written = json.loads(figures.read_text())["recipes"]
    assert [written[name]["epochs"] for name in names] == [384_000 / 15] * 4
    assert written["casia_student"]["teacher_megabytes"] > 0 == written["casia_gen"]["teacher_megabytes"]
    assert (
        written["casia_gen"]["mean_faces_megabytes"]
        > 0
        == written["casia_student_ts"]["mean_faces_megabytes"]
    )
    assert commands == []


def test_without_a_shard_a_dry_run_takes_what_the_paper_s_set_holds(shard):
    assert tables_command._size("casia_gen.yaml", {}) == (10_572, 494_414)
    assert tables_command._size("ms1mv2_student.yaml", {}) == (85_742, 5_822_653)
    assert tables_command._size("ms1mv2_student.yaml", {"ms1mv2": Shard(shard)}) == (5, 15)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--data", "/somewhere"), "--data /somewhere: write NAME=FOLDER"),
        (("--data", "ORL=/somewhere"), "one of the names CASIA, MS1MV2, MS1MV3"),
        (("--data", "CASIA=nowhere"), "nowhere"),
        (("--data", "CASIA={people}"), "holds none of lfw.bin"),
        (("--data", "CASIA={shard}", "--pairs", "nowhere/lfw.bin"), "nowhere/lfw.bin"),
        (("--data", "CASIA={shard}", "--pairs", "{shard}/cfp_ff.bin"), "cfp_ff.bin"),
        (("--data", "CASIA={shard}", "--probes", "nowhere"), "--probes nowhere: there is no such file"),
        (("--data", "CASIA={shard}", "--set", "train.colour=red"), "train.colour"),
        (("--data", "CASIA={shard}", "--json", "{shard}/lfw.bin/t.json"), "cannot make the folder"),
        (("--dry-run", "--only", "5", "--cpus", "7"), "cannot be split over 7 devices"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(
    commands, shard, people, tmp_path, capsys, arguments, sentence
):
    words = [word.format(shard=shard, people=people) for word in arguments]
    assert run(*words, "--runs", tmp_path) == 1
    (error,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert error.startswith("latse: ")
    assert sentence in error
    assert commands == []


def test_only_takes_the_paper_s_numbers():
    with pytest.raises(SystemExit):
        run("--only", 7)


def test_help_names_the_sets_of_the_tables(capsys):
    with pytest.raises(SystemExit):
        main(["tables", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for name, data_set in DATA_SETS.items():
        assert f"{name.upper()} ({data_set.folder})" in said
    assert ", ".join(tables_command.VERIFIED) in said
    assert [table.number for table in TABLES] == [*NUMBERS]
