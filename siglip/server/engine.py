"""Texts and pictures of many requests at once -> unit vectors, in batches.

Each tower has a queue. Whenever the device is free, the batch is what has come meanwhile: a lone request goes at once,
and under load batches fill by themselves. What waits is bounded, so memory is too.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float32

from siglip.embedder import Embedder
from siglip.errors import UnreadableImage
from siglip.server.decoding import Decoders, Pixels
from siglip.server.metrics import Metrics

Vector = Float32[np.ndarray, " dim"]
Item = TypeVar("Item")
# a picture of one pixel
_DOT = "data:image/bmp;base64,Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="


class Refused(Exception):
    """Work that is not taken on: `status` 413 if it can never fit, 429 if it may later, 503 if it waited too long."""

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    item: Item
    future: asyncio.Future[Any]
    since: float


class Batches(Generic[Item]):
    """The queue before one tower. `encode` runs in `device`, which computes one batch at a time."""

    def __init__(
        self,
        tower: str,
        encode: Callable[[list[Item]], Float32[np.ndarray, "n dim"]],
        device: Executor,
        metrics: Metrics,
        *,
        batch_size: int,
        max_waiting: int,
        max_wait_s: float,
    ) -> None:
        self._tower, self._encode, self._device, self._metrics = tower, encode, device, metrics
        self._batch_size, self._max_waiting, self._max_wait_s = batch_size, max_waiting, max_wait_s
        self._queue: deque[_Waiting[Item]] = deque()
        self._claimed = 0
        self._running: asyncio.Task[None] | None = None

    def claim(self, count: int) -> None:
        """Reserve room for items that will come; `release` gives it back. Raises Refused."""
        if count > self._max_waiting:
            message = f"{count} items are more than the {self._max_waiting} this service holds; send fewer at a time"
            raise Refused(413, message, reason="too_large")
        if self._claimed + count > self._max_waiting:
            raise Refused(429, "too many items are waiting; try again in a second", reason="queue_full")
        self._claimed += count
        self._metrics.queue_length.labels(self._tower).set(self._claimed)

    def release(self, count: int) -> None:
        """Give back what was claimed."""
        self._claimed -= count
        self._metrics.queue_length.labels(self._tower).set(self._claimed)

    async def vector(self, item: Item) -> Vector:
        """The vector of one item. Cancelling it takes the item out of the queue. Raises Refused."""
        waiting = _Waiting(item, asyncio.get_running_loop().create_future(), time.monotonic())
        self._queue.append(waiting)
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await waiting.future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            start = time.monotonic()
            for waiting in batch:
                self._metrics.wait_seconds.labels(self._tower).observe(start - waiting.since)
            try:
                vectors = await loop.run_in_executor(self._device, self._encode, [waiting.item for waiting in batch])
            except Exception as error:
                for waiting in batch:
                    _settle(waiting.future, error)
                continue
            self._metrics.tower_seconds.labels(self._tower).observe(time.monotonic() - start)
            self._metrics.batch_size.labels(self._tower).observe(len(batch))
            for waiting, vector in zip(batch, vectors, strict=True):
                _settle(waiting.future, vector)

    def _next(self) -> list[_Waiting[Item]]:
        batch: list[_Waiting[Item]] = []
        while self._queue and len(batch) < self._batch_size:
            waiting = self._queue.popleft()
            if waiting.future.done():  # its client is gone
                continue
            if time.monotonic() - waiting.since > self._max_wait_s:
                message = f"the queue took more than {self._max_wait_s:g} seconds; try again later"
                _settle(waiting.future, Refused(503, message, reason="queue_time"))
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


class Engine:
    """Both towers of an embedder and the decoders before one of them."""

    def __init__(
        self,
        embedder: Embedder,
        metrics: Metrics,
        *,
        decoders: int = 2,
        max_waiting: int = 1024,
        max_wait_s: float = 30.0,
    ) -> None:
        self.embedder = embedder
        self.decoders = Decoders(embedder.processor.image_processor.settings, count=decoders)
        # one thread, since the device computes one batch at a time
        self._device = ThreadPoolExecutor(1, thread_name_prefix="siglip-device")
        limits = {"batch_size": embedder.batch_size, "max_waiting": max_waiting}
        self.texts: Batches[str] = Batches(
            "text", embedder.encode_texts, self._device, metrics, **limits, max_wait_s=max_wait_s
        )
        self.pictures: Batches[Pixels] = Batches(
            "image", lambda pixels: embedder.encode_pixels(np.stack(pixels)), self._device, metrics, **limits,
            max_wait_s=max_wait_s,
        )  # fmt: skip

    async def warm(self) -> None:
        """Compute once with either tower, so that the first request is as fast as the others."""
        size = self.embedder.processor.image_processor.settings.image_size
        await self.texts.vector("warm")
        await self.pictures.vector(np.zeros((size, size, 3), np.uint8))
        await asyncio.gather(*(self.decoders.pixels(_DOT) for _ in self.decoders.process_ids()))

    async def embed(self, texts: Sequence[str], pictures: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """For each text and each picture (a data URI) its vector, or the UnreadableImage that it is. Raises Refused."""
        self.texts.claim(len(texts))
        try:
            self.pictures.claim(len(pictures))
            try:
                async with asyncio.TaskGroup() as tasks:
                    made = [tasks.create_task(self.texts.vector(text)) for text in texts]
                    seen = [tasks.create_task(self._picture(uri)) for uri in pictures]
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            finally:
                self.pictures.release(len(pictures))
        finally:
            self.texts.release(len(texts))
        return [task.result() for task in made], [task.result() for task in seen]

    async def labels(self, labels: Sequence[str], templates: Sequence[str] | None) -> Float32[np.ndarray, "n dim"]:
        """Vectors of labels in templates; those of earlier calls are kept."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._device, self.embedder.embed_labels, labels, templates)

    def close(self) -> None:
        """End the decoders and the thread of the device."""
        self.decoders.close()
        with suppress(RuntimeError):
            self._device.shutdown(cancel_futures=True)

    async def _picture(self, uri: str) -> Any:
        try:
            return await self.pictures.vector(await self.decoders.pixels(uri))
        except UnreadableImage as error:
            return error
