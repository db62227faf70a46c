import warnings

import numpy as np
import pytest
import sklearn.preprocessing

from latse.errors import LatseError
from latse.models.features import finite, lengths, unit

ROW = "row {}".format


def test_a_direction_is_that_of_the_protocol_to_the_bit():
    rows = np.random.default_rng(0).normal(size=(200, 37))
    assert np.array_equal(unit(rows, ROW), sklearn.preprocessing.normalize(rows))
    assert np.array_equal(lengths(np.array([[3.0, 4], [0, -2]]), ROW), [5, 2])


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16, np.float32, np.float64])
def test_any_type_of_number(dtype):
    found = unit(np.array([[1, 1], [5, 12]], dtype), ROW)
    assert found.dtype == np.result_type(dtype, np.float32)
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [5 / 13, 12 / 13]], atol=1e-6)


@pytest.mark.parametrize(
    ("value", "fault"),
    [(0.0, "zero, which has no direction"), (-0.0, "zero"), (np.nan, "not finite"), (-np.inf, "not finite")],
)
def test_the_first_row_without_a_direction_is_named(value, fault):
    rows = np.ones((5, 3), np.float32)
    rows[2:4] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LatseError, match=f"^row 2 is {fault}"):
            unit(rows, ROW)
    if not np.isfinite(value):
        with pytest.raises(LatseError, match="^row 2 is not finite"):
            finite(rows, ROW)
