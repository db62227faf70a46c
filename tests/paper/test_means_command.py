"""`latse filter --centres means`: any model's verdicts are those of the means, and a killed run goes on."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes

from latse.cli import main
from latse.data.shards import verdict_file
from latse.data.shards.noise import add_noise, read_truth
from latse.data.shards.records import Shard
from latse.data.shards.refusals import NOBODY, Refusals
from latse.data.shards.shard_writer import write_shard
from latse.eval.candidates import open_model
from latse.files import digest
from latse.models.features import unit
from latse.paper import embedding_file, refusal_sheet, set_embeddings
from latse.train import means

IMAGES = 15


def judge(data, teacher, out, *arguments):
    places = ["--data", data, "--teacher", teacher, "--out", out]
    return main(["filter", "--centres", "means", *map(str, [*places, "--batch-size", 4, *arguments])])


@pytest.fixture(scope="module")
def network(tiny, people, tmp_path_factory):
    """PREFIX,N of an untrained network."""
    folder = tmp_path_factory.mktemp("network")
    assert main(["train", str(tiny), "--data", str(people), "--out", str(folder)]) == 0
    return f"{folder}/untrained,0"


@pytest.fixture(scope="module")
def features(people, tmp_path_factory):
    """The file of the features of pixels, a little longer than they were."""
    path = tmp_path_factory.mktemp("features") / "people.npy"
    np.save(path, 1.5 * open_model("pixels").embed(Shard(people).batch(np.arange(IMAGES)).image, "people"))
    return path


def expected(people, what, ks=(1, 3, 5), **options):
    """The bytes of the verdicts by this model, from all embeddings at once."""
    shard, every = Shard(people), np.arange(IMAGES)
    rows = unit(open_model(what, **options).embed(shard.batch(every).image, "people"), str).astype(np.float32)
    ranks = means.settle(rows, shard.labels, shard.classes).ranks(rows, every).rank
    refusals = (ranks[:, None] >= ks).sum(1)
    return (refusals | refusals << 4).tolist()


@pytest.mark.parametrize("what", ["pixels", "pca", "network", "features"])
def test_any_model_of_eval_judges(people, network, features, tmp_path, what, capsys):
    """An image and its mirror image alike, and asked again it says the same."""
    name, options = {"network": network, "features": str(features)}.get(what, what), {}
    if what == "pca":
        options = {"train_data": str(people)}
    given = ["--train-data", people] if what == "pca" else []
    out, report = tmp_path / "a.keep", tmp_path / "a.json"
    assert judge(people, name, out, *given, "--check", "--json", report) == 0
    assert verdict_file.read(out).packed.tolist() == expected(people, name, **options)
    found = json.loads(report.read_text())
    assert found["checked"] == {"faces": 30, "verdicts": 90, "different": 0}
    assert (found["centres"], found["model"]["origin"]["source"]) == ("means", name)
    assert found["truth"] is None
    assert "the means stand still after round" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.keep"]
    # What is there already is checked against means that are made anew.
    assert judge(people, name, out, *given, "--check", 10, "--batch-size", 3) == 0
    said = capsys.readouterr().out
    assert "is there already" in said and "contradicts 0 of 30 verdicts" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.keep"]


def test_it_finds_known_noise_and_says_so(people, tmp_path, capsys):
    noisy, out, report = tmp_path / "noisy", tmp_path / "a.keep", tmp_path / "a.json"
    add_noise(people, noisy, 0.2, 0, seed=1)
    assert judge(noisy, "pixels", out, "--k", 1, "--json", report) == 0
    truth, kept = read_truth(noisy), verdict_file.read(out).keeps(1, np.arange(IMAGES), False)
    assert (kept == (truth.kind == 0)).all()
    counts = np.bincount(truth.label)[truth.label]
    found = json.loads(report.read_text())["truth"]["1"]
    for name, of in (("1", counts == 1), ("2", counts == 2), ("3", counts == 3), ("4 and more", counts > 3)):
        right, wrong = int((of & kept).sum()), int((of & ~kept).sum())
        assert (found[name]["right"], found[name]["wrong"]) == (right, wrong)
        assert found[name]["right_refused"] == (0 if right else None)
        assert found[name]["wrong_refused"] == (1 if wrong else None)
    assert found["all"] == {"wrong": 3, "wrong_refused": 1.0, "right": 12, "right_refused": 0.0}
    assert "1, all                       3      100.00     12        0.00" in capsys.readouterr().out


def test_a_student_learns_from_its_verdicts(tiny, people, tmp_path):
    out, recipe = tmp_path / "a.keep", tmp_path / "filtered.yaml"
    recipe.write_text(f"base: {tiny}\nfilter: {{k: 1}}\n")
    assert judge(people, "pixels", out) == 0
    run = ["train", recipe, "--data", people, "--out", tmp_path / "run", "--verdicts", out]
    assert main([*map(str, run)]) == 0
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["teacher"]
        == (verdict_file.read(out).binding["teacher"])
    )


@pytest.mark.parametrize("position, mirrored", [(0, 0), (9, 1)])
def test_a_check_finds_a_flipped_verdict(people, tmp_path, capsys, position, mirrored):
    out = tmp_path / "a.keep"
    assert judge(people, "pixels", out, "--k", 1) == 0
    made = verdict_file.read(out)
    refusals = np.stack([made.packed % 16, made.packed // 16], 1).astype(int)
    refusals[position, mirrored] ^= 1
    out.unlink()
    writer = verdict_file.VerdictWriter(out, made.binding, made.ks, IMAGES)
    writer.put(np.arange(IMAGES), refusals)
    writer.finish()
    assert judge(people, "pixels", out, "--k", 1, "--check") == 1
    assert "the teacher contradicts 1 of 30 verdicts" in capsys.readouterr().err


class Killed(BaseException):
    """As of kill -9."""


def test_a_run_that_was_killed_while_it_embedded_goes_on(people, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_file, "AT_ONCE", 4)
    out, seen, whole = tmp_path / "a.keep", [], set_embeddings.Seen.of

    def of(self, positions, mirrored=None):
        if len(seen) == 2:
            raise Killed
        seen.append(positions.tolist())
        return whole(self, positions, mirrored)

    monkeypatch.setattr(set_embeddings.Seen, "of", of)
    with pytest.raises(Killed):
        judge(people, "pixels", out)
    part = tmp_path / "a.keep.embeddings.part"
    part.write_bytes(part.read_bytes()[:-5])  # the last row is cut off
    seen.clear()
    monkeypatch.setattr(set_embeddings.Seen, "of", lambda *of: (seen.append(of[1].tolist()), whole(*of))[1])
    assert judge(people, "pixels", out) == 0
    assert seen == [[7, 8, 9, 10], [11, 12, 13, 14]]
    assert verdict_file.read(out).packed.tolist() == expected(people, "pixels")
    assert [path.name for path in tmp_path.iterdir()] == ["a.keep"]


def test_a_run_that_was_killed_while_it_judged_goes_on(people, tmp_path, monkeypatch):
    monkeypatch.setattr(means, "ROWS_AT_ONCE", 4)
    put, calls, out = verdict_file.VerdictWriter.put, [], tmp_path / "a.keep"

    def put_twice(self, *arguments):
        if len(calls) == 2:
            raise Killed
        calls.append(put(self, *arguments))

    monkeypatch.setattr(verdict_file.VerdictWriter, "put", put_twice)
    with pytest.raises(Killed):
        judge(people, "pixels", out)
    monkeypatch.setattr(verdict_file.VerdictWriter, "put", put)
    monkeypatch.setattr(set_embeddings.Seen, "of", None)  # all embeddings are there
    assert judge(people, "pixels", out) == 0
    assert verdict_file.read(out).packed.tolist() == expected(people, "pixels")


def test_embeddings_of_another_model_are_not_taken(people, network, tmp_path, monkeypatch, capsys):
    out = tmp_path / "a.keep"
    part = tmp_path / "a.keep.embeddings.part"
    for content in (b"LATSEEM1 and so on", b""):
        part.write_bytes(content)
        assert judge(people, "pixels", out) == 1
        assert f"{part} is no file of embeddings: remove it" in capsys.readouterr().err
        assert part.read_bytes() == content
        (tmp_path / "a.keep.part").unlink()
    part.unlink()
    monkeypatch.setattr(means, "settle", None)
    with pytest.raises(TypeError):
        judge(people, "pixels", out)
    (tmp_path / "a.keep.part").unlink()
    assert judge(people, network, out) == 1
    assert f"{part} holds embeddings of another model or set: remove it" in capsys.readouterr().err


def test_what_the_verdicts_belong_to_is_as_documented(people, network, features, tmp_path):
    def hashed(*content):
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()

    prefix = network.split(",")[0]
    cases = {
        network: (digest(f"{prefix}-0000.params"), digest(f"{prefix}-symbol.json")),
        str(features): (digest(features), None),
        "pixels": (hashed("pixels", None), None),
        "pca": (hashed("pca", Shard(people).digest()), None),
    }
    for number, (name, (teacher, graph)) in enumerate(cases.items()):
        train = ["--train-data", people] if name == "pca" else []
        assert judge(people, name, tmp_path / str(number), *train) == 0
        found = verdict_file.read(tmp_path / str(number)).binding
        assert (found["teacher"], found["graph"]) == (teacher, hashed("means", means.RULE, graph, None))


def test_verdicts_by_other_means_or_centres_are_others(people, network, tmp_path, capsys):
    out = tmp_path / "a.keep"
    assert judge(people, network, out) == 0
    assert judge(people, "pixels", out) == 1
    assert "the digest of the teacher's parameters is" in capsys.readouterr().err
    assert main(["filter", "--data", str(people), "--teacher", network, "--out", str(out)]) == 1
    assert "the digest of the teacher's graph is" in capsys.readouterr().err


def test_a_zero_feature_is_named_by_its_record(people, features, tmp_path, capsys):
    rows = np.load(features)
    rows[7] = 0
    np.save(tmp_path / "zero.npy", rows)
    assert judge(people, tmp_path / "zero.npy", tmp_path / "a.keep") == 1
    said = capsys.readouterr().err
    assert f"the embedding of {people}/train.rec: record 8 is zero, which has no direction" in said
    assert not (tmp_path / "a.keep").exists()


def test_features_in_the_order_of_fortran_or_a_file_for_each_set(people, features, tmp_path):
    name = people.resolve().name
    np.save(tmp_path / f"of-{name}.npy", np.asfortranarray(np.load(features)))
    out = tmp_path / "a.keep"
    assert judge(people, tmp_path / "of-{set}.npy", out) == 0
    assert verdict_file.read(out).packed.tolist() == expected(people, "pixels")


def rows_of(path):
    """The lines of a list, each by column."""
    lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return [dict(zip(lines[0], line)) for line in lines[1:]]


def listed_by_hand(folder):
    """Position -> (rank, other, own, best, looks like another or not) by pixels and the members' sums."""
    shard, every = Shard(folder), np.arange(len(Shard(folder)))
    rows = unit(open_model("pixels").embed(shard.batch(every).image, "set"), str).astype(np.float32)
    settled, found = means.settle(rows, shard.labels, shard.classes), {}
    for at, (row, label) in enumerate(zip(rows.astype(float), shard.labels)):
        cosines = {}
        for person in range(shard.classes):
            belongs = (shard.labels == person) & settled.members
            if person == label and not belongs.any():
                belongs = shard.labels == person
            belongs[at] = False
            if belongs.any():
                total = rows[belongs].astype(float).sum(0)
                cosines[person] = row @ total / np.linalg.norm(total)
        own = cosines.pop(label, -np.inf)
        rank = sum(cosine > own + means.TIE for cosine in cosines.values())
        other = max(cosines, key=cosines.get)
        looks = cosines[other] > max(own, settled.threshold) + means.TIE
        found[at] = rank, other, own, cosines[other], looks
    return found


@pytest.fixture(scope="module")
def noisy(people, tmp_path_factory):
    """The made-up people with three wrong labels and three pictures of noise that looks like nobody."""
    folder = tmp_path_factory.mktemp("noisy") / "set"
    other = tmp_path_factory.mktemp("others")
    pixels = np.random.default_rng(5).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    write_shard(other, [(0, cv2.imencode(".png", image)[1].tobytes()) for image in pixels], 1)
    add_noise(people, folder, 0.2, 0.2, seed=1, distractors=other)
    return folder


@pytest.mark.parametrize("there_already", [False, True])
def test_the_list_says_whom_the_refused_look_like(noisy, tmp_path, there_already, capsys):
    out, made, sheet = tmp_path / "a.keep", tmp_path / "a.tsv", tmp_path / "a.png"
    if there_already:
        assert judge(noisy, "pixels", out, "--k", 1, 2) == 0
    capsys.readouterr()
    assert judge(noisy, "pixels", out, "--k", 1, 2, "--list", made, "--sheet", sheet) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keep", "a.png", "a.tsv"]
    shard, expected_rows = Shard(noisy), listed_by_hand(noisy)
    refused = np.flatnonzero(~verdict_file.read(out).keeps(1, np.arange(len(shard)), False))
    lines = rows_of(made)
    assert sorted(int(line["record"]) for line in lines) == shard.records[refused].tolist()
    assert len(lines) >= 4 and {line["looks like"] == "nobody" for line in lines} == {True, False}
    for line in lines:
        position = int(np.searchsorted(shard.records, int(line["record"])))
        rank, other, own, best, looks = expected_rows[position]
        assert (int(line["label"]), int(line["rank"])) == (shard.labels[position], rank)
        assert int(line["likeliest other"]) == other and line["image"] == shard.name(position)
        assert line["looks like"] == (str(other) if looks else "nobody")
        figures = [float(line[name] or -np.inf) for name in ("own cosine", "other's cosine")]
        np.testing.assert_allclose(figures, [own, best], atol=6e-5)
    gaps = [float(line["other's cosine"]) - float(line["own cosine"] or -np.inf) for line in lines]
    assert gaps == sorted(gaps, reverse=True)
    belongs = made.read_text().splitlines()[:3]
    assert belongs == [f"# set: {shard.digest()}", f"# verdicts: {digest(out)}", "# k: 1"]
    others = sum(line["looks like"] != "nobody" for line in lines)
    said = f"{made}: {len(lines)} images are refused, {others} of them look like another person"
    assert said in capsys.readouterr().out
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.shape[0] > 150 * min(12, len(lines))


def test_a_list_needs_no_second_embedding(noisy, tmp_path, monkeypatch):
    embedded, whole = [], set_embeddings.Seen.of

    def of(self, positions, mirrored=None):
        embedded.extend(positions.tolist())
        return whole(self, positions, mirrored)

    monkeypatch.setattr(set_embeddings.Seen, "of", of)
    assert judge(noisy, "pixels", tmp_path / "a.keep", "--list", tmp_path / "a.tsv") == 0
    assert embedded == [*range(len(Shard(noisy)))]


@pytest.mark.parametrize("option", ["--list", "--sheet"])
def test_an_edited_list_or_a_photograph_is_not_replaced(noisy, tmp_path, option, monkeypatch, capsys):
    (tmp_path / "a").write_text("edited")
    monkeypatch.setattr(set_embeddings.Seen, "of", None)  # nothing is embedded
    assert judge(noisy, "pixels", tmp_path / "a.keep", option, tmp_path / "a") == 1
    assert f"{tmp_path}/a is there already" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["edited"]


@pytest.mark.parametrize(
    "like, unlike, shown_like, shown_unlike",
    [(20, 20, 8, 4), (20, 2, 10, 2), (3, 20, 3, 9), (20, 0, 12, 0), (0, 20, 0, 12), (2, 1, 2, 1)],
)
def test_a_sheet_shows_both_kinds_the_clearest_first(like, unlike, shown_like, shown_unlike):
    looks_like = np.random.default_rng(0).permutation([1] * like + [NOBODY] * unlike)
    every = np.arange(like + unlike)
    found = refusal_sheet.shown(Refusals.of((every, every, every, every, every, looks_like)))
    assert found.position.tolist() == [
        *every[looks_like == 1][:shown_like],
        *every[looks_like == NOBODY][:shown_unlike],
    ]


def test_a_sheet_says_label_and_name(noisy, tmp_path, monkeypatch):
    titles, whole = [], Axes.text
    monkeypatch.setattr(Axes, "text", lambda *of, **how: (titles.append(of[3]), whole(*of, **how))[1])
    shard = Shard(noisy)
    monkeypatch.setattr(refusal_sheet, "read_names", lambda *_: ["18", None, *["a"] * (shard.classes - 2)])
    rows = Refusals.of(zip((0, 1, 1, 0.25, 0.5, 1), (len(shard) - 1, 1, 0, 0.25, 0.375, NOBODY)))
    refusal_sheet.draw(tmp_path / "a.png", shard, rows)
    last = shard.labels[-1]
    assert titles[1:3] == ["under label 0 (18): 0.25", "looks like label 1: 0.50"]
    assert titles[4:6] == [f"under label {last} (a): 0.25", "no, not like label 0 (18): 0.38"]


def test_where_nothing_is_refused_the_list_is_empty_and_there_is_no_sheet(people, tmp_path, capsys):
    made = tmp_path / "a.tsv"
    assert judge(people, "pixels", tmp_path / "a.keep", "--list", made) == 0
    assert rows_of(made) == []
    assert judge(people, "pixels", tmp_path / "a.keep", "--sheet", tmp_path / "a.png") == 0
    assert f"no image is refused: {tmp_path}/a.png would show nothing" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keep", "a.tsv"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--teacher", "pixel"], "'pixel' is no model"),
        (["--teacher", "nowhere.npy"], "the file of features nowhere.npy is missing"),
        (["--teacher", "pca"], "name their shard with --train-data"),
        (["--k", "0"], "--k is 0, must be 1 to 2147483647"),
        (["--check", "0"], "--check is 0, must be at least 1"),
        (["--batch-size", "0"], "the batch size is 0, must be 1 to 2147483647"),
        (["--out", "."], "--out . is a folder"),
        (["--list", "a", "--sheet", "./a"], "--out, --list, --sheet and --json must be different files"),
        (["--centres", "learned"], "pixels has no class centres: --centres means takes the people's means"),
        (["--centres", "learned", "--train-data", "."], "--train-data is of pca and fisherfaces"),
    ],
)
def test_bad_arguments_are_one_sentence(people, tmp_path, arguments, sentence, capsys):
    assert judge(people, "pixels", tmp_path / "a.keep", *arguments) == 1
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_set_of_single_images_is_refused_before_it_is_embedded(pictures, tmp_path, capsys, monkeypatch):
    write_shard(tmp_path / "single", pictures[::3], 5)
    monkeypatch.setattr(set_embeddings.Seen, "of", None)
    assert judge(tmp_path / "single", "pixels", tmp_path / "a.keep") == 1
    assert f"{tmp_path}/single: means need two people or more" in capsys.readouterr().err


def test_a_file_of_features_of_other_images_is_refused(people, features, tmp_path, capsys):
    np.save(tmp_path / "few.npy", np.load(features)[:-1])
    assert judge(people, tmp_path / "few.npy", tmp_path / "a.keep") == 1
    assert f"few.npy holds 14 features, but {people.name} has 15 images" in capsys.readouterr().err
