"""Items of many requests at once -> their outcomes, in batches, one batch at a time. What waits is bounded."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from siglip.server.metrics import Gauge, Metrics

Item = TypeVar("Item")


class Refused(Exception):
    """Work that is not taken on: `status` 413 if it can never fit, 429 if it may later, 503 if it waited too long."""

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


def too_late() -> Refused:
    """What waited too long is told."""
    return Refused(503, "it waited too long in the queue; try again later", reason="queue_time")


@asynccontextmanager
async def turn(places: asyncio.Semaphore, due: float | None) -> AsyncGenerator[None]:
    """One of a number of places, as soon as one is free. Raises Refused if none is until `due` by the loop's clock."""
    try:
        async with asyncio.timeout_at(due):
            await places.acquire()
    except TimeoutError:
        raise too_late() from None
    try:
        yield
    finally:
        places.release()


class Room:
    """How much of something is taken on: `count` of it, at most `limit`."""

    def __init__(self, what: str, limit: int, gauge: Gauge) -> None:
        self._what, self._limit, self._gauge = what, limit, gauge
        self.count = 0

    @contextmanager
    def taken(self, count: int) -> Generator[None]:
        """Room for so much, given back in the end. Raises Refused."""
        if count > self._limit:
            message = f"{count} {self._what} are more than the {self._limit} this service holds; send fewer at a time"
            raise Refused(413, message, reason="too_large")
        if self.count + count > self._limit:
            raise Refused(429, f"too many {self._what} are waiting; try again in a second", reason="queue_full")
        self._add(count)
        try:
            yield
        finally:
            self._add(-count)

    def _add(self, count: int) -> None:
        self.count += count
        self._gauge.set(self.count)


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    item: Item
    future: asyncio.Future[Any]
    since: float


class Batches(Generic[Item]):
    """The queue before one tower.

    `compute` runs in `device`, which takes one batch at a time; it gives an outcome for each item, which may be an
    error of that item alone.
    """

    def __init__(
        self,
        tower: str,
        compute: Callable[[list[Item]], Iterable[Any]],
        device: Executor,
        metrics: Metrics,
        *,
        batch_size: int,
        max_waiting: int,
        max_wait_s: float,
    ) -> None:
        self._tower, self._compute, self._device, self._metrics = tower, compute, device, metrics
        self._batch_size, self._max_wait_s = batch_size, max_wait_s
        # for items before they come; costly ones take the room of several
        self.room = Room("items", max_waiting, metrics.queue_length.labels(tower))
        self._queue: deque[_Waiting[Item]] = deque()
        self._running: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Any]:
        """What will be computed for one item. Cancelling it takes the item out of the queue. It may raise Refused."""
        waiting = _Waiting(item, asyncio.get_running_loop().create_future(), time.monotonic())
        self._queue.append(waiting)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return waiting.future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            start = time.monotonic()
            for waiting in batch:
                self._metrics.wait_seconds.labels(self._tower).observe(start - waiting.since)
            try:
                outcomes = await loop.run_in_executor(self._device, self._compute, [waiting.item for waiting in batch])
            except Exception as error:
                for waiting in batch:
                    _settle(waiting.future, error)
                continue
            self._metrics.tower_seconds.labels(self._tower).observe(time.monotonic() - start)
            self._metrics.batch_size.labels(self._tower).observe(len(batch))
            for waiting, outcome in zip(batch, outcomes, strict=True):
                _settle(waiting.future, outcome)

    def _next(self) -> list[_Waiting[Item]]:
        batch: list[_Waiting[Item]] = []
        while self._queue and len(batch) < self._batch_size:
            waiting = self._queue.popleft()
            if waiting.future.done():  # its client is gone
                continue
            if time.monotonic() - waiting.since > self._max_wait_s:
                _settle(waiting.future, too_late())
                continue
            batch.append(waiting)
        return batch


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
