"""The sub-command `latse plan --hosts`: what a run of several hosts would send, hold and reach."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Iterator

from latse import recipe as recipes
from latse.data.shards.recordio import LARGEST_EXACT
from latse.errors import MOST as LARGEST
from latse.errors import LatseError, check_range
from latse.files import write_json
from latse.models.parameters import needed_shapes
from latse.paper.plan_command import read_training
from latse.provenance import provenance
from latse.symbols.networks import IMAGE_SHAPE
from latse.symbols.running import is_running
from latse.train.training import Training

MEBIBYTE = 2**20
NUMBER, INDEX = 4, 8  # bytes of a float32, and of the number by which MXNet calls a row
COMPRESSION = 16  # numbers that MXNet sends in the place of one
FLAG = 1  # byte that says whether a picture moves the mean face
MOST = 10**9  # people
SLOWEST = 0.001  # Gbit/s of a network, images/s of a worker


@dataclass(frozen=True)
class HostsPlan:
    """A run of one worker on each of some hosts, among which the servers go round.

    Attributes
    ----------
    training : Training
        What one of the workers would train.
    servers : int
        How many there are.
    gigabits : float
        What the network carries from a host in a second, and to it.
    """

    training: Training
    servers: int
    gigabits: float

    @property
    def gradients(self) -> int:
        """Bytes of a worker's gradients, whose sums come back."""
        graph = self.training.graph
        shapes = needed_shapes(graph.symbol, **graph.shapes)
        others = {*graph.symbol.list_auxiliary_states(), *graph.shapes}
        return NUMBER * sum(math.prod(shape) for name, shape in shapes.items() if name not in others)

    @property
    def sent_gradients(self) -> float:
        """Bytes of a worker's gradients as it sends them."""
        compressed = self.training.recipe.train.compression_threshold is not None
        return self.gradients / (COMPRESSION if compressed else 1)

    @property
    def rows(self) -> int:
        """Bytes of the rows that a worker reads, whose gradients it sends."""
        return sum(self.training.sample * (NUMBER * table.width + INDEX) for table in self.training.tables)

    @property
    def pictures(self) -> float:
        """Bytes of the pictures that a worker sends to the first one, which owns the mean faces."""
        size = math.prod(IMAGE_SHAPE) + INDEX + FLAG
        return self.training.recipe.decoder.enabled * size * self.training.batch_size

    @property
    def mean_faces(self) -> float:
        """Bytes of the mean faces that come back."""
        return (
            self.training.recipe.decoder.enabled * NUMBER * math.prod(IMAGE_SHAPE) * self.training.batch_size
        )

    @property
    def sent(self) -> float:
        """Bytes that leave a worker, another one than the first, each step."""
        asked = INDEX * self.training.sample * len(self.training.tables)
        return self.sent_gradients + self.rows + asked + self.pictures

    @property
    def received(self) -> float:
        """Bytes that come to such a worker each step."""
        return self.gradients + self.rows + self.mean_faces

    @property
    def busiest(self) -> float:
        """Bytes that leave the busiest host each step, or come to it: those of its worker and its servers.

        What a worker exchanges with a server of its own host does not touch the network. The first worker may
        be where most servers are.
        """
        workers, servers = self.training.workers, self.servers
        shares = math.ceil(servers / workers) / servers, math.floor(servers / workers) / servers
        up, down, others = self.sent_gradients + self.rows, self.gradients + self.rows, workers - 1
        left = max(up * (1 - share) + down * share * others for share in shares)
        come = max(down * (1 - share) + up * share * others for share in shares)
        return max(left + others * self.mean_faces, come + max(others * self.pictures, self.mean_faces))

    @property
    def seconds(self) -> float:
        """How long the network takes for a step."""
        return self.busiest * 8 / (self.gigabits * 1e9)

    @property
    def tables(self) -> int:
        """Bytes of all rows and their momentum, on all servers together."""
        momentum = bool(self.training.recipe.train.momentum)
        return sum(
            table.rows * NUMBER * table.width * (1 + (momentum and not is_running(table.name)))
            for table in self.training.tables
        )

    @property
    def server_memory(self) -> float:
        """Bytes of a server: its part of the tables, of the sums, and of the sums that are being made."""
        return (self.tables + 2 * self.gradients + self.training.workers * self.rows) / self.servers

    def images_per_second(self, alone: float) -> tuple[float, float]:
        """Return the rates of all workers together: where sending waits for computing, and where it does not.

        `alone` are the images/s of one worker that sends nothing.
        """
        batch, step = self.training.recipe.train.batch_size, self.training.batch_size / alone
        return batch / (step + self.seconds), batch / max(step, self.seconds)

    @property
    def most_images_per_second(self) -> float:
        """What the network allows, however fast the workers are."""
        return self.training.recipe.train.batch_size / self.seconds


def run(args: argparse.Namespace) -> None:
    """Work out the traffic, memory and rate of a run on several hosts; raise LatseError for bad input."""
    check_range("--hosts", args.hosts, 2)
    servers = args.hosts if args.servers is None else args.servers
    check_range("--servers", servers, 1)
    gigabits = 10.0 if args.bandwidth is None else args.bandwidth
    check_range("--bandwidth", gigabits, SLOWEST)
    if args.images_per_second is not None:
        check_range("--images-per-second", args.images_per_second, SLOWEST)
    training, _ = read_training(args, MOST, args.hosts)
    for table in training.tables:
        numbers = training.sample * table.width
        if numbers > LARGEST:
            raise LatseError(
                f"head.rate {training.recipe.head.rate:g}: the rows of {training.sample:,} people are "
                f"{table.name}, of {numbers:,} numbers, more than the {LARGEST:,} of MXNet's arrays"
            )
    planned = HostsPlan(training, servers, gigabits)
    if args.json:
        content = {
            "kind": "plan of hosts",
            "provenance": provenance(args, training.devices),
            "settings": recipes.as_dict(training.recipe),
            "classes": training.classes,
            **_as_json(planned, args.images_per_second),
        }
        write_json(args.json, content)
    print(*_in_words(planned, args.images_per_second), sep="\n")


def _as_json(planned: HostsPlan, alone: float | None) -> dict[str, object]:
    """Return the figures of a plan; bytes a step, unless the name says otherwise."""
    rates = {} if alone is None else dict(zip(("least", "most"), planned.images_per_second(alone)))
    return {
        "hosts": planned.training.workers,
        "servers": planned.servers,
        "gigabits_per_second": planned.gigabits,
        "people_compared": planned.training.sample,
        "gradients": planned.gradients,
        "rows": planned.rows,
        "pictures_and_mean_faces": planned.pictures + planned.mean_faces,
        "sent_by_a_worker": planned.sent,
        "received_by_a_worker": planned.received,
        "busiest_host": planned.busiest,
        "seconds_of_network": planned.seconds,
        "tables_bytes": planned.tables,
        "server_bytes": planned.server_memory,
        "network_images_per_second": planned.most_images_per_second,
        "images_per_second": rates,
    }


def _in_words(planned: HostsPlan, alone: float | None) -> Iterator[str]:
    training = planned.training
    yield (
        f"{training.workers} hosts with a worker each, of {training.batch_size} images a step; "
        f"{planned.servers} servers"
    )
    if training.tables:
        yield f"the loss compares {training.sample:,} of {training.classes:,} people"
    parts = {
        "gradients": planned.gradients,
        "rows of people": planned.rows,
        "pictures and mean faces": planned.pictures + planned.mean_faces,
    }
    held = ", ".join(f"{name} {_size(part)}" for name, part in parts.items() if part)
    yield f"a worker sends {_size(planned.sent)} a step and receives {_size(planned.received)}: {held}"
    yield (
        f"the busiest host sends, or receives, {_size(planned.busiest)} a step: "
        f"{planned.seconds:.3g} s at {planned.gigabits:g} Gbit/s"
    )
    yield f"the network allows at most {_rate(planned.most_images_per_second)}"
    if alone is not None:
        least, most = map(_rate, planned.images_per_second(alone))
        yield f"workers of {_rate(alone)} reach {least} together if sending waits for computing, else {most}"
    own = f", of which the rows {_size(planned.tables / planned.servers)}" if training.tables else ""
    yield f"memory of a server beside MXNet's own: {_size(planned.server_memory)}{own}"
    if training.tables:
        yield f"the state of a checkpoint holds the rows of all people: {_size(planned.tables)}"
    if training.classes > LARGEST_EXACT:
        yield f"no set of insightface's form has so many people: its labels are exact up to {LARGEST_EXACT:,}"


def _size(count: float) -> str:
    return f"{count / MEBIBYTE:,.0f} MiB" if count >= 10 * MEBIBYTE else f"{count / MEBIBYTE:.2g} MiB"


def _rate(images: float) -> str:
    return f"{images:,.0f} images/s"
