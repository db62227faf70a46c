"""The place of a process in a run, as variables say it."""

import pytest

from latse.cluster.place import PATIENCE, Place, from_environment
from latse.errors import LatseError

WORKER = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "10.0.0.1",
    "DMLC_PS_ROOT_PORT": "9091",
    "DMLC_NUM_WORKER": "4",
    "DMLC_NUM_SERVER": "2",
}


def test_a_process_is_what_the_variables_say():
    assert from_environment(WORKER) == Place("worker", 4, 2, "10.0.0.1", 9091, "worker", PATIENCE)
    named = {**WORKER, "LATSE_NAME": "worker 3", "LATSE_TIMEOUT": "2.5"}
    assert from_environment(named)[-2:] == ("worker 3", 2.5)
    assert from_environment({"DMLC_NUM_WORKER": "4"}) is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DMLC_ROLE", "boss", "DMLC_ROLE is 'boss', must be one of scheduler, server, worker"),
        (
            "DMLC_PS_ROOT_URI",
            "",
            "DMLC_ROLE is worker, so DMLC_PS_ROOT_URI must be the address of the scheduler",
        ),
        (
            "DMLC_PS_ROOT_PORT",
            "65535",
            "DMLC_PS_ROOT_PORT is '65535', must be a whole number from 1 to 65534",
        ),
        ("DMLC_NUM_WORKER", "0", "DMLC_NUM_WORKER is '0', must be a whole number from 1 to 10000"),
        ("DMLC_NUM_SERVER", "²", "DMLC_NUM_SERVER is '²', must be a whole number from 1 to 10000"),
        ("LATSE_TIMEOUT", "soon", "LATSE_TIMEOUT is 'soon', must be a number of seconds"),
        ("LATSE_TIMEOUT", "inf", "LATSE_TIMEOUT is 'inf', must be a number of seconds"),
        ("LATSE_TIMEOUT", "nan", "LATSE_TIMEOUT is 'nan', must be a number of seconds"),
    ],
)
def test_what_is_malformed_is_named(name, value, sentence):
    with pytest.raises(LatseError, match=f"^{sentence}"):
        from_environment({**WORKER, name: value})
