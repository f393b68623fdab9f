"""A picture file or data URI -> pixels u8[height, width, 3], decoded in worker processes that may die without harm.

Each worker has limits of memory and time. One that exceeds them, or is killed, costs the picture it was at: it is
replaced, and the service goes on.
"""

import asyncio
import atexit
import multiprocessing
import queue
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from siglip.config import ImageSettings
from siglip.errors import UnreadableImage
from siglip.server.batches import turn

# how long a new process may take until it can decode, and what its answers begin with
_START_S = 120.0
_PIXELS, _REASON = b"p", b"r"
# what is wanted of a picture to be shown: no side longer than this
SHOWN_PX = 1600
Pixels = UInt8[np.ndarray, "height width 3"]


class Decoders:
    """`count` worker processes; a picture has `timeout_s`, and `memory_bytes` beyond what an idle worker takes.

    `settings` are those of the towers that pictures are made ready for, by the name of the tower.
    """

    def __init__(
        self,
        settings: Mapping[str, ImageSettings],
        *,
        count: int = 2,
        timeout_s: float = 10.0,
        memory_bytes: int = 2**31,
    ) -> None:
        self._timeout_s = timeout_s
        self._workers = [_Worker(settings, memory_bytes) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="siglip-decoder")
        self._places = asyncio.Semaphore(count)

    async def pixels(self, picture: str | bytes, tower: str, *, due: float | None) -> Pixels:
        """The square of one picture for a tower. Raises UnreadableImage, also for too much time or memory.

        Raises Refused where no worker is free until `due`, by the clock of the loop.
        """
        async with turn(self._places, due):
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.decode, picture, tower)

    async def shown(self, picture: str | bytes, *, due: float | None) -> Image.Image:
        """The picture in RGB, upright, no side longer than SHOWN_PX. Raises as `pixels`."""
        return Image.fromarray(await self.pixels(picture, "", due=due))

    def process_ids(self) -> list[int]:
        """Of the workers that run now."""
        return [worker.process.pid or 0 for worker in self._workers]

    def close(self) -> None:
        """End the workers."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def decode(self, picture: str | bytes, tower: str) -> Pixels:
        """What `pixels` does, or `shown` for no tower, in the thread that calls."""
        content = picture if isinstance(picture, bytes) else picture.encode("utf-8", "surrogateescape")
        worker = self._idle.get()
        try:
            answer = worker.ask(tower.encode() + b"\n" + content, self._timeout_s)
        finally:
            self._idle.put(worker)
        if isinstance(answer, str):
            raise UnreadableImage("image", answer)
        height, width = np.frombuffer(answer, "<u4", 2).tolist()
        return np.frombuffer(answer, np.uint8, offset=8).reshape(height, width, 3)


class _Worker:
    """One process at a time; another one takes its place when it has died or had to be ended."""

    def __init__(self, settings: Mapping[str, ImageSettings], memory_bytes: int) -> None:
        self._settings, self._memory_bytes = dict(settings), memory_bytes
        self.process, self._pipe = self._start()
        self._started = False

    def ask(self, question: bytes, timeout_s: float) -> bytes | str:
        """Height, width and pixels, or what is wrong with the picture."""
        if not self.process.is_alive():
            self._replace()
        try:
            if not self._started and self._pipe.poll(_START_S):
                self._started = self._pipe.recv_bytes() == b"ready"
            self._pipe.send_bytes(question)
            if self._pipe.poll(timeout_s):
                # bytes and no objects: what comes from a worker is not to be trusted with more
                answer = self._pipe.recv_bytes()
                return answer[1:].decode() if answer[:1] == _REASON else answer[1:]
            reason = f"takes more than {timeout_s:g} seconds to decode; make it smaller"
        except (EOFError, OSError):
            reason = "ended the process that decoded it; it is damaged, or takes more memory than it may"
        self._replace()
        return reason

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        atexit.unregister(self.process.kill)
        self._pipe.close()

    def _replace(self) -> None:
        self.stop()
        self.process, self._pipe = self._start()
        self._started = False

    def _start(self) -> tuple[BaseProcess, Connection]:
        # a worker that is forked from a process with all its imports is there at once; of others each takes seconds
        if "forkserver" in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["siglip.processing"])
        else:
            context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._settings, self._memory_bytes), daemon=True)
        process.start()
        # where nobody closes the service, multiprocessing would wait at exit for a worker that heeds no SIGTERM
        atexit.register(process.kill)
        theirs.close()
        return process, ours


def _work(pipe: Connection, settings: Mapping[str, ImageSettings], memory_bytes: int) -> None:
    """The life of a worker: tower and picture in, pixels or a reason out, until the service is gone."""
    import signal

    from siglip.processing import SiglipImageProcessor

    for told in (signal.SIGINT, signal.SIGTERM):  # they are for the service, which ends its workers when it is done
        signal.signal(told, signal.SIG_IGN)
    processors = {name: SiglipImageProcessor(of_tower) for name, of_tower in settings.items()}
    _limit_memory(memory_bytes)
    pipe.send_bytes(b"ready")
    while True:
        try:
            tower, _, content = pipe.recv_bytes().partition(b"\n")
        except EOFError:
            return
        try:
            # text is never given on unless it is a data URI: it would be taken for a path
            uri = content.decode("utf-8", "surrogateescape") if content[:5].lower() == b"data:" else None
            picture = content if uri is None else uri
            pixels = processors[tower.decode()].pixels(picture) if tower else _shown(picture)
            answer = _PIXELS + np.array(pixels.shape[:2], "<u4").tobytes() + pixels.tobytes()
        except UnreadableImage as error:
            answer = _REASON + error.reason.encode("utf-8", "replace")
        except MemoryError:
            answer = _REASON + b"takes more memory than it may; make it smaller"
        pipe.send_bytes(answer)


def _shown(picture: str | bytes) -> Pixels:
    from siglip.processing.decode import decode_picture

    stored = decode_picture(picture, at_least_px=SHOWN_PX).plain
    small = stored.picture.copy()
    small.thumbnail((SHOWN_PX, SHOWN_PX), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.array(stored._replace(picture=small).rgb())


def _limit_memory(memory_bytes: int) -> None:
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError):  # other systems keep the limits of time and pixels
        return
