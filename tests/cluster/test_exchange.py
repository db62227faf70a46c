"""Bytes from each worker to each other one."""

import socket

import numpy as np
import pytest

from latse.cluster import exchange as module
from latse.cluster.exchange import Exchange
from latse.errors import LatseError


@pytest.mark.parametrize("count", [2, 4])
def test_each_gets_what_each_has_sent_to_it(together, count):
    def swap(workers):
        exchange = Exchange(workers, 30)
        size = 3_000_000  # more than a connection holds
        got = [
            exchange.swap([bytes([workers.rank, rank, turn]) * size * (rank != 1) for rank in range(count)])
            for turn in (0, 1)
        ]
        exchange.close()
        return [[bytes(part[:3]) for part in parts] for parts in got], {len(p) for p in got[0]}

    for rank, (begins, sizes) in enumerate(together(count, swap)):
        expected = [[bytes([sender, rank, turn]) * (rank != 1) for sender in range(count)] for turn in (0, 1)]
        assert begins == expected
        assert sizes == {0 if rank == 1 else 9_000_000}


def test_a_worker_that_has_gone_is_an_error(together, monkeypatch):
    monkeypatch.setattr("latse.cluster.exchange.GRACE", 0)

    def swap(workers):
        exchange = Exchange(workers, 30)
        if workers.rank == 1:
            return exchange.close()
        return exchange.swap([b"", b""])

    gone = together(2, swap)[0]
    assert isinstance(gone, LatseError) and str(gone).startswith("another worker is gone: ")


def test_a_stranger_is_turned_away(together, monkeypatch):
    connected = module._connected

    def after_strangers(host, port, hello, seconds):
        for content in (b"", b"x" * len(hello), hello[:-1]):
            with socket.create_connection((host, port)) as stranger:
                stranger.sendall(content)
        return connected(host, port, hello, seconds)

    monkeypatch.setattr(module, "_connected", after_strangers)
    got = together(2, lambda workers: Exchange(workers, 30).swap([b"%d" % workers.rank] * 2))
    assert got == [[b"0", b"1"]] * 2


def test_whoever_does_not_come_is_not_waited_for_for_ever(together, monkeypatch):
    monkeypatch.setattr("latse.cluster.exchange._connected", lambda *_: np.nan)
    first, _ = together(2, lambda workers: Exchange(workers, 0.2))
    assert isinstance(first, LatseError) and str(first) == "0 of 1 workers have come"
