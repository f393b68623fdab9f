"""Addresses that strangers name lead to public places only, whatever they or their resolvers say."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from siglip import Embedder
from siglip.errors import UnreadableImage
from siglip.server import fetching
from siglip.server.app import Service
from siglip.server.engine import Limits
from siglip.server.fetching import Fetcher, is_public
from tests.server.conftest import SAMPLES, data_uri, running

PUBLIC, SIX = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
CAT = (SAMPLES / "cat.jpg").read_bytes()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True), (SIX, True), ("8.8.8.8", True), ("1.1.1.1", True),
        ("127.0.0.1", False), ("127.255.255.254", False), ("0.0.0.0", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("172.31.255.255", False), ("192.168.1.1", False), ("100.64.0.1", False),
        ("100.100.100.200", False), ("169.254.169.254", False), ("168.63.129.16", False), ("192.0.0.192", False),
        ("192.0.2.1", False), ("198.18.0.1", False), ("203.0.113.9", False), ("192.88.99.1", False),
        ("224.0.0.1", False), ("240.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("::127.0.0.1", False), ("::ffff:127.0.0.1", False), (f"::ffff:{PUBLIC}", False),
        ("64:ff9b::7f00:1", False), ("64:ff9b::5db8:d70e", False), ("64:ff9b:1::1", False), ("2002:7f00:1::", False),
        ("2002:5db8:d70e::1", False), ("2001:0:5db8:d70e::1", False), ("2001:db8::1", False), ("3fff::1", False),
        ("fe80::1", False), ("fe80::1%eth0", False), (f"{SIX}%eth0", False), ("fec0::1", False), ("fc00::1", False),
        ("fd00:ec2::254", False), ("ff02::1", False), ("100::1", False), ("localhost", False), ("", False),
    ],
)  # fmt: skip
def test_only_addresses_of_the_public_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


class _Pictures(BaseHTTPRequestHandler):
    """/cat.jpg is a picture; what else is asked for says in its name what happens."""

    def do_GET(self) -> None:
        self.server.asked.append((self.headers["Host"], self.path))  # pyright: ignore
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(200 if "cat" in self.path else 500)
        body = CAT if "cat" in self.path else b"the secret of the house"
        if "large" in self.path:
            body = bytes(5000)
        if "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (CAT[:100], CAT[100:])) + b"0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(len(body) + ("short" in self.path)))
        self.end_headers()
        if "slow" in self.path:
            self.server.free.wait(20)  # pyright: ignore
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    server.asked, server.free = [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.free.set()
    server.shutdown()
    server.server_close()


class World:
    """A resolver with answers of its own, and a network that leads each public address to the server of the test."""

    def __init__(self, web: Any, **names: Any) -> None:
        self.web, self.names = web, {"pictures.example": [PUBLIC], **{k.replace("_", "."): v for k, v in names.items()}}
        self.looked_up: list[str] = []
        self.connected: list[tuple[str, int, str | None]] = []

    async def resolve(self, host: str, port: int) -> list[str]:
        self.looked_up.append(host)
        found = self.names.get(host, [])
        return found.pop(0) if found and isinstance(found[0], list) else found

    async def connect(self, address: str, port: int, name: str | None) -> fetching.Streams:
        assert is_public(address)
        self.connected.append((address, port, name))
        return await asyncio.open_connection("127.0.0.1", self.web.server_port)

    def fetch(self, url: str) -> bytes:
        async def fetched() -> bytes:
            return await Fetcher(resolve=self.resolve, connect=self.connect).fetch(url)

        return asyncio.run(fetched())

    def refuses(self, url: str, why: str) -> None:
        with pytest.raises(UnreadableImage, match=why) as caught:
            self.fetch(url)
        assert "secret" not in str(caught.value) and "example" not in str(caught.value)


def test_a_public_picture_is_fetched_from_the_checked_address_under_its_own_name(
    web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    world = World(web)
    assert world.fetch("http://pictures.example/cat.jpg?a=b#c") == CAT
    assert world.fetch("HTTPS://Pictures.Example/chunked-cat") == CAT
    assert world.fetch("http://pictures.example:443/cat") == CAT
    assert world.connected == [(PUBLIC, 80, None), (PUBLIC, 443, "pictures.example"), (PUBLIC, 443, None)]
    assert web.asked[0] == ("pictures.example", "/cat.jpg?a=b") and web.asked[2][0] == "pictures.example:443"


def test_a_name_with_one_private_address_among_public_ones_is_refused(web: Any) -> None:
    for addresses in ([PUBLIC, "127.0.0.1"], ["::1"], ["169.254.169.254"], [f"::ffff:{PUBLIC}"], []):
        World(web, pictures_example=addresses).refuses("http://pictures.example/cat.jpg", "not public")
    assert web.asked == []


def test_a_resolver_that_changes_its_mind_is_asked_once_and_gains_nothing(web: Any) -> None:
    world = World(web, pictures_example=[[PUBLIC], ["127.0.0.1"]])
    assert world.fetch("http://pictures.example/cat.jpg") == CAT
    assert world.looked_up == ["pictures.example"] and world.connected == [(PUBLIC, 80, None)]
    # for a redirection it is asked anew, and what it says then is checked
    world = World(web, pictures_example=[[PUBLIC], ["127.0.0.1"]])
    world.refuses("http://pictures.example/to//cat.jpg", "not public")


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/cat.jpg", "http://localhost/cat.jpg", "http://169.254.169.254/latest/meta-data/cat",
        "http://[::1]/cat.jpg", "//127.0.0.1/cat.jpg", "http://pictures.example:8080/cat.jpg", "file:///etc/passwd",
        "ftp://pictures.example/cat.jpg", "gopher://pictures.example/cat", "http://a:b@pictures.example/cat.jpg",
    ],
)  # fmt: skip
def test_a_redirection_is_checked_like_the_first_address(web: Any, target: str) -> None:
    literal = {"127.0.0.1": ["127.0.0.1"], "localhost": ["127.0.0.1"], "169.254.169.254": ["169.254.169.254"]}
    world = World(web)
    world.names |= literal
    world.refuses(f"http://pictures.example/to/{target}", "not public|must be at|in it")
    assert [path for _, path in web.asked] == [f"/to/{target}"] and len(world.connected) == 1


def test_three_redirections_are_followed_and_no_fourth(web: Any) -> None:
    world = World(web)
    there = "http://pictures.example/cat.jpg"
    for _ in range(3):
        there = f"http://pictures.example/to/{there}"
    assert world.fetch(there) == CAT
    world.refuses(f"http://pictures.example/to/{there}", "redirected more than 3 times")


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/cat", "http://0x7f000001/cat", "http://0177.0.0.1/cat", "http://127.1/cat", "http://0/cat",
        "http://127.0.0.1./cat", "http://localhost./cat", "http://LOCALHOST/cat", "http://[::ffff:127.0.0.1]/cat",
        "http://[::]/cat", "http://[0:0:0:0:0:ffff:7f00:1]/cat", "http://\uff11\uff12\uff17.0.0.1/cat",
        "http://127\u30020\u30020\u30021/cat", "http://[fe80::1%25lo]/cat", "http://127.0.0.1%00.example/cat",
    ],
)  # fmt: skip
def test_odd_notations_of_this_machine_are_refused_by_the_resolver_of_the_system(web: Any, url: str) -> None:
    world = World(web)

    async def fetched() -> None:
        await Fetcher(connect=world.connect).fetch(url)

    with pytest.raises(UnreadableImage):
        asyncio.run(fetched())
    assert world.connected == [] and web.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.example:22/cat", "http://pictures.example:0/cat", "http://pictures.example:99999/cat",
        "http://user@pictures.example/cat", "http://pictures.example@127.0.0.1/cat", "http:///cat", "http://",
        "http://pictures.example\\@127.0.0.1/cat", "http://a b/cat", "http://[",
        "http://pictures.example/" + "a" * 9000, "ftp://pictures.example/cat", "pictures.example/cat", "http://pictures.example:80:80/cat",
    ],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_not_even_looked_up(web: Any, url: str) -> None:
    world = World(web)
    with pytest.raises(UnreadableImage):
        world.fetch(url)
    assert world.looked_up == [] and web.asked == []


def test_nothing_of_the_answer_is_told_and_size_and_time_are_limited(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(web)
    world.refuses("http://pictures.example/secret", "^image: cannot be fetched from its address$")
    world.refuses("http://pictures.example/short-cat", "^image: cannot be fetched from its address$")
    monkeypatch.setattr(fetching, "MAX_BYTES", 2000)
    world.refuses("http://pictures.example/large-cat", "larger than 2000 bytes")
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.2)
    world.refuses("http://pictures.example/slow-cat", "^image: cannot be fetched from its address$")


def test_a_service_fetches_addresses_only_where_it_was_told_to(web: Any, embedder: Embedder) -> None:
    world = World(web)
    fetcher = Fetcher(resolve=world.resolve, connect=world.connect)
    for server in running(Service(embedder, "nano", fetcher=fetcher, limits=Limits(decoders=1))):
        inputs = [{"image": "http://pictures.example/cat.jpg"}, {"image": "http://private.example/cat.jpg"},
                  {"image": "/etc/passwd"}, {"image": data_uri(CAT)}]  # fmt: skip
        status, answer, _ = server.ask("/v1/embeddings", {"input": inputs})
        assert status == 200 and [item["object"] for item in answer["data"]] == [
            "embedding", "error", "error", "embedding",
        ]  # fmt: skip
        assert answer["data"][0]["embedding"] == pytest.approx(answer["data"][3]["embedding"], abs=1e-5)
        assert answer["data"][1]["error"]["message"] == "has an address that is not public"
        chat = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": inputs[0]["image"]}}]}]
        assert server.ask("/v1/embeddings", {"messages": chat})[0] == 200
