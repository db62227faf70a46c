import json
import struct

import numpy as np
import pytest

from latse.errors import LatseError
from latse.eval import megaface
from latse.eval.megaface import FeatureFiles, ImageList


def test_feature_files_are_what_the_kit_reads(tmp_path):
    rows = np.random.default_rng(0).normal(size=(2, 5))
    images = ImageList(["Ann/1.png", "Bob/1.png"], ["Ann", "Bob"])
    megaface.write_features(tmp_path / "f", images, rows, "_r100.bin", tmp_path / "list.json")
    content = (tmp_path / "f" / "Bob" / "1.png_r100.bin").read_bytes()
    assert struct.unpack("<4i", content[:16]) == (5, 1, 4, 5)
    assert struct.unpack("<5f", content[16:]) == tuple(rows[1].astype(np.float32))
    assert megaface.read_image_list(tmp_path / "list.json") == images
    files = FeatureFiles(tmp_path / "f", images.paths, "_r100.bin")
    assert np.array_equal(files[np.array([1, 0])], rows[::-1].astype(np.float32))


def test_a_row_is_read_as_a_column_is(tmp_path):
    (tmp_path / "row.bin").write_bytes(struct.pack("<4i3f", 1, 3, 4, 5, 1, 2, 3))
    assert megaface.read_feature(tmp_path / "row.bin").tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\0" * 15, "ends within its header"),
        (struct.pack("<4i2f", 2, 1, 8, 6, 0, 0), "its header is 2 1 8 6"),
        (struct.pack("<4i4f", 2, 2, 4, 5, 0, 0, 0, 0), "its header is 2 2 4 5"),
        (struct.pack("<4i", -1, 1, 4, 5), "its header is -1 1 4 5"),
        (struct.pack("<4i2f", 3, 1, 4, 5, 0, 0), "holds 8 bytes instead of 3 float32"),
        (struct.pack("<4i2f", 1, 1, 4, 5, 0, 0), "holds 8 bytes instead of 1 float32"),
    ],
)
def test_damaged_feature_files_are_refused(tmp_path, content, sentence):
    path = tmp_path / "a.png_x.bin"
    path.write_bytes(content)
    with pytest.raises(LatseError, match=f"a.png_x.bin.*{sentence}"):
        FeatureFiles(tmp_path, ["a.png"], "_x.bin")[:]


def test_a_missing_file_and_another_length_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(struct.pack("<4i2f", 2, 1, 4, 5, 0, 0))
    (tmp_path / "b").write_bytes(struct.pack("<4i3f", 3, 1, 4, 5, 0, 0, 0))
    with pytest.raises(LatseError, match="b holds 3 values, others 2"):
        FeatureFiles(tmp_path, ["a", "b"], "")[:]
    with pytest.raises(LatseError, match="cannot read .*c: No such file"):
        FeatureFiles(tmp_path, ["c"], "")[:]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], r"list.json: it is \[\], must be an object with keys"),
        ({}, "list.json lacks the key path, which must be a list of at least 1"),
        ({"path": []}, r"path is \[\], must be a list of at least 1"),
        ({"path": [1]}, r"path\[0\] is 1, must be a text"),
        ({"path": ["a", "b"], "id": ["x"]}, "id has 1 names, path has 2: must be as many"),
        ({"path": ["a", "b", "a"]}, "names a twice"),
        ({"path": ["a", "b/../../c"]}, r"the path b/\.\./\.\./c leads out of its folder"),
        ({"path": ["/etc/passwd"]}, "the path /etc/passwd leads out"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, content, sentence):
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(LatseError, match=sentence):
        megaface.read_image_list(tmp_path / "list.json")


def test_people_are_the_id_or_the_folder():
    assert megaface.people_of(ImageList(["x/Ann/1.png"], None)) == ["Ann"]
    assert megaface.people_of(ImageList(["x/Ann/1.png"], ["Bob"])) == ["Bob"]


def test_noisy_entries_are_left_out(tmp_path):
    (tmp_path / "fs.txt").write_text("# of FaceScrub\nAnn_2.png\n\n")
    (tmp_path / "mf.txt").write_text("17\t1/2@N01/b.jpg\n3/4@N02/a.jpg\n")
    probes = ImageList(["Ann/Ann_1.png", "Ann/Ann_2.png", "Bob/Bob_1.png"], ["Ann", "Ann", "Bob"])
    noise = megaface.read_noise(tmp_path / "fs.txt")
    assert megaface.noiseless(probes, noise, megaface.PROBE_PARTS).tolist() == [0, 2]
    distractors = ImageList(["x/1/2@N01/b.jpg", "1/2@N01/c.jpg", "3/4@N02/a.jpg", "3/4@N03/a.jpg"], None)
    noise = megaface.read_noise(tmp_path / "mf.txt")
    assert megaface.noiseless(distractors, noise, megaface.DISTRACTOR_PARTS).tolist() == [1, 3]


def test_a_list_is_read_with_its_noise(tmp_path):
    paths = ["Ann/Ann_1.png", "Ann/Ann_2.png", "Bob/Bob_1.png"]
    (tmp_path / "noise.txt").write_text("Ann_2.png\n")
    for people in ({}, {"id": ["Ann", "Ann", "Bob"]}):
        (tmp_path / "list.json").write_text(json.dumps({"path": paths, **people}))
        found = megaface.read_refined(tmp_path / "list.json", tmp_path / "noise.txt", megaface.PROBE_PARTS)
        assert (found.listed.paths, found.kept.tolist(), found.left_out) == (paths, [0, 2], 1)
        assert found.images == ImageList([paths[0], paths[2]], ["Ann", "Bob"] if people else None)
        found = megaface.read_refined(tmp_path / "list.json", None, megaface.PROBE_PARTS)
        assert (found.kept.tolist(), found.left_out, found.images) == ([0, 1, 2], None, found.listed)


def test_a_list_of_noise_that_does_nothing_is_refused(tmp_path):
    (tmp_path / "noise.txt").write_text("# nothing\n")
    with pytest.raises(LatseError, match="noise.txt names no noisy entry: it must have one in a line"):
        megaface.read_noise(tmp_path / "noise.txt")
    with pytest.raises(LatseError, match="none of 1 noisy entries is among 2 images"):
        megaface.noiseless(ImageList(["a", "b"], None), {"c"}, 1)
    with pytest.raises(LatseError, match="all 2 images are noisy entries"):
        megaface.noiseless(ImageList(["a", "x/b"], None), {"a", "b"}, 1)
    with pytest.raises(LatseError, match="cannot read"):
        megaface.read_noise(tmp_path / "none.txt")
