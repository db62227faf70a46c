"""`latse filter`: stored verdicts are the teacher's own, after a kill too, and train the same student."""

import json

import cv2
import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.data.shards import verdict_file
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.models import checkpoint
from latse.symbols.networks import IMAGE_SHAPE
from latse.train import filter_command
from latse.train.verdicts import Judge, Stored, TopK


@pytest.fixture(scope="module")
def teacher(tiny, people, tmp_path_factory):
    """PREFIX,N of an untrained teacher, which is wrong about many images."""
    folder = tmp_path_factory.mktemp("teacher")
    assert main(["train", str(tiny), "--data", str(people), "--out", str(folder), "--seed", "5"]) == 0
    return f"{folder}/untrained,0"


@pytest.fixture(scope="module")
def stored(teacher, people, tmp_path_factory):
    """The file of verdicts on the made-up people."""
    path = tmp_path_factory.mktemp("verdicts") / "people.keep"
    assert judge(people, teacher, path) == 0
    return path


def judge(data, teacher, out, *arguments):
    places = ["--data", data, "--teacher", teacher, "--out", out]
    return main(["filter", *map(str, [*places, "--batch-size", 8, *arguments])])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_stored_and_online_verdicts_agree(teacher, stored, people, k):
    """On every image and its mirror image, in batches of another size."""
    shard = Shard(people)
    online = TopK(Judge(teacher, shard.classes, 4, [mx.cpu()]), k)
    offline, stream = Stored(stored, k, shard), BatchStream(shard, 4, seed=3)
    seen, kept = set(), []
    for iteration in range(60):
        batch = stream.batch(iteration)
        assert offline.keep(batch).tolist() == online.keep(batch).tolist()
        seen.update(zip(batch.record.tolist(), batch.mirrored.tolist()))
        kept.extend(offline.keep(batch))
    assert len(seen) == 2 * len(shard)
    assert (0 < np.mean(kept) < 1) == (k < 5)


def test_a_student_learns_the_same_from_both(tiny, teacher, stored, people, tmp_path, run_contents):
    recipe = tmp_path / "filtered.yaml"
    recipe.write_text(f"base: {tiny}\nfilter: {{k: 3}}\n")
    for name, source in (("online", ["--teacher", teacher]), ("stored", ["--verdicts", str(stored)])):
        out = str(tmp_path / name)
        assert main(["train", str(recipe), "--data", str(people), "--out", out, *source]) == 0
    online, offline = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("online", "stored")
    )
    assert offline["from"]["verdicts"] == str(stored)
    assert offline["teacher"] == online["teacher"]
    assert run_contents(tmp_path / "stored") == run_contents(tmp_path / "online")


def test_a_run_goes_on_only_with_verdicts_of_the_same_rule(tiny, teacher, stored, people, tmp_path, capsys):
    """The same teacher's: those by the people's means are of another rule."""
    recipe, out, means = tmp_path / "filtered.yaml", tmp_path / "out", tmp_path / "means.keep"
    recipe.write_text(f"base: {tiny}\nfilter: {{k: 3}}\ntrain: {{iterations: 1}}\nschedule: {{warmup: 0}}\n")
    assert judge(people, teacher, means, "--centres", "means", "--k", 3) == 0
    assert Stored(means, 3, Shard(people)).teacher == Stored(stored, 3, Shard(people)).teacher

    def train(*source):
        places = ["--data", people, "--out", out, *source]
        return main(["train", str(recipe), *map(str, places)])

    assert train("--verdicts", stored) == 0
    assert train("--verdicts", means, "--resume") == 1
    assert f"{out} holds a run with another rule" in capsys.readouterr().err
    assert train("--teacher", teacher, "--resume") == 0
    record = json.loads((out / "run.json").read_text())
    del record["rule"]
    (out / "run.json").write_text(json.dumps(record))
    assert train("--verdicts", means, "--resume") == 0


def test_what_it_prints_and_writes(teacher, people, tmp_path, capsys):
    out = tmp_path / "a.keep"
    assert judge(people, teacher, out, "--k", 2, 5, "--json", tmp_path / "a.json") == 0
    report, packed = json.loads((tmp_path / "a.json").read_text()), out.read_bytes()[-32 - 15 : -32]
    assert report["kind"] == "filter" and "mxnet" in report["provenance"]["versions"]
    assert (report["images"], report["judged_alone"], report["checked"]) == (15, 0, None)
    printed = capsys.readouterr().out
    for refused, k in enumerate((2, 5)):
        plain = np.mean([byte % 16 <= refused for byte in packed])
        mirrored = np.mean([byte // 16 <= refused for byte in packed])
        assert report["kept"][str(k)] == {"plain": plain, "mirrored": mirrored}
        assert f"k = {k}: {100 * plain:.2f} % of 15 images are kept, {100 * mirrored:.2f} % mirr" in printed


@pytest.mark.parametrize("arguments, faces", [((), 30), ((10,), 10), ((1000,), 30)])
def test_a_check_agrees(teacher, stored, people, tmp_path, capsys, arguments, faces):
    """With verdicts for three k, in batches of another size than they were made in."""
    report = tmp_path / "a.json"
    size = ("--batch-size", 6, "--json", report)
    assert judge(people, teacher, stored, "--check", *arguments, *size) == 0
    checked = {"faces": faces, "verdicts": 3 * faces, "different": 0}
    assert json.loads(report.read_text())["checked"] == checked
    assert f"the teacher contradicts 0 of {3 * faces} verdicts" in capsys.readouterr().out


@pytest.mark.parametrize("position, mirrored", [(0, 0), (9, 1), (14, 0)])
def test_a_check_finds_a_flipped_verdict(teacher, stored, people, tmp_path, capsys, position, mirrored):
    refusals = np.stack([verdict_file.read(stored).packed % 16, verdict_file.read(stored).packed // 16], 1)
    before = refusals[position, mirrored]
    refusals[position, mirrored] = before - 1 if before else 1
    out, report = tmp_path / "flipped.keep", tmp_path / "a.json"
    writer = verdict_file.VerdictWriter(out, *binding(teacher, people))
    writer.put(np.arange(15), np.array([0, 1, 3, 5])[refusals])
    writer.finish()
    assert judge(people, teacher, out, "--check", "--json", report) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"{out}: the teacher contradicts 1 of 90 verdicts")
    assert json.loads(report.read_text())["checked"] == {"faces": 30, "verdicts": 90, "different": 1}


@pytest.mark.parametrize("least, most, contradicts", [(0, 0, "refused"), (0, 1, None), (1, 1, "kept")])
def test_what_rounding_leaves_open_contradicts_nothing(least, most, contradicts, tmp_path):
    class Rounded:
        def again(self, faces, ks):
            yield filter_command.Answer(faces, np.full(len(faces), least), np.full(len(faces), most))

    for name, byte in (("kept", 0x00), ("refused", 0x11)):
        verdicts = verdict_file.Verdicts(tmp_path, {}, (1,), np.full(3, byte, np.uint8))
        different = 6 if name == contradicts else 0
        assert filter_command.check(Rounded(), verdicts)["different"] == different


def test_near_ties_are_judged_alike_in_any_batch_and_on_any_devices(teacher, people, tmp_path):
    """By class centres of one direction, so that rounding alone ranks them."""
    symbol, args, aux = checkpoint.load(teacher.split(",")[0], 0)
    lengths = np.array([[1], [1 / 3], [7], [0.1], [1.7]])
    args["fc7_weight"] = mx.nd.array(args["fc7_weight"].asnumpy()[:1] * lengths)
    checkpoint.save(tmp_path / "tied", 0, symbol, args, aux)
    report, files = tmp_path / "a.json", set()
    for size, devices in ((2, 1), (8, 1), (30, 1), (6, 2)):
        out = tmp_path / f"{size}-{devices}.keep"
        more = ("--batch-size", size, "--cpus", devices, "--check", "--json", report)
        assert judge(people, f"{tmp_path / 'tied'},0", out, *more) == 0
        assert json.loads(report.read_text())["judged_alone"] == 30
        files.add(out.read_bytes())
    assert len(files) == 1


def cosines_of(teacher, shard, mirrored):
    """The cosines of all images with the teacher's class centres, float64 (n, 5)."""
    symbol, args, aux = checkpoint.load(teacher.split(",")[0], 0)
    embedding = checkpoint.pick_outputs(symbol, ["fc1_output"], teacher)
    every = np.arange(len(shard))
    data = mx.nd.array(shard.batch(every, np.full(len(shard), mirrored)).image)
    names = embedding.list_arguments()
    arrays = {"data": data, **{name: array for name, array in args.items() if name in names}}
    executor = embedding.bind(mx.cpu(), arrays, aux_states=aux)
    features, centres = (
        array.asnumpy().astype(float) for array in (executor.forward(is_train=False)[0], args["fc7_weight"])
    )
    features, centres = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (features, centres))
    return features @ centres.T


@pytest.mark.parametrize("devices", [1, 2])
def test_the_list_is_of_the_teachers_own_centres(teacher, stored, people, tmp_path, devices):
    made, shard = tmp_path / "a.tsv", Shard(people)
    assert judge(people, teacher, stored, "--cpus", devices, "--list", made) == 0
    lines = [line.split("\t") for line in made.read_text().splitlines() if not line.startswith("#")]
    rows = {int(row["record"]): row for row in (dict(zip(lines[0], line)) for line in lines[1:])}
    both = np.stack([cosines_of(teacher, shard, mirrored) for mirrored in (False, True)])
    own = np.take_along_axis(both, np.tile(shard.labels, (2, 1))[..., None], 2)
    ranks = (both > own).sum(axis=2)
    refused = np.flatnonzero((ranks >= 1).all(axis=0))
    assert sorted(rows) == shard.records[refused].tolist() and len(rows) > 3
    others = np.where(np.arange(5) == shard.labels[:, None], -2, both)
    kept = np.setdiff1d(np.arange(15), refused)
    threshold = (np.median(own[0, kept]) + np.median(others[0, kept].max(axis=1))) / 2
    assert f"# threshold: {threshold:.4f}" in made.read_text()
    for position in refused:
        row = rows[shard.records[position]]
        face = int(ranks[1, position] < ranks[0, position])
        other = others[face, position].argmax()
        mine, theirs = own[face, position, 0], others[face, position, other]
        assert (int(row["rank"]), int(row["likeliest other"])) == (ranks[face, position], other)
        np.testing.assert_allclose(
            [float(row[name]) for name in ("own cosine", "other's cosine")], [mine, theirs], atol=6e-5
        )
        assert row["looks like"] == (str(other) if theirs > max(mine, threshold) else "nobody")


def test_two_devices_say_the_same(teacher, stored, people, tmp_path):
    assert judge(people, teacher, tmp_path / "a.keep", "--cpus", 2) == 0
    assert (tmp_path / "a.keep").read_bytes() == stored.read_bytes()


def test_a_killed_run_goes_on(teacher, stored, people, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    put, calls = verdict_file.VerdictWriter.put, []

    def put_twice(self, *arguments):
        if len(calls) == 2:
            raise Killed
        calls.append(put(self, *arguments))

    out = tmp_path / "a.keep"
    monkeypatch.setattr(verdict_file.VerdictWriter, "put", put_twice)
    with pytest.raises(Killed):
        judge(people, teacher, out)
    assert not out.exists()
    monkeypatch.undo()
    assert len(filter_command.verdict_file.VerdictWriter(out, *binding(teacher, people)).open_images()) == 7
    assert judge(people, teacher, out) == 0
    assert out.read_bytes() == stored.read_bytes()


def binding(teacher, people):
    shard = Shard(people)
    return filter_command.binding(teacher, shard), (1, 3, 5), len(shard)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--batch-size", "7"], "--batch-size 7"),
        (["--batch-size", "0"], "--batch-size is 0, must be 2 to 2147483647"),
        (["--batch-size", str(10**12)], "--batch-size is 1000000000000, must be 2 to 2147483647"),
        (["--k", "0"], "--k is 0, must be 1 to 2147483647"),
        (["--check", "0"], "--check is 0, must be at least 1"),
        (["--cpus", "3"], "--batch-size 8 cannot be split over 3 devices"),
        (["--teacher", "nowhere/model,0"], "nowhere/model"),
        (["--data", "nowhere"], "nowhere"),
        (["--out", "."], "--out . is a folder"),
    ],
)
def test_bad_arguments_are_one_sentence(teacher, people, tmp_path, arguments, sentence, capsys):
    assert judge(people, teacher, tmp_path / "a.keep", *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "a.keep").exists()


def test_verdicts_are_not_made_twice_nor_replaced(teacher, stored, people, tmp_path, capsys, monkeypatch):
    before = stored.read_bytes()
    assert judge(people, teacher, stored, "--k", 1) == 1
    assert f"{stored} holds other verdicts: k is 1, 3, 5, not 1: remove it" in capsys.readouterr().err
    monkeypatch.setattr(filter_command, "judge_all", None)
    assert judge(people, teacher, stored) == 0
    assert "is there already" in capsys.readouterr().out
    assert stored.read_bytes() == before


def test_an_older_file_is_not_replaced(teacher, people, tmp_path, capsys):
    (tmp_path / "a.keep").write_bytes(b"LATSEKP1 and so on")
    assert judge(people, teacher, tmp_path / "a.keep") == 1
    assert "a.keep is of an older version: remove it and make it again" in capsys.readouterr().err
    assert (tmp_path / "a.keep").read_bytes() == b"LATSEKP1 and so on"


def test_images_of_another_size_are_refused(teacher, tmp_path, capsys):
    small = cv2.imencode(".jpg", np.zeros((96, 96, 3), np.uint8))[1].tobytes()
    write_shard(tmp_path / "small", [(label, small) for label in range(5)], 5, (96, 96))
    assert judge(tmp_path / "small", teacher, tmp_path / "a.keep") == 1
    assert "the images must be 112x112" in capsys.readouterr().err
    with pytest.raises(ValueError, match="planes of"):
        Shard(tmp_path / "small").read_into(np.empty(IMAGE_SHAPE, np.uint8), 0, mirrored=False)


def test_training_refuses_what_does_not_fit(tiny, teacher, stored, people, pictures, tmp_path, capsys):
    filtered = tmp_path / "filtered.yaml"
    filtered.write_text(f"base: {tiny}\nfilter: {{k: 2}}\n")
    other = tmp_path / "other"
    write_shard(other, pictures[:-1], 5)
    verdicts = ["--verdicts", str(stored)]
    cases = [
        (filtered, people, verdicts, "there are verdicts for k = 1, 3, 5, none for k = 2"),
        (filtered, other, [*verdicts, "--set", "filter.k=3"], "holds verdicts on another set"),
        (filtered, people, [*verdicts, "--teacher", teacher], "exclude each other"),
        (tiny, people, verdicts, "has no filter.k"),
        (filtered, people, ["--verdicts", str(people / "property")], "is not a file of verdicts"),
    ]
    for recipe, data, arguments, sentence in cases:
        out = tmp_path / "out"
        assert main(["train", str(recipe), "--data", str(data), "--out", str(out), *arguments]) == 1
        assert sentence in capsys.readouterr().err
        assert not list(tmp_path.glob("out/model-*"))
