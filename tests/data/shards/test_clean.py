"""A cleaned copy: every image once, in the copy or among the decisions, and nothing in place."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import write_people

from latse.data.shards.check import check_set
from latse.data.shards.clean import LEFT_OUT, write_clean
from latse.data.shards.names import read_names
from latse.data.shards.records import Shard
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
