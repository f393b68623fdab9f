"""Source and processor -> batches: endless and shuffled for training, or once through in order."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from siglip.data.batch import Batch, BatchMaker, Broken, LoaderSettings
from siglip.data.order import Stream, Visit, share
from siglip.data.source import Source
from siglip.errors import ConfigError, DataError, SiglipError
from siglip.processing import SiglipProcessor

# batches ahead of which remote shards are fetched, and visits before which the share of broken ones is not judged
_AHEAD = 32
_TOO_FEW = 1000


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
        processor: SiglipProcessor,
        settings: LoaderSettings,
        *,
        rank: int = 0,
        world_size: int = 1,
        broken_log: Path | None = None,
    ) -> None:
        if settings.batch_size < world_size:
            raise ConfigError(f"a batch of {settings.batch_size} pairs cannot be shared by {world_size} processes")
        self._source, self._settings = source, settings
        self._rank, self._world_size = rank, world_size
        self._maker = BatchMaker(source, processor, settings, training=True)
        self._stream = Stream(len(source), source.order, settings.seed)
        self._ledger = _Ledger(broken_log, settings.max_broken, len(source))
        self._consumed = 0

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the current position on. While one is in use, the position is that of the next."""
        for batch in _made(self._maker, self._visits(), self._settings.workers):
            self._consumed += self._settings.batch_size
            self._ledger.add(len(batch), batch.broken)
            yield batch

    @property
    def epoch(self) -> float:
        """Passes over the data done so far, by all processes together."""
        return self._consumed / len(self._source)

    @property
    def num_broken(self) -> int:
        """Visits of this process that met a broken sample."""
        return self._ledger.num_broken

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
                    "the order of samples would be another, so give it the same"
                )
        self._consumed = state["consumed"]

    def _visits(self) -> Iterator[list[Visit]]:
        size = self._settings.batch_size
        with ThreadPoolExecutor(1) as ahead:
            for start in itertools.count(self._consumed, size):
                later = self._stream.visits(range(start + _AHEAD * size, start + (_AHEAD + 1) * size))
                # what goes wrong there will go wrong again, and be told, where the samples are needed
                ahead.submit(self._source.prepare, [visit.sample for visit in later])
                yield self._stream.visits(share(start, start + size, self._rank, self._world_size))


def one_pass(
    source: Source,
    processor: SiglipProcessor,
    settings: LoaderSettings,
    *,
    rank: int = 0,
    world_size: int = 1,
    broken_log: Path | None = None,
) -> Iterator[Batch]:
    """Every sample once, in the order of the source, with its main caption and without augmentation.

    Process `rank` gets its share, neighbours in the source; shares and last batches differ in size. Broken samples are
    left out (`indices` tell which) and counted as in Loader.
    """
    rows = max(1, settings.batch_size // world_size)
    mine = share(0, len(source), rank, world_size)
    visits = ([Visit(0, sample) for sample in mine[start : start + rows]] for start in range(0, len(mine), rows))
    ledger = _Ledger(broken_log, settings.max_broken, len(source))
    for batch in _made(BatchMaker(source, processor, settings, training=False), visits, settings.workers):
        ledger.add(len(batch) + len(batch.broken), batch.broken)
        if len(batch):
            yield batch


def in_workers(dataset: Any, keys: Iterable[Any], workers: int) -> Iterator[Any]:
    """`dataset[key]` for every key, in order, made by `workers` processes that run ahead (0: made here)."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_start_worker,
        pin_memory=torch.cuda.is_available(),
        # its own, or making an iterator would draw from the generator that a resumed run has just restored
        generator=torch.Generator(),
    )
    yield from loader


def _made(maker: BatchMaker, visits: Iterable[Sequence[Visit]], workers: int) -> Iterator[Batch]:
    for made in in_workers(maker, visits, workers):
        if isinstance(made, SiglipError):
            raise made
        yield made


def _start_worker(_: int) -> None:
    # Ctrl-C and a stop signal to the whole group are for the training process, which ends the workers when it is ready
    os.setpgid(0, 0)
    # tokenizers would warn of the fork, and its threads would only compete with the other workers
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _unchanged(made: Any) -> Any:
    return made


class _Ledger:
    """Counts visits and broken samples, writes the latter down, and says when there are too many."""

    def __init__(self, log: Path | None, max_share: float, samples: int) -> None:
        self._log, self._max_share = log, max_share
        self._judged_from = min(samples, _TOO_FEW)
        self._visits = 0
        self._seen: set[str] = set()
        self.num_broken = 0

    def add(self, visits: int, broken: Sequence[Broken]) -> None:
        """One batch. Raises DataError if too large a share was broken so far."""
        self._visits += visits
        self.num_broken += len(broken)
        fresh = [item for item in broken if item.name not in self._seen]
        self._seen.update(item.name for item in fresh)
        if self._log is not None and fresh:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as file:
                file.writelines(f"{item.name}\t{item.reason}\n" for item in fresh)
        if self.num_broken > self._max_share * max(self._visits, self._judged_from):
            where = f"; all are listed in {self._log}" if self._log is not None else ""
            raise DataError(
                f"{self.num_broken} of {self._visits} samples are broken, more than max_broken={self._max_share} "
                f"allows, the last is {broken[-1].name}: {broken[-1].reason}{where}"
            )
