"""A sampled head whose rows are on the parameter servers, trained by real processes."""

import mxnet as mx
import numpy as np
import pytest

from latse.cli import main

SAMPLED = "head.kind=sampled"
PARTED = {"MXNET_KVSTORE_BIGARRAY_BOUND": "100"}  # so that small arrays are parted among servers, too


@pytest.mark.parametrize(("servers", "variables"), [(1, {}), (2, PARTED)])
def test_all_people_on_servers_are_a_dense_head(
    launched, finished, recipe, people, run_metrics, parameters, tmp_path, servers, variables
):
    margin = "margin.name=adaptiveface"
    words = "--data", people, "--out", tmp_path / "begin", "--set", margin, "--set", "train.iterations=1"
    assert main(["train", *map(str, [recipe, *words])]) == 0
    start = "--start", tmp_path / "begin" / "untrained,0"
    words = "--data", people, "--out", tmp_path / "dense", "--set", margin, *start
    assert main(["train", *map(str, [recipe, *words])]) == 0
    out = tmp_path / "served"
    settings = SAMPLED, "head.rate=1", margin
    status, output = finished(launched(recipe, out, *settings, servers=servers, words=start, **variables))
    assert status == 0, output
    for one, other in zip(run_metrics(tmp_path / "dense"), run_metrics(out)):
        np.testing.assert_allclose([*other.values()], [*one.values()], rtol=1e-5)
    one, other = parameters(tmp_path / "dense"), parameters(out)
    for name in ("fc7_weight", "fc7_margin"):
        for part, kind in (("arg", "table"), ("momentum", "table_momentum")):
            expected = one[f"{part}:{name}"]
            np.testing.assert_allclose(other[f"{kind}:{name}"], expected, rtol=1e-4, atol=1e-6, err_msg=name)
    models = [mx.nd.load(str(folder / "model-0000.params")) for folder in (tmp_path / "dense", out)]
    assert models[0].keys() == models[1].keys()


def test_a_killed_run_with_a_sample_goes_on_to_the_same_bits(recipe, killed_and_compared):
    settings = SAMPLED, "head.rate=0.6", "margin.name=centre_loss", "train.iterations=12"
    killed_and_compared(recipe, settings, "server 0")


def test_a_sample_on_two_devices_is_that_on_one(recipe, people, run_metrics, parameters, tmp_path):
    """In one process; the devices share a batch, and each has all rows of the sample."""
    runs = []
    for cpus in (1, 2):
        words = "--data", people, "--out", tmp_path / f"{cpus}", "--cpus", cpus, "--set", SAMPLED
        assert main(["train", *map(str, [recipe, *words, "--set", "head.rate=0.6"])]) == 0
        runs.append(tmp_path / f"{cpus}")
    for one, other in zip(*map(run_metrics, runs)):
        np.testing.assert_allclose([*other.values()], [*one.values()], rtol=1e-5)
    one, other = map(parameters, runs)
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
