"""Texts and pictures of many requests at once -> unit vectors, captions and answers, in batches.

Each tower has a queue, and so has the model that writes. Whenever the device is free, the batch is what has come
meanwhile: a lone request goes at once, and under load batches fill by themselves.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32
from PIL import Image

from siglip.captioner import Captioner
from siglip.embedder import Embedder
from siglip.errors import Failure, InputError, UnreadableImage
from siglip.fields import bounded, checked
from siglip.search.explain import heat_maps
from siglip.server.batches import Batches, Room, too_late, turn
from siglip.server.decoding import Decoders, Pixels
from siglip.server.metrics import Metrics
from siglip.server.sizes import cost_px
from siglip.server.sources import Sources

T = TypeVar("T")
_MOST_FILES = 16
# tokens that are written, and characters that are read, at the price of one item
_TOKENS = 32
_LETTERS = 8192
# a picture of one pixel
_DOT = "data:image/bmp;base64,Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="


@checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a service takes on: decoding processes, items before each tower, pixels of pictures, and for how long.

    The pixels are as many as two processes decode in about half a minute.
    """

    decoders: int = 2
    max_waiting: int = 1024
    max_pixels: int = 2**32
    max_wait_s: float = 30.0

    def __post_init__(self) -> None:
        bounded(self, "decoders", "max_waiting", "max_pixels", at_least=1)
        bounded(self, "max_wait_s", above=0)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be written about a picture: the text that follows `prompt`, or which of `answers` does."""

    prompt: str
    answers: tuple[str, ...] = ()
    max_tokens: int = 32
    beams: int = 1


class Engine:
    """Both towers of an embedder, the model that writes if there is one, and the decoders before them."""

    def __init__(
        self, embedder: Embedder, metrics: Metrics, sources: Sources, *, captioner: Captioner | None, limits: Limits
    ) -> None:
        self.embedder, self.captioner, self.sources = embedder, captioner, sources
        settings = {"image": embedder.processor.image_processor.settings}
        if captioner is not None:
            settings["caption"] = captioner.processor.image_processor.settings
        self.decoders = Decoders(settings, count=limits.decoders)
        self.pixels = Room("pixels", limits.max_pixels, metrics.pixels)
        self._max_wait_s = limits.max_wait_s
        # files that wait for a decoder are in memory
        self._reading = asyncio.Semaphore(_MOST_FILES)
        # one thread each, since a model computes one batch at a time; what is written takes long, and nobody else waits
        self._device = ThreadPoolExecutor(1, thread_name_prefix="siglip-device")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="siglip-writer")
        self.texts: Batches[str] = Batches(
            "text", embedder.encode_texts, self._device, metrics, batch_size=embedder.batch_size,
            max_waiting=limits.max_waiting, max_wait_s=limits.max_wait_s,
        )  # fmt: skip
        self.pictures: Batches[Pixels] = Batches(
            "image", lambda pixels: embedder.encode_pixels(np.stack(pixels)), self._device, metrics,
            batch_size=embedder.batch_size, max_waiting=limits.max_waiting, max_wait_s=limits.max_wait_s,
        )  # fmt: skip
        self.captions: Batches[tuple[Pixels, Wish]] = Batches(
            "caption", self._written, self._writer, metrics, batch_size=captioner.batch_size if captioner else 1,
            max_waiting=limits.max_waiting, max_wait_s=limits.max_wait_s,
        )  # fmt: skip

    async def warm(self) -> None:
        """Compute once with each tower, so that the first request is as fast as the others."""
        settings = self.embedder.processor.image_processor.settings
        await self.texts.put("warm")
        await self.pictures.put(np.zeros((settings.image_size, settings.image_size, 3), np.uint8))
        dots = [self.decoders.pixels(_DOT, "image", due=None) for _ in self.decoders.process_ids()]
        await asyncio.gather(*dots)
        if self.captioner is not None:
            dot = await self.decoders.pixels(_DOT, "caption", due=None)
            await self.captions.put((dot, Wish("caption en", max_tokens=1)))

    async def embed(self, texts: Sequence[str], pictures: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """For each text and each picture its vector, or the UnreadableImage that it is. Raises Refused."""
        with self._reading_of(texts), self.pictures.room.taken(len(pictures)), self._decoding(pictures):
            found = await _all([*map(self.texts.put, texts), *map(self._vector, pictures)])
        return found[: len(texts)], found[len(texts) :]

    async def write(self, pictures: Sequence[str], wish: Wish) -> list[Any]:
        """For each picture text and probability, or log-probabilities of the answers, or the error that it is.

        Errors are InputError, for a prompt the model cannot take, and UnreadableImage. Raises Refused.
        """
        # what is written takes as long as it is, once for each beam; each answer is read
        price = len(pictures) * max(len(wish.answers), wish.beams * math.ceil(wish.max_tokens / _TOKENS))
        with self.captions.room.taken(price), self._decoding(pictures):
            return await _all([self._text(name, wish) for name in pictures])

    async def labels(self, labels: Sequence[str], templates: Sequence[str] | None) -> Float32[np.ndarray, "n dim"]:
        """Vectors of labels in templates; those of earlier calls are kept. Raises InputError and Refused."""
        new = self.embedder.new_labels(labels, templates)
        templates = self.embedder.processor.templates if templates is None else templates
        with self.texts.room.taken(sum(_label_price(label, templates) for label in new)):
            # others have their turn after each part, as after each batch
            step = max(1, self.embedder.batch_size // len(templates))
            for start in range(0, len(new), step):
                await self.computed(partial(self.embedder.embed_labels, new[start : start + step], templates))
            return await self.computed(partial(self.embedder.embed_labels, labels, templates))

    async def heat(self, picture: Image.Image, texts: list[str]) -> np.ndarray:
        """Where in a picture the model sees each text. Raises InputError and Refused."""
        with self._reading_of(texts):
            return await self.computed(partial(heat_maps, self.embedder, picture, texts))

    async def computed(self, work: Callable[[], T]) -> T:
        """The outcome of work that needs the model's device, in its turn. Raises Refused if that comes too late."""
        due = time.monotonic() + self._max_wait_s

        def in_time() -> T:
            if time.monotonic() > due:
                raise too_late()
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._device, in_time)

    async def shown(self, name: str) -> Image.Image:
        """A picture as people see it. Raises UnreadableImage."""
        with self._decoding([name]):
            due = self._due()
            async with turn(self._reading, due):
                return await self.decoders.shown(await self.sources.content(name), due=due)

    def close(self) -> None:
        """End the decoders and the threads."""
        self.decoders.close()
        for threads in (self._device, self._writer):
            with suppress(RuntimeError):
                threads.shutdown(cancel_futures=True)

    def _reading_of(self, texts: Sequence[str]) -> AbstractContextManager[None]:
        """Room before the tower of texts. Raises Refused."""
        return self.texts.room.taken(sum(1 + len(text) // _LETTERS for text in texts))

    def _decoding(self, pictures: Sequence[str]) -> AbstractContextManager[None]:
        """Room before the decoders. Raises Refused."""
        return self.pixels.taken(sum(map(cost_px, pictures)))

    async def _vector(self, name: str) -> Any:
        try:
            return await self.pictures.put(await self._pixels(name, "image"))
        except UnreadableImage as error:
            return error

    async def _pixels(self, name: str, tower: str) -> Pixels:
        due = self._due()
        async with turn(self._reading, due):
            return await self.decoders.pixels(await self.sources.content(name), tower, due=due)

    def _due(self) -> float:
        return asyncio.get_running_loop().time() + self._max_wait_s

    async def _text(self, name: str, wish: Wish) -> Any:
        try:
            return await self.captions.put((await self._pixels(name, "caption"), wish))
        except (InputError, UnreadableImage) as error:
            return error

    def _written(self, items: list[tuple[Pixels, Wish]]) -> Iterable[Any]:
        """Those that wish the same are written together."""
        assert self.captioner is not None
        groups: defaultdict[Wish, list[int]] = defaultdict(list)
        for place, (_, wish) in enumerate(items):
            groups[wish].append(place)
        outcomes: list[Any] = [None] * len(items)
        for wish, places in groups.items():
            pictures = [Image.fromarray(items[place][0]) for place in places]
            try:
                if wish.answers:
                    found = self.captioner.score(pictures, wish.prompt, wish.answers)
                else:
                    options = {"max_new_tokens": wish.max_tokens, "num_beams": wish.beams}
                    found = self.captioner.write(pictures, wish.prompt, **options)
                for place, outcome in zip(places, found, strict=True):
                    failed = isinstance(outcome, Failure)
                    outcomes[place] = UnreadableImage(outcome.name, outcome.reason) if failed else outcome
            except InputError as error:
                for place in places:
                    outcomes[place] = error
        return outcomes


def _label_price(label: str, templates: Sequence[str]) -> int:
    letters = sum(len(template) + template.count("{}") * len(label) for template in templates)
    return 1 + letters // _LETTERS


async def _all(work: Sequence[Awaitable[Any]]) -> list[Any]:
    """The outcomes in order; when one fails or the caller is cancelled, the others are given up."""
    futures = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*futures)
    finally:
        for future in futures:
            future.cancel()
