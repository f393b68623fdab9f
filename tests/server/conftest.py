"""A service on this machine with the built-in model, and plain requests to it."""

import asyncio
import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from siglip import Embedder
from siglip.server.app import Service
from siglip.server.engine import Limits
from tests.conftest import ROOT

SAMPLES = ROOT / "samples"


def data_uri(content: bytes | Path) -> str:
    data = content.read_bytes() if isinstance(content, Path) else content
    return "data:image/any;base64," + base64.b64encode(data).decode()


@dataclass
class Running:
    service: Service
    port: int
    loop: asyncio.AbstractEventLoop

    def ask(
        self, path: str, body: Any = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, decoded JSON (or text) and headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=250)
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, content, sent)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        kind = response.headers.get("content-type", "")
        told = {name.lower(): value for name, value in response.headers.items()}
        return response.status, json.loads(data) if data and "json" in kind else data.decode(errors="replace"), told


def running(service: Service, **options: Any) -> Iterator[Running]:
    """The service in a thread of its own until the test is done."""
    options = {"port": 0, "log_level": "error", "access_log": False, "ws": "none", "server_header": False, **options}
    server = uvicorn.Server(uvicorn.Config(service.asgi, **options))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.05)
    yield Running(service, server.servers[0].sockets[0].getsockname()[1], loop)
    server.should_exit = True
    thread.join(30)
    loop.close()


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder.from_pretrained("nano", device="cpu", dtype="float32", batch_size=8)


@pytest.fixture(scope="session")
def server(embedder: Embedder) -> Iterator[Running]:
    yield from running(Service(embedder, "nano", limits=Limits(max_waiting=64)))


def head(length: int | None, *more: str) -> bytes:
    """That of a request for embeddings."""
    lines = ["POST /v1/embeddings HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def until(done: Callable[[], bool]) -> None:
    """Wait for it."""
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
