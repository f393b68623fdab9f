"""A Service -> a running server: one process, closed connections for those that say nothing, and an orderly end."""

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from siglip.server.app import Service

_FIRST_REQUEST_S = 15.0
_DRAIN_S = 60


class _Impatient(H11Protocol):
    """Closes a connection whose first request does not come: uvicorn alone would hold it for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(_FIRST_REQUEST_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if getattr(self, "cycle", None) is None and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Says that it is not ready as soon as it is told to end; a second signal ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.ready = False
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)


def serve(service: Service, *, host: str, port: int, told: Callable[[str], Any]) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what was taken on. `told` gets the address. Raises OSError."""
    config = uvicorn.Config(
        service.asgi,
        http=_Impatient,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_DRAIN_S,
        h11_max_incomplete_event_size=2**16,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=512) as listening:
        # inherited by its connections; without it the body of an answer waits 40 ms for the client to confirm the head
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        shown = f"[{host}]" if ":" in host else host
        told(f"http://{shown}:{listening.getsockname()[1]}")
        _Server(config, service).run([listening])
