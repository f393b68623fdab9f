"""Source and processor -> batches: endless and shuffled for training, or once through in order."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from siglip.data.batch import Batch, BatchMaker, LoaderSettings
from siglip.data.order import Stream, Visit, share
from siglip.data.source import Source
from siglip.data.workers import BrokenLedger, in_workers
from siglip.errors import ConfigError, DataError, Failure, warn
from siglip.processing import AnyProcessor

# so many batches before they are needed, remote shards are fetched
_AHEAD = 32


class Loader:
    """Batches for training, pass after pass without end; process `rank` of `world_size` gets its share of each.

    The rows of a batch, in the order of ranks, depend on nothing but the source and the settings: not on the number of
    processes or workers, nor on where the run was stopped and resumed. A batch may hold the end of one pass and the
    beginning of the next, so that all are full and every pass visits each sample exactly once.

    A broken sample is replaced by the next good one of the source, counted, and appended to `broken_log` (name, tab,
    reason). Raises DataError when more than `settings.max_broken` of the visits meet one, ConfigError if a batch has
    fewer rows than there are processes.
    """

    def __init__(
        self,
        source: Source,
        processor: AnyProcessor,
        settings: LoaderSettings,
        *,
        rank: int = 0,
        world_size: int = 1,
        broken_log: Path | None = None,
    ) -> None:
        if settings.batch_size < world_size:
            raise ConfigError(f"a batch of {settings.batch_size} pairs cannot be shared by {world_size} processes")
        if not len(source):
            raise DataError("the source has no samples; check its path and what a subset leaves of it")
        if settings.batch_size > len(source) and rank == 0:
            warn(
                f"a batch of {settings.batch_size} holds more samples than the {len(source)} there are: some are in it "
                "more than once, and then a caption is a wrong answer to its own picture; take a smaller batch"
            )
        self._source, self._settings = source, settings
        self._rank, self._world_size = rank, world_size
        self._maker = BatchMaker(source, processor, settings, training=True)
        self._stream = Stream(len(source), source.order, settings.seed)
        self._ledger = BrokenLedger(broken_log, settings.max_broken, len(source))
        self._consumed = 0

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position on. While one is in use, the position is that of the next."""
        for batch in in_workers(self._maker.batch, self._visits(), self._settings.workers, pinned=_pinned()):
            self._consumed += self._settings.batch_size
            self._ledger.add(len(batch), batch.broken)
            yield batch

    @property
    def epoch(self) -> float:
        """Passes over the data done so far, by all processes together."""
        return self._consumed / len(self._source)

    @property
    def broken(self) -> tuple[Failure, ...]:
        """The broken samples that this process has met, each once."""
        return self._ledger.broken

    def state_dict(self) -> dict[str, int]:
        """The position, the same on every process, and what it depends on."""
        return {"consumed": self._consumed, "seed": self._settings.seed, "samples": len(self._source)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken, also with other numbers of processes, workers, or rows in a batch.

        Takes effect with the next `iter`. Raises DataError if the seed or the number of samples is another.
        """
        mine = self.state_dict()
        for name in ("seed", "samples"):
            if state[name] != mine[name]:
                raise DataError(
                    f"the run to be resumed had {name}={state[name]}, this one has {name}={mine[name]}; "
                    "the order of samples would be another, so use the same value"
                )
        self._consumed = state["consumed"]

    def _visits(self) -> Iterator[list[Visit]]:
        size = self._settings.batch_size
        with ThreadPoolExecutor(1) as ahead:
            for start in itertools.count(self._consumed, size):
                later = self._share(start + _AHEAD * size)
                # what goes wrong there will go wrong again, and be told, where the samples are needed
                ahead.submit(self._source.prepare, [visit.sample for visit in later])
                yield self._share(start)

    def _share(self, start: int) -> list[Visit]:
        mine = share(start, start + self._settings.batch_size, self._rank, self._world_size)
        return self._stream.visits(mine)


def one_pass(
    source: Source,
    processor: AnyProcessor,
    settings: LoaderSettings,
    *,
    rank: int = 0,
    world_size: int = 1,
    ledger: BrokenLedger | None = None,
) -> Iterator[Batch]:
    """Every sample once, in the order of the source, with its main caption and without augmentation.

    Process `rank` gets its share, neighbours in the source; shares and last batches differ in size. Broken samples are
    left out (`indices` tell which) and counted as in Loader, in `ledger` where one is given.
    """
    rows = max(1, settings.batch_size // world_size)
    mine = share(0, len(source), rank, world_size)
    visits = ([Visit(0, sample) for sample in mine[start : start + rows]] for start in range(0, len(mine), rows))
    ledger = ledger or BrokenLedger(None, settings.max_broken, len(source))
    maker = BatchMaker(source, processor, settings, training=False)
    for batch in in_workers(maker.batch, visits, settings.workers, pinned=_pinned()):
        ledger.add(len(batch) + len(batch.broken), batch.broken)
        if len(batch):
            yield batch


def _pinned() -> bool:
    """Whether batches go to a GPU: from page-locked memory the copy need not be waited for."""
    return torch.cuda.is_available()
