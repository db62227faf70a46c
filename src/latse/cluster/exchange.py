"""Bytes from each worker to each other one, over connections of their own."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Sequence

from latse.cluster.alone import Alone
from latse.errors import LatseError

LISTENS = "DMLC_NODE_HOST"  # the address at which a process listens, as for MXNet
LENGTH = struct.Struct("<Q")
RANK = struct.Struct("<I")
TOKEN_BYTES = 16
PIECE = 1 << 20
GRACE = 5.0  # seconds in which the meeting, which knows why a worker is gone, ends this process


class Exchange:
    """Connections to all other workers. It trusts whoever knows the token that worker 0 has drawn.

    Parameters
    ----------
    workers : Alone
        Those of the run.
    seconds : float
        How long a connection may take to come about.

    Raises
    ------
    LatseError
        If a worker cannot be reached.
    """

    def __init__(self, workers: Alone, seconds: float) -> None:
        self._rank, self._count = workers.rank, workers.count
        address = os.environ.get(LISTENS) or socket.gethostbyname(socket.gethostname())
        with socket.create_server((address, 0), backlog=workers.count) as listening:
            own = address, listening.getsockname()[1], secrets.token_hex(TOKEN_BYTES)
            told = workers.gather("the addresses of the workers", own)
            token = bytes.fromhex(told[0][2])
            listening.settimeout(seconds)
            with ThreadPoolExecutor(1) as pool:
                coming = pool.submit(self._accepted, listening, token)
                self._sockets = {
                    rank: _connected(host, port, token + RANK.pack(self._rank), seconds)
                    for rank, (host, port, _) in enumerate(told)
                    if rank < self._rank
                }
                self._sockets.update(coming.result())
        self._pool = ThreadPoolExecutor(max(1, 2 * (self._count - 1)))

    def swap(self, parts: Sequence[bytes]) -> list[bytes]:
        """Send each worker its part, by rank; return what each has sent to this one."""
        sent = [self._pool.submit(_send, self._sockets[rank], parts[rank]) for rank in self._sockets]
        got = {rank: self._pool.submit(_received, connection) for rank, connection in self._sockets.items()}
        try:
            found = [got[rank].result() if rank in got else parts[rank] for rank in range(self._count)]
            for done in sent:
                done.result()
        except OSError as error:
            time.sleep(GRACE)
            raise LatseError(f"another worker is gone: {error}") from error
        return found

    def close(self) -> None:
        """End the connections."""
        self._pool.shutdown()
        for connection in self._sockets.values():
            connection.close()

    def _accepted(self, listening: socket.socket, token: bytes) -> dict[int, socket.socket]:
        """Return the connections of the workers of higher rank, once all are there."""
        found: dict[int, socket.socket] = {}
        while len(found) < self._count - 1 - self._rank:
            try:
                connection, _ = listening.accept()
            except socket.timeout as error:
                raise LatseError(
                    f"{len(found)} of {self._count - 1 - self._rank} workers have come"
                ) from error
            connection.settimeout(10)
            with contextlib.suppress(OSError):
                said = _exactly(connection, len(token) + RANK.size)
                (rank,) = RANK.unpack(said[len(token) :])
                if secrets.compare_digest(said[: len(token)], token) and self._rank < rank < self._count:
                    found[rank] = _ready(connection)
                    continue
            connection.close()
        return found


def _connected(host: str, port: int, hello: bytes, seconds: float) -> socket.socket:
    until = time.monotonic() + seconds
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=seconds)
            connection.sendall(hello)
            return _ready(connection)
        except OSError as error:
            if time.monotonic() > until:
                raise LatseError(f"the worker at {host}, port {port}, cannot be reached: {error}") from error
            time.sleep(0.2)


def _ready(connection: socket.socket) -> socket.socket:
    connection.settimeout(None)  # whether a worker hangs is seen at the meeting
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send(connection: socket.socket, content: bytes) -> None:
    connection.sendall(LENGTH.pack(len(content)))
    connection.sendall(content)


def _received(connection: socket.socket) -> bytes:
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    """Return so many bytes; OSError if the connection ends before."""
    content = bytearray()
    while len(content) < length:
        piece = connection.recv(min(PIECE, length - len(content)))
        if not piece:
            raise ConnectionError("its connection has ended")
        content += piece
    return bytes(content)
