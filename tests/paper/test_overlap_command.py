"""`latse data overlap`: people and pictures that a training set and pairs share, found and left out."""

import csv
import math

import cv2
import numpy as np
import pytest

from latse.cli import main
from latse.data.images import encode
from latse.data.pairs.pairs import read_pairs, write_pairs
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError
from latse.eval.candidates import open_model
from latse.eval.figures import find_people
from latse.files import read_json
from latse.models.features import unit
from latse.paper import embedding_file, overlap_command, overlap_people, set_embeddings
from latse.train import means

PEOPLE, EACH = 8, 4


def overlap(train, pairs, *arguments):
    words = [train, "--pairs", *(pairs if isinstance(pairs, list) else [pairs]), *arguments]
    return main(["data", "overlap", *map(str, words)])


@pytest.fixture(scope="module")
def train(tmp_path_factory, photograph_bytes):
    """Eight people, four photographs each, as PNG."""
    folder = tmp_path_factory.mktemp("overlap") / "train"
    images = [(person, photograph_bytes(person, at)) for person in range(PEOPLE) for at in range(EACH)]
    write_shard(folder, images, PEOPLE)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, photograph_bytes):
    """Pairs of 3 (new photographs), 5 (one as it is, one as JPEG) and strangers, and who they are."""
    five = cv2.imdecode(np.frombuffer(photograph_bytes(5, 2), np.uint8), 1)[:, :, ::-1]
    content = [
        (photograph_bytes(3, 10), photograph_bytes(3, 11), True),
        (photograph_bytes(5, 0), encode(five, 90), True),
        (photograph_bytes(60, 0), photograph_bytes(60, 1), True),
        (photograph_bytes(3, 10), photograph_bytes(61, 0), False),
        (photograph_bytes(60, 0), photograph_bytes(61, 0), False),
    ]
    path = tmp_path_factory.mktemp("overlap") / "test.bin"
    encoded = [image for one, other, _ in content for image in (one, other)]
    write_pairs(path, encoded, [same for *_, same in content], np.array([3, 3, 5, 5, 60, 60, 3, 61, 60, 61]))
    return path


def unit_rows(images):
    return unit(open_model("pixels").embed(images, "images"), str).astype(np.float32)


def settled_means(train):
    shard = Shard(train)
    rows = unit_rows(shard.batch(np.arange(len(shard))).image)
    settled = means.settle(rows, shard.labels, shard.classes)
    centres = np.stack([rows[settled.members & (shard.labels == p)].sum(0) for p in range(shard.classes)])
    return rows, settled, centres / np.linalg.norm(centres, axis=1)[:, None]


def test_people_and_pictures_are_found_and_listed(train, pairs, tmp_path, capsys):
    far, files = 0.05, {name: tmp_path / f"a.{name}" for name in ("tsv", "png", "json")}
    outputs = ["--list", files["tsv"], "--sheet", files["png"], "--json", files["json"]]
    assert overlap(train, pairs, "--model", "pixels", "--far", far, *outputs) == 0
    rows, settled, centres = settled_means(train)
    shard, images = Shard(train), read_pairs(pairs).images
    impostors = [
        centres[person] @ rows[at]
        for at in np.flatnonzero(settled.members)
        for person in range(PEOPLE)
        if person != shard.labels[at]
    ]
    report = read_json(files["json"])
    allowed = math.floor(far * len(impostors) + 1e-9)
    threshold = sorted(impostors)[-1 - allowed]
    assert report["threshold"] == {
        "far": far,
        "cosine": pytest.approx(threshold, abs=1e-5),
        "comparisons": len(impostors),
    }
    people = np.array([3, 3, 5, 5, 60, 60, 3, 61, 60, 61])
    first = sorted(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])
    cosines = unit_rows(images)[first] @ centres.T
    above = [(int(people[first[at]]), int(label)) for at, label in zip(*np.nonzero(cosines > threshold))]
    assert {(3, 3), (5, 5)} <= {*above}
    (counts,) = report["sets"]
    assert (counts["images"], counts["people"], counts["pairs"], counts["people_told"]) == (7, 4, 5, True)
    assert (counts["same_bytes"], counts["same_picture"], counts["near"]) == (1, 0, 1)
    assert counts["matches"] == len(above)
    assert counts["people_found"] == len({person for person, _ in above})
    assert counts["people_pictured"] == 1
    assert counts["matches_by_chance"] == pytest.approx(far * 7 * PEOPLE)
    hit = {person for person, _ in above}
    assert counts["pairs_touched"] == sum(
        people[2 * at] in hit or people[2 * at + 1] in hit for at in range(5)
    )
    found = report["findings"]
    equal, near, *matches = found
    assert (equal["kind"], equal["images"], equal["record"]) == (
        "same bytes",
        [2],
        int(shard.records[5 * EACH]),
    )
    assert (near["kind"], near["images"], near["label"]) == ("near", [3], 5)
    assert near["record"] == shard.records[5 * EACH + 2] and near["likeness"] >= 0.955
    assert {(one["person"], one["label"]) for one in matches} == {*above}
    three = next(one for one in matches if (one["person"], one["label"]) == (3, 3))
    assert three["matching"] == above.count((3, 3)) and three["kind"] == "person"
    best = max((at for at in range(7) if people[first[at]] == 3), key=lambda at: cosines[at, 3])
    assert three["images"] == np.flatnonzero((images == images[first[best]]).all((1, 2, 3))).tolist()
    assert three["likeness"] == pytest.approx(cosines[best, 3], abs=1e-5)
    likest = 3 * EACH + np.argmax(rows[3 * EACH : 4 * EACH] @ unit_rows(images)[first[best]])
    assert three["record"] == shard.records[likest]
    with files["tsv"].open(newline="") as file:
        listed = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["kind"], row["images"], int(row["record"])) for row in listed] == [
        (one["kind"], ",".join(map(str, one["images"])), one["record"]) for one in found
    ]
    assert cv2.imread(str(files["png"])).shape[0] > 100 * len(found)
    said = capsys.readouterr().out
    assert f"is above {threshold:.4f}" in said and "so many matches come by chance" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "a.tsv"]


def test_without_a_model_only_pictures_are_found_and_it_is_said(train, pairs, tmp_path, capsys):
    assert overlap(train, pairs, "--json", tmp_path / "a.json") == 0
    report = read_json(tmp_path / "a.json")
    assert [one["kind"] for one in report["findings"]] == ["same bytes", "near"]
    assert report["threshold"] is None and report["model"] is None
    (counts,) = report["sets"]
    assert (counts["people_found"], counts["matches"], counts["matches_by_chance"]) == (None, None, None)
    assert (counts["people_pictured"], counts["pairs_touched"]) == (1, 1)
    assert "people are looked for with --model only" in capsys.readouterr().out


def test_who_is_who_comes_from_same_pairs_where_nobody_tells(train, pairs, tmp_path, capsys):
    (tmp_path / "test.bin").write_bytes(pairs.read_bytes())
    assert overlap(train, tmp_path / "test.bin", "--json", tmp_path / "a.json") == 0
    content = read_pairs(pairs)
    expected = find_people(content.images, content.issame)
    report = read_json(tmp_path / "a.json")
    assert report["sets"][0]["people"] == len({*expected}) == 4
    assert {one["person"] for one in report["findings"]} == {expected[2]}
    assert not report["sets"][0]["people_told"]
    assert "as no .people.npy stands beside it" in capsys.readouterr().out


def test_a_set_without_them_has_exactly_the_others(train, pairs, tmp_path, capsys):
    out, shard = tmp_path / "apart", Shard(train)
    given = ["--model", "pixels", "--far", 0.05, "--json", tmp_path / "a.json"]
    assert overlap(train, pairs, *given, "--without", out, "--shards", 2) == 0
    found = read_json(tmp_path / "a.json")["findings"]
    people = {one["label"] for one in found}
    assert {3, 5} <= people < set(range(PEOPLE))
    left, stays = Shard(out), np.flatnonzero(~np.isin(shard.labels, [*people]))
    assert left.labels.tolist() == shard.labels[stays].tolist()
    for at, position in enumerate(stays):
        assert left.content(at).tobytes() == shard.content(position).tobytes()
    made = read_json(out / "clean.json")
    reasons = {one["record"]: one["reason"] for one in made["decisions"]}
    assert len(reasons) == len(shard) - len(stays) and made["overlap"]["pairs"] == [str(pairs)]
    assert reasons[int(shard.records[5 * EACH])] == "same bytes"
    assert reasons[int(shard.records[5 * EACH + 2])] == "near"
    assert reasons[int(shard.records[3 * EACH])] == "person"
    assert f"{len(reasons)} of {len(people)} people are left out" in capsys.readouterr().out
    # Now they are apart, but for what comes by chance.
    assert overlap(out, pairs, "--json", tmp_path / "b.json") == 0
    assert read_json(tmp_path / "b.json")["findings"] == []


def test_several_files_and_features_of_another_program(train, pairs, pairs_file, tmp_path):
    """They give what the model gives that they were made by."""
    shard = Shard(train)
    every = {"train": shard.batch(np.arange(len(shard))).image}
    every.update({path.stem: read_pairs(path).images for path in (pairs, pairs_file)})
    for name, images in every.items():
        np.save(tmp_path / f"of-{name}.npy", open_model("pixels").embed(images, name))
    reports = []
    for model in ("pixels", tmp_path / "of-{set}.npy"):
        files = [pairs, pairs_file]
        given = ["--model", model, "--far", 0.06, "--json", tmp_path / "a.json"]
        assert overlap(train, files, *given) == 0
        reports.append(read_json(tmp_path / "a.json"))
    one, other = reports
    assert one["sets"] == other["sets"] and [each["path"] for each in one["sets"]] == [
        str(pairs),
        str(pairs_file),
    ]
    assert len(one["findings"]) == len(other["findings"]) > 0
    alone = tmp_path / "alone.json"
    assert overlap(train, pairs, "--model", "pixels", "--far", 0.06, "--json", alone) == 0
    ours = [found for found in one["findings"] if found["pairs"] == str(pairs)]
    kinds = [(found["kind"], found["record"], found["images"]) for found in ours]
    assert kinds == [
        (found["kind"], found["record"], found["images"]) for found in read_json(alone)["findings"]
    ]


def test_a_bin_of_python_2_is_looked_into(train, pairs, photograph_bytes, tmp_path):
    images = [photograph_bytes(5, 0), photograph_bytes(77, 0)]
    strings = b"".join(b"T" + len(content).to_bytes(4, "little") + content for content in images)
    (tmp_path / "two.bin").write_bytes(b"\x80\x02](" + strings + b"e]\x89a\x86.")
    assert overlap(train, tmp_path / "two.bin", "--json", tmp_path / "a.json") == 0
    (found,) = read_json(tmp_path / "a.json")["findings"]
    assert (found["kind"], found["images"], found["label"]) == ("same bytes", [0], 5)


@pytest.mark.parametrize("far", [None, 0.05, 0.2])
def test_the_threshold_is_a_quantile_of_all_comparisons(far, monkeypatch):
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(12, 6))
    labels = np.repeat(np.arange(12), 10)
    rows = unit(centres[labels] + 0.5 * draw.normal(size=(120, 6)), str).astype(np.float32)
    monkeypatch.setattr(overlap_people, "MEASURED", 50)
    settled = means.settle(rows, labels, 12)
    found = overlap_people.measure(rows, settled, far, "set")
    members = np.flatnonzero(settled.members)
    chosen = members[np.linspace(0, len(members) - 1, 50).astype(int)]
    sums = np.stack([rows[settled.members & (labels == person)].sum(axis=0) for person in range(12)])
    cosines = rows[chosen] @ (sums / np.linalg.norm(sums, axis=1)[:, None]).T
    others = np.sort(cosines[np.arange(12) != labels[chosen][:, None]])
    assert found.comparisons == len(others) == 50 * 11
    expected = 10 / 550 if far is None else far
    assert found.far == expected
    assert found.cosine == pytest.approx(others[-1 - math.floor(expected * 550 + 1e-9)], abs=1e-6)
    assert (others > found.cosine + 1e-6).sum() <= expected * 550 + 1e-9


def test_a_rate_that_is_not_resolved_is_refused():
    labels = np.repeat(np.arange(3), 3)
    rows = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    settled = means.settle(rows, labels, 3)
    with pytest.raises(LatseError, match=r"--far is 1e-05, but 18 comparisons .* resolve 0\.56 to 1"):
        overlap_people.measure(rows, settled, 1e-5, "set")
    settled = means.settle(rows[:6], labels[:6], 2)
    with pytest.raises(LatseError, match="set has too few people to measure a false accept rate with"):
        overlap_people.measure(rows[:6], settled, None, "set")


class Killed(BaseException):
    """As of kill -9."""


def test_a_run_that_was_killed_goes_on_with_its_embeddings(train, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_file, "AT_ONCE", 8)
    whole, seen, out = set_embeddings.Seen.of, [], tmp_path / "a.json"

    def of(self, positions, mirrored=None):
        if len(seen) == 2:
            raise Killed
        seen.append(positions.tolist())
        return whole(self, positions, mirrored)

    given = ["--model", "pixels", "--far", 0.05, "--json", out]
    monkeypatch.setattr(set_embeddings.Seen, "of", of)
    with pytest.raises(Killed):
        overlap(train, pairs, *given)
    part = tmp_path / "a.json.embeddings.part"
    assert part.exists()
    seen.clear()
    monkeypatch.setattr(set_embeddings.Seen, "of", lambda *of: (seen.append(of[1].tolist()), whole(*of))[1])
    assert overlap(train, pairs, "--model", "dlib", "--json", out) == 1  # another model's are not taken
    monkeypatch.setattr(overlap_command, "_write", lambda *_: (_ for _ in ()).throw(LatseError("full")))
    assert overlap(train, pairs, *given) == 1
    assert seen == [list(range(16, 24)), list(range(24, 32))]
    monkeypatch.undo()
    monkeypatch.setattr(set_embeddings.Seen, "of", None)  # all embeddings are there
    assert overlap(train, pairs, *given) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--far", "0.1"], "--far is the rate of --model, which is not given"),
        (["--model", "pixels", "--far", "1e-9"], "--far is 1e-09, but 224 comparisons"),
        (["--model", "pixels", "--far", "1"], "--far is 1, must be above 0 and below 1"),
        (["--model", "pixel"], "'pixel' is no model"),
        (["--model", "pca"], "name their shard with --train-data"),
        (["--model", "rows.npy"], "the file of features rows.npy is missing"),
        (["--model", "{few}"], "few.npy holds 3 features, but train has 32 images"),
        (["--pairs", "nowhere.bin"], "cannot read nowhere.bin: No such file"),
        (
            ["--list", "{new}", "--sheet", "{new}"],
            "--list, --sheet, --json and --without must be different files",
        ),
        (["--list", "{there}"], "there is there already: remove it"),
        (["--sheet", "{there}"], "there is there already: remove it"),
        (["--json", "{there}"], "there is there and no JSON"),
        (["--without", "{train}"], "which is left as it is"),
        (["--shards", "0"], "--shards is 0, must be 1 to 99999"),
    ],
)
def test_bad_input_is_one_sentence(train, pairs, tmp_path, arguments, sentence, capsys):
    np.save(tmp_path / "few.npy", np.ones((3, 2)))
    (tmp_path / "there").write_text("notes")
    places = {
        "few": tmp_path / "few.npy",
        "there": tmp_path / "there",
        "train": train,
        "new": tmp_path / "new",
    }
    assert overlap(train, pairs, *(word.format(**places) for word in arguments)) == 1
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.npy", "there"]


def test_no_set_and_a_damaged_image_are_named(train, pairs, tmp_path, capsys):
    assert overlap(tmp_path, pairs) == 1
    assert f"{tmp_path} is no training set" in capsys.readouterr().err
    write_pairs(tmp_path / "a.bin", [b"\xff\xd8 no image", b"\xff\xd8 no image"], [True])
    assert overlap(train, tmp_path / "a.bin") == 1
    assert f"{tmp_path}/a.bin: image 0 is not an image that can be decoded" in capsys.readouterr().err


def test_a_sheet_of_nothing_is_not_drawn(train, pairs_file, tmp_path, capsys):
    assert overlap(train, pairs_file, "--sheet", tmp_path / "a.png") == 0
    assert "a.png would show nothing and is not drawn" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
