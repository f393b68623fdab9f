"""The real command line, in a process of its own, and pictures for it."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.command import start

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def siglip(tmp_path: Path) -> Run:
    """Run `siglip WORDS...` in `tmp_path` with pipes, as a script would."""

    def run(*words: str, stdin: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode() if isinstance(stdin, str) else stdin)
            given.seek(0)
            streams = (given.fileno(), out.fileno(), err.fileno())
            process = start(words, tmp_path, streams, {**os.environ, **environment})
            process.join()
            for stream in (out, err):
                stream.seek(0)
            texts = [stream.read().decode("utf-8", "surrogateescape") for stream in (out, err)]
        return subprocess.CompletedProcess(words, process.exitcode or 0, *texts)

    return run


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str], Path]:
    """Make a small readable picture of that name in `tmp_path`."""

    def make(name: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((40, 30)).save(file, format="PNG")
        return file

    return make


@pytest.fixture
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """An address that takes a request, sets the event, and does not answer."""
    asked, over = threading.Event(), threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            over.wait()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/slow.png", asked
    over.set()
    server.shutdown()
    server.server_close()
