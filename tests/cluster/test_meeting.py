"""The meeting: what workers say to each other, and how a run ends where one of them is gone."""

import json
import queue
import socket
import threading

import pytest

from latse.cluster import meeting, workers
from latse.cluster.meeting import Host, Member
from latse.cluster.place import Place
from latse.errors import LatseError


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1] - 1


@pytest.fixture
def place():
    return Place("scheduler", 2, 1, "127.0.0.1", free_port(), "scheduler", 30.0)


@pytest.fixture
def met(place):
    """A host, and members by name; `ends` of each gets the sentence with which its run ends."""
    ends = {name: queue.Queue() for name in ("scheduler", "server", "worker 0", "worker 1", "launcher")}
    notes = queue.Queue()
    host = Host(place, ends["scheduler"].put, notes.put)

    def join(name):
        return Member(place._replace(role=name.partition(" ")[0], name=name), ends[name].put)

    join.host = host
    yield place, ends, notes, join
    host.close()


def say(member, rank, what, value):
    """Say something in a thread; return the queue that gets what all have said."""
    heard = queue.Queue()
    threading.Thread(
        target=lambda: heard.put(member.hear(member.say(rank, what, value))), daemon=True
    ).start()
    return heard


def test_each_hears_what_all_say_by_rank(met):
    _, _, _, join = met
    join("server")
    one, other = join("worker 0"), join("worker 1")
    for number in range(3):
        first = say(one, 1, f"iteration {number}", {"loss": [0.1, number]})
        with pytest.raises(queue.Empty):
            first.get(timeout=0.05)
        second = say(other, 0, f"iteration {number}", number)
        assert first.get(timeout=10) == second.get(timeout=10) == [number, {"loss": [0.1, number]}]


def test_what_is_said_ahead_is_heard_by_its_number(met):
    _, _, _, join = met
    fast, slow = join("worker 0"), join("worker 1")
    first, second = (fast.say(0, f"iteration {number}", number) for number in (1, 2))
    for number in (10, 20):
        slow.say(1, f"iteration {number // 10}", number)
    assert fast.hear(second) == [2, 20] and fast.hear(first) == [1, 10]
    assert slow.hear(2) == [2, 20]


def test_a_number_comes_through_to_the_bit(met):
    _, _, _, join = met
    values = [0.1 + 0.2, 1e-310, float("inf")]
    heard = say(join("worker 0"), 0, "sums", values), say(join("worker 1"), 1, "sums", values)
    assert [each.get(timeout=10) for each in heard] == [[values, values]] * 2


def test_what_is_said_may_be_as_long_as_a_line_each(met):
    _, _, _, join = met
    text = "x" * (meeting.LONGEST - 1000)
    heard = say(join("worker 0"), 0, "sums", text), say(join("worker 1"), 1, "sums", text)
    assert all(each.get(timeout=10) == [text, text] for each in heard)


def test_a_line_of_numbers_is_no_longer_than_the_meeting_takes():
    worst = [-1.2345678901234567e-308] * workers.AT_ONCE
    assert (
        len(json.dumps({"say": 10**9, "rank": 10**6, "what": "x" * 1000, "value": worst})) < meeting.LONGEST
    )


def test_whoever_dies_ends_the_run_for_all(met):
    _, ends, _, join = met
    server, one, other = join("server"), join("worker 0"), join("worker 1")
    heard = say(one, 0, "iteration 7", None), say(other, 1, "iteration 7", None)
    assert all(each.get(timeout=10) for each in heard)
    other._connection.shutdown(socket.SHUT_RDWR)
    for name in ("scheduler", "server", "worker 0"):
        sentence = ends[name].get(timeout=10)
        assert sentence.startswith("worker 1 (127.0.0.1, process ")
        assert sentence.endswith(") has died, after iteration 7")
    assert server and ends["scheduler"].empty()


def test_whoever_fails_says_why(met):
    _, ends, _, join = met
    one, other = join("worker 0"), join("worker 1")
    one.fail("train.rec is damaged")
    for name in ("scheduler", "worker 1"):
        assert ends[name].get(timeout=10).endswith("): train.rec is damaged")
    assert other


def test_whoever_leaves_ends_nothing(met):
    _, ends, _, join = met
    one, other = join("worker 0"), join("worker 1")
    one.leave()
    one._connection.shutdown(socket.SHUT_RDWR)
    other.leave()
    with pytest.raises(queue.Empty):
        ends["scheduler"].get(timeout=0.3)


def test_the_scheduler_waits_until_servers_and_workers_have_left(met, until):
    """A server that hears of the end later than the scheduler would take it for the scheduler's death."""
    _, ends, _, join = met
    server, worker, launcher = join("server"), join("worker 0"), join("launcher")
    until(lambda: len(join.host._members) == 3)
    gone = queue.Queue()
    threading.Thread(target=lambda: gone.put(join.host.wait_for_parting()), daemon=True).start()
    worker.leave()
    with pytest.raises(queue.Empty):
        gone.get(timeout=0.3)
    server.leave()
    assert gone.get(timeout=10) is None
    launcher.leave()
    assert all(end.empty() for end in ends.values())


def test_the_scheduler_does_not_wait_for_ever(met, monkeypatch, until):
    _, _, _, join = met
    server = join("server")
    until(lambda: join.host._members)
    monkeypatch.setattr(join.host, "_silence", 0.2)
    join.host.wait_for_parting()
    server.leave()


def test_members_end_where_the_scheduler_dies(met):
    _, ends, _, join = met
    one = join("worker 0")
    one._connection.shutdown(socket.SHUT_RDWR)
    assert ends["worker 0"].get(timeout=10) == "the scheduler has died"


@pytest.fixture
def impatient(place, monkeypatch):
    """Keep a meeting with a time-out of some seconds; give what joins it, and its ends and notes."""
    hosts = []

    def keep(seconds, beginning=1):
        monkeypatch.setattr(meeting, "TOLD", seconds / 10)
        monkeypatch.setattr(meeting, "BEGINNING", beginning)
        quick, end, notes = place._replace(timeout=seconds), queue.Queue(), queue.Queue()
        hosts.append(Host(quick, end.put, notes.put))

        def join(name):
            role = name.partition(" ")[0]
            return Member(quick._replace(role=role, name=name), lambda sentence: None)

        return join, end, notes

    yield keep
    for host in hosts:
        host.close()


def test_a_scheduler_that_hangs_ends_its_members(place):
    """Nobody answers where it listens, as if the process had been stopped."""
    end = queue.Queue()
    with socket.create_server((place.host, place.port + 1)):
        member = Member(place._replace(role="worker", name="worker 0", timeout=1.0), end.put)
        assert end.get(timeout=10) == "the scheduler has given no sign of life for 1 s"
    assert member


def test_a_launcher_passes_signals_on_to_workers(met, monkeypatch):
    place, ends, _, join = met
    heard = queue.Queue()
    monkeypatch.setattr(meeting.os, "kill", lambda process, number: heard.put(number))
    server, worker, launcher = join("server"), join("worker 0"), join("launcher")
    say(worker, 0, "x", 1)
    launcher.signal(15)
    assert heard.get(timeout=10) == 15
    with pytest.raises(queue.Empty):
        heard.get(timeout=0.3)  # the server gets none
    launcher._connection.shutdown(socket.SHUT_RDWR)
    assert ends["worker 0"].get(timeout=10).startswith("launcher (127.0.0.1, process ")
    assert server and place


def test_workers_that_never_begin_are_spoken_of(impatient):
    join, end, notes = impatient(1.0, beginning=2)
    members = [join(name) for name in ("server 0", "worker 0", "worker 1")]
    begins = "waits for the workers to begin: they may not reach each other"
    said = notes.get(timeout=10)
    while not said.startswith(begins):  # before all had come
        said = notes.get(timeout=10)
    sentence = end.get(timeout=10)
    assert sentence.startswith(begins) and sentence.endswith(" for 2 s, the longest that is waited")
    assert members


def test_silence_ends_the_run(place, monkeypatch):
    monkeypatch.setattr(meeting, "BEAT", 0.05)
    monkeypatch.setattr(Member, "_beat", lambda member: None)  # as of a process that has been stopped
    end = queue.Queue()
    host = Host(place, end.put)
    member = Member(place._replace(role="server", name="server 0"), lambda sentence: None)
    assert end.get(timeout=10).endswith(") has given no sign of life for 1 s")
    assert member
    host.close()


def test_a_worker_that_does_not_come_is_named_and_then_ends_the_run(impatient):
    join, end, notes = impatient(2.0)
    one, other = join("worker 0"), join("worker 1")
    heard = say(one, 0, "iteration 3", None)
    one.say(0, "iteration 4", None)
    assert notes.get(timeout=10).startswith("waits for worker 1 (127.0.0.1, process ")
    sentence = end.get(timeout=10)
    assert sentence.startswith("waits for worker 1 (")
    assert sentence.endswith(") at iteration 3 for 2 s, the longest that is waited")
    assert other and heard.empty()


def test_who_is_missing_at_the_start_is_counted(impatient):
    join, end, notes = impatient(1.5)
    assert notes.get(timeout=10).startswith("waits for 3 of 3 processes; there: nobody, since ")
    assert join("server 0")
    assert end.get(timeout=10).startswith("waits for 2 of 3 processes; there: server 0 (127.0.0.1, process ")


@pytest.mark.parametrize(
    "line",
    [
        b"x" * (meeting.LONGEST + 1) + b"\n",
        b'{"failed": "x"}\n',
        b"[1]\n",
        b'{"say": 1}\n',
        b'{"role": "worker"}\n',
        b"\x80\n",
    ],
)
def test_a_stranger_ends_nothing(met, line):
    place, ends, _, join = met
    with socket.create_connection((place.host, place.port + 1)) as connection:
        connection.sendall(line)
    with pytest.raises(queue.Empty):
        ends["scheduler"].get(timeout=0.2)
    heard = say(join("worker 0"), 0, "x", 1), say(join("worker 1"), 1, "x", 2)
    assert [each.get(timeout=10) for each in heard] == [[1, 2]] * 2


def test_where_no_scheduler_is_nobody_waits_for_ever(place):
    with pytest.raises(LatseError, match=r"the scheduler at 127.0.0.1, port \d+ has not answered for 1 s"):
        Member(place._replace(timeout=1.0), lambda sentence: None)


def test_a_port_that_is_taken_is_named(place):
    with socket.create_server((place.host, place.port + 1)), pytest.raises(
        LatseError, match=f"nothing can listen at 127.0.0.1, port {place.port + 1}: "
    ):
        Host(place, lambda sentence: None)
