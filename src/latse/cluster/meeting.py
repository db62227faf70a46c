"""The meeting of the processes of one run, at the scheduler: who is there, what workers say, who has left.

Lines of JSON over TCP. Nothing that is received runs code. A process that dies is known at once, by its
connection; one that hangs by its silence. Then the run ends everywhere, with one sentence that says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import struct
import sys
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, NoReturn

from latse.cluster.place import LAUNCHER, SCHEDULER, WORKER, Place
from latse.errors import LatseError

BEAT = 5.0  # seconds between two signs of life
SILENCE = 12  # beats that may fail to come, where the timeout is no shorter
BEGINNING = 10  # times the timeout that the workers have before they begin
TOLD = 60.0  # seconds between two notes of what is waited for
LONGEST = 1 << 20  # bytes of a line that a member says
FAILED = 1
DIED = f"the {SCHEDULER} has died"
Line = Dict[str, Any]


class Host:
    """The meeting as the scheduler keeps it, in threads of its own.

    Parameters
    ----------
    place : Place
        The scheduler's.
    end : callable
        Called with a sentence where the run cannot go on, after all members were told.
    tell : callable
        Called with a note of what is waited for.

    Raises
    ------
    LatseError
        If nothing can listen at the place.
    """

    def __init__(
        self, place: Place, end: Callable[[str], Any], tell: Callable[[str], Any] = lambda note: None
    ) -> None:
        self._place, self._end, self._tell = place, end, tell
        self._silence = min(BEAT * SILENCE, place.timeout)
        self._lock = threading.Lock()
        self._parting = threading.Condition(self._lock)  # somebody is gone
        self._members: dict[int, _Seat] = {}
        self._said: dict[int, _Said] = {}  # by number
        self._what, self._heard = "", 0
        self._since = self._told = time.monotonic()
        self._is_over, self._sentence = False, ""
        self._signal: Line | None = None  # that workers who come later get, too
        try:
            self._socket = socket.create_server((place.host, place.port + 1), backlog=place.workers + 64)
        except OSError as error:
            raise LatseError(
                f"nothing can listen at {place.host}, port {place.port + 1}: {error.strerror or error}"
            ) from error
        for work in (self._welcome, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def wait_for_parting(self) -> None:
        """Wait until all but the launcher have left, for no longer than anybody may be silent.

        Whoever is still there would take the end of the meeting for the scheduler's death.
        """
        with self._parting:
            self._parting.wait_for(
                lambda: all(seat.role == LAUNCHER for seat in self._members.values()), self._silence
            )

    def close(self) -> None:
        """End the meeting in peace."""
        with self._lock:
            self._is_over = True
        self._socket.close()

    def _welcome(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, address = self._socket.accept()
                threading.Thread(target=self._listen, args=(connection, address[0]), daemon=True).start()

    def _listen(self, connection: socket.socket, host: str) -> None:
        seat = _Seat(connection, host)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(BEAT), 0))
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a stranger says anything
            for line in _lines(connection, LONGEST):
                with self._lock:
                    if not self._take(seat, line):
                        break
        with self._lock:
            self._members.pop(id(seat), None)
            self._parting.notify_all()
            if seat.role and not seat.has_left:
                self._finish(f"{seat} has died{self._place_in_time()}")
        connection.close()

    def _take(self, seat: _Seat, line: Line) -> bool:
        """Take a line of a member; return whether it stays."""
        seat.heard = time.monotonic()
        if "role" in line and not seat.role:
            seat.role, seat.name, seat.process = (str(line[key]) for key in ("role", "name", "process"))
            self._members[id(seat)] = seat
            self._since = time.monotonic()
            if self._sentence:  # it comes too late
                _send(seat.connection, {"end": self._sentence})
            if self._signal and seat.role == WORKER:
                _send(seat.connection, self._signal)
        elif not seat.role:
            return False
        elif "failed" in line:
            seat.has_left = True
            self._finish(f"{seat}: {line['failed']}")
        elif "bye" in line:
            seat.has_left = True
        elif "signal" in line and seat.role == LAUNCHER:
            self._signal = line
            for other in self._members.values():
                if other.role == WORKER:
                    _send(other.connection, line)
        elif "say" in line and seat.role == WORKER:
            seat.rank = int(line["rank"])
            self._hear(int(line["say"]), seat.rank, str(line["what"]), line["value"])
        return not seat.has_left

    def _hear(self, number: int, rank: int, what: str, value: Any) -> None:
        values = self._said.setdefault(number, _Said(what, {})).values
        values[rank], self._what = value, what
        if len(values) == self._place.workers:
            del self._said[number]
            self._heard, self._since = number, time.monotonic()
            self._send_all({"heard": number, "values": [values[each] for each in sorted(values)]})

    def _watch(self) -> None:
        while not self._is_over:
            time.sleep(min(BEAT, self._place.timeout) / 4)
            with self._lock:
                if not self._is_over:
                    self._send_all({"beat": True})
                    self._look(time.monotonic())

    def _look(self, now: float) -> None:
        for seat in self._members.values():
            if now - seat.heard > self._silence:
                return self._finish(f"{seat} has given no sign of life for {self._silence:.0f} s")
        waits, limit = self._waits_for(), self._place.timeout * (1 if self._heard > 1 else BEGINNING)
        if waits and now - self._since > limit:
            return self._finish(f"{waits} for {limit:.0f} s, the longest that is waited")
        if waits and now - max(self._since, self._told) > TOLD:
            self._told = now
            self._tell(f"{waits}, since {now - self._since:.0f} s")
            self._send_all({"note": f"{waits}, since {now - self._since:.0f} s"})
        return None

    def _waits_for(self) -> str:
        """Return what the run waits for, nothing if it does not know of anything."""
        expected = self._place.workers + self._place.servers
        parts = [seat for seat in self._members.values() if seat.role != LAUNCHER]
        workers = [seat for seat in self._members.values() if seat.role == WORKER]
        if len(parts) < expected and not self._heard and not self._said:
            there = ", ".join(map(str, parts)) or "nobody"
            return f"waits for {expected - len(parts)} of {expected} processes; there: {there}"
        if self._said:
            said = next(iter(self._said.values()))
            late = [str(seat) for seat in workers if seat.rank not in said.values]
            return f"waits for {', '.join(late)} at {said.what}"
        if not self._heard:
            return "waits for the workers to begin: they may not reach each other by MXNet's own ports"
        return f"waits for what follows {self._what}: a server may hang" if workers else ""

    def _place_in_time(self) -> str:
        return f", after {self._what}" if self._what else ""

    def _finish(self, sentence: str) -> None:
        if self._is_over:
            return
        self._is_over, self._sentence = True, sentence
        self._send_all({"end": sentence})
        self._end(sentence)

    def _send_all(self, line: Line) -> None:
        for seat in self._members.values():
            _send(seat.connection, line)


class _Said(NamedTuple):
    """What some workers have said at a number."""

    what: str
    values: dict[int, Any]  # by rank


class _Seat:
    """What the host knows of a member."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.connection, self.host = connection, host
        self.role = self.name = self.process = ""
        self.rank = -1
        self.heard, self.has_left = time.monotonic(), False

    def __str__(self) -> str:
        return f"{self.name} ({self.host}, process {self.process})"


class Member:
    """The meeting as a server, a worker or the launcher takes part in it.

    Parameters
    ----------
    place : Place
        Where the process is.
    end : callable, default the process ends with status 1
        Called with a sentence where the run cannot go on.

    Raises
    ------
    LatseError
        If the scheduler is not found within the place's `timeout`.
    """

    def __init__(self, place: Place, end: Callable[[str], Any] | None = None) -> None:
        self._end = end or ended
        self._lines: queue.Queue[Line] = queue.Queue()
        self._heard: dict[int, list[Any]] = {}  # by number; nobody has asked for them yet
        self._number, self._has_left = 0, False
        self._pause = min(BEAT, place.timeout / SILENCE)
        self._connection, self._lock = _connected(place), threading.Lock()
        self._silence = min(BEAT * SILENCE, place.timeout)
        self._longest = LONGEST * (place.workers + 1)  # what all workers have said
        self._connection.settimeout(self._silence)
        self._tell({"role": place.role, "name": place.name, "process": os.getpid()})
        for work in (self._listen, self._beat):
            threading.Thread(target=work, daemon=True).start()

    def say(self, rank: int, what: str, value: Any) -> int:
        """Say something to all workers; return its number, which counts what this one has said.

        Parameters
        ----------
        rank : int
            Of this worker.
        what : str
            What they meet for, in words that follow "at".
        value : object
            As JSON holds it.
        """
        self._number += 1
        self._tell({"say": self._number, "rank": rank, "what": what, "value": value})
        return self._number

    def hear(self, number: int) -> list[Any]:
        """Return what each worker has said at a number, by rank, once all have. A number is heard once."""
        while number not in self._heard:
            line = self._lines.get()
            self._heard[line["heard"]] = line["values"]
        return self._heard.pop(number)

    def fail(self, sentence: str) -> None:
        """Tell the others why this process ends, which says so itself."""
        self._has_left = True
        self._tell({"failed": sentence})

    def signal(self, number: int) -> None:
        """Have all workers get a signal; of a launcher."""
        self._tell({"signal": number})

    def leave(self) -> None:
        """Leave in peace."""
        self._has_left = True
        self._tell({"bye": True})

    def _tell(self, line: Line) -> None:
        with self._lock:
            _send(self._connection, line)

    def _beat(self) -> None:
        while not self._has_left:
            time.sleep(self._pause)
            self._tell({"beat": True})

    def _listen(self) -> None:
        sentence = DIED
        try:
            for line in _lines(self._connection, self._longest):
                if "end" in line:
                    return self._over(line["end"])
                if "signal" in line:
                    os.kill(os.getpid(), int(line["signal"]))
                if "note" in line:
                    print(f"latse: {line['note']}", file=sys.stderr, flush=True)
                if "heard" in line:
                    self._lines.put(line)
        except socket.timeout:
            sentence = f"the {SCHEDULER} has given no sign of life for {self._silence:.0f} s"
        except (OSError, ValueError):
            pass
        return self._over(sentence)

    def _over(self, sentence: str) -> None:
        if not self._has_left:
            self._has_left = True
            self._end(sentence)


def ended(sentence: str) -> NoReturn:
    """End the process, whatever it is at, with a sentence, which perhaps nobody reads any more."""
    with contextlib.suppress(OSError, ValueError):
        print(f"latse: the run has ended: {sentence}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(FAILED)


def _connected(place: Place) -> socket.socket:
    begun = told = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            connection = socket.create_connection((place.host, place.port + 1), timeout=place.timeout)
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        now = time.monotonic()
        where = f"the {SCHEDULER} at {place.host}, port {place.port + 1}"
        if now - begun > place.timeout:
            raise LatseError(f"{where} has not answered for {place.timeout:.0f} s")
        if now - told > TOLD:
            told = now
            print(f"latse: waits for {where}, since {now - begun:.0f} s", file=sys.stderr, flush=True)
        time.sleep(0.2)


def _send(connection: socket.socket, line: Line) -> None:
    with contextlib.suppress(OSError):  # whoever listens learns of the broken connection
        connection.sendall(json.dumps(line).encode() + b"\n")


def _lines(connection: socket.socket, longest: int) -> Any:
    """Yield the objects that come, until the connection ends; ValueError for one that is none."""
    with connection.makefile("rb") as file:
        while text := file.readline(longest):
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError("no object")
            yield line
