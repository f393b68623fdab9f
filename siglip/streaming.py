"""Pictures in any form -> squares of bytes, decoded in threads ahead of the model -> what it makes of each batch."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from siglip.download import fetched
from siglip.errors import Failure, InputError, UnreadableImage, clip
from siglip.pictures import cores
from siglip.processing import ImageInput, SiglipImageProcessor, image_name

_Outcome = TypeVar("_Outcome")
_Decoded = tuple[int, UInt8[np.ndarray, "size size 3"]] | Failure


class Pace(TypedDict, total=False):
    """How one stream reads its pictures, where not as all: so many at a time, and seconds for each web address."""

    batch_size: int | None
    timeout_s: float | None


def checked_batch_size(batch_size: object) -> int:
    """The number, if it is a whole one of at least 1; else raises InputError."""
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, got {clip(repr(batch_size))}")
    return int(batch_size)


class PictureStream:
    """Decoding ahead for one image processor; its threads are shared by all streams. A web address is fetched.

    `reduced`: JPEG files much larger than the square are decoded at a fraction of their size.
    """

    def __init__(self, processor: SiglipImageProcessor, *, batch_size: int, reduced: bool = False) -> None:
        self._processor, self._batch_size, self._reduced = processor, batch_size, reduced
        self._lock = threading.Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def stream(
        self,
        items: Iterable[ImageInput],
        work: Callable[[UInt8[np.ndarray, "batch size size 3"]], Sequence[_Outcome] | np.ndarray],
        *,
        batch_size: int | None = None,
        timeout_s: float | None = None,
    ) -> Generator[tuple[int, _Outcome] | Failure, None, None]:
        """Yield (position, outcome) or a Failure for each picture, in order; `work` has an outcome for each of a batch.

        At most two batches more are taken from `items` than were yielded. Closing the generator stops all work.
        """
        source = enumerate(items)
        size = self._batch_size if batch_size is None else checked_batch_size(batch_size)
        waiting: deque[Future[_Decoded]] = deque()
        pool = self._decoders()
        try:
            while True:
                # one batch for the model now, and one to be decoded meanwhile
                for index, item in islice(source, 2 * size - len(waiting)):
                    waiting.append(pool.submit(self._decode, index, item, timeout_s))
                if not waiting:
                    return
                decoded = [waiting.popleft().result() for _ in range(min(size, len(waiting)))]
                good = [result[1] for result in decoded if not isinstance(result, Failure)]
                outcomes = iter(work(np.stack(good)) if good else ())
                for result in decoded:
                    yield result if isinstance(result, Failure) else (result[0], next(outcomes))
        finally:
            wait([future for future in waiting if not future.cancel()])

    def _decoders(self) -> ThreadPoolExecutor:
        """The threads that decode; a forked process has none of its parent's."""
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                self._pool = os.getpid(), ThreadPoolExecutor(cores(), thread_name_prefix="siglip-decode")
            return self._pool[1]

    def _decode(self, index: int, item: ImageInput, timeout_s: float | None) -> _Decoded:
        try:
            return index, self._processor.pixels(fetched(item, timeout_s), reduced=self._reduced)
        except UnreadableImage as error:
            return Failure(image_name(item, index), error.reason, index)


def is_one_picture(value: object) -> bool:
    """Whether this is one picture, in any form a picture may have, rather than something that yields pictures."""
    if isinstance(value, np.ndarray | Tensor):
        return value.ndim < 4
    return isinstance(value, str | bytes | Path | Image.Image) or hasattr(value, "read")


def check_many(items: object) -> None:
    """Raise InputError for a single picture where several are wanted."""
    if is_one_picture(items):
        raise InputError(f"expected a list of pictures, got a single {type(items).__name__}; pass [picture]")
