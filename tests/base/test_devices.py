"""Devices of the command line."""

import argparse

import mxnet as mx
import pytest

from latse.arguments import add_device_arguments
from latse.devices import contexts, share
from latse.errors import LatseError


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_device_arguments(parser)
    return contexts(parser.parse_args(arguments))


def test_one_cpu_by_default():
    assert parsed() == [mx.cpu(0)]


def test_several_cpu_contexts():
    assert parsed("--cpus", "2") == [mx.cpu(0), mx.cpu(1)]


def test_gpus_by_number(monkeypatch):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 2)
    assert parsed("--gpus", "1,0") == [mx.gpu(1), mx.gpu(0)]


@pytest.mark.parametrize("wrong", ["2", "a", "0,,1", "-1", "0,0", "0 1", "\u00b2", ""])
def test_what_is_no_list_of_present_gpus_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 2)
    with pytest.raises(LatseError, match="--gpus"):
        parsed(f"--gpus={wrong}")


def test_without_any_gpu_the_cure_is_named(monkeypatch):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 0)
    with pytest.raises(LatseError, match="--gpus 0: MXNet sees no GPU; for CUDA, `make setup GPU=1`"):
        parsed("--gpus", "0")


@pytest.mark.parametrize("number", ["0", "4097", "9" * 30])
def test_no_cpu_context_or_millions_are_refused(number):
    with pytest.raises(LatseError, match=f"^--cpus is {number}, must be 1 to 4096$"):
        parsed("--cpus", number)


@pytest.mark.parametrize(("batch_size", "devices", "each"), [(6, 1, 6), (6, 2, 3), (6, 6, 1), (768, 8, 96)])
def test_a_batch_is_shared_evenly(batch_size, devices, each):
    assert share(batch_size, [mx.cpu(number) for number in range(devices)]) == each


@pytest.mark.parametrize(("batch_size", "devices"), [(6, 4), (1, 2), (767, 8)])
def test_a_batch_that_cannot_be_shared_is_refused(batch_size, devices):
    with pytest.raises(LatseError, match=f"batch_size {batch_size} cannot be split over {devices} devices"):
        share(batch_size, [mx.cpu(number) for number in range(devices)])
