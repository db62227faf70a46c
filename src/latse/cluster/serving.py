"""The scheduler and the servers of a run: MXNet's own, which take no object that runs code."""

from __future__ import annotations

import os
import sys
from typing import Callable

from latse.cluster.meeting import Host, Member, ended
from latse.cluster.place import ROLE, SCHEDULER, Place


def serve(place: Place) -> int:
    """Be the scheduler or a server until the workers have ended; return the exit status."""
    # Where the role is known when mxnet is imported, MXNet serves at once, and a server takes a pickle.
    role = os.environ.pop(ROLE)
    from mxnet.kvstore import KVStoreServer, create

    os.environ[ROLE] = role

    class Server(KVStoreServer):
        """A server that takes no command: the workers move their parameters themselves."""

        def _controller(self) -> Callable[[int, bytes, object], None]:
            return lambda number, body, _: ended(f"a server takes no command, and got number {number}")

    meeting = Host(place, ended, _note) if role == SCHEDULER else Member(place)
    Server(create("dist")).run()
    if isinstance(meeting, Host):
        meeting.close()
    else:
        meeting.leave()
    return 0


def _note(text: str) -> None:
    print(f"latse: {text}", file=sys.stderr, flush=True)
