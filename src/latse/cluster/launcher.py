"""The launcher of a run over several hosts at the meeting: what it starts by ssh gets no signal from it."""

from __future__ import annotations

import queue
import sys
import threading
from typing import Any, Callable

from latse.cluster.meeting import DIED, Member
from latse.cluster.place import Place
from latse.errors import LatseError

GRACE = 5.0  # seconds that it may take to be heard


class Launcher:
    """The launcher's part in the meeting, which it joins in a thread: nobody waits for that.

    Parameters
    ----------
    place : Place
        The launcher's.
    ended : callable
        Called with a sentence where the run cannot go on.
    """

    def __init__(self, place: Place, ended: Callable[[str], Any]) -> None:
        self._place, self._ended = place, ended
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._joined = threading.Event()
        threading.Thread(target=self._take_part, daemon=True).start()

    def signal(self, number: int) -> None:
        """Have all workers get a signal, as soon as they are there."""
        self._signals.put(number)

    def end(self, sentence: str) -> None:
        """Have all parts end with a sentence; it takes some seconds at most."""
        if self._joined.wait(GRACE):
            self._member.fail(sentence)
        else:
            _say("the scheduler does not hear that the run is to end: its parts may be left on their hosts")
        self._ended(sentence)

    def leave(self) -> None:
        """Leave a run that is over."""
        if self._joined.is_set():
            self._member.leave()

    def _take_part(self) -> None:
        try:
            self._member = Member(self._place, self._heard)
        except LatseError as error:
            return _say(f"{error}: Ctrl-C and SIGTERM do not reach the workers")
        self._joined.set()
        while True:
            self._member.signal(self._signals.get())

    def _heard(self, sentence: str) -> None:
        if sentence != DIED:  # so does each run end; how the scheduler has ended, its ssh says
            self._ended(sentence)


def _say(text: str) -> None:
    print(f"latse: {text}", file=sys.stderr, flush=True)
