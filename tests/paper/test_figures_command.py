import json
import re
import shutil

import cv2
import mxnet as mx
import numpy as np
import pytest

from latse import cli
from latse.data.pairs.pairs import people_path, read_pairs, write_pairs
from latse.data.shards.noise import add_noise
from latse.data.shards.records import Shard
from latse.models import checkpoint
from latse.paper.figures_command import people_in_pairs

SETTINGS = {
    "margin": {"name": "linearface", "a": 1.0, "b": 1.0, "s": 64.0},
    "decoder": {"enabled": True},
    "filter": {"k": 1},
}


def encoder():
    """Mean colours of 7x7 fields as the first 147 of 512 numbers of the embedding."""
    net = mx.sym.Pooling(mx.sym.var("data") / 255 - 0.5, kernel=(16, 16), stride=(16, 16), pool_type="avg")
    return mx.sym.FullyConnected(mx.sym.flatten(net), num_hidden=512, name="fc1")


def save(prefix, number, symbol, **arrays):
    args = {name: mx.nd.array(array) for name, array in arrays.items()}
    checkpoint.save(prefix, number, symbol, args, {})


def save_student(prefix, number, share):
    """An encoder that sees a `share` of each image, and a decoder that shows what the embedding holds."""
    small = mx.sym.FullyConnected(encoder(), num_hidden=147, name="decoder_expand")
    large = mx.sym.UpSampling(mx.sym.reshape(small, (-1, 3, 7, 7)), scale=16, sample_type="nearest")
    symbol = mx.sym.Group([encoder(), mx.sym.tanh(large, name="generated")])
    weights = {"decoder_expand_weight": np.eye(147, 512), "decoder_expand_bias": np.zeros(147)}
    save(prefix, number, symbol, fc1_weight=share * np.eye(512, 147), fc1_bias=np.zeros(512), **weights)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, people):
    """A run whose teacher knows every person of the set, and whose student sees more at every stage."""
    folder = tmp_path_factory.mktemp("run")
    shard = Shard(people)
    images = np.stack([shard.read(position)[0].transpose(2, 0, 1) for position in range(len(shard))])
    fields = (images / 255 - 0.5).reshape(-1, 3, 7, 16, 7, 16).mean(axis=(3, 5)).reshape(-1, 147)
    centres = np.stack([fields[shard.labels == label].mean(axis=0) for label in range(shard.classes)])
    weights = {"fc1_weight": np.eye(512, 147), "fc7_weight": centres @ np.eye(147, 512)}
    save(folder / "teacher" / "model", 0, encoder(), fc1_bias=np.zeros(512), **weights)
    for number, share in ((2, 0.1), (4, 0.5), (6, 1), (0, 1)):
        save_student(folder / "student" / "model", number, share)
    record = {"recipe": "made_up", "seed": 3, "settings": SETTINGS, "data": {"digest": shard.digest()}}
    (folder / "student" / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def figures(whole_run, people, pairs_file, tmp_path):
    """Run `latse figures` with options; return its exit status."""

    def start(*options, run=whole_run, data=people, pairs=pairs_file):
        paths = {"--run": run, "--data": data, "--pairs": pairs, "--out": tmp_path / "figures"}
        return cli.main(["figures", *(str(part) for pair in paths.items() for part in pair), *options])

    return start


def read(tmp_path):
    return json.loads((tmp_path / "figures" / "figures.json").read_text())


def changed(whole_run, folder, **settings):
    """Copy a run, with other settings."""
    shutil.copytree(whole_run, folder)
    record = json.loads((folder / "student" / "run.json").read_text())
    record["settings"].update(settings)
    (folder / "student" / "run.json").write_text(json.dumps(record))
    return folder


def test_all_figures_of_a_run(figures, tmp_path, capsys):
    assert figures() == 0
    found, said = read(tmp_path), capsys.readouterr().out
    files = {number: figure["file"] for number, figure in found["figures"].items()}
    assert files == {"1": "figure-1.png", "3": "figure-3.svg", "4": "figure-4.png", "5": "figure-5.png"}
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {*files.values(), "figure-3.png", "figures.json"}
    for number in "1345":
        assert cv2.imread(str(tmp_path / "figures" / f"figure-{number}.png")) is not None
        assert f"Figure {number}: {tmp_path}" in said
        assert found["figures"][number]["caption"].endswith(".")
    assert found["kind"] == "figures"
    assert found["provenance"]["command"].startswith("latse figures --run")
    assert (found["run"]["recipe"], found["run"]["seed"], found["absent"]) == ("made_up", 3, {})
    assert found["figures"]["1"]["caption"].startswith("8 people of people.")
    assert found["figures"]["3"]["caption"].startswith("Target logits of 6 losses")  # and the run's own
    assert found["figures"]["5"]["stages"] == [2, 4, 6]
    assert "linearface a=1 b=1" in (tmp_path / "figures" / "figure-3.svg").read_text()


def test_a_good_teacher_refuses_exactly_the_wrong_labels(figures, people, tmp_path):
    add_noise(people, tmp_path / "noisy", mislabel=0.2, distractor=0.2, seed=0)
    assert figures("--only", "4", "--batch-size", "4", data=tmp_path / "noisy") == 0
    figure = read(tmp_path)["figures"]["4"]
    assert figure["counts"] == {"images": 15, "refused": 6, "noisy": 6, "noisy_refused": 6}
    assert "Of the 6 whose label is wrong it refuses 6, of the 9 whose label is right 0" in figure["caption"]
    assert figure["caption"].endswith("The set noisy is not the one that the student was trained on.")
    assert figures("--only", "4", data=people) == 0
    assert read(tmp_path)["figures"]["4"]["caption"] == "Of 15 images the teacher refuses 0 (k = 1)."


def test_stored_verdicts_say_what_the_teacher_says(figures, whole_run, people, tmp_path):
    noisy = tmp_path / "noisy"
    add_noise(people, noisy, mislabel=0.4, distractor=0, seed=1)
    teacher, out = f"{whole_run}/teacher/model,0", tmp_path / "verdicts.keep"
    filtering = ["filter", "--data", noisy, "--teacher", teacher, "--out", out, "--k", "1", "2"]
    assert cli.main([str(part) for part in filtering]) == 0
    pictures = []
    for options in (("--verdicts", str(out)), ()):
        assert figures("--only", "4", "--k", "2", *options, data=noisy) == 0
        pictures.append((tmp_path / "figures" / "figure-4.png").read_bytes())
        assert read(tmp_path)["figures"]["4"]["k"] == 2
    assert pictures[0] == pictures[1]
    assert figures("--only", "4", "--verdicts", str(out), data=people) == 1


def test_only_as_many_images_are_asked_about(figures, tmp_path):
    counts = []
    for asked in ("3", "4", "15"):
        assert figures("--only", "4", "--asked", asked) == 0
        counts.append(read(tmp_path)["figures"]["4"]["counts"]["images"])
    assert counts == [3, 6, 15]


def test_what_the_recipe_has_no_part_for_is_said(figures, whole_run, tmp_path, capsys):
    run = changed(whole_run, tmp_path / "plain", decoder={"enabled": False}, filter={"k": None})
    assert figures(run=run) == 0
    assert list(read(tmp_path)["figures"]) == ["3"]
    assert set(read(tmp_path)["absent"]) == {"1", "4", "5"}
    assert "Figure 5: the student has no decoder" in capsys.readouterr().out
    assert figures("--only", "4", run=run) == 1
    assert "was trained without a filter: name --k" in capsys.readouterr().err
    assert figures("--k", "1", run=run) == 0
    assert list(read(tmp_path)["figures"]) == ["3", "4"]


def test_what_a_short_run_with_stored_verdicts_lacks_is_said(figures, whole_run, tmp_path):
    run = changed(whole_run, tmp_path / "short")
    (run / "student" / "model-0004.params").unlink()
    shutil.rmtree(run / "teacher")
    assert figures(run=run) == 0
    found = read(tmp_path)
    assert list(found["figures"]) == ["1", "3"]
    assert "fewer than three checkpoints" in found["absent"]["5"]
    assert "no teacher, and no --verdicts" in found["absent"]["4"]
    assert figures("--stages", "2", "6", "0", "--teacher", f"{whole_run}/teacher/model", run=run) == 0
    assert list(read(tmp_path)["figures"]) == ["1", "3", "4", "5"]
    assert figures("--only", "5", run=run) == 1
    assert figures("--teacher", "nowhere/model,0", run=run) == 1


def test_an_unfinished_teacher_is_its_newest_checkpoint_which_is_said(figures, whole_run, tmp_path, capsys):
    run = changed(whole_run, tmp_path / "unfinished")
    (run / "teacher" / "model-0000.params").rename(run / "teacher" / "model-0004.params")
    assert figures("--only", "3", run=run) == 0
    assert "not finished" not in capsys.readouterr().err
    assert figures("--only", "4", run=run) == 0
    said = f"latse: {run}/teacher: the run is not finished; its newest checkpoint model,4 is taken\n"
    assert said in capsys.readouterr().err
    assert figures(run=run) == 0 and read(tmp_path)["absent"] == {}


def test_a_loss_without_target_logit_is_left_out_of_figure_3(figures, whole_run, tmp_path):
    run = changed(whole_run, tmp_path / "other", margin={"name": "softmax"})
    assert figures("--only", "3", run=run) == 0
    assert read(tmp_path)["figures"]["3"]["caption"].startswith("Target logits of 5 losses")


def test_person_and_stages_are_as_asked(figures, tmp_path):
    assert figures("--only", "5", "--person", "2", "--stages", "4", "2", "0") == 0
    figure = read(tmp_path)["figures"]["5"]
    assert (figure["person"], figure["stages"]) == (2, [4, 2, 0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--only", "5", "--person", "8"), r"--person 8: .*people\.bin has people 0 to 7"),
        (("--only", "5", "--person", "-1"), "--person -1"),
        (("--only", "5", "--stages", "1", "2", "3"), r"model-0001\.params is missing"),
        (("--only", "4", "--k", "0"), "--k is 0, must be at least 1"),
        (("--asked", "0"), "--asked is 0, must be at least 1"),
        (("--batch-size", "0"), "--batch-size is 0, must be 1 to 2147483647"),
        (("--only", "4", "--teacher", "nowhere/model,0"), r"nowhere/model-0000\.params is missing"),
    ],
)
def test_bad_options_are_one_sentence(figures, tmp_path, capsys, options, sentence):
    assert figures(*options) == 1
    captured = capsys.readouterr().err.strip().splitlines()[-1]
    assert captured.startswith("latse: ")
    assert re.search(sentence, captured)
    assert not (tmp_path / "figures" / "figures.json").exists()


@pytest.mark.parametrize("content", ["[]", '{"settings": {}}', '{"settings": {"filter": 3}}', "{"])
def test_a_damaged_record_is_named(figures, whole_run, tmp_path, capsys, content):
    run = changed(whole_run, tmp_path / "damaged")
    (run / "student" / "run.json").write_text(content)
    assert figures(run=run) == 1
    assert "student/run.json" in capsys.readouterr().err


def test_people_come_from_the_file_beside_the_pairs(pictures, tmp_path):
    path = tmp_path / "pairs.bin"
    # Images 0 3 1 4 0 1 by number: 0 and 3, 1 and 4 are never said to be of one person by a pair.
    encoded = [pictures[number][1] for number in (0, 3, 1, 4, 0, 1)]
    write_pairs(path, encoded, [False, False, True])
    found = people_in_pairs(path)
    assert found.person.tolist() == [0, 1, 0, 2]
    np.save(people_path(path), np.array([7, 2, 7, 2, 7, 7]))
    found = people_in_pairs(path)
    assert found.person.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(found.images, read_pairs(path).images[:4])
    assert (len(found.first_images(10)), found.most_images()) == (2, 0)


def test_a_people_file_of_other_pairs_is_refused(figures, pairs_file, tmp_path, capsys):
    path = tmp_path / "other.bin"
    shutil.copy(pairs_file, path)
    for people, sentence in ((3, "other.people.npy names 3 people"), (96, "pair 1 shows two people, but by")):
        np.save(people_path(path), np.zeros(people, np.int64))
        assert figures("--only", "1", pairs=path) == 1
        assert sentence in capsys.readouterr().err
