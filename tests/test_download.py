"""URLs are read from a web server on this machine; what a server may do wrong ends in an error with its address."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from siglip import download as downloading
from siglip.download import ascii_url, download, fetched
from siglip.errors import DownloadError, UnreadableImage
from siglip.processing import read_image as decoded
from tests.processing.damage import encoded

PICTURE = encoded(Image.new("RGB", (4, 3), "red"), "PNG")


def read_image(address: str) -> Image.Image:
    """As the embedder reads an address, and names it."""
    try:
        return decoded(fetched(address))
    except UnreadableImage as error:
        raise UnreadableImage(address, error.reason) from error


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        getattr(self, self.path.strip("/").split("?")[0])()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def picture(self) -> None:
        self.answer(200, PICTURE)

    def page(self) -> None:
        self.answer(200, b"<html>please log in</html>")

    def missing(self) -> None:
        self.answer(404)

    def moved(self) -> None:
        self.answer(302, Location="/picture")

    def circle(self) -> None:
        self.answer(302, Location="/circle")

    def to_file(self) -> None:
        self.answer(302, Location="file:///etc/passwd")

    def to_ftp(self) -> None:
        self.answer(302, Location="ftp://127.0.0.1/a.png")

    def endless(self) -> None:
        self.answer(200)
        self.trickle(bytes(100_000), pause_s=0.0)

    def slow_body(self) -> None:
        self.answer(200)
        self.trickle(b"x", pause_s=0.05)

    def slow_header(self) -> None:
        self.trickle(b"x", pause_s=0.05)

    def short(self) -> None:
        self.answer(200, PICTURE[:-20], Content_Length=str(len(PICTURE)))

    def trickle(self, piece: bytes, pause_s: float) -> None:
        try:
            # until the reader has had enough
            while True:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(pause_s)
        except OSError:
            self.close_connection = True


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def test_a_url_is_read_like_a_file_also_where_it_has_moved_to(server: str) -> None:
    for page in ("picture", "moved"):
        assert (np.asarray(read_image(f"{server}/{page}")) == (255, 0, 0)).all()
    assert download(server.replace("http", "HTTP") + "/picture") == PICTURE


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("missing", "the server answered 404 Not Found; check the address"),
        ("circle", "the server answered 302 .*infinite loop"),
        ("to_file", "the server answered 302 .*not allowed"),
        ("to_ftp", "unknown url type: ftp"),
        ("page", "no picture"),
        ("short", "broke off after [0-9]+ bytes; try again"),
    ],
)
def test_what_a_server_may_answer_instead_of_a_picture_is_said_with_the_address(
    server: str, page: str, message: str
) -> None:
    with pytest.raises(UnreadableImage, match=message) as caught:
        read_image(f"{server}/{page}")
    assert caught.value.name == f"{server}/{page}"


def test_a_server_that_does_not_answer_and_a_name_that_is_none_are_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png"
        with pytest.raises(DownloadError, match="refused"):
            download(address)
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        download("http://")


def test_an_answer_beyond_the_size_limit_is_cut_off(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "MAX_BYTES", 1_000_000)
    with pytest.raises(UnreadableImage, match="larger than 1000000 bytes"):
        read_image(f"{server}/endless")


@pytest.mark.parametrize("page", ["slow_body", "slow_header"])
def test_a_server_that_trickles_is_left_after_the_time_limit(
    server: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT_S", 0.3)
    with pytest.raises(UnreadableImage, match=r"no complete answer within 0\.3 seconds"):
        read_image(f"{server}/{page}")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://a.example/caf\u00e9 au lait.jpg", "http://a.example/caf%C3%A9%20au%20lait.jpg"),
        ("http://a.example/caf%C3%A9.jpg?w=1&h=%20", "http://a.example/caf%C3%A9.jpg?w=1&h=%20"),
        ("https://b\u00fccher.example:8080/\u732b.png#top", "https://xn--bcher-kva.example:8080/%E7%8C%AB.png"),
        ("http://me:word@[::1]:80/a b", "http://me:word@[::1]:80/a%20b"),
        (" http://a.example/x?q=\u00e4 ", "http://a.example/x?q=%C3%A4"),
    ],
)
def test_addresses_travel_as_ascii(written: str, sent: str) -> None:
    assert ascii_url(written) == sent


def test_a_picture_behind_accents_and_blanks_is_fetched(server: str) -> None:
    assert read_image(f"{server}/picture?of=caf\u00e9 au lait").size == (4, 3)
