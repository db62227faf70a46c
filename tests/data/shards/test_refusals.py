"""The list of refused images: what is written is read again, edited or not, and nothing else is taken."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import write_people

from latse.data.shards.records import Shard
from latse.data.shards.refusals import COLUMNS, NOBODY, Refusals, read_list, write_list
from latse.errors import LatseError

PEOPLE = 4
COSINES = st.floats(-1, 1) | st.just(-np.inf)


def refusals_of(rows):
    return Refusals.of(zip(*rows) if rows else [()] * 6)


def save(path, lines):
    """Write lines, each with its line break."""
    path.write_text("".join(f"{line}\n" for line in lines))


def cells(path):
    """The lines of a list, each by column."""
    lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == list(COLUMNS)
    return [dict(zip(COLUMNS, line)) for line in lines[1:]]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """Three images of each of four people in two files; one name has what parts lines and columns."""
    folder = write_people(tmp_path_factory.mktemp("set"), [3] * PEOPLE, shards=2)
    names = ["Ann", None, 'B"o\tb\n', "é"]
    (folder / "pack.json").write_text(json.dumps({"people": names, "files": {}}))
    return Shard(folder)


@pytest.fixture
def listed(shard, tmp_path):
    """A list of two images: the fifth, which looks like person 3, and the ninth, which looks like nobody."""
    rows = [(4, 2, 3, 0.25, 0.75, 3), (8, 1, 0, 0.125, 0.1875, NOBODY)]
    write_list(tmp_path / "a.tsv", shard, refusals_of(rows), {"k": 1})
    return tmp_path / "a.tsv"


@given(st.data())
@settings(max_examples=30)
def test_what_is_written_is_read_again(shard, tmp_path_factory, data):
    rows = []
    for position in sorted(data.draw(st.sets(st.integers(0, len(shard) - 1)))):
        others = st.sampled_from([person for person in range(PEOPLE) if person != shard.labels[position]])
        other = data.draw(others | st.just(NOBODY))
        looks_like = data.draw(st.sampled_from([other, NOBODY]))
        rows.append(
            (
                position,
                data.draw(st.integers(1, 9)),
                other,
                *data.draw(st.tuples(COSINES, COSINES)),
                looks_like,
            )
        )
    path, refusals = tmp_path_factory.mktemp("list") / "a.tsv", refusals_of(rows)
    write_list(path, shard, refusals, {"k": 3, "threshold": 0.5})
    k, read = read_list(path, shard)
    assert k == 3
    for written, column in zip(refusals, read):
        np.testing.assert_allclose(column, written, atol=5.1e-5)


def test_a_person_can_read_it(shard, listed):
    lines = listed.read_text().splitlines()
    assert lines[:2] == [f"# set: {shard.digest()}", "# k: 1"]
    first, second = cells(listed)
    assert first == {
        "record": str(shard.records[4]),
        "image": shard.name(4),
        "label": "1",
        "name": "",
        "rank": "2",
        "likeliest other": "3",
        "other's name": "é",
        "own cosine": "0.2500",
        "other's cosine": "0.7500",
        "looks like": "3",
    }
    assert (second["name"], second["other's name"], second["looks like"]) == ('"B""o b"', "Ann", "nobody")


def test_the_clearest_comes_first():
    rows = [
        (0, 1, 1, 0.3, 0.4, 1),
        (5, 1, 1, -np.inf, 0.2, 1),
        (7, 1, 1, 0.1, 0.9, 1),
        (2, 1, 1, 0.3, 0.4, 1),
    ]
    assert refusals_of(rows).clearest_first().position.tolist() == [5, 7, 0, 2]


EDITS = {
    "nothing": lambda text: text,
    "lines in another order": lambda text: "\n".join([*text.splitlines()[:3], *text.splitlines()[:2:-1]]),
    "Windows": lambda text: text.replace("\n", "\r\n"),
    "quoted": lambda text: "\n".join(
        "\t".join(f'"{cell}"' if '"' not in cell else cell for cell in line.split("\t"))
        for line in text.splitlines()
    ),
    "decimal commas": lambda text: text.replace("0.", "0,"),
    "empty lines": lambda text: text.replace("\n", "\n\n\t\t\n"),
    "nobody left empty": lambda text: text.replace("nobody", ""),
    "as wide everywhere, as LibreOffice saves it": lambda text: "".join(
        f"{line}\t\t" + "\t" * (9 - line.count("\t")) + "\n" for line in text.splitlines()
    ),
    "by hand nothing but what is needed": lambda text: text.replace("0.1250\t0.1875", "0.125\t").replace(
        "\t0\tAnn", "\t\t"
    ),
    "fewer columns": lambda text: "\n".join(
        line if line.startswith("#") else "\t".join(np.delete(line.split("\t"), [1, 3, 6]))
        for line in text.splitlines()
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_an_editor_makes_of_it_says_the_same(shard, listed, edit):
    save(listed, EDITS[edit](listed.read_text()).split("\n"))
    k, read = read_list(listed, shard)
    at = np.argsort(read.position)
    assert k == 1 and read.at(at).position.tolist() == [4, 8]
    assert read.at(at).looks_like.tolist() == [3, NOBODY] and read.at(at).own.tolist() == [0.25, 0.125]


def test_utf_16_as_a_spreadsheet_saves_it(shard, listed):
    listed.write_text(listed.read_text(), encoding="utf-16")
    assert read_list(listed, shard)[1].position.tolist() == [4, 8]


def test_a_deleted_line_is_no_refusal_and_another_person_may_be_named(shard, listed):
    lines = listed.read_text().splitlines()
    save(listed, [*lines[:3], lines[3][:-1] + "0"])
    read = read_list(listed, shard)[1]
    assert (read.position.tolist(), read.looks_like.tolist(), read.other.tolist()) == ([4], [0], [3])
    save(listed, lines[:3])
    assert all(not len(column) for column in read_list(listed, shard)[1])


@pytest.mark.parametrize(
    "column, value, complaint",
    [
        ("record", "99", "the set has no image with the record 99"),
        ("record", "-1", "the column 'record' has '-1', must be a whole number from 0 on"),
        ("record", "², 5", "the column 'record' has '², 5', must be a whole number"),
        ("label", "0", "has the label 1, not 0"),
        ("label", "", "the column 'label' has nothing, must be a whole number from 0 to 3"),
        ("label", "nobody", "the column 'label' has 'nobody', must be a whole number from 0 to 3"),
        ("rank", "", "the column 'rank' has nothing, must be a whole number from 0 on"),
        ("likeliest other", "4", "'likeliest other' has '4', must be a whole number from 0 to 3 or nobody"),
        ("looks like", "7", "the column 'looks like' has '7', must be a whole number from 0 to 3 or nobody"),
        ("looks like", "1", "looks like its own label: without this line it stays there"),
        ("own cosine", "much", "the column 'own cosine' has 'much', must be a number"),
    ],
)
def test_a_value_that_cannot_be_is_named_by_its_line(shard, listed, column, value, complaint):
    lines = listed.read_text().splitlines()
    row = lines[3].split("\t")
    row[COLUMNS.index(column)] = value
    save(listed, [*lines[:3], "\t".join(row), *lines[4:]])
    with pytest.raises(LatseError) as raised:
        read_list(listed, shard)
    assert str(raised.value).startswith(f"{listed}, line 4: ") and complaint in str(raised.value)


@pytest.mark.parametrize(
    "edit, complaint",
    [
        (lambda lines: [*lines, lines[3]], "line 6: record .* is there twice"),
        (
            lambda lines: lines[2:],
            "lacks the line `# set: …` that `latse filter` wrote: put it back at the top",
        ),
        (lambda lines: [f"# set: {'0' * 32}", *lines[1:]], "lists images of another set than"),
        (lambda lines: [lines[0], *lines[2:]], "`# k` has nothing, must be a whole number from 0 on"),
        (lambda lines: [lines[0], "# k: x", *lines[2:]], "`# k` has 'x', must be a whole number from 0 on"),
        (lambda lines: [line.replace("\t", ",") for line in lines], "'record'; tabs must part the columns"),
        (lambda lines: [line.replace("\t", ";") for line in lines], "'record'; tabs must part the columns"),
        (lambda lines: lines[:2] + lines[3:], "is no list of `latse filter`: no column 'record'"),
        (lambda lines: lines[:2], "no column 'record'"),
        (lambda lines: [], "no column 'record'"),
    ],
)
def test_what_is_no_such_list_is_refused(shard, listed, edit, complaint):
    save(listed, edit(listed.read_text().splitlines()))
    with pytest.raises(LatseError, match=complaint):
        read_list(listed, shard)


def test_a_list_that_is_cut_anywhere_in_its_last_line_is_refused(shard, tmp_path):
    write_list(tmp_path / "a.tsv", shard, refusals_of([(4, 2, 3, 0.25, 0.75, 3)]), {"k": 1})
    content, cut = (tmp_path / "a.tsv").read_bytes(), tmp_path / "cut.tsv"
    start = content.rindex(b"\n", 0, -1) + 1
    for end in range(start + 1, len(content)):
        cut.write_bytes(content[:end])
        with pytest.raises(LatseError) as raised:
            read_list(cut, shard)
        said = f"{cut}, line 4: it has no line break at its end, so it may be cut off"
        assert str(raised.value).startswith(said)


@pytest.mark.parametrize("count", range(1, len(COLUMNS)))
def test_a_line_that_ends_before_a_column_is_refused(shard, listed, count):
    lines = listed.read_text().splitlines()
    save(listed, [*lines[:3], "\t".join(lines[3].split("\t")[:count]), *lines[4:]])
    with pytest.raises(LatseError, match=r"line 4: the column '.*' has nothing, must be a") as raised:
        read_list(listed, shard)
    missing = [name for name in COLUMNS[count:] if name not in ("image", "name", "other's name")]
    assert any(f"{name!r}" in str(raised.value) for name in missing)


def test_a_list_of_another_set_is_refused_before_its_lines_are(listed, tmp_path):
    other = Shard(write_people(tmp_path / "other", [1]))
    with pytest.raises(LatseError, match="lists images of another set than"):
        read_list(listed, other)
