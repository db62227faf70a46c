"""What is known of the images of synthetic sets."""

import dataclasses
import json

import numpy as np
import pytest
from test_synth_sets import number_plate, read_plate

from latse.child import in_child
from latse.cli import main
from latse.data.pairs.pairs import read_pairs, read_people
from latse.data.synth import plan, sets, truth, truth_file
from latse.data.synth.arithmetic import same_everywhere
from latse.data.synth.people import draw_person, draw_view
from latse.data.synth.plan import SynthSettings
from latse.data.synth.render import drawn_occlusion, render
from latse.errors import LatseError

SMALL = SynthSettings(people=3, images=4, seed=5, verification_people=20, distractors=0)


def shade(seed, person):
    """A face that is drawn in no time."""
    return np.full((3, 112, 112), person % 200, np.uint8)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The folder of a small set of number plates with its truth."""
    folder = tmp_path_factory.mktemp("known")
    sets.make(folder, SMALL, 1, number_plate)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth, "portrait", shade)
        made = truth.make(folder, 1, number_plate)
    assert {*made} == {*folder.rglob("*")} - {*before} - {*filter(lambda p: p.is_dir(), folder.rglob("*"))}
    assert all(path.read_bytes() == content for path, content in before.items())
    return folder


def check(found, plates):
    """Check the truth of images against what their plates say of them."""
    for row, (person, image, kind, is_aged) in enumerate(plates):
        assert found.person[row] == person == found.people[found.number[row]]
        own = draw_person(5, person)
        assert found.female[found.number[row]] == np.float32(own.female)
        view = draw_view(5, person, image, kind, 30.0 if is_aged else None)
        for name in ("yaw", "pitch", "roll", "light"):
            np.testing.assert_array_equal(getattr(found, name)[row], np.float32(getattr(view, name)))
        assert found.smile[row] == np.float32(view.expression.get("mouthSmileRight", 0))
        assert is_aged or found.age[row] == np.float32(own.age)
        assert view.occlusion == found.occlusion[row] or (own.glasses and found.occlusion[row] == "glasses")
    assert (found.frontal == np.array(found.people % 200)[:, None, None, None]).all()


def test_the_truth_of_a_training_set_is_in_the_order_of_its_records(known):
    found = truth_file.read(known, 12)
    plates = [read_plate(sets.Shard(known).read(position)[0]) for position in range(12)]
    check(found, plates)
    assert found.people.tolist() == [0, 1, 2] and found.person.tolist() == sets.Shard(known).labels.tolist()


@pytest.mark.parametrize("name", plan.VERIFICATION)
def test_the_truth_of_pairs_is_in_the_order_of_their_images(known, name):
    path = known / f"{name}.bin"
    images = read_pairs(path).images
    found = truth_file.read(path, len(images))
    check(found, [read_plate(image.transpose(1, 2, 0)) for image in images])
    np.testing.assert_array_equal(found.person, read_people(path))
    if name == "cross-age":
        aged = [read_plate(image.transpose(1, 2, 0))[1] < 3 for image in images]
        assert ((found.age < 33) == aged).all() and found.age.min() >= 18 and found.age.max() <= 62


def test_yaw_and_light_are_as_seen_in_the_picture():
    heads, person = sets.all_heads(), draw_person(3, 1)
    for image in range(2):
        view = draw_view(3, 1, image, "profile")
        points = render(heads, person, view).points
        assert np.sign(points[2, 0] - points[:2, 0].mean()) == np.sign(view.yaw)
    side = dataclasses.replace(truth.PLAIN, light=(0.9, 0.0, 0.19**0.5))
    picture = render(heads, person, side).image[90:190].astype(float)
    assert picture[:, 128:178].mean() > 1.15 * picture[:, 78:128].mean()


def test_glasses_are_said_where_they_are_drawn():
    heads = sets.all_heads()
    person = next(one for one in (draw_person(0, n) for n in range(100)) if one.glasses)
    views = [draw_view(0, person.number, image) for image in range(30)]
    views = [view for view in views if view.occlusion == "none"]
    drawn = [drawn_occlusion(person, view) for view in views]
    assert {*drawn} == {"none", "glasses"}
    for kind in ("none", "glasses"):
        view = views[drawn.index(kind)]
        bare = render(heads, dataclasses.replace(person, glasses=False), view).image
        with_glasses = render(heads, person, view).image
        moved = np.abs(bare.astype(int) - with_glasses) > 60
        assert (moved.mean() > 0.002) == (kind == "glasses")


def test_the_face_of_a_person_is_upright_and_the_same_again():
    one = truth.portrait(2, 7)
    assert one.shape == (3, 112, 112) and one.dtype == np.uint8
    np.testing.assert_array_equal(one, truth.portrait(2, 7))
    assert (
        np.abs(one.astype(int) - one[..., ::-1]).mean() < 25 < np.abs(one.astype(int) - one[:, ::-1]).mean()
    )


def test_the_command_writes_beside_a_real_set(tmp_path, capsys):
    settings = "--people", "2", "--images", "2", "--verification-people", "0", "--processes", "1"
    assert main(["data", "synth", "--out", str(tmp_path), *settings]) == 0
    capsys.readouterr()
    assert main(["data", "synth-truth", str(tmp_path), "--processes", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'train.truth.npz'}\n"
    found = truth_file.read(tmp_path, 4)
    with same_everywhere():
        np.testing.assert_array_equal(found.frontal[1], in_child("a face", truth.portrait, 0, 1))
    assert main(["data", "synth", "--out", str(tmp_path), *settings]) == 0
    assert "is there already" in capsys.readouterr().out


def test_a_set_that_would_be_drawn_otherwise_is_refused(known, tmp_path, capsys):
    assert main(["data", "synth-truth", str(known), "--processes", "1"]) == 1
    assert (
        capsys.readouterr().err
        == f"latse: {known}: this version of latse draws its first picture otherwise\n"
    )
    assert main(["data", "synth-truth", str(tmp_path), "--processes", "1"]) == 1
    assert "synth.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"settings": SMALL._replace(detect=True)._asdict()}, "was made with --detect: nobody knows which"),
        ({"settings": {"people": 1}}, "holds no whole set of `latse data synth`"),
        ({"bytes": {"train.rec": 7}}, "holds no whole set of `latse data synth`"),
    ],
)
def test_a_manifest_of_another_set_is_one_sentence(known, tmp_path, change, sentence):
    for path in known.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    made = json.loads((known / "synth.json").read_text())
    made["bytes"] = {name: size for name, size in made["bytes"].items() if "/" not in name}
    (tmp_path / "synth.json").write_text(json.dumps({**made, **change}))
    with pytest.raises(LatseError, match=sentence):
        truth.make(tmp_path, 1, number_plate)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"yaw": np.zeros(11, np.float32)}, r"yaw is float32 \(11,\), must be of shape \(12,\)"),
        ({"female": np.zeros(3, int)}, r"female is int64 \(3,\), must be of shape"),
        ({"people": np.array([0, 1, 3])}, "the people of the images are not those of whom it tells"),
        ({"person": None}, "is damaged"),
    ],
)
def test_a_damaged_truth_is_one_sentence(known, tmp_path, changed, sentence):
    content = {**truth_file.read(known, 12)._asdict(), **changed}
    path = tmp_path / "train.truth.npz"
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    with pytest.raises(LatseError, match=sentence):
        truth_file.read(tmp_path, 12)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(LatseError, match="is damaged"):
        truth_file.read(tmp_path, 12)
    path.unlink()
    with pytest.raises(LatseError, match="there is no .*latse data synth-truth"):
        truth_file.read(tmp_path, 12)
