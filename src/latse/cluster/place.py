"""The place of a process among those of one run, as the variables DMLC_… of MXNet's launchers say it."""

from __future__ import annotations

import os
from typing import Mapping, NamedTuple

from latse.errors import LatseError

ROLE, HOST, PORT = "DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"
WORKERS, SERVERS = "DMLC_NUM_WORKER", "DMLC_NUM_SERVER"
TIMEOUT, NAME = "LATSE_TIMEOUT", "LATSE_NAME"
SCHEDULER, SERVER, WORKER = "scheduler", "server", "worker"
LAUNCHER = "launcher"  # takes part in the meeting alone
ROLES = (SCHEDULER, SERVER, WORKER)
PATIENCE = 600.0


class Place(NamedTuple):
    """What a process is in a run.

    Attributes
    ----------
    role : str
        One of `ROLES`.
    workers, servers : int
        How many there are, at least 1.
    host : str
        Address of the scheduler.
    port : int
        The scheduler's for MXNet; the next one is that of `latse.cluster.meeting`.
    name : str
        How others call it.
    timeout : float
        Seconds after which a process that waits for another one gives up.
    """

    role: str
    workers: int
    servers: int
    host: str
    port: int
    name: str
    timeout: float


def from_environment(variables: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place that the variables say, None if they say nothing of a role.

    Raises LatseError if one of them is missing or malformed.
    """
    role = variables.get(ROLE)
    if role is None:
        return None
    if role not in ROLES:
        raise LatseError(f"{ROLE} is '{role}', must be one of {', '.join(ROLES)}")
    if not variables.get(HOST):
        raise LatseError(f"{ROLE} is {role}, so {HOST} must be the address of the scheduler")
    workers, servers, port = (_number(variables, name) for name in (WORKERS, SERVERS, PORT))
    timeout = variables.get(TIMEOUT, str(PATIENCE))
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise LatseError(f"{TIMEOUT} is '{timeout}', must be a number of seconds")
    return Place(role, workers, servers, variables[HOST], port, variables.get(NAME, role), seconds)


def _number(variables: Mapping[str, str], name: str) -> int:
    text, most = variables.get(name, ""), 65534 if name == PORT else 10_000
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 1 <= number <= most:
        raise LatseError(f"{name} is '{text}', must be a whole number from 1 to {most}")
    return number
