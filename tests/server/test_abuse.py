"""Strangers, floods, bombs and signals: nothing crashes, the right code comes back, what was taken on is answered."""

import asyncio
import contextlib
import gc
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siglip import Embedder
from siglip.cli.main import main
from siglip.server import safety
from siglip.server.app import Service
from siglip.server.engine import Limits
from siglip.server.sizes import UNTOLD_PX, cost_px
from tests.server.conftest import SAMPLES, Running, data_uri, running

KEY = "0123456789abcdef-key"
CAT = {"input": [{"image": data_uri(SAMPLES / "cat.jpg")}]}


@pytest.fixture(scope="module")
def locked(embedder: Embedder) -> Iterator[Running]:
    """A service with keys, that takes on four items at most and gives them a tenth of a second."""
    service = Service(
        embedder, "nano", keys=["other-key-0123456789", KEY], names=["Pictures.example.org"],
        limits=Limits(decoders=1, max_waiting=4, max_wait_s=0.1),
    )  # fmt: skip
    yield from running(service)


# ---- who may ask


def test_without_a_key_only_livez_answers(locked: Running) -> None:
    assert locked.ask("/livez")[0] == 200
    for path in ("/readyz", "/metrics", "/v1/models", "/openapi.json", "/docs", "/", "/livez/", "//livez"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": "Bearer "}):
            status, answer, told = locked.ask(path, **headers)
            assert status == 401 and answer["error"]["type"] == "authentication_error", path
            assert told["www-authenticate"].startswith("Basic realm=")  # after Bearer, in a header of its own
    assert locked.ask("/v1/embeddings", {"input": "a"})[0] == 401
    assert locked.ask("/v1/embeddings", {"input": "a"}, Authorization=f"Bearer {KEY}")[0] == 200
    assert locked.ask("/readyz", Authorization=f"bearer {KEY}")[:2] == (200, {"ready": True})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("192.168.0.7:80", 200),
        ("pictures.example.org", 200), ("evil.example.org", 421), ("127.0.0.1.evil.example.org", 421), ("", 421),
    ],
)  # fmt: skip
def test_a_web_page_that_names_itself_like_this_machine_is_turned_away(locked: Running, host: str, status: int) -> None:
    assert locked.ask("/livez", Host=host)[0] == status


def test_a_form_of_another_site_is_refused_and_every_answer_carries_the_headers(server: Running) -> None:
    status, _, headers = server.ask("/v1/embeddings", b'{"input": "a"}', Content_Type="text/plain")
    assert status == 415
    for _, _, told in ((0, 0, headers), server.ask("/livez"), server.ask("/nothing")):
        assert told["content-security-policy"].startswith("default-src 'none'")
        assert told["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in told and "server" not in told
    assert server.ask("/v1/embeddings", method="OPTIONS", Origin="http://evil.example.org")[0] == 403
    for origin in ("http://evil.example.org", "null", f"http://127.0.0.1:{server.port + 1}"):
        assert server.ask("/v1/embeddings", {"input": "a"}, Origin=origin)[0] == 403
    assert server.ask("/v1/embeddings", {"input": "a"}, Origin=f"http://127.0.0.1:{server.port}")[0] == 200


def test_a_public_address_needs_keys_or_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--host 0.0.0.0 can be reached from other machines; give --api-key-file" in capsys.readouterr().err
    Path("keys").write_text("# none\nshort\n")
    assert main(["serve", "--api-key-file", "keys"]) == 1
    assert "must hold keys of 16 characters or more" in capsys.readouterr().err
    Path("keys").write_text(f"\n# a\n{KEY}\n")
    assert safety.read_keys(Path("keys")) == (KEY,)


# ---- how much


def test_more_than_fits_is_413_more_than_fits_now_is_429_and_the_queue_time_503(locked: Running) -> None:
    allowed = {"Authorization": f"Bearer {KEY}"}
    assert locked.ask("/v1/embeddings", {"input": ["a"] * 5}, **allowed)[0] == 413
    free, hold = threading.Event(), threading.Event()

    def block() -> None:
        hold.set()
        free.wait(20)

    locked.service.engine._device.submit(block)
    assert hold.wait(20)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(locked.ask, "/v1/embeddings", {"input": ["a"]}, **allowed)
        while locked.service.engine.texts._running is None or locked.service.engine.texts.room.count < 1:
            time.sleep(0.01)
        second = threads.submit(locked.ask, "/v1/embeddings", {"input": ["b", "c", "d"]}, **allowed)
        while locked.service.engine.texts.room.count < 4:
            time.sleep(0.01)
        status, answer, headers = locked.ask("/v1/embeddings", {"input": ["e"]}, **allowed)
        assert (status, headers["retry-after"], answer["error"]["type"]) == (429, "1", "rate_limit_error")
        time.sleep(0.15)
        free.set()
        assert first.result()[0] == 200
        assert second.result()[0] == 503
    assert locked.ask("/v1/embeddings", {"input": ["a"] * 4}, **allowed)[0] == 200
    numbers = locked.ask("/metrics", **allowed)[1]
    for reason in ("too_large", "queue_full", "queue_time"):
        assert f'siglip_rejections_total{{reason="{reason}"}}' in numbers


def test_pictures_are_taken_on_by_the_pixels_that_their_heads_tell(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = server.service.engine.pixels
    with Image.open(SAMPLES / "cat.jpg") as cat:
        pixels = cat.width * cat.height
    monkeypatch.setattr(room, "_limit", 2 * pixels)
    assert server.ask("/v1/embeddings", {"input": CAT["input"] * 2})[0] == 200
    status, answer, _ = server.ask("/v1/embeddings", {"input": CAT["input"] * 3})
    assert status == 413 and f"{3 * pixels} pixels are more than the {2 * pixels}" in answer["error"]["message"]
    with room.taken(pixels + 1):
        for path, body in (("/v1/embeddings", CAT), ("/v1/explain", {"image": CAT["input"][0], "texts": "a"})):
            status, answer, told = server.ask(path, body)
            assert (status, told["retry-after"]) == (429, "1") and "pixels" in answer["error"]["message"]
        bomb = {"input": [{"image": data_uri(_bomb())}, "a"]}  # costs nothing, since it is not decoded
        assert [item["object"] for item in server.ask("/v1/embeddings", bomb)[1]["data"]] == ["error", "embedding"]
    assert room.count == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "JPEG", "WEBP", "lossless", "with alpha", "profile", "TIFF"])
def test_the_size_of_a_picture_is_read_from_its_head(kind: str) -> None:
    picture, stream = Image.new("RGBA" if kind == "with alpha" else "RGB", (317, 201)), io.BytesIO()
    options = {"profile": {"icc_profile": bytes(300_000)}, "lossless": {"lossless": True}}.get(kind, {})
    picture.save(stream, {"profile": "JPEG"}.get(kind, kind if kind.isupper() else "WEBP"), **options)
    assert cost_px(data_uri(stream.getvalue())) == (UNTOLD_PX if kind == "TIFF" else 317 * 201)
    for end in range(0, 40, 3):  # cut anywhere it is an unknown size, and no error
        assert cost_px(data_uri(stream.getvalue()[:end])) in (UNTOLD_PX, 317 * 201)


def test_a_client_that_goes_away_frees_its_place(locked: Running) -> None:
    free = threading.Event()
    locked.service.engine._device.submit(free.wait, 20)
    with socket.create_connection(("127.0.0.1", locked.port)) as connection:
        body = json.dumps({"input": ["a", "b"]}).encode()
        connection.sendall(_head(len(body), f"Authorization: Bearer {KEY}") + body)
        _until(lambda: locked.service.engine.texts.room.count == 2)
    _until(lambda: locked.service.engine.texts.room.count == 0)
    free.set()


def test_bodies_are_bounded_while_they_stream(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "MAX_BODY_BYTES", 10_000)
    monkeypatch.setattr(safety, "BODY_TIMEOUT_S", 0.3)
    assert server.ask("/v1/embeddings", {"input": "a" * 20_000})[0] == 413
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # announced by chunks only
        connection.sendall(_head(None, "Transfer-Encoding: chunked") + b"4000\r\n" + b"a" * 0x4000)
        assert b" 413 " in connection.recv(100)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # a body that does not come
        connection.sendall(_head(100) + b"{")
        assert b" 408 " in connection.recv(100)
    monkeypatch.setattr(safety, "MAX_BYTES_IN_FLIGHT", 10)
    assert server.ask("/v1/embeddings", {"input": "a"})[0] == 429
    monkeypatch.undo()
    assert server.ask("/v1/embeddings", {"input": "a"})[0] == 200


@pytest.mark.parametrize(
    ("limits", "before", "head"),
    [
        ({"_HEAD_S": 0.2}, b"", b"GET /livez HTTP/1.1\r\nHost: a"),
        ({"_HEAD_S": 0.2}, b"", b""),
        ({"_HEAD_S": 1.0}, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /livez HTTP/1.1\r\nHo"),
        ({"_MAX_HEAD_BYTES": 1000}, b"", b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2000),
    ],
)
def test_a_connection_whose_request_has_no_end_is_closed(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], before: bytes, head: bytes
) -> None:
    from siglip.server import run

    for name, limit in limits.items():
        monkeypatch.setattr(run, name, limit)

    async def app(scope, receive, send) -> None:  # pyright: ignore
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def slow() -> bytes:
        config = run.uvicorn.Config(app, port=0, http=run._Impatient, lifespan="off", log_level="error")
        server = run.uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(before + head)
        closed = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        server.should_exit = True
        await serving
        return closed

    assert asyncio.run(slow()).endswith(b"\r\n\r\nok" if before else b"")
    assert asyncio.run(slow()).startswith(b"HTTP/1.1 200" if before else b"")


def test_half_closed_connections_leave_nothing_behind(server: Running) -> None:
    body = json.dumps({"input": ["a", "b"]}).encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(_head(len(body)) + body)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(100)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(_head(len(body)) + body[:5])
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
    _until(lambda: server.service.engine.texts.room.count == 0)
    assert server.ask("/v1/embeddings", {"input": "a"})[0] == 200


def test_two_hundred_clients_at_once_are_all_answered(server: Running) -> None:
    with ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(lambda number: server.ask("/v1/embeddings", {"input": f"{number}"})[0], range(400)))
    assert set(answers) <= {200, 429} and answers.count(200) >= 64
    assert server.service.engine.texts.room.count == 0


# ---- what they send


def _bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = (20_000).to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(2501 * 20_000)))
        + chunk(b"IEND", b"")
    )


def test_bombs_and_damaged_files_are_errors_of_their_own_and_the_service_goes_on(server: Running) -> None:
    good = (SAMPLES / "cat.jpg").read_bytes()
    random = np.random.default_rng(0)
    damaged = [bytes(random.integers(0, 256, 500, dtype=np.uint8)) for _ in range(20)]
    damaged += [good[: len(good) // 2], b"", good[:20], _bomb(), b"\x89PNG\r\n\x1a\n" + good[8:]] * 4
    status, answer, _ = server.ask(
        "/v1/embeddings", {"input": [{"image": data_uri(data)} for data in [*damaged, good]]}
    )
    assert status == 200
    assert [item["object"] for item in answer["data"]] == ["error"] * len(damaged) + ["embedding"]
    assert any("too large to decode" in item["error"]["message"] for item in answer["data"][:-1])


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is Linux's")
def test_a_picture_within_the_pixel_limit_that_takes_too_much_memory_costs_only_itself(embedder: Embedder) -> None:
    from siglip.errors import UnreadableImage
    from siglip.server.decoding import Decoders

    settings = embedder.processor.image_processor.settings
    decoders = Decoders({"image": settings}, count=1, memory_bytes=40 * 2**20)
    stream = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(stream, "PNG")
    with pytest.raises(UnreadableImage, match="memory"):
        decoders.decode(data_uri(stream.getvalue()), "image")
    expected = embedder.processor.image_processor.pixels(SAMPLES / "cat.jpg")
    np.testing.assert_array_equal(decoders.decode(data_uri(SAMPLES / "cat.jpg"), "image"), expected)
    decoders.close()


def test_a_decoder_that_is_killed_costs_one_picture_at_most(server: Running) -> None:
    expected = server.ask("/v1/embeddings", CAT)[1]["data"]
    before = server.service.engine.decoders.process_ids()
    for number in before:
        os.kill(number, signal.SIGKILL)
    for _ in range(4):
        status, answer, _ = server.ask("/v1/embeddings", CAT)
        assert answer["data"] == expected if status == 200 else "ended the process" in answer["error"]["message"]
    assert server.ask("/v1/embeddings", CAT)[1]["data"] == expected
    assert not set(before) & set(server.service.engine.decoders.process_ids())


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff\xfe", b"null", b'{"input": 1e999}', b"[]", b""])
def test_what_is_no_request_is_a_400(server: Running, body: bytes) -> None:
    status, answer, _ = server.ask("/v1/embeddings", body)
    assert status == 400 and answer["error"]["message"]


def test_an_error_of_ours_is_told_in_the_same_shape_with_an_id_that_the_log_has(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.service.embedder, "probabilities", None)
    status, answer, told = server.ask("/v1/score", {"images": CAT["input"], "texts": "a"})
    assert status == 500 and answer["error"]["type"] == "server_error"
    assert told["x-request-id"] in answer["error"]["message"] and told["x-request-id"] in caplog.text
    assert "probabilities" not in str(answer) and "not callable" in caplog.text


def test_a_method_that_a_route_has_not_is_a_405_that_names_those_it_has(server: Running) -> None:
    for path, method, allowed in (
        ("/v1/models", "POST", "GET"),
        ("/v1/score", "PUT", "POST"),
        ("/v1/score", None, "POST"),
    ):
        status, answer, told = server.ask(path, method=method)
        assert (status, told["allow"]) == (405, allowed) and answer["error"]["message"]


def test_nothing_is_kept_of_requests_that_are_answered(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=250)

    def ask(number: int) -> None:
        bodies = {
            "/v1/embeddings": {"input": f"text {number}"},
            f"/v1/nothing/{number}": {},
            "/v1/score": {"images": f"no picture {number}", "texts": [f"text {number}"]},
            "/v1/models": {"number": number},
        }
        for path, body in bodies.items():
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            connection.getresponse().read()

    def kept() -> int:
        gc.collect()
        return len(gc.get_objects())

    for number in range(50):
        ask(number)
    before = kept()
    for number in range(50, 300):
        ask(number)
    # one object of each request alone would be a thousand
    assert kept() - before < 200
    connection.close()


# ---- the end


def test_sigterm_under_load_answers_what_was_taken_on(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "siglip", "serve", "--port", "0", "--decoders", "1", "--device", "cpu"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr
        found = re.search(r"listening at http://127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert found
        port = int(found[1])
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        body = json.dumps({"input": [f"text {number}" for number in range(40)]}).encode()
        for connection in connections:
            connection.sendall(_head(len(body)) + body)
        connections[0].recv(1)  # the service is at work
        process.send_signal(signal.SIGTERM)
        answers = [b"".join(iter(lambda c=connection: c.recv(2**16), b"")) for connection in connections[1:]]
        for connection in connections:
            connection.close()
        assert process.wait(60) == -signal.SIGTERM
        assert process.stderr.read() == ""
    # each was answered in full, or the connection was never taken
    assert all(answer == b"" or b'"prompt_tokens"' in answer for answer in answers)
    assert sum(b"200 OK" in answer for answer in answers) >= 10


def test_whoever_watches_is_told_before_the_door_closes_and_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "siglip", "serve", "--port", "0", "--decoders", "1", "--device", "cpu"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr
        found = re.search(r"listening at http://127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert found

        def asked(path: str, body: bytes | None = None) -> int:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=250)) as connection:
                connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
                with connection.getresponse() as answer:
                    answer.read()
                    return answer.status

        assert asked("/readyz") == 200
        process.send_signal(signal.SIGTERM)
        _until(lambda: asked("/readyz") == 503)
        assert asked("/v1/embeddings", b'{"input": "a"}') == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


def _head(length: int | None, *more: str) -> bytes:
    lines = ["POST /v1/embeddings HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def _until(done) -> None:  # pyright: ignore
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
