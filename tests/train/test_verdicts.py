"""The teacher's filter: the label among its top k, re-derived from embeddings and class centres."""

import hashlib

import cv2
import mxnet as mx
import numpy as np
import pytest

from latse.data.shards.loader import BatchStream
from latse.data.shards.records import Batch, Shard
from latse.data.shards.verdict_file import VerdictWriter
from latse.errors import LatseError
from latse.models import checkpoint
from latse.train.verdicts import Judge, KeepAll, Stored, TopK, preprocessing

IMAGE, CLASSES, BATCH = (3, 112, 112), 5, 4


def embed(images, weight):
    """The made-up teacher in numpy: average of each 28x28 tile, then one dense layer."""
    tiles = images.astype(np.float64).reshape(len(images), 3, 4, 28, 4, 28).mean(axis=(3, 5))
    return (tiles.reshape(len(images), -1) - 127.5) / 128 @ weight.T


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return {"fc1_weight": rng.normal(size=(512, 48)), "fc7_weight": rng.normal(size=(CLASSES, 512)) + 0.05}


@pytest.fixture
def judge(tmp_path, arrays):
    """Write the made-up teacher, with arrays replaced (None: left out), and load it as a judge."""

    def make(classes=CLASSES, devices=1, batch_size=BATCH, size=512, **replaced):
        data = (mx.sym.var("data") - 127.5) / 128
        tiles = mx.sym.Pooling(data, kernel=(28, 28), stride=(28, 28), pool_type="avg")
        dropped = mx.sym.Dropout(mx.sym.flatten(tiles), p=0.5)
        symbol = mx.sym.FullyConnected(dropped, num_hidden=size, no_bias=True, name="fc1")
        kept = {name: array for name, array in {**arrays, **replaced}.items() if array is not None}
        given = {
            name: array if isinstance(array, mx.nd.NDArray) else mx.nd.array(array)
            for name, array in kept.items()
        }
        checkpoint.save(tmp_path / "model", 3, symbol, given, {})
        contexts = [mx.cpu(number) for number in range(devices)]
        return Judge(f"{tmp_path / 'model'},3", classes, batch_size, contexts)

    return make


@pytest.fixture
def teacher(judge):
    """Write the made-up teacher and make the filter."""

    def make(k):
        return TopK(judge(), k)

    return make


@pytest.fixture(scope="module")
def batches(people):
    stream = BatchStream(Shard(people), BATCH, seed=1)
    return [stream.batch(iteration) for iteration in range(4)]


def ahead(images, labels, fc1_weight, fc7_weight):
    """By how much the cosine of every class exceeds the label's: (n, CLASSES)."""
    embeddings = embed(images, fc1_weight)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = embeddings @ (fc7_weight / np.linalg.norm(fc7_weight, axis=1, keepdims=True)).T
    return cosines - cosines[np.arange(len(labels)), labels.astype(int)][:, None]


def ranks(batch, arrays):
    """How many classes have a higher cosine than the label."""
    return (ahead(batch.image, batch.label, **arrays) > 0).sum(axis=1).tolist()


@pytest.mark.parametrize("devices", [1, 2])
def test_the_ranks_are_those_of_the_cosines(judge, batches, arrays, devices):
    found = judge(devices=devices)
    expected = [ranks(batch, arrays) for batch in batches]
    assert [found.ranks(batch, [1, 3]).tolist() for batch in batches] == expected
    assert len({rank for some in expected for rank in some}) >= 4  # the made-up teacher is no good
    assert found.alone == 0


@pytest.fixture(scope="module")
def faces():
    """Random images and labels."""
    rng = np.random.default_rng(6)
    return rng.integers(0, 256, (24, *IMAGE), np.uint8), rng.integers(0, CLASSES, 24)


def judged(judge, faces, size, ks):
    """The ranks that a judge gives to all faces in batches of a size, the last one perhaps smaller."""
    images, labels = faces
    found = []
    for rows in np.split(np.arange(len(images)), range(size, len(images), size)):
        batch = Batch(images[rows], labels[rows].astype(np.float32), rows, np.zeros(len(rows), bool))
        found.append(judge.ranks(batch, ks))
    return np.concatenate(found)


def near_ties(arrays):
    """Class centres of two directions and five lengths: 0, 1, 2 and 3, 4 tie but for rounding."""
    return arrays["fc7_weight"][[0, 0, 0, 1, 1]] * np.array([[1], [1 / 3], [7], [0.1], [1.7]])


@pytest.mark.parametrize("devices, size", [(1, 2), (1, 3), (1, 10), (1, 24), (2, 2), (2, 10)])
def test_a_verdict_on_a_near_tie_does_not_depend_on_the_batch(judge, arrays, faces, devices, size):
    """Without the second look many of these verdicts are others in another batch."""
    ks, centres = [1, 2, 4], near_ties(arrays)
    together = judged(judge(devices=devices, batch_size=size, fc7_weight=centres), faces, size, ks)
    alone = judged(judge(batch_size=1, fc7_weight=centres), faces, 1, ks)
    backwards = [array[::-1] for array in faces]
    reordered = judged(judge(devices=devices, batch_size=size, fc7_weight=centres), backwards, size, ks)[::-1]
    for k in ks:
        assert (together < k).tolist() == (reordered < k).tolist() == (alone < k).tolist()
        assert 0 < (alone < k).mean() < 1


@pytest.mark.parametrize("ks", [[1], [2], [3], [5], [2, 4], [1, 2, 3, 4, 5]])
def test_only_where_a_near_tie_decides_is_the_image_looked_at_again(judge, arrays, faces, ks):
    centres = near_ties(arrays)
    found = judge(devices=2, fc7_weight=centres)
    given = judged(found, faces, BATCH, ks)
    by = ahead(*faces, arrays["fc1_weight"], centres)
    assert not ((np.abs(by) > 1e-6) & (np.abs(by) < 1e-4)).any()  # a tie or none
    least, most = (by > 1e-5).sum(axis=1), (by > -1e-5).sum(axis=1) - 1
    assert ((least <= given) & (given <= most)).all()
    expected = sum(any(low < k <= high for k in ks) for low, high in zip(least, most))
    assert found.alone == expected
    assert (expected == 0) == (ks == [5])


@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_a_label_among_the_top_k_is_kept(teacher, batches, arrays, k):
    judge = teacher(k)
    for batch in batches:
        keep = judge.keep(batch)
        assert (keep.dtype, keep.shape) == (np.float32, (BATCH,))
        assert keep.tolist() == [float(rank < k) for rank in ranks(batch, arrays)]


def test_the_verdict_does_not_depend_on_the_length_of_class_centres(judge, batches, arrays):
    lengths = np.array([[0.01], [100], [1], [7], [0.3]])
    expected = [judge().ranks(batch, [1]).tolist() for batch in batches]
    scaled = judge(fc7_weight=arrays["fc7_weight"] * lengths)
    assert [scaled.ranks(batch, [1]).tolist() for batch in batches] == expected


@pytest.mark.parametrize("kind", ["float16", "several"])
def test_ranks_are_exact_for_other_kinds_of_class_centres(judge, batches, arrays, kind):
    centres = np.float32(arrays["fc7_weight"]).astype(np.float16)
    given, each = mx.nd.array(centres, dtype="float16"), centres.astype(np.float64)
    if kind == "several":  # the second centre of a class is opposite the first
        given, each = np.stack([each, -each], axis=1), np.stack([each, -each], axis=1)
    found = judge(fc7_weight=given)
    unit = each / np.linalg.norm(each, axis=-1, keepdims=True)
    for batch in batches:
        embeddings = embed(batch.image, arrays["fc1_weight"])
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        cosines = np.einsum("nd,k...d->nk...", embeddings, unit)
        cosines = cosines.max(axis=2) if kind == "several" else cosines
        own = cosines[np.arange(BATCH), batch.label.astype(int)]
        assert found.ranks(batch, [1, 3]).tolist() == (cosines > own[:, None]).sum(axis=1).tolist()
        likeliest = found.likeliest(batch)
        np.testing.assert_allclose(likeliest[0], own, atol=1e-6)


def test_the_teacher_is_fixed(judge, arrays, faces):
    """Neither dropout, nor an earlier batch, nor an image that was looked at again changes a verdict."""
    found = judge(fc7_weight=near_ties(arrays))
    first = judged(found, faces, BATCH, [1, 2]).tolist()
    assert found.alone > 0
    assert judged(found, faces, BATCH, [1, 2]).tolist() == first


def test_nothing_is_said_where_nothing_is_wrong(judge, arrays, faces, recwarn):
    judged(judge(fc7_weight=near_ties(arrays)), faces, BATCH, [1])
    assert [warning for warning in recwarn if warning.category is UserWarning] == []


def test_no_filter_keeps_everything(batches):
    assert KeepAll().keep(batches[0]).tolist() == [1.0] * BATCH


def test_a_teacher_without_class_centres_is_named(judge):
    with pytest.raises(LatseError, match=r"model-0003\.params has no class centres"):
        judge(fc7_weight=None)


def test_a_teacher_of_other_people_is_named(judge):
    with pytest.raises(LatseError, match=r"model-0003\.params knows 5 people, the data have 6"):
        judge(classes=6)


@pytest.mark.parametrize("embeddings, centres", [(512, 256), (256, 512)])
def test_numbers_of_embeddings_and_class_centres_that_do_not_fit_are_said(judge, embeddings, centres):
    sentence = (
        rf"model-0003\.params has embeddings of {embeddings} numbers and class centres of {centres}: both"
    )
    arrays = {"fc1_weight": np.ones((embeddings, 48)), "fc7_weight": np.ones((CLASSES, centres))}
    with pytest.raises(LatseError, match=sentence):
        judge(size=embeddings, **arrays)


def test_a_teacher_may_have_embeddings_of_any_length(judge, arrays, faces):
    shorter = {
        name: array[:128] if name == "fc1_weight" else array[:, :128] for name, array in arrays.items()
    }
    ranks = judged(judge(size=128, **shorter), faces, BATCH, [1])
    assert ranks.tolist() == (ahead(*faces, *shorter.values()) > 0).sum(axis=1).tolist()


def test_a_teacher_without_all_its_arrays_is_named(judge):
    with pytest.raises(LatseError, match=r"model-0003\.params .* 1 missing \(fc1_weight\)"):
        judge(fc1_weight=None)


def test_a_missing_teacher_is_named(tmp_path):
    with pytest.raises(LatseError, match=r"nobody-0000\.params is missing"):
        Judge(f"{tmp_path / 'nobody'},0", CLASSES, BATCH, [mx.cpu()])


def test_a_network_without_embedding_is_named(tmp_path):
    symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="other")
    checkpoint.save(tmp_path / "model", 0, symbol, {"fc7_weight": mx.nd.ones((CLASSES, 512))}, {})
    with pytest.raises(LatseError, match=r"model-symbol\.json has no output 'fc1_output'"):
        Judge(f"{tmp_path / 'model'},0", CLASSES, BATCH, [mx.cpu()])


def test_preprocessing_is_told_by_what_the_networks_get(people, pictures, monkeypatch):
    shard, expected = Shard(people), hashlib.blake2b(digest_size=16)
    for _, jpeg in pictures:
        planes = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1)
        for seen in (planes, planes[:, :, ::-1]):
            expected.update(b"(3, 112, 112)" + seen.tobytes())
    found = preprocessing(shard)
    assert found == expected.hexdigest()
    read_into = Shard.read_into

    def upside_down(self, planes, position, mirrored):
        read_into(self, planes, position, False)
        planes[:] = planes[:, ::-1].copy() if mirrored else planes

    monkeypatch.setattr(Shard, "read_into", upside_down)
    assert preprocessing(shard) != found


def test_stored_verdicts_belong_to_a_set_and_its_preprocessing(people, tmp_path):
    shard = Shard(people)
    fits = {"teacher": "t", "graph": "g", "data": shard.digest(), "preprocessing": preprocessing(shard)}
    cases = [
        ({}, len(shard), None),
        ({"data": "other"}, len(shard), "holds verdicts on another set than"),
        ({}, len(shard) - 1, "holds verdicts on another set than"),
        ({"preprocessing": "other"}, len(shard), "decoded or mirrored otherwise"),
    ]
    for number, (changes, images, sentence) in enumerate(cases):
        path = tmp_path / f"{number}.keep"
        writer = VerdictWriter(path, {**fits, **changes}, [1], images)
        writer.put(np.arange(images), np.zeros((images, 2)))
        writer.finish()
        if sentence is None:
            assert Stored(path, 1, shard).teacher == "t"
            continue
        with pytest.raises(LatseError, match=f"{number}.keep .*{sentence}"):
            Stored(path, 1, shard)


def test_a_teacher_with_a_class_centre_that_is_no_number_is_refused(judge, arrays):
    broken = arrays["fc7_weight"].copy()
    broken[-1, 0] = np.nan
    with pytest.raises(LatseError, match=r"model-0003\.params has class centres that are not finite"):
        judge(fc7_weight=broken)


@pytest.mark.parametrize(("factor", "fault"), [(np.nan, "not finite"), (0, "zero, which has no direction")])
def test_an_embedding_without_a_direction_is_named_with_the_record(judge, batches, arrays, factor, fault):
    """Nothing is above NaN, no cosine of zeros above the others: each label would pass for the likeliest."""
    sentence = rf"model-0003\.params: the embedding of record {batches[0].record[0]} is {fault}"
    with pytest.raises(LatseError, match=sentence):
        judge(fc1_weight=factor * arrays["fc1_weight"]).ranks(batches[0], [1])
