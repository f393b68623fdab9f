"""(seed, epoch) -> the order of samples; positions in the endless stream of epochs -> the visits of each batch.

Everything here is a pure function, so a run is resumed by one number: how many samples all processes together have
consumed. Nothing depends on the number of processes or workers but which of them makes which row of a batch.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

Order = Int64[np.ndarray, "samples"]


class Visit(NamedTuple):
    """Number `sample` in pass `epoch` over the data; both count from 0."""

    epoch: int
    sample: int


def epoch_order(sizes: Sequence[int], *, seed: int, epoch: int, window: int | None = None) -> Order:
    """All samples of shards of these sizes, each once, shuffled.

    `window` None: every order is equally likely. A number: shards are shuffled, and their samples with them so that at
    any moment only about `window` neighbouring shards are in use, a new one entering as an old one ends; what a
    shuffle buffer of that many shards gives, without its state. The raw numbers of Philox are the same in every
    version of numpy.
    """
    numbers = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    shards, samples = numbers.random_raw(len(sizes)), numbers.random_raw(sum(sizes))
    if window is None:
        return np.argsort(samples, kind="stable")
    entry = np.argsort(np.argsort(shards, kind="stable"), kind="stable").astype(np.float64)
    return np.argsort(np.repeat(entry, sizes) + samples * (window / 2**64), kind="stable")


def share(start: int, stop: int, rank: int, world_size: int) -> range:
    """The positions in [start, stop) that process `rank` of `world_size` makes: neighbours, equally many to within one.

    The shares in the order of ranks, put end to end, are the whole.
    """
    count = stop - start
    return range(start + count * rank // world_size, start + count * (rank + 1) // world_size)


class Stream:
    """Position -> visit, where pass after pass follows without a gap.

    A batch may hold the end of one pass and the beginning of the next. So every batch is full on every process, every
    pass visits every sample exactly once, and there is no tail to drop.
    """

    def __init__(self, samples: int, order: Callable[[int, int], Order], seed: int) -> None:
        self._samples = samples
        # a batch touches at most two passes, unless there are fewer samples than rows
        self._order = lru_cache(maxsize=2)(partial(order, seed))

    def visits(self, positions: range) -> list[Visit]:
        """What is visited at these neighbouring positions, counted from the first sample of the first pass."""
        visits: list[Visit] = []
        for epoch in range(positions.start // self._samples, -(-positions.stop // self._samples)):
            before = epoch * self._samples
            places = slice(max(positions.start - before, 0), positions.stop - before)
            visits += [Visit(epoch, sample) for sample in self._order(epoch)[places].tolist()]
        return visits
