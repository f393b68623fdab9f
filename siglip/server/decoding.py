"""A picture as a data URI -> its square of pixels, decoded in worker processes that may die without harm.

Each worker has limits of memory and time. One that exceeds them, or is killed, costs the picture it was at: it is
replaced, and the service goes on.
"""

import asyncio
import multiprocessing
import queue
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
from jaxtyping import UInt8

from siglip.config import ImageSettings
from siglip.download import is_data_uri
from siglip.errors import UnreadableImage

# how long a new process may take until it can decode, and what its answers begin with
_START_S = 120.0
_PIXELS, _REASON = b"p", b"r"
Pixels = UInt8[np.ndarray, "size size 3"]


class Decoders:
    """`count` worker processes; a picture has `timeout_s`, and `memory_bytes` beyond what an idle worker takes."""

    def __init__(
        self, settings: ImageSettings, *, count: int = 2, timeout_s: float = 10.0, memory_bytes: int = 2**31
    ) -> None:
        self._size = settings.image_size
        self._timeout_s = timeout_s
        self._workers = [_Worker(settings, memory_bytes) for _ in range(count)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="siglip-decoder")

    async def pixels(self, uri: str) -> Pixels:
        """The square of one picture. Raises UnreadableImage, also for one that takes too much time or memory."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, uri)

    def process_ids(self) -> list[int]:
        """Of the workers that run now."""
        return [worker.process.pid or 0 for worker in self._workers]

    def close(self) -> None:
        """End the workers."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def _decode(self, uri: str) -> Pixels:
        worker = self._idle.get()
        try:
            answer = worker.ask(uri, self._timeout_s)
        finally:
            self._idle.put(worker)
        if isinstance(answer, str):
            raise UnreadableImage("image", answer)
        return np.frombuffer(answer, np.uint8).reshape(self._size, self._size, 3)


class _Worker:
    """One process at a time; another one takes its place when it has died or had to be ended."""

    def __init__(self, settings: ImageSettings, memory_bytes: int) -> None:
        self._settings, self._memory_bytes = settings, memory_bytes
        self.process, self._pipe = self._start()
        self._started = False

    def ask(self, uri: str, timeout_s: float) -> bytes | str:
        """The pixels, or what is wrong with the picture."""
        if not self.process.is_alive():
            self._replace()
        try:
            if not self._started and self._pipe.poll(_START_S):
                self._started = self._pipe.recv_bytes() == b"ready"
            self._pipe.send_bytes(uri.encode("utf-8", "surrogateescape"))
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
        self._pipe.close()

    def _replace(self) -> None:
        self.stop()
        self.process, self._pipe = self._start()
        self._started = False

    def _start(self) -> tuple[BaseProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self._settings, self._memory_bytes), daemon=True)
        process.start()
        theirs.close()
        return process, ours


def _work(pipe: Connection, settings: ImageSettings, memory_bytes: int) -> None:
    """The life of a worker: URI in, pixels or a reason out, until the service is gone."""
    import signal

    from siglip.processing import SiglipImageProcessor

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends its workers when it is done
    processor = SiglipImageProcessor(settings)
    _limit_memory(memory_bytes)
    pipe.send_bytes(b"ready")
    while True:
        try:
            uri = pipe.recv_bytes().decode("utf-8", "surrogateescape")
        except EOFError:
            return
        try:
            # anything else would be taken for a path
            answer = _PIXELS + processor.pixels(uri).tobytes() if is_data_uri(uri) else _REASON + b"is no data URI"
        except UnreadableImage as error:
            answer = _REASON + error.reason.encode("utf-8", "replace")
        except MemoryError:
            answer = _REASON + b"takes more memory than it may; make it smaller"
        pipe.send_bytes(answer)


def _limit_memory(memory_bytes: int) -> None:
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError):  # other systems keep the limits of time and pixels
        return
