"""The scheduler and the servers of a run: MXNet's own, which take no object that runs code."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable, Protocol

from latse.cluster.meeting import Host, Member, ended
from latse.cluster.place import ROLE, SCHEDULER, Place

COMMAND = 0  # number of the one that servers take


class Commands(Protocol):
    """What a server does with a command of worker 0."""

    def command(self, told: Any) -> None:
        """Take a command, as JSON holds it."""


def serve(place: Place, commands: Callable[[Any], Commands]) -> int:
    """Be the scheduler or a server until the workers have ended; return the exit status.

    `commands` takes the server's KVStore and returns what takes the commands that come to it.
    """
    # Where the role is known when mxnet is imported, MXNet serves at once, and a server takes a pickle.
    role = os.environ.pop(ROLE)
    from mxnet.kvstore import KVStoreServer, create

    os.environ[ROLE] = role

    class Server(KVStoreServer):
        """A server whose commands are not MXNet's, which are objects that run code."""

        def _controller(self) -> Callable[[int, bytes, object], None]:
            taker: list[Commands] = []  # made when the first command comes, which most runs do without

            def command(told: Any) -> None:
                taker[:] = taker or [commands(self.kvstore)]
                taker[0].command(told)

            return lambda number, body, _: _done(command, number, body)

    meeting = Host(place, ended, _note) if role == SCHEDULER else Member(place)
    Server(create("dist")).run()
    if isinstance(meeting, Host):
        meeting.wait_for_parting()
        meeting.close()
    else:
        meeting.leave()
    return 0


def _done(command: Callable[[Any], None], number: int, body: bytes) -> None:
    """Do a command; where it fails the process ends, as MXNet passes over exceptions."""
    try:
        assert number == COMMAND, number
        command(json.loads(body))
    except Exception as error:  # whatever it is, worker 0 would take it for done
        ended(f"a server got a command that it cannot do: {error!r}")


def _note(text: str) -> None:
    try:
        print(f"latse: {text}", file=sys.stderr, flush=True)
    except OSError:  # the ssh by which it was started is gone
        ended("nobody reads what the scheduler says")
