"""`latse filter --centres dominant`: what sub-centre ArcFace drops, derived again from embeddings."""

import json

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main
from latse.data.shards import verdict_file
from latse.data.shards.records import Shard
from latse.models import checkpoint
from latse.models.embedding import Network
from latse.train.verdicts import Judge


@pytest.fixture(scope="module")
def teacher(tiny, people, small_encoder, tmp_path_factory):
    """PREFIX,N of a network with three centres for each person, trained for a moment, then spread out."""
    folder = tmp_path_factory.mktemp("teacher")
    settings = f"encoder.name={small_encoder}", "margin.name=subcentre_arcface"
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", str(tiny), "--data", str(people), "--out", str(folder), *words]) == 0
    symbol, args, aux = checkpoint.load(folder / "model", 0)
    assert args["fc7_weight"].shape == (5, 3, 512)
    # Towards what two images of each person look like, so that the angles are not all alike.
    embeddings, centres = embed(f"{folder / 'model'},0", people)[::2], args["fc7_weight"].asnumpy()
    for person in range(5):
        mine = embeddings[Shard(people).labels == person]
        centres[person, 1:] = np.random.default_rng(person).normal(0, 0.3, (2, 512))
        centres[person, :2] += mine[:2] / np.linalg.norm(mine[:2], axis=1, keepdims=True)
    checkpoint.save(folder / "spread", 0, symbol, {**args, "fc7_weight": mx.nd.array(centres)}, aux)
    return f"{folder / 'spread'},0"


def embed(teacher, people):
    """The embeddings of images and mirror images in turn."""
    prefix, _, number = teacher.rpartition(",")
    shard = Shard(people)
    images = shard.batch(np.repeat(np.arange(len(shard)), 2), np.tile([False, True], len(shard))).image
    return Network(prefix, int(number))(images)


def judge(data, teacher, out, *arguments):
    places = ["--data", data, "--teacher", teacher, "--out", out, "--centres", "dominant"]
    return main(["filter", *map(str, [*places, "--batch-size", 8, *arguments])])


def kept(teacher, people, angle):
    """Whether each image and mirror image is near enough to the dominant centre: bool (n, 2)."""
    shard, embeddings = Shard(people), embed(teacher, people).astype(float)
    prefix, _, number = teacher.rpartition(",")
    centres = checkpoint.load(prefix, int(number))[1]["fc7_weight"].asnumpy().astype(float)
    near = []
    for person in range(5):
        mine = embeddings[np.repeat(shard.labels == person, 2)]
        cosines = [[x @ w / np.linalg.norm(x) / np.linalg.norm(w) for w in centres[person]] for x in mine]
        votes = [int(np.argmax(row)) for row in cosines]
        dominant = max(range(3), key=votes.count)
        near += [np.degrees(np.arccos(row[dominant])) < angle for row in cosines]
    return np.array(near).reshape(-1, 2)


@pytest.mark.parametrize("angle", [None, 60.0])
def test_what_is_far_from_the_dominant_centre_is_refused(teacher, people, tmp_path, angle, capsys):
    given = [] if angle is None else ["--angle", angle]
    report = tmp_path / "a.json"
    assert judge(people, teacher, tmp_path / "a.keep", *given, "--check", "--json", report) == 0
    expected = kept(teacher, people, angle or 75)
    assert 0 < expected.mean() < 1  # else the test shows nothing
    verdicts = verdict_file.read(tmp_path / "a.keep")
    for k in verdicts.ks:
        found = [verdicts.keeps(k, np.arange(15), mirrored) for mirrored in (False, True)]
        np.testing.assert_array_equal(np.transpose(found), expected)
    written = json.loads(report.read_text())
    assert (written["centres"], written["angle"]) == ("dominant", angle or 75)
    assert written["checked"]["different"] == 0
    capsys.readouterr()
    assert judge(people, teacher, tmp_path / "a.keep", "--angle", 50) == 1
    assert "the digest of the teacher's graph is" in capsys.readouterr().err


def test_a_second_training_goes_by_it(teacher, people, tiny, small_encoder, tmp_path, run_metrics):
    assert judge(people, teacher, tmp_path / "a.keep") == 0
    recipe = tmp_path / "second.yaml"
    recipe.write_text(
        f"base: {tiny}\nfilter: {{k: 1, gate_losses: true}}\nencoder: {{name: '{small_encoder}'}}\n"
    )
    words = ["--data", people, "--out", tmp_path / "out", "--verdicts", tmp_path / "a.keep"]
    assert main(["train", *map(str, [recipe, *words])]) == 0
    assert 0 < np.mean([line["kept"] for line in run_metrics(tmp_path / "out")]) < 1


def test_the_teachers_ranks_are_by_the_nearest_of_several_centres(teacher, people):
    shard = Shard(people)
    batch = shard.batch(np.arange(8), np.zeros(8, bool))
    prefix, _, number = teacher.rpartition(",")
    centres = checkpoint.load(prefix, int(number))[1]["fc7_weight"].asnumpy().astype(float)
    unit = centres / np.linalg.norm(centres, axis=2, keepdims=True)
    embeddings = embed(teacher, people)[:16:2].astype(float)
    scores = (unit @ (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).T).max(axis=1).T
    expected = [(row > row[label]).sum() for row, label in zip(scores, batch.label.astype(int))]
    assert Judge(teacher, 5, 8, [mx.cpu()]).ranks(batch, [1, 3]).tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--angle", 181], "--angle is 181.0, must be 0 to 180"),
        (["--list", "x.tsv"], "--list and --sheet are by rank, which --centres dominant does not ask for"),
        (["--centres", "learned", "--angle", 75], "--angle is of --centres dominant alone"),
    ],
)
def test_what_does_not_go_together_is_refused(teacher, people, tmp_path, capsys, arguments, sentence):
    assert judge(people, teacher, tmp_path / "a.keep", *arguments) == 1
    assert capsys.readouterr().err == f"latse: {sentence}\n"
    assert not list(tmp_path.iterdir())
