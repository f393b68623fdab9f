"""The order of samples is a pure function of seed and epoch, and its shares are disjoint and complete."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from siglip.data.order import Order, Stream, Visit, epoch_order, share

SIZES = st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(sum)
NUMBERS = st.integers(0, 2**63)
ANY_TIME = settings(deadline=None)


def one_shard_order(samples: int) -> Callable[[int, int], Order]:
    return lambda seed, epoch: epoch_order([samples], seed=seed, epoch=epoch)


@ANY_TIME
@given(SIZES, NUMBERS, NUMBERS, st.none() | st.integers(1, 15))
def test_every_epoch_holds_every_sample_once(sizes: list[int], seed: int, epoch: int, window: int | None) -> None:
    order = epoch_order(sizes, seed=seed, epoch=epoch, window=window)
    assert sorted(order) == list(range(sum(sizes)))
    assert np.array_equal(order, epoch_order(sizes, seed=seed, epoch=epoch, window=window))


def test_the_order_of_a_seed_and_epoch_stays_the_same_in_every_version() -> None:
    assert epoch_order([10], seed=1, epoch=2).tolist() == [3, 1, 5, 0, 4, 9, 8, 7, 6, 2]
    assert epoch_order([4, 3, 3], seed=1, epoch=2, window=1).tolist() == [8, 7, 9, 1, 3, 2, 0, 6, 5, 4]


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = {tuple(epoch_order([50], seed=seed, epoch=epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_every_sample_comes_at_every_place_equally_often() -> None:
    places = np.zeros((5, 5))
    for epoch in range(4000):
        places[np.arange(5), epoch_order([5], seed=0, epoch=epoch)] += 1
    # 800 expected in each cell, standard deviation 25
    assert np.abs(places - 800).max() < 100


@ANY_TIME
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), NUMBERS, st.integers(1, 15))
def test_no_more_shards_than_the_window_are_in_use_at_a_time(sizes: list[int], seed: int, window: int) -> None:
    shard_of = np.repeat(np.arange(len(sizes)), sizes)[epoch_order(sizes, seed=seed, epoch=0, window=window)]
    first = [int(np.argmax(shard_of == shard)) for shard in range(len(sizes))]
    last = [len(shard_of) - 1 - int(np.argmax(shard_of[::-1] == shard)) for shard in range(len(sizes))]
    for place in range(len(shard_of)):
        assert sum(first[shard] <= place <= last[shard] for shard in range(len(sizes))) <= window


def test_samples_of_one_shard_are_mixed_with_those_of_its_window() -> None:
    order = epoch_order([100] * 10, seed=0, epoch=0, window=4) // 100
    changes = np.count_nonzero(np.diff(order))
    # with four shards in use, three of four neighbours come from different ones
    assert 600 < changes < 850


@ANY_TIME
@given(st.integers(0, 1000), st.integers(0, 300), st.integers(1, 20))
def test_shares_are_disjoint_complete_and_even(start: int, count: int, world_size: int) -> None:
    shares = [share(start, start + count, rank, world_size) for rank in range(world_size)]
    assert [position for part in shares for position in part] == list(range(start, start + count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@ANY_TIME
@given(st.integers(1, 30), st.lists(st.integers(0, 70), min_size=2, max_size=8))
def test_a_stream_is_the_same_however_it_is_cut(samples: int, cuts: list[int]) -> None:
    edges = sorted(cuts)
    stream = Stream(samples, one_shard_order(samples), seed=3)
    parts = [visit for start, stop in pairwise(edges) for visit in stream.visits(range(start, stop))]
    expected = [
        Visit(position // samples, int(one_shard_order(samples)(3, position // samples)[position % samples]))
        for position in range(edges[0], edges[-1])
    ]
    assert parts == expected
