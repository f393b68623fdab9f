"""A Service -> a running server: one process, closed connections for those that say nothing, and an orderly end."""

import asyncio
import gc
import json
import logging
import signal
import socket
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from siglip.errors import SiglipWarning
from siglip.server.app import Service
from siglip.server.safety import error_body

_HEAD_S = 15.0
_MAX_HEAD_BYTES = 2**16
_DRAIN_S = 60
# how long those that watch /readyz have to see that it is over, before the door closes
_NOTICE_S = 5.0
# what a client has sent by the moment the door closes is still read
_LAST_WORD_S = 0.5


class _Impatient(HttpToolsProtocol):
    """Closes a connection whose request does not come, or whose head has no end: uvicorn alone would wait for ever."""

    _head_due: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._head_due = self.loop.call_later(_HEAD_S, transport.close)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data) if self._head_due is not None else 0
        super().data_received(data)
        if self._head_due is not None and self._head_bytes > _MAX_HEAD_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_due is None:
            self._head_due = self.loop.call_later(_HEAD_S, self.transport.close)

    def on_headers_complete(self) -> None:
        self._forget()
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Called when the door closes. uvicorn alone would cut off a request that was sent and is not read yet."""
        self._is_ending = True
        self.loop.call_later(_LAST_WORD_S, super().shutdown)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, or has an address without end, is told in the shape of all errors."""
        body = json.dumps(error_body(400, msg, code="invalid")).encode()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _forget(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
        self._head_due, self._head_bytes = None, 0


class _Server(uvicorn.Server):
    """Says that it is not ready as soon as it is told to end, before the door closes; a second signal ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._told = 0
        self._closes_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # models and modules stay: to look through them for garbage would keep a request waiting for a tenth of a second
        gc.collect()
        gc.freeze()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.ready = False
        self._told += 1
        super().handle_exit(sig, frame)
        if self._told > 1:
            self.force_exit = True
        elif sig == signal.SIGTERM and self._service.watched:
            # whoever spreads requests over services looks at /readyz from time to time, and until then sends more
            self.should_exit = False
            self._closes_at = time.monotonic() + _NOTICE_S

    async def on_tick(self, counter: int) -> bool:
        ended = await super().on_tick(counter)
        return ended or (self._closes_at is not None and time.monotonic() >= self._closes_at)


def serve(service: Service, *, host: str, port: int, told: Callable[[str], Any]) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what was taken on. `told` gets the address. Raises OSError."""
    # what strangers write is not for the log, nor for Python's list of warnings given, which only grows
    warnings.simplefilter("ignore", SiglipWarning)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        service.asgi,
        http=_Impatient,
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=512) as listening:
        # inherited by its connections; without it the body of an answer waits 40 ms for the client to confirm the head
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shown = f"[{host}]" if ":" in host else host
        told(f"http://{shown}:{listening.getsockname()[1]}")
        _Server(config, service).run([listening])
