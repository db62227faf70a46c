"""`latse inspect`: angles, linear probes and generated faces against numpy."""

import json

import mxnet as mx
import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from latse.cli import main
from latse.data.pairs.pairs import read_pairs, write_people
from latse.data.shards.noise import add_noise, read_truth
from latse.data.shards.records import Shard
from latse.data.synth import truth_file
from latse.data.synth.truth_file import Truth
from latse.eval import class_centres, linear_probes
from latse.eval.restoration import similarity
from latse.eval.verification import distinct_images
from latse.models import checkpoint


@pytest.fixture(scope="module")
def told(pairs_file, tmp_path_factory):
    """The pairs of eight people, who is who, and a truth made up for them."""
    file = tmp_path_factory.mktemp("told") / "told.bin"
    file.write_bytes(pairs_file.read_bytes())
    rounds = [(person, number) for person in range(8) for number in (1, 2, 2)]
    people = np.array([(p, p, p, (p + 1 + n) % 8) for p, n in rounds]).ravel()
    write_people(file, people.reshape(-1, 2))
    images, rng = read_pairs(file).images, np.random.default_rng(0)
    first, inverse = distinct_images(images)
    some = {
        name: rng.normal(size=len(first)).astype(np.float32)[inverse] for name in ("yaw", "pitch", "roll")
    }
    truth = Truth(
        person=people.astype(np.int64),
        **some,
        light=np.zeros((len(people), 3), np.float32),
        age=images.mean(axis=(1, 2, 3)).astype(np.float32),
        smile=(some["yaw"] > 0).astype(np.float32),
        occlusion=np.where(people % 2, "glasses", "none"),
        people=np.arange(8),
        female=np.linspace(0, 1, 8, dtype=np.float32),
        frontal=rng.integers(0, 256, (8, 3, 112, 112)).astype(np.uint8),
    )
    truth_file.write(truth_file.truth_path(file), truth)
    return file


@pytest.fixture(scope="module")
def inspected(told, shard_folder, save_network, tmp_path_factory):
    """The folder of a network with a decoder and two stages, and what the command says of it."""
    folder = tmp_path_factory.mktemp("net")
    rng = np.random.default_rng(7)
    save_network(folder / "model", fc7_weight=rng.normal(size=(6, 512)))
    symbol, args, aux = checkpoint.load(folder / "model", 0)
    earlier = {**args, "fc1_bias": args["fc1_bias"] + 5}
    checkpoint.save(folder / "model", 4, symbol, earlier, aux)
    checkpoint.save(folder / "model", 8, symbol, args, aux)  # the last one, as a run leaves it twice
    out = folder / "inspection.json"
    words = ["inspect", folder, "--data", shard_folder, "--pairs", told, "--json", out]
    assert main([*map(str, words)]) == 0
    return folder, json.loads(out.read_text())


def run_network(folder, images, number=0):
    """Unit embeddings and generated faces in [0, 1] by MXNet itself, of uint8 images."""
    symbol, args, aux = mx.model.load_checkpoint(str(folder / "model"), number)
    both = mx.sym.Group([symbol.get_internals()[name] for name in ("fc1_output", "generated_output")])
    bound = {"data": mx.nd.array(images), **args}
    wanted = {name: bound[name] for name in both.list_arguments()}
    embedding, faces = both.bind(mx.cpu(), wanted, aux_states=aux, grad_req="null").forward(is_train=False)
    embedding = embedding.asnumpy().astype(float)
    return embedding / np.linalg.norm(embedding, axis=1)[:, None], (faces.asnumpy() + 1) / 2


def unit_centres(folder, number=0):
    centres = mx.nd.load(f"{folder}/model-{number:04d}.params")["arg:fc7_weight"].asnumpy().astype(float)
    return centres / np.linalg.norm(centres, axis=1)[:, None]


def test_angles_are_those_to_the_centres(inspected, shard_folder):
    folder, report = inspected
    shard = Shard(shard_folder)
    embedding, _ = run_network(folder, shard.batch(np.arange(24)).image)
    degrees = np.degrees(np.arccos(embedding @ unit_centres(folder).T))
    own, other = [], []
    for row, label in zip(degrees, shard.labels.astype(int)):
        own.append(row[label])
        other.append(np.delete(row, label).min())
    assert set(report["angles"]) == {"all"} and report["angles"]["all"]["images"] == 24
    for name, expected in (("own", own), ("other", other)):
        found = report["angles"]["all"][name]
        assert list(found) == ["5", "25", "50", "75", "95"]
        percent = [5, 25, 50, 75, 95]
        assert list(found.values()) == pytest.approx(np.percentile(expected, percent), abs=1e-2)


def test_of_several_centres_the_nearest_counts():
    centres = np.array([[[1.0, 0], [0, 1]], [[-1, 0], [0, -1]]])
    embedding = np.array([[0.6, 0.8], [-0.6, 0.8]])
    np.testing.assert_allclose(class_centres.cosines(embedding, centres), [[0.8, -0.6], [0.8, 0.6]])
    own, other = class_centres.angles(class_centres.cosines(embedding, centres), np.array([0, 1]))
    np.testing.assert_allclose(np.cos(np.radians(own)), [0.8, 0.6])
    np.testing.assert_allclose(np.cos(np.radians(other)), [-0.6, 0.8])


def test_on_a_noisy_set_right_and_wrong_labels_are_apart(inspected, shard_folder, tmp_path):
    add_noise(shard_folder, tmp_path / "noisy", 0.25, 0.0, seed=1)
    out = tmp_path / "it.json"
    assert main(["inspect", str(inspected[0]), "--data", str(tmp_path / "noisy"), "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    wrong = int((read_truth(tmp_path / "noisy").kind != 0).sum())
    counts = {name: group["images"] for name, group in report["angles"].items()}
    assert counts == {"all": 24, "right": 24 - wrong, "wrong": wrong}
    assert (report["linear"], report["decoder"]) == (None, None)


def test_what_is_generated_is_compared_at_each_stage(inspected, told, shard_folder):
    folder, report = inspected
    found, shard = report["decoder"], Shard(shard_folder)
    images = read_pairs(told).images
    first, _ = distinct_images(images)
    images, people = images[first], truth_file.read(told, len(images)).person[first]
    assert found["images"] == {"told": 24} and list(found["stages"]) == ["4", "0"]
    mirrored = np.concatenate([images, images[..., ::-1]]) / 255
    means = np.stack([mirrored[np.tile(people, 2) == person].mean(axis=0) for person in people])
    frontal = truth_file.read(told, 96).frontal[people] / 255
    known = shard.batch(np.arange(24)).image
    faces = np.stack([known[shard.labels == label] for label in range(6)]).mean(axis=1) / 255
    faces = (faces + faces[..., ::-1]) / 2

    def check(compared, face):
        for target, expected in (("mean", means), ("frontal", frontal)):
            ssim = np.mean([similarity(one, other) for one, other in zip(face, expected)])
            assert compared[target]["ssim"] == pytest.approx(ssim, abs=1e-5)
            assert compared[target]["l1"] == pytest.approx(np.abs(face - expected).mean(), abs=1e-5)

    check(found["average"]["told"], np.repeat(faces.mean(axis=0)[None], 24, axis=0))
    for number in (4, 0):
        embedding, generated = run_network(folder, images, number)
        stage = found["stages"][str(number)]["told"]
        check(stage["generated"], generated)
        check(stage["nearest"], faces[(embedding @ unit_centres(folder, number).T).argmax(axis=1)])


def test_linear_probes_are_those_of_ridge_regression_on_other_people():
    rng = np.random.default_rng(3)
    rows, people = rng.normal(size=(60, 4)) * [1, 5, 0.2, 1] + 3, np.repeat(np.arange(12), 5)
    facts = {"seen": rows @ [1, 2, -3, 0.5] + 12 * rng.normal(size=60), "hidden": rng.normal(size=60)}
    facts["sign"] = rows[:, 1] > 3
    found = linear_probes.probe(rows, facts, people)
    assert found["seen"]["measure"] == "R2" and found["sign"]["measure"] == "AUC"
    assert 0.2 < found["seen"]["score"] < 0.7 and found["hidden"]["score"] < 0.2
    assert found["sign"]["score"] > 0.95 and 0.2 < found["sign"]["chance"] < 0.8
    predicted, chosen = np.empty(60), []
    for train, test in GroupKFold(5).split(rows, groups=people):
        inside = rows[train], facts["seen"][train], people[train]
        misses = [missed(*inside, 10.0**power) for power in range(-3, 4)]
        chosen.append(int(np.argmin(misses)))
        predicted[test] = ridge(*inside[:2], 10.0 ** (chosen[-1] - 3))(rows[test])
    assert len({*chosen}) > 1  # the choice tells
    expected = 1 - ((facts["seen"] - predicted) ** 2).sum() / (60 * facts["seen"].var())
    assert found["seen"]["score"] == pytest.approx(expected)


def test_chance_is_that_of_people_who_changed_places():
    """A fact of the person is one of a person still, so chance spreads as a score of nothing does."""
    people = np.repeat(np.arange(10), [3, 1, 2, 4, 2, 2, 3, 1, 2, 5])
    facts = np.stack([people, np.arange(25)], axis=1).astype(float)
    dealt = linear_probes._dealt(facts, people, np.random.default_rng(1))
    assert sorted(dealt[:, 1]) == list(range(25)) and (dealt[:, 0] != people).sum() > 15
    order = dealt[np.argsort(people, kind="stable"), 0]
    assert np.count_nonzero(np.diff(order)) == 9  # the images of a person stay together


def ridge(rows, y, penalty):
    """What ridge regression predicts."""
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    x = (rows - mean) / spread
    weights = np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    return lambda others: (others - mean) / spread @ weights + y.mean()


def missed(rows, y, people, penalty):
    """The squared error of predictions of people who were left out."""
    return sum(
        ((ridge(rows[train], y[train], penalty)(rows[test]) - y[test]) ** 2).sum()
        for train, test in GroupKFold(5).split(rows, groups=people)
    )


def test_the_command_probes_what_the_truth_says(inspected, told, capsys):
    folder, report = inspected
    images = read_pairs(told).images
    first, _ = distinct_images(images)
    truth = truth_file.read(told, len(images))
    embedding, _ = run_network(folder, images[first])
    facts = {"yaw": truth.yaw[first], "glasses": truth.person[first] % 2 == 1}
    expected = linear_probes.probe(embedding, facts, truth.person[first])
    found = report["linear"]
    assert found["images"] == 24 and set(found["facts"]) == {
        *("yaw", "pitch", "roll", "age", "light side", "light height", "female", "smile", "glasses")
    }
    for name in facts:
        assert found["facts"][name]["score"] == pytest.approx(expected[name]["score"], abs=1e-3)
    assert found["facts"]["light side"]["score"] is None  # the same of all
    assert found["facts"]["female"]["measure"] == "AUC"


def test_without_centres_decoder_and_truth_nothing_is_judged(shard_folder, save_network, tmp_path, capsys):
    save_network(tmp_path / "model", decoder=False, fc7_weight=None)
    assert main(["inspect", f"{tmp_path}/model,0", "--data", str(shard_folder)]) == 0
    assert capsys.readouterr().out == "there are neither class centres nor truth nor a decoder to judge\n"


def test_a_truth_of_other_pairs_is_one_sentence(told, shard_folder, inspected, tmp_path, capsys):
    other = tmp_path / "other.bin"
    other.write_bytes(told.read_bytes())
    truth = truth_file.read(told, 96)
    truth_file.write(truth_file.truth_path(other), truth._replace(yaw=truth.yaw[:-1]))
    words = ["inspect", str(inspected[0]), "--data", str(shard_folder), "--pairs", str(other)]
    assert main(words) == 1
    assert "other.truth.npz: yaw is float32 (95,), must be" in capsys.readouterr().err
    assert main([*words[:4], "--pairs", str(told), str(told)]) == 1
    assert "two files of --pairs have one name" in capsys.readouterr().err
