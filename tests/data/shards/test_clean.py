"""A cleaned copy: every image once, in the copy or among the decisions, and nothing in place."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import write_people

from latse.cli import main
from latse.data.shards import decisions, shard_writer
from latse.data.shards.check import check_set
from latse.data.shards.clean import LEFT_OUT, write_clean
from latse.data.shards.names import read_names
from latse.data.shards.noise import add_noise, read_truth
from latse.data.shards.records import Shard
from latse.data.shards.refusals import NOBODY, Refusals, write_list
from latse.data.shards.verdict_file import VerdictWriter
from latse.errors import LatseError


def images(shard):
    """(label, bytes) of each image of a set, in its order."""
    return [(int(label), bytes(shard.content(at))) for at, label in enumerate(shard.labels)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def manifest(folder):
    return json.loads((folder / "clean.json").read_text())


@given(st.lists(st.lists(st.integers(-1, 3), max_size=4), min_size=4, max_size=4), st.integers(1, 3))
@settings(max_examples=15)
def test_every_image_is_in_the_copy_once_or_left_out(tmp_path_factory, people, files):
    new = np.array([label for labels in people for label in labels], int)
    if not (new != LEFT_OUT).any():
        return
    folder = tmp_path_factory.mktemp("clean")
    shard = Shard(write_people(folder / "set", [*map(len, people)], shards=files))
    before = contents(folder / "set")
    made = write_clean(shard, folder / "out", new, {"k": 3}, files)
    assert contents(folder / "set") == before and manifest(folder / "out") == made
    assert not check_set(folder / "out").faults
    copy, original = Shard(folder / "out"), images(shard)
    kept = [(int(label), content) for label, (_, content) in zip(new, original) if label != LEFT_OUT]
    assert images(copy) == sorted(kept, key=lambda image: image[0])  # which is stable
    assert (copy.classes, made["classes"], made["images"], made["k"]) == (4, 4, len(kept), 3)
    decided = {decision["record"]: decision for decision in made["decisions"]}
    assert len(decided) == len(made["decisions"])
    for label, (old, _), record in zip(new, original, shard.records):
        decision = decided.pop(record, None)
        if label == old:
            assert decision is None
        else:
            says = None if label == LEFT_OUT else label
            assert decision == {"record": record, "label": old, "new": says}
    assert not decided
    assert (made["source"], made["source_digest"]) == (str(folder / "set"), shard.digest())
    assert made["files"] == {
        path.name: path.stat().st_size for path in (folder / "out").iterdir() if path.name != "clean.json"
    }


def test_reasons_stand_with_their_decisions(tmp_path):
    shard = Shard(write_people(tmp_path / "set", [2, 2]))
    reasons = {1: {"reason": "refused", "rank": 3}, 2: {"reason": "of an image that stays"}}
    made = write_clean(shard, tmp_path / "out", np.array([0, -1, 1, 0]), {}, reasons=reasons)
    left, moved = made["decisions"]
    assert left == {"record": shard.records[1], "label": 0, "new": None, "reason": "refused", "rank": 3}
    assert moved == {"record": shard.records[3], "label": 1, "new": 0}


def test_names_survive_as_long_as_the_copy_is_as_it_was(tmp_path):
    shard = Shard(write_people(tmp_path / "set", [1, 1, 1]))
    (tmp_path / "set" / "pack.json").write_text(
        json.dumps({"people": ["Ann", None, "Eve"], "files": {"property": len("3,8,6\n")}})
    )
    made = write_clean(shard, tmp_path / "out", np.array([0, 0, -1]), {})
    assert made["people"] == ["Ann", None, "Eve"] == read_names(tmp_path / "out", 3)
    again = write_clean(Shard(tmp_path / "out"), tmp_path / "again", np.array([0, -1]), {})
    assert again["people"] == made["people"]
    (tmp_path / "out" / "property").write_text("3,8,6 \n")
    with pytest.raises(LatseError, match=r"clean\.json tells of another set"):
        read_names(tmp_path / "out", 3)


def test_without_names_none_are_made_up(tmp_path):
    made = write_clean(Shard(write_people(tmp_path / "set", [1, 1])), tmp_path / "out", np.array([0, -1]), {})
    assert made["people"] is None and list(read_names(tmp_path / "out", 2)) == [None, None]


@pytest.mark.parametrize(
    "labels, shards, complaint",
    [
        ([-1, -1], 1, "no image of .* would be left"),
        ([0, 2], 1, "label 2 is none of 0 to 1"),
        ([0, 1], 0, "the number of shards is 0"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(tmp_path, labels, shards, complaint):
    shard = Shard(write_people(tmp_path / "set", [1, 1]))
    with pytest.raises(LatseError, match=complaint):
        write_clean(shard, tmp_path / "out", np.array(labels), {}, shards)
    assert not (tmp_path / "out").exists() or not [*(tmp_path / "out").iterdir()]


def test_no_set_is_replaced_and_none_is_changed_in_place(tmp_path):
    shard = Shard(write_people(tmp_path / "set", [1, 1]))
    write_people(tmp_path / "other", [1])
    before = contents(tmp_path / "set"), contents(tmp_path / "other")
    for out, complaint in (("set", "left as it is"), ("set/in", "left as it is"), ("other", "holds a set")):
        with pytest.raises(LatseError, match=complaint):
            write_clean(shard, tmp_path / out, np.array([0, -1]), {})
    assert (contents(tmp_path / "set"), contents(tmp_path / "other")) == before


def clean(*arguments):
    return main(["data", "clean", *map(str, arguments)])


def write_verdicts(path, shard, ranks, ks=(1, 3)):
    """A file of verdicts, given the ranks (n, 2) of images and mirror images."""
    binding = {"teacher": "t", "graph": "g", "data": shard.digest(), "preprocessing": "p"}
    writer = VerdictWriter(path, binding, ks, len(shard))
    writer.put(np.arange(len(shard)), np.array(ranks))
    writer.finish()
    return path


def write_refusals(path, shard, rows, k=1):
    """A list of (position, rank, likeliest other, looks like)."""
    columns = [(position, rank, other, 0.25, 0.5, looks) for position, rank, other, looks in rows]
    write_list(path, shard, Refusals.of(zip(*columns)), {"k": k})
    return path


def labels_of(folder, original):
    """Position in the original -> label in the copy."""
    where = {content: at for at, (_, content) in enumerate(images(original))}
    return {where[content]: label for label, content in images(Shard(folder))}


@pytest.fixture
def shard(tmp_path):
    """Labels with 4, 3, 2 and 4 images: 0 to 3, 4 to 6, 7 and 8, 9 to 12."""
    return Shard(write_people(tmp_path / "set", [4, 3, 2, 4]))


# Refused by 1 both ways are 1, 4 and 5; by 3 it is 4 alone.
RANKS = np.zeros((13, 2), int)
RANKS[[0, 1, 2, 4, 5]] = [(5, 0), (1, 2), (0, 9), (3, 4), (1, 5)]


@pytest.mark.parametrize("k, refused", [(None, [1, 4, 5]), (1, [1, 4, 5]), (3, [4])])
def test_what_verdicts_refuse_both_ways_is_left_out(shard, tmp_path, k, refused, capsys):
    file = write_verdicts(tmp_path / "a.keep", shard, RANKS)
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file, *(["--k", k] if k else [])) == 0
    stays = {at: int(label) for at, label in enumerate(shard.labels) if at not in refused}
    assert labels_of(tmp_path / "out", shard) == stays
    made = manifest(tmp_path / "out")
    records = [decision["record"] for decision in made["decisions"]]
    assert records == shard.records[refused].tolist()
    assert {(decision["new"], decision["reason"]) for decision in made["decisions"]} == {(None, "refused")}
    assert (made["k"], made["truth"], made["merged"]) == (k or 1, None, [])
    said = f"{tmp_path}/out: {13 - len(refused)} images; {len(refused)} are left out, 0 moved"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("moves, new", [(False, {}), (True, {1: 3, 5: 0})])
def test_a_list_leaves_out_or_moves(shard, tmp_path, moves, new):
    rows = [(1, 2, 3, 3), (5, 1, 0, 0), (8, 4, 1, NOBODY)]
    file = write_refusals(tmp_path / "a.tsv", shard, rows)
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file, *["--move"] * moves) == 0
    stays = {at: int(label) for at, label in enumerate(shard.labels) if at not in (1, 5, 8)}
    assert labels_of(tmp_path / "out", shard) == {**stays, **new}
    first, second, third = manifest(tmp_path / "out")["decisions"]
    figures = {"own_cosine": 0.25, "other_cosine": 0.5}
    assert first == {
        "record": shard.records[1],
        "label": 0,
        "new": new.get(1),
        "reason": "moved" if moves else "refused",
        "rank": 2,
        "other": 3,
        **figures,
        "looks_like": 3,
    }
    assert (second["new"], third["new"], third["looks_like"]) == (new.get(5), None, None)


def test_a_list_is_taken_as_it_was_edited(shard, tmp_path):
    file = write_refusals(tmp_path / "a.tsv", shard, [(1, 2, 3, 3), (5, 1, 0, 0), (8, 4, 1, NOBODY)])
    lines = file.read_text().splitlines()
    assert lines[-1].endswith("\tnobody")
    edited = [*lines[:3], lines[3][:-1] + "2", lines[5].replace("nobody", "3")]
    file.write_text("".join(f"{line}\n" for line in edited))
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file, "--move") == 0
    found = labels_of(tmp_path / "out", shard)
    assert (found[1], found[5], found[8], len(found)) == (2, 1, 3, 13)


def test_an_image_may_be_added_by_hand(shard, tmp_path, capsys):
    file = write_refusals(tmp_path / "a.tsv", shard, [(1, 2, 3, NOBODY)])
    with file.open("a") as text:
        text.write(f"{shard.records[5]}\t\t1\t\t1\t\t\t\t\t2\n")
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file) == 0
    figures = {"rank": 1, "other": None, "own_cosine": None, "other_cosine": None, "looks_like": 2}
    added = {"record": shard.records[5], "label": 1, "new": None, "reason": "refused", **figures}
    assert manifest(tmp_path / "out")["decisions"][1] == added
    assert "1 of the images that are left out look like another person" in capsys.readouterr().out


def test_what_move_would_keep_is_said(shard, tmp_path, capsys):
    file = write_refusals(tmp_path / "a.tsv", shard, [(1, 2, 3, 3), (5, 1, 0, 0), (8, 4, 1, NOBODY)])
    hint = "2 of the images that are left out look like another person: --move keeps these"
    for out, options, is_said in (("a", [], True), ("b", ["--move"], False), ("c", ["--k", 4], False)):
        assert clean(shard.folder, tmp_path / out, "--verdicts", file, *options) == 0
        said = capsys.readouterr().out
        assert (hint in said) == is_said and ("--move" in said) == is_said


def test_of_a_list_k_takes_what_it_refuses(shard, tmp_path, capsys):
    file = write_refusals(tmp_path / "a.tsv", shard, [(1, 2, 3, 3), (5, 3, 0, 0)], k=2)
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file, "--k", 3) == 0
    assert [*set(range(13)) - {*labels_of(tmp_path / "out", shard)}] == [5]
    assert clean(shard.folder, tmp_path / "less", "--verdicts", file, "--k", 1) == 1
    assert f"{file} lists what k = 2 refuses; k = 1 may refuse more" in capsys.readouterr().err


# Of label 1 (3 images) two look like 0; of label 2 (2 images) one looks like 1, and of 3 (4) one like 0.
TWINS = [(4, 1, 0, 0), (6, 1, 0, 0), (7, 1, 1, 1), (8, 2, 0, NOBODY), (9, 1, 0, 0), (1, 1, 1, NOBODY)]


@pytest.mark.parametrize("moves", [False, True])
def test_labels_of_one_person_become_one(shard, tmp_path, moves, capsys):
    file = write_refusals(tmp_path / "a.tsv", shard, TWINS)
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file, "--merge", *["--move"] * moves) == 0
    expected = {at: {1: 0}.get(label, int(label)) for at, label in enumerate(shard.labels)}
    for at in (7, 8, 9):
        del expected[at]
    if moves:
        expected.update({7: 0, 9: 0})  # 7 looks like 1, who is 0
    assert labels_of(tmp_path / "out", shard) == expected
    made = manifest(tmp_path / "out")
    assert made["merged"] == [{"label": 1, "into": 0}] and made["classes"] == 4
    by_record = {decision["record"]: decision for decision in made["decisions"]}
    assert by_record[shard.records[5]] == {
        "record": shard.records[5],
        "label": 1,
        "new": 0,
        "reason": "merged",
    }
    assert shard.records[1] not in by_record  # its likeliest other is its own person
    assert "3 stand under the labels of the same people, 1 labels are empty" in capsys.readouterr().out


@st.composite
def listed_sets(draw):
    """Labels, as many classes, and rows of a list."""
    classes = draw(st.integers(2, 5))
    labels = sorted(draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=24)))
    rows = []
    for position in draw(st.sets(st.integers(0, len(labels) - 1))):
        other = draw(st.sampled_from([person for person in range(classes) if person != labels[position]]))
        rows.append((position, draw(st.integers(1, 4)), other, draw(st.sampled_from([other, NOBODY]))))
    return np.array(labels), classes, rows


def refusals_of(rows):
    return Refusals.of(
        zip(*[(at, rank, other, 0, 0, looks) for at, rank, other, looks in rows]) if rows else [()] * 6
    )


@given(listed_sets(), st.booleans(), st.booleans())
def test_the_rules_agree_with_loops(given_set, merges, moves):
    labels, classes, rows = given_set
    refusals, images = refusals_of(rows), np.bincount(labels, minlength=classes)
    person = list(range(classes))
    for one in range(classes if merges else 0):
        for other in range(one + 1, classes):
            like = sum({labels[at], looks} == {one, other} for at, _, _, looks in rows)
            if like >= 2 and like > min(images[one], images[other]) / 2:
                person = [person[one] if who == person[other] else who for who in person]
    members = {who: [label for label in range(classes) if person[label] == who] for who in person}
    number = {who: max(labels, key=lambda label: (images[label], -label)) for who, labels in members.items()}
    people = [number[who] for who in person]
    if merges:
        assert decisions.same_people(labels, refusals, classes).tolist() == people
    expected = [people[label] for label in labels]
    for at, _, other, looks in rows:
        if people[other] != people[labels[at]]:
            expected[at] = people[looks] if moves and looks != NOBODY else LEFT_OUT
    assert decisions.new_labels(labels, refusals, np.array(people), moves).tolist() == expected


@pytest.mark.parametrize("options", [(), ("--move",), ("--merge",), ("--merge", "--move")])
def test_against_the_truth(tmp_path, options, capsys):
    """Of a set with ten wrong labels and five outsiders, by a list that is partly right."""
    write_people(tmp_path / "clean", [10] * 5)
    write_people(tmp_path / "others", [9], first=100)
    noise = add_noise(tmp_path / "clean", tmp_path / "set", 0.2, 0.1, 3, tmp_path / "others")
    assert noise["counts"] == {"clean": 35, "mislabelled": 10, "distractor": 5}
    shard, truth, rng = Shard(tmp_path / "set"), read_truth(tmp_path / "set"), np.random.default_rng(0)
    rows = []
    for at in rng.permutation(50)[:30]:
        right = truth.true_label[at] if truth.kind[at] == 1 and rng.random() < 0.7 else NOBODY
        other = right if right >= 0 else (truth.label[at] + 1 + rng.integers(4)) % 5
        rows.append((at, 1, other, other if rng.random() < 0.8 else NOBODY))
    file = write_refusals(tmp_path / "a.tsv", shard, rows)
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file, *options) == 0
    made, found = manifest(tmp_path / "out"), labels_of(tmp_path / "out", shard)
    into = {merge["label"]: merge["into"] for merge in made["merged"]}
    old = [into.get(label, label) for label in truth.label]
    shown = [into.get(label, label) for label in truth.true_label]
    wrong = [old[at] != shown[at] for at in range(50)]
    leaves = [at for at in range(50) if found.get(at) != old[at]]
    moved = [at for at in leaves if at in found]
    assert made["truth"] == {
        "wrong": sum(wrong),
        "still_wrong": sum(found[at] != shown[at] for at in found),
        "precision": pytest.approx(np.mean([wrong[at] for at in leaves])),
        "recall": pytest.approx(np.mean([at in leaves for at in range(50) if wrong[at]])),
        "moved_right": pytest.approx(np.mean([found[at] == shown[at] for at in moved])) if moved else None,
    }
    assert bool(moved) == ("--move" in options) and bool(into) == ("--merge" in options)
    said = capsys.readouterr().out
    assert (
        f"{made['truth']['wrong']} labels of the set are wrong, {made['truth']['still_wrong']} of the copy"
        in said
    )
    assert f"{100 * made['truth']['recall']:.2f} % of the images with a wrong label left it" in said
    assert ("moved images have the right label now" in said) == bool(moved)


@pytest.mark.parametrize(
    "verdicts, options, complaint",
    [
        ("a.keep", ["--move"], "a.keep does not say whom images look like; --move and --merge need a list: "),
        ("a.keep", ["--merge"], "and `--list FILE.tsv` makes one of it"),
        ("a.keep", ["--k", "2"], "there are verdicts for k = 1, 3, none for k = 2"),
        ("a.keep", ["--k", "0"], "--k is 0, must be at least 1"),
        ("a.keep", ["--shards", "0"], "the number of shards is 0"),
        ("other.keep", [], "other.keep holds verdicts on another set than"),
        ("other.tsv", [], "other.tsv lists images of another set than"),
        ("older.keep", [], "older.keep is of an older version"),
        ("set/property", [], "is no list of `latse filter`"),
        ("nowhere", [], "cannot read"),
        ("set", [], "cannot read"),
        ("all.keep", [], "no image of"),
    ],
)
def test_bad_input_is_one_sentence(shard, tmp_path, verdicts, options, complaint, capsys):
    other = Shard(write_people(tmp_path / "other", [1, 1]))
    write_verdicts(tmp_path / "a.keep", shard, RANKS)
    write_verdicts(tmp_path / "all.keep", shard, RANKS + 1)
    write_verdicts(tmp_path / "other.keep", other, [[1, 1], [0, 0]])
    write_refusals(tmp_path / "other.tsv", other, [(0, 1, 1, 1)])
    (tmp_path / "older.keep").write_bytes(b"LATSEKP1")
    assert clean(shard.folder, tmp_path / "out", "--verdicts", tmp_path / verdicts, *options) == 1
    said = capsys.readouterr().err
    assert complaint in said and said.startswith("latse: ") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_killed_in_between_it_leaves_no_set(shard, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def add(self, label, encoded, whole=shard_writer.ShardWriter.add):
        if label == 2:
            raise Killed
        whole(self, label, encoded)

    file, before = write_verdicts(tmp_path / "a.keep", shard, RANKS), contents(shard.folder)
    monkeypatch.setattr(shard_writer.ShardWriter, "add", add)
    with pytest.raises(Killed):
        clean(shard.folder, tmp_path / "out", "--verdicts", file)
    assert not [*(tmp_path / "out").iterdir()] and contents(shard.folder) == before
    monkeypatch.undo()
    assert clean(shard.folder, tmp_path / "out", "--verdicts", file) == 0
    assert not check_set(tmp_path / "out").faults
