import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.data.shards.noise import CLEAN, DISTRACTOR, MISLABELLED, OUTSIDE, Truth
from latse.data.shards.records import Shard
from latse.data.shards.shard_writer import write_shard
from latse.data.shards.staging import sizes
from latse.errors import LatseError
from latse.paper import filter_figure
from latse.paper.filter_figure import FilteredImages

BLUE, VERMILION, PAPER = (0, 114, 178), (213, 94, 0), (255, 255, 255)


def judged(label, kept, kind=None, true_label=None):
    label, kept = np.array(label), np.array(kept, bool)
    n = np.arange(len(label))
    truth = None
    if kind is not None:
        truth = Truth(n + 1, label, np.array(kind, np.uint8), np.array(true_label), n + 1)
    return FilteredImages(n, label, kept, truth)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.integers(1, 5))
def test_people_with_most_refused_images_come_first(images, people):
    label, kept = zip(*images)
    chosen = filter_figure.choose_people(judged(label, kept), people).tolist()
    refused = {person: sum(1 for who, keep in images if who == person and not keep) for person in set(label)}
    eligible = {who for who, keep in images if keep}
    assert chosen == sorted(eligible, key=lambda person: (-refused[person], person))[:people]


def test_verdicts_are_marked_where_the_truth_is_known():
    kinds = [CLEAN, CLEAN, MISLABELLED, MISLABELLED, DISTRACTOR]
    known = judged([4] * 5, [1, 0, 1, 0, 0], kinds, [4, 4, 9, 8, OUTSIDE])
    assert [known.right(index) for index in range(5)] == [True, False, False, True, True]
    assert [known.note(index) for index in range(5)] == ["", "", "is 9", "is 8", "outsider"]
    assert known.counts() == {"images": 5, "refused": 3, "noisy": 3, "noisy_refused": 2}
    unknown = judged([4] * 5, [1, 0, 1, 0, 0])
    assert (unknown.right(1), unknown.note(3)) == (None, "")
    assert unknown.counts() == {"images": 5, "refused": 3}


def test_the_caption_counts():
    kinds = [CLEAN, CLEAN, CLEAN, MISLABELLED, DISTRACTOR]
    known = judged([4] * 5, [1, 0, 1, 1, 0], kinds, [4, 4, 4, 8, OUTSIDE])
    assert filter_figure.caption(known, 3) == (
        "Of 5 images the teacher refuses 2 (k = 3). Of the 2 whose label is wrong it refuses 1, of the 3 "
        "whose label is right 1; solid frames mark right verdicts, dashed ones wrong ones. Shown are the "
        "labels with the most refused images."
    )
    assert filter_figure.caption(judged([4, 4], [1, 1]), 1) == "Of 2 images the teacher refuses 0 (k = 1)."


def shade(number):
    """The colour of the image at a position: no two alike, none a frame's or the paper's."""
    return (20 + 12 * number, 100, 200 - 10 * number)


@pytest.fixture
def shard(tmp_path):
    """Two people with six images each, every image of one colour."""
    flat = [np.full((112, 112, 3), shade(number)[::-1], np.uint8) for number in range(12)]
    encoded = [cv2.imencode(".png", image)[1].tobytes() for image in flat]
    write_shard(tmp_path / "set", [(number // 6, image) for number, image in enumerate(encoded)], 2)
    return Shard(tmp_path / "set")


def places(path, colour):
    """Rows and columns, in pixels, that a colour fills in a picture; None where it is absent."""
    picture = cv2.imread(str(path))[..., ::-1]
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    return (rows, columns) if len(rows) > 100 else None


def middle(path, colour):
    return np.array([side.mean() for side in places(path, colour)])


def test_kept_stand_left_of_refused_and_a_row_is_a_label(tmp_path, shard):
    path = tmp_path / "figure.png"
    found = judged(shard.labels, [1, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0])
    filter_figure.draw(path, shard, found, [1, 0])
    where = {n: middle(path, shade(n)) for n in range(12) if places(path, shade(n))}
    assert set(where) == {0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11}  # number 4 is the fourth one kept of its label
    rows = [[6, 9, 10, 7, 8, 11], [0, 1, 3, 2, 5]]
    for row in rows:
        assert np.ptp([where[n][0] for n in row]) < 3
        assert (np.diff([where[n][1] for n in row]) > 50).all()
    assert where[6][0] < where[0][0]
    np.testing.assert_allclose([where[7][1], where[8][1]], [where[2][1], where[5][1]], atol=3)
    assert places(path, BLUE) is None
    assert places(path, VERMILION) is None


def test_frames_tell_right_verdicts_from_wrong_ones(tmp_path, shard):
    path = tmp_path / "figure.png"
    kinds = [CLEAN] * 10 + [MISLABELLED, MISLABELLED]
    found = judged(shard.labels, [1] * 11 + [0], kinds, [0] * 6 + [1] * 4 + [0, 0])
    filter_figure.draw(path, shard, found, [1])
    assert places(path, BLUE) is not None
    assert places(path, VERMILION) is None  # number 10 is kept wrongly, but the fourth one kept
    found.kept[6] = False
    filter_figure.draw(path, shard, found, [1])
    left = places(path, VERMILION)[1]
    assert left.min() < middle(path, shade(6))[1] < left.max()  # refused though clean
    assert left.min() < middle(path, shade(11))[1]


def test_where_nothing_is_refused_the_kept_take_the_row(tmp_path, shard):
    path = tmp_path / "figure.png"
    filter_figure.draw(path, shard, judged(shard.labels, [1] * 12), [0])
    assert [n for n in range(12) if places(path, shade(n))] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("people", "titles"),
    [
        (["Ada", "B$b"], ["Ada\n6 kept\n0 refused", "B\\$b\n6 kept\n0 refused"]),
        ([None, "Ida " * 20], ["label 0\n6 kept", "Ida Ida Ida Ida\nIda Ida Ida Ida…\n6 kept"]),
        (None, ["label 0\n6 kept", "label 1\n6 kept"]),
    ],
)
def test_a_row_is_called_by_its_person(tmp_path, shard, monkeypatch, people, titles):
    if people:
        report = {"people": people, "files": sizes(shard.folder)}
        (shard.folder / "pack.json").write_text(json.dumps(report))
    drawn = []
    monkeypatch.setattr(filter_figure, "save", lambda figure, _: drawn.append(figure))
    filter_figure.draw(tmp_path / "figure.png", shard, judged(shard.labels, [1] * 12), [0, 1])
    said = [text.get_text() for cell in drawn[0].axes for text in cell.texts if "refused" in text.get_text()]
    assert len(said) == len(titles) and all(map(str.startswith, said, titles))


def test_nothing_to_show_is_one_sentence(tmp_path, shard):
    nobody = judged(shard.labels, [0] * 12)
    labels = filter_figure.choose_people(nobody, 8)
    with pytest.raises(LatseError, match="the filter keeps no image"):
        filter_figure.draw(tmp_path / "figure.png", shard, nobody, labels)
    assert not (tmp_path / "figure.png").exists()
