"""The exact data plan: every row once, whatever the number of workers, from any cursor."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_dist.data.plan import Cursor, Plan
from sml_dist.spec import InputError


@st.composite
def plans(draw):
    window = draw(st.integers(1, 12))
    groups = draw(st.lists(st.one_of(st.just(window), st.integers(1, 2 * window)), min_size=1, max_size=40))
    streams = draw(st.sampled_from([1, 2, 4, 8]))
    micro = draw(st.integers(1, 9))
    return Plan(tuple(groups), streams, streams * micro, window, draw(st.integers(0, 99)), draw(st.booleans()))


def batches(plan, epoch, rank, workers, cursor=None):
    """The rows of each batch of a worker, by cutting its readings into batches as the stream does: -1 - id for padding."""
    cursor = cursor or Cursor(epoch)
    share, lanes = plan.share(rank, workers), plan.lanes(workers)
    first, skip = plan.window_of(cursor)
    ids = []
    for window in range(first, plan.windows):
        reading = plan.reading(epoch, window, share, skip if window == first else 0, lanes)
        numbers = plan.row_ids(replace(reading, real=np.ones(len(reading.take), bool)))
        assert (numbers[reading.real] == plan.row_ids(reading)).all()
        ids += np.where(reading.real, numbers, -1 - numbers).tolist()
    size = lanes * plan.micro
    assert len(ids) % size == 0, "a worker's epoch is a whole number of batches"
    return [ids[i : i + size] for i in range(0, len(ids), size)]


def global_batches(plan, epoch, workers):
    return [
        sorted(i for part in parts for i in part if i >= 0)
        for parts in zip(*(batches(plan, epoch, r, workers) for r in range(workers)), strict=True)
    ]


@settings(max_examples=1000, deadline=None)
@given(plans(), st.integers(0, 3))
def test_every_row_is_used_once_an_epoch(plan, epoch):
    used = sorted(i for batch in global_batches(plan, epoch, 1) for i in batch)
    assert used == list(range(plan.rows))


@settings(max_examples=1000, deadline=None)
@given(plans(), st.integers(0, 3))
def test_global_batches_hold_the_same_rows_at_any_number_of_workers(plan, epoch):
    one = global_batches(plan, epoch, 1)
    assert len(one) == plan.steps
    assert [sorted(ids.tolist()) for ids in plan.batches(epoch)] == one
    for workers in range(2, plan.streams + 1):
        assert global_batches(plan, epoch, workers) == one


@settings(max_examples=1000, deadline=None)
@given(plans(), st.data())
def test_resuming_at_a_cursor_gives_the_tail_of_the_whole(plan, data):
    workers = data.draw(st.integers(1, plan.streams))
    rank, batch = data.draw(st.integers(0, workers - 1)), data.draw(st.integers(0, plan.steps - 1))
    assert batches(plan, 1, rank, workers, Cursor(1, batch)) == batches(plan, 1, rank, workers)[batch:]


@settings(max_examples=100, deadline=None)
@given(plans())
def test_rows_before_a_cursor_are_those_of_the_batches_before_it(plan):
    sizes = [len(batch) for batch in plan.batches(2)]
    assert [plan.rows_before(Cursor(2, batch)) for batch in range(plan.steps + 1)] == [
        2 * plan.rows + sum(sizes[:batch]) for batch in range(plan.steps + 1)
    ]


@settings(max_examples=100, deadline=None)
@given(plans())
def test_streams_differ_by_at_most_one_row(plan):
    rows = [sum(plan.reading(0, w, range(c, c + 1)).real.sum() for w in range(plan.windows)) for c in range(plan.streams)]
    assert max(rows) - min(rows) <= 1


def test_a_full_row_group_is_decoded_once_an_epoch():
    plan = Plan((100,) * 64 + (37,), streams=8, batch_size=64, window=100, seed=3)
    decoded = [s.group for w in range(8) for c in range(8) for s in plan.reading(0, w, range(c, c + 1)).slices]
    assert sorted(decoded) == list(range(64))


def test_epochs_and_seeds_shuffle_differently_and_repeat_exactly():
    plan, other = (Plan((50,) * 8, 4, 40, 50, seed) for seed in (1, 2))
    assert batches(plan, 0, 0, 1) == batches(plan, 0, 0, 1)
    assert batches(plan, 0, 0, 1) != batches(plan, 1, 0, 1)
    assert batches(plan, 0, 0, 1) != batches(other, 0, 0, 1)


def test_without_shuffle_a_single_stream_reads_in_file_order():
    plan = Plan((7, 10, 10, 3), streams=1, batch_size=6, window=10, seed=0, shuffle=False)
    assert [i for batch in batches(plan, 0, 0, 1) for i in batch if i >= 0] == list(range(30))


def test_the_plan_equals_that_of_any_other_process():
    plan = Plan((5, 5, 5, 2), streams=2, batch_size=4, window=5, seed=11)
    assert np.concatenate([plan.row_ids(plan.reading(0, w, range(2))) for w in range(plan.windows)]).tolist() == [
        6,
        4,
        9,
        1,
        7,
        2,
        8,
        0,
        5,
        3,
        10,
        15,
        13,
        14,
        11,
        16,
        12,
    ]


def test_sizes_that_do_not_divide_are_refused_with_the_way_out():
    with pytest.raises(InputError, match="1000 is not divisible by data.streams 64; try 960 or 1024"):
        Plan((10,), streams=64, batch_size=1000, window=10, seed=0)


@pytest.mark.parametrize(
    ("streams", "workers", "batch", "way_out"),
    [
        (16, 32, 4096, "data.streams to 128"),
        (16, 17, 4096, "data.streams to 64"),  # 68 does not divide it
        (16, 32, 32, "data.streams to 32"),
        (4, 6, 4 * 9 * 11, "data.streams to 18"),  # 22 is nearer to 24, but has workers that read unequal shares
        (1, 17, 4099, "data.streams to 68 and train.global_batch_size to 4148"),
        (4, 32, 4, "data.streams to 128 and train.global_batch_size to 128"),
    ],
)
def test_the_streams_named_for_more_workers_are_enough_and_divide_the_batch(streams, workers, batch, way_out):
    with pytest.raises(InputError, match=f"data.streams {streams} is fewer than {workers} workers; set {way_out}$"):
        Plan((10,), streams, batch, window=10, seed=0).share(0, workers)
    streams, batch = (*map(int, re.findall(r" to (\d+)", way_out)), batch)[:2]
    Plan((10,), streams, batch, window=10, seed=0).share(0, workers)


def test_workers_that_do_not_divide_the_streams_have_equal_batches_with_padding_of_their_own_rows():
    plan = Plan((100,) * 8, streams=16, batch_size=64, window=100, seed=0)
    assert [list(plan.share(r, 3)) for r in range(3)] == [list(range(6)), list(range(6, 11)), list(range(11, 16))]
    whole, padded = (plan.reading(0, 0, plan.share(2, 3), lanes=lanes) for lanes in (None, 6))
    assert len(padded.take) == len(whole.take) // 5 * 6
    assert padded.take[padded.real].tolist() == whole.take[whole.real].tolist()
    assert set(padded.take) == set(whole.take)
