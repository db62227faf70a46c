"""Batches: every image once an epoch, and nothing but (seed, iteration) decides."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latse.data.shards.loader import QUEUE, BatchStream, flips
from latse.data.shards.records import Batch, Shard
from latse.data.shards.shard_writer import write_shard
from latse.errors import LatseError


class FakeShard:
    """n small images, each telling its record number in the left half and nothing in the right."""

    image_size = (2, 4)

    def __init__(self, n, broken=None):
        self.records = np.arange(n, dtype=np.int64) + 1
        self.labels = (np.arange(n, dtype=np.int64) * 7) % 5
        self.broken = broken

    def __len__(self):
        return len(self.records)

    def read(self, position):
        if position == self.broken:
            raise LatseError(f"record {position + 1} is broken")
        image = np.zeros((2, 4, 3), np.uint8)
        image[:, :2] = [position + 1, 100, 200]
        return image, int(self.labels[position]), int(self.records[position])

    def read_into(self, planes, position, mirrored):
        image = self.read(position)[0].transpose(2, 0, 1)
        planes[:] = image[:, :, ::-1] if mirrored else image

    batch = Shard.batch


SIZES = {"n": st.integers(1, 40), "batch_size": st.integers(1, 50), "seed": st.integers(0, 2**40)}


def same(a, b):
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b))


@given(**SIZES, epochs=st.integers(1, 4))
@settings(max_examples=60)
def test_every_epoch_covers_each_image_exactly_once(n, batch_size, seed, epochs):
    stream = BatchStream(FakeShard(n), batch_size, seed)
    batches = -(-epochs * n // batch_size)
    seen = np.concatenate([stream.batch(i).record for i in range(batches)])
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(1, n + 1))


@given(**SIZES, asked=st.lists(st.integers(0, 30), max_size=6), iteration=st.integers(0, 30))
@settings(max_examples=60)
def test_a_batch_does_not_depend_on_what_was_asked_before(n, batch_size, seed, asked, iteration):
    used, fresh = (BatchStream(FakeShard(n), batch_size, seed) for _ in range(2))
    for before in asked:
        used.batch(before)
    assert same(used.batch(iteration), fresh.batch(iteration))


@given(**SIZES, iteration=st.integers(0, 10))
@settings(max_examples=60)
def test_content_belongs_to_the_record(n, batch_size, seed, iteration):
    shard = FakeShard(n)
    batch = BatchStream(shard, batch_size, seed).batch(iteration)
    assert batch.image.shape == (batch_size, 3, 2, 4) and batch.image.dtype == np.uint8
    assert batch.label.shape == (batch_size,) and batch.label.dtype == np.float32
    assert batch.record.shape == (batch_size,) and batch.record.dtype == np.int64
    for image, label, record in zip(batch.image, batch.label, batch.record):
        assert label == shard.labels[record - 1]
        plain = shard.read(record - 1)[0].transpose(2, 0, 1)
        assert np.array_equal(image, plain) or np.array_equal(image, plain[:, :, ::-1])


def test_batch_size_only_cuts_the_sequence():
    shard = FakeShard(13)
    small, large = BatchStream(shard, 3, 5), BatchStream(shard, 12, 5)
    for i in range(6):
        parts = [small.batch(4 * i + j) for j in range(4)]
        assert same(large.batch(i), [np.concatenate(column) for column in zip(*parts)])


def test_seeds_and_epochs_differ():
    shard = FakeShard(40)
    orders = [BatchStream(shard, 40, seed).batch(i).record.tolist() for seed in range(5) for i in range(3)]
    assert len({tuple(order) for order in orders}) == 15


def test_a_seed_is_a_whole_number_of_63_bits():
    assert BatchStream(FakeShard(3), 1, seed=2**63 - 1).batch(0).record.shape == (1,)
    for seed in (-1, 2**63):
        with pytest.raises(LatseError, match=f"seed is {seed}"):
            BatchStream(FakeShard(3), 1, seed=seed)


def test_epoch_of_a_batch():
    stream = BatchStream(FakeShard(10), 4)
    assert [stream.epoch(i) for i in range(6)] == [0, 0, 0, 1, 1, 2]


@given(seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
@settings(max_examples=30)
def test_half_of_the_images_are_mirrored_anew_in_each_epoch(seed, epoch):
    records = np.arange(4000)
    now, later = (flips(seed, np.full(4000, e), records) for e in (epoch, epoch + 1))
    other = flips(seed + 1, np.full(4000, epoch), records)
    # six standard deviations of a fair coin thrown 4000 times
    for fair in (now, now ^ later, now ^ other, now[1:] ^ now[:-1], later ^ other):
        assert abs(fair.mean() - 0.5) < 6 * 0.5 / 4000**0.5


def test_mirroring_depends_on_the_record_alone():
    rng = np.random.default_rng(0)
    records, epochs = rng.integers(0, 1000, 200), rng.integers(0, 9, 200)
    whole = flips(3, epochs, records)
    assert whole.tolist() == [flips(3, epochs[[i]], records[[i]])[0] for i in range(200)]
    plain = FakeShard(30)
    batch = BatchStream(plain, 30, 3).batch(2)
    mirrored = batch.image[:, 2, 0, 3] == 200
    assert mirrored.tolist() == flips(3, np.full(30, 2), batch.record).tolist()
    assert 0 < mirrored.sum() < 30


@pytest.mark.parametrize("batch_size, seed", [(0, 0), (-1, 0), (4, -1)])
def test_refuses_numbers_out_of_range(batch_size, seed):
    with pytest.raises(LatseError, match="batch_size|seed"):
        BatchStream(FakeShard(3), batch_size, seed)


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("latse-ahead")]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_prefetch_gives_the_same_batches(threads):
    stream = BatchStream(FakeShard(10), 3, 1)
    got = list(stream.prefetch(4, 20, threads))
    assert [iteration for iteration, _ in got] == list(range(4, 20))
    assert all(isinstance(batch, Batch) and same(batch, stream.batch(i)) for i, batch in got)
    assert list(stream.prefetch(3, 3)) == []
    assert prefetching() == []


def test_prefetch_passes_on_the_error_after_the_good_batches():
    shard = FakeShard(10)
    stream = BatchStream(shard, 1, 1)
    first_epoch = [int(stream.batch(i).record[0]) for i in range(10)]
    shard.broken = first_epoch[6] - 1
    got = []
    with pytest.raises(LatseError, match=f"record {first_epoch[6]} is broken"):
        for _, batch in stream.prefetch(0, 10):
            got.append(int(batch.record[0]))
    assert got == first_epoch[:6]
    assert prefetching() == []


def test_prefetch_ends_with_its_consumer(until):
    stream = BatchStream(FakeShard(10), 2)
    for iteration, _ in stream.prefetch(0, 10**9):
        if iteration == 3:
            break
    until(lambda: not prefetching())


def test_prefetch_does_not_run_far_ahead(until):
    read = []

    class Counting(FakeShard):
        def read(self, position):
            read.append(position)
            return super().read(position)

    for threads in (1, 3):
        read.clear()
        batches = BatchStream(Counting(10), 1).prefetch(0, 1000, threads)
        next(batches)
        ahead = QUEUE + threads  # the one that was given out is not waiting any more
        until(lambda least=ahead: len(read) >= least)
        time.sleep(0.1)
        assert prefetching() and len(read) == ahead
        batches.close()
        assert prefetching() == []


def test_threads_that_decode_at_different_speeds_keep_the_order():
    class Uneven(FakeShard):
        def read(self, position):
            time.sleep(0.01 * (position % 3))
            return super().read(position)

    stream = BatchStream(Uneven(10), 2, 1)
    assert [iteration for iteration, _ in stream.prefetch(0, 12, 4)] == list(range(12))


def test_batches_are_the_consumers_own():
    """Held batches are not written again."""
    held = [batch for _, batch in BatchStream(FakeShard(20), 2, 1).prefetch(0, 20)]
    assert all(same(batch, BatchStream(FakeShard(20), 2, 1).batch(i)) for i, batch in enumerate(held))


@given(**SIZES, workers=st.integers(1, 6), epochs=st.integers(1, 3))
@settings(max_examples=60)
def test_parts_are_disjoint_and_complete_in_every_epoch(n, batch_size, seed, workers, epochs):
    """Dealt out in turn, the workers' batches are the sequence of one worker: each image once an epoch."""
    shard = FakeShard(n)
    streams = [BatchStream(shard, batch_size, seed, part=(rank, workers)) for rank in range(workers)]
    rounds = -(-epochs * n // (batch_size * workers))
    dealt = [stream.batch(iteration) for iteration in range(rounds) for stream in streams]
    seen = np.concatenate([batch.record for batch in dealt])
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(1, n + 1))
    whole = BatchStream(shard, batch_size * workers, seed)
    for iteration in range(rounds):
        parts = dealt[iteration * workers : (iteration + 1) * workers]
        assert same(whole.batch(iteration), [np.concatenate(column) for column in zip(*parts)])
        first = (iteration * workers + workers - 1) * batch_size
        assert streams[-1].epoch(iteration) == first // n


@given(**SIZES, before=st.integers(1, 5), after=st.integers(1, 5), iterations=st.integers(0, 9))
@settings(max_examples=40)
def test_another_number_of_workers_sees_the_remainder(n, batch_size, seed, before, after, iterations):
    """A run stops after some iterations of `before` workers and goes on with `after` workers."""
    shard, images = FakeShard(n), batch_size * before * after
    first = [BatchStream(shard, images // before, seed, part=(rank, before)) for rank in range(before)]
    then = [BatchStream(shard, images // after, seed, part=(rank, after)) for rank in range(after)]
    seen = [stream.batch(i).record for i in range(iterations) for stream in first]
    seen += [stream.batch(i).record for i in range(iterations, iterations + 2) for stream in then]
    alone = BatchStream(shard, images, seed)
    expected = [alone.batch(i).record for i in range(iterations + 2)]
    assert np.array_equal(np.concatenate(seen), np.concatenate(expected))


@pytest.mark.parametrize("part", [(1, 1), (-1, 2), (0, 0), (3, 2)])
def test_a_part_that_is_none(part):
    with pytest.raises(LatseError, match=f"part is {part[0]} of {part[1]}"):
        BatchStream(FakeShard(3), 1, part=part)


def splitmix(state):
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014, Figure 16), in whole numbers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**9), st.integers(0, 2**48))
def test_flips_stay_as_they_are(seed, epoch, record):
    """Runs that were begun, and stored verdicts, know an image by them."""
    gamma, state = 0x9E3779B97F4A7C15, seed
    for number in (epoch, record):
        state = splitmix((state + gamma) % 2**64) ^ number
    expected = splitmix((state + gamma) % 2**64) >> 63
    assert flips(seed, np.array([epoch]), np.array([record])).tolist() == [bool(expected)]


def test_a_real_shard_is_read_as_it_decodes(people):
    """The fast path into the batch gives the pixels of Shard.read, mirrored where flips() says so."""
    shard = Shard(people)
    batch = BatchStream(shard, 30, seed=4).batch(0)
    mirrored = flips(4, np.arange(30) // 15, batch.record)
    assert 0 < mirrored.sum() < 30
    for image, label, record, mirror in zip(batch.image, batch.label, batch.record, mirrored):
        pixels, expected, _ = shard.read(int(np.flatnonzero(shard.records == record)[0]))
        assert label == expected
        assert np.array_equal(image.transpose(1, 2, 0), pixels[:, ::-1] if mirror else pixels)


def test_an_undecodable_image_is_raised_at_its_turn(tmp_path, pictures):
    write_shard(tmp_path, [*pictures[:9], (4, b"no image")], classes=5)
    stream = BatchStream(Shard(tmp_path), 1, seed=1)
    got = []
    with pytest.raises(LatseError, match=r"train\.rec: record 10 is not an image"):
        for _, batch in stream.prefetch(0, 10, 2):
            got.append(batch.record[0])
    order = np.random.default_rng((1, 0)).permutation(10) + 1
    assert got == order[: order.tolist().index(10)].tolist()


@given(n=st.integers(1, 60), size=st.integers(2, 9), seed=st.integers(0, 2**32), epoch=st.integers(0, 3))
def test_images_of_a_person_stand_together(n, size, seed, epoch):
    shard = FakeShard(n)
    batch = BatchStream(shard, n, seed, images_per_person=size).batch(epoch)
    assert sorted(batch.record) == sorted(shard.records)
    runs = [[batch.label[0], 0]]
    for label in batch.label:
        if label != runs[-1][0]:
            runs.append([label, 0])
        runs[-1][1] += 1
    # Whole groups, and of each person at most one with what is left over.
    for person, count in zip(*np.unique(batch.label, return_counts=True)):
        broken = [length for label, length in runs if label == person and length % size]
        assert len(broken) == bool(count % size)


def test_groups_come_in_another_order_every_epoch_and_the_same_again():
    stream = BatchStream(FakeShard(40), 40, seed=3, images_per_person=4)
    orders = {tuple(stream.batch(epoch).record) for epoch in range(4)}
    assert len(orders) == 4
    again = BatchStream(FakeShard(40), 5, seed=3, images_per_person=4)
    assert tuple(np.concatenate([again.batch(number).record for number in range(8)])) in orders


def test_no_image_per_person_is_refused():
    with pytest.raises(LatseError, match="images_per_person is 0"):
        BatchStream(FakeShard(4), 4, images_per_person=0)
