"""The teacher's filter: the label among its top k, re-derived from embeddings and class centres."""

import mxnet as mx
import numpy as np
import pytest

from latse import checkpoint
from latse.data.loader import BatchStream
from latse.data.records import Shard
from latse.errors import LatseError
from latse.train.verdicts import KeepAll, TopK

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
def teacher(tmp_path, arrays):
    """Write the made-up teacher, with arrays replaced (None: left out), and make the filter."""

    def make(k, classes=CLASSES, devices=1, batch_size=BATCH, **replaced):
        data = (mx.sym.var("data") - 127.5) / 128
        tiles = mx.sym.Pooling(data, kernel=(28, 28), stride=(28, 28), pool_type="avg")
        dropped = mx.sym.Dropout(mx.sym.flatten(tiles), p=0.5)
        symbol = mx.sym.FullyConnected(dropped, num_hidden=512, no_bias=True, name="fc1")
        kept = {name: array for name, array in {**arrays, **replaced}.items() if array is not None}
        checkpoint.save(tmp_path / "model", 3, symbol, {name: mx.nd.array(kept[name]) for name in kept}, {})
        contexts = [mx.cpu(number) for number in range(devices)]
        return TopK(tmp_path / "model", 3, k, classes, IMAGE, batch_size, contexts)

    return make


@pytest.fixture(scope="module")
def batches(people):
    stream = BatchStream(Shard(people), BATCH, seed=1)
    return [stream.batch(iteration) for iteration in range(4)]


def ranks(batch, arrays):
    """How many classes have a higher cosine than the label."""
    embeddings = embed(batch.image, arrays["fc1_weight"])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    centres = arrays["fc7_weight"] / np.linalg.norm(arrays["fc7_weight"], axis=1, keepdims=True)
    cosines = embeddings @ centres.T
    return [int((row > row[int(label)]).sum()) for row, label in zip(cosines, batch.label)]


@pytest.mark.parametrize("devices", [1, 2])
def test_the_ranks_are_those_of_the_cosines(teacher, batches, arrays, devices):
    judge = teacher(1, devices=devices)
    expected = [ranks(batch, arrays) for batch in batches]
    assert [judge.ranks(batch).tolist() for batch in batches] == expected
    assert len({rank for some in expected for rank in some}) >= 4  # the made-up teacher is no good


@pytest.mark.parametrize("k", [1, 3, CLASSES])
def test_a_label_among_the_top_k_is_kept(teacher, batches, arrays, k):
    judge = teacher(k)
    for batch in batches:
        keep = judge.keep(batch)
        assert (keep.dtype, keep.shape) == (np.float32, (BATCH,))
        assert keep.tolist() == [float(rank < k) for rank in ranks(batch, arrays)]


def test_the_verdict_does_not_depend_on_the_length_of_class_centres(teacher, batches, arrays):
    lengths = np.array([[0.01], [100], [1], [7], [0.3]])
    expected = [teacher(1).ranks(batch).tolist() for batch in batches]
    scaled = teacher(1, fc7_weight=arrays["fc7_weight"] * lengths)
    assert [scaled.ranks(batch).tolist() for batch in batches] == expected


def test_the_teacher_is_fixed(teacher, batches):
    """Neither dropout nor an earlier batch changes a verdict."""
    judge = teacher(1)
    first = judge.ranks(batches[0]).tolist()
    for batch in batches:
        judge.ranks(batch)
    assert judge.ranks(batches[0]).tolist() == first


def test_nothing_is_said_where_nothing_is_wrong(teacher, recwarn):
    teacher(1)
    assert [warning for warning in recwarn if warning.category is UserWarning] == []


def test_no_filter_keeps_everything(batches):
    assert KeepAll().keep(batches[0]).tolist() == [1.0] * BATCH


def test_a_teacher_without_class_centres_is_named(teacher):
    with pytest.raises(LatseError, match=r"model-0003\.params has no class centres"):
        teacher(1, fc7_weight=None)


def test_a_teacher_of_other_people_is_named(teacher):
    with pytest.raises(LatseError, match=r"model-0003\.params knows 5 people, the data have 6"):
        teacher(1, classes=6)


def test_class_centres_of_another_length_are_named(teacher):
    with pytest.raises(LatseError, match=r"model-0003\.params"):
        teacher(1, fc7_weight=np.ones((CLASSES, 256)))


def test_a_teacher_without_all_its_arrays_is_named(teacher):
    with pytest.raises(LatseError, match=r"model-0003\.params.*fc1_weight"):
        teacher(1, fc1_weight=None)


def test_a_missing_teacher_is_named(tmp_path):
    with pytest.raises(LatseError, match=r"nobody-0000\.params is missing"):
        TopK(tmp_path / "nobody", 0, 1, CLASSES, IMAGE, BATCH, [mx.cpu()])


def test_a_network_without_embedding_is_named(tmp_path):
    symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="other")
    checkpoint.save(tmp_path / "model", 0, symbol, {"fc7_weight": mx.nd.ones((CLASSES, 512))}, {})
    with pytest.raises(LatseError, match=r"model-symbol\.json has no output 'fc1_output'"):
        TopK(tmp_path / "model", 0, 1, CLASSES, IMAGE, BATCH, [mx.cpu()])
