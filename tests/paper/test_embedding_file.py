"""Rows in files: what is read is what was written, in any part and order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latse.errors import LatseError
from latse.paper.embedding_file import Reopened, embedded


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 5)),
    dtype=st.sampled_from(["<f4", "<f8", ">f4", "<f2"]),
    order=st.sampled_from("CF"),
    data=st.data(),
)
def test_any_part_of_a_file_of_numpy_is_read(tmp_path_factory, shape, dtype, order, data):
    path = tmp_path_factory.mktemp("rows") / "a.npy"
    rows = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    np.save(path, np.asarray(rows, order=order))
    found = Reopened.of(np.load(path, mmap_mode="r"))
    assert len(found) == len(rows)
    start, stop = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 12))
    if start < min(stop, len(rows)):
        assert found[start:stop].tolist() == rows[start:stop].tolist()
    positions = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1)))
    assert found[positions].tolist() == rows[positions].tolist()


def test_a_file_that_has_become_shorter_is_an_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((4, 3)))
    found = Reopened.of(np.load(path, mmap_mode="r"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LatseError, match=r"a\.npy has become shorter"):
        found[2:]
    path.unlink()
    with pytest.raises(LatseError, match=r"cannot read .*a\.npy: No such file"):
        found[:1]


def test_what_is_there_is_not_made_again(tmp_path):
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    path, belongs = tmp_path / "a.part", {"model": "m"}
    assert embedded(path, belongs, 7, rows.__getitem__)[:].tolist() == rows.tolist()
    assert embedded(path, belongs, 7, None)[np.arange(7)].tolist() == rows.tolist()
    for others in (({"model": "n"}, 7), (belongs, 8)):
        with pytest.raises(LatseError, match=r"a\.part holds embeddings of another model or set: remove it"):
            embedded(path, *others, rows.__getitem__)
