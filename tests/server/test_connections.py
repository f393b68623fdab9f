"""What comes over a connection and how it ends: bodies, methods, slow and half-closed clients, signals."""

import asyncio
import contextlib
import gzip
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from siglip.server import safety
from tests.server.conftest import Running, head, until


def test_a_method_that_a_route_has_not_is_a_405_that_names_those_it_has(server: Running) -> None:
    for path, method, allowed in (
        ("/v1/models", "POST", "GET, HEAD"),
        ("/v1/score", "PUT", "POST"),
        ("/v1/score", None, "POST"),
    ):
        status, answer, told = server.ask(path, method=method)
        assert (status, told["allow"]) == (405, allowed) and answer["error"]["message"]
    # what is sent counts where a route takes something only
    for path, status in (("/livez", 405), ("/nothing", 404), ("/v1/score", 415)):
        assert server.ask(path, b"x", Content_Type="text/plain")[0] == status


@pytest.mark.parametrize(
    ("name", "value", "status", "told"),
    [
        ("Content-Encoding", "gzip", 415, "'gzip'"),
        ("Content-Encoding", "identity, br", 415, "'identity, br'"),
        ("Content-Encoding", "Identity", 200, None),
        ("Content-Type", "application/json; charset=ISO-8859-1", 415, "'iso-8859-1'"),
        ("Content-Type", 'Application/JSON; charset="UTF-8"', 200, None),
    ],
)
def test_a_body_that_is_packed_or_not_in_utf_8_is_refused_with_what_to_send(
    server: Running, name: str, value: str, status: int, told: str | None
) -> None:
    body = json.dumps({"input": "a"}).encode()
    packed = gzip.compress(body) if "gzip" in value else body
    headers = {"Content-Type": "application/json", name: value}
    found, answer, _ = server.ask("/v1/embeddings", packed, **headers)
    assert found == status
    if told is not None:
        assert told in answer["error"]["message"] and "send it" in answer["error"]["message"]


def test_a_body_is_asked_for_only_where_it_is_wanted(server: Running) -> None:
    body = json.dumps({"input": "a"}).encode()
    for more, status in (((), b"100"), (("Content-Encoding: gzip",), b"415")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=250) as connection:
            told = connection.makefile("rb")
            connection.sendall(head(len(body), "Expect: 100-continue", *more))
            assert told.readline().split()[1] == status
            if status == b"100":
                connection.sendall(body)
                assert told.readline() == b"\r\n" and told.readline().split()[1] == b"200"


def test_a_path_with_a_slash_more_leads_nowhere(server: Running) -> None:
    status, answer, told = server.ask("/v1/embeddings/", {"input": "a"})
    assert status == 404 and "/openapi.json" in answer["error"]["message"] and "location" not in told


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics", "/v1/models", "/page/style.css", "/docs"])
def test_head_is_answered_as_get_without_a_body(server: Running, path: str) -> None:
    status, answer, told = server.ask(path, method="HEAD")
    assert (status, answer) == (200, "")
    same = server.ask(path)[2]
    assert told["content-type"] == same["content-type"] and int(told["content-length"]) > 0
    assert server.ask("/v1/score", method="HEAD")[:2] == (405, "")


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        (
            "/v1/embeddings",
            {"input": [1, 2]},
            "input.0",
            "input.0: Input should be a valid string, or Input",
        ),
        ("/v1/embeddings", {"input": {"image": 5}}, "input.image", "input.image: Input should be a valid string"),
        ("/v1/embeddings", {"input": ["a"] * 1025}, "input", "List should have at most 1024 items"),
        ("/v1/embeddings", {"input": "a", "modle": "b"}, "modle", "modle: Extra inputs are not permitted"),
        ("/v1/score", {"texts": "a"}, "images", "images: Field required"),
        ("/v1/score", b'{"texts": ', None, "body: not JSON: Expecting value at character 10"),
        ("/v1/score", b'{"texts": "\xff"}', None, "the body is not JSON that can be read"),
        ("/v1/score", [], None, "body: Input should be"),
    ],
)
def test_what_is_wrong_in_a_body_is_told_in_its_own_words(
    server: Running, path: str, body: object, param: str | None, message: str
) -> None:
    status, answer, _ = server.ask(path, body)
    assert (status, answer["error"]["param"]) == (400, param) and message in answer["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[" * 9000, b"\xff\xfe", b"null", b'{"input": 1e999}', b"[]", b""])
def test_what_is_no_request_is_a_400(server: Running, body: bytes) -> None:
    status, answer, _ = server.ask("/v1/embeddings", body)
    assert status == 400 and answer["error"]["message"]


def test_bodies_are_bounded_while_they_stream(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "MAX_BODY_BYTES", 10_000)
    monkeypatch.setattr(safety, "BODY_TIMEOUT_S", 0.3)
    assert server.ask("/v1/embeddings", {"input": "a" * 20_000})[0] == 413
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # announced by chunks only
        connection.sendall(head(None, "Transfer-Encoding: chunked") + b"4000\r\n" + b"a" * 0x4000)
        assert b" 413 " in connection.recv(100)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:  # a body that does not come
        connection.sendall(head(100) + b"{")
        assert b" 408 " in connection.recv(100)
    monkeypatch.setattr(safety, "MAX_BYTES_IN_FLIGHT", 10)
    assert server.ask("/v1/embeddings", {"input": "a"})[0] == 429
    monkeypatch.undo()
    assert server.ask("/v1/embeddings", {"input": "a"})[0] == 200


def test_who_announces_much_and_sends_nothing_keeps_nobody_out(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safety, "MAX_BODY_BYTES", 100_000)
    monkeypatch.setattr(safety, "MAX_BYTES_IN_FLIGHT", 100_000)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(6)]
        for number, connection in enumerate(connections):
            chunked = number % 2 == 0
            begun = head(None, "Transfer-Encoding: chunked") + b"1\r\n{\r\n" if chunked else head(90_000) + b"{"
            connection.sendall(begun)
        until(lambda: server.service.asgi._bytes_in_flight == len(connections))  # pyright: ignore
        assert server.ask("/v1/embeddings", {"input": "a"})[0] == 200
        # what has come does count
        connections[1].sendall(b" " * 80_000)
        until(lambda: server.service.asgi._bytes_in_flight > 80_000)  # pyright: ignore
        connections[3].sendall(b" " * 80_000)
        assert b" 429 " in connections[3].recv(100)
    until(lambda: server.service.asgi._bytes_in_flight == 0)  # pyright: ignore


def test_who_sends_first_and_reads_then_is_told_why_a_body_was_refused(server: Running) -> None:
    """A connection that is closed with something unread is reset, and the answer is lost with it."""
    block = b" " * 2**20
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(80 * 2**20))
        for _ in range(80):
            connection.sendall(block)
        assert b" 413 " in connection.recv(100)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(None, "Transfer-Encoding: chunked"))
        for _ in range(80):
            connection.sendall(b"100000\r\n" + block + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert b" 413 " in connection.recv(100)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"input": [' + b"1," * 20_000 + b"1]}", 413),
        (b'{"messages": [' + b"{}," * 20_000 + b"{}]}", 413),
        (b'{"input": [' + b'"",' * 20_000 + b'""]}', 413),
        (b'{"input": ' + b"[" * 20_000, 413),
        (b'{"input": "\\\\", "a": [' + b"1," * 20_000 + b"1]}", 413),
        (b'{"input": "' + b"a, [b], " * 10_000 + b'"}', 200),
        (b'{"input": "' + b'\\", [b] \\\\' * 9_000 + b'"}', 200),
        ('{"input": "a"}'.encode("utf-16"), 400),
    ],
)
def test_a_body_of_more_values_than_any_route_takes_is_refused_before_it_is_read(
    server: Running, body: bytes, status: int
) -> None:
    """20 MB of `1,` became 14 GB of errors."""
    found, answer, _ = server.ask("/v1/embeddings", body)
    assert found == status, answer


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
            connection.sendall(head(len(body)) + body)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(100)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head(len(body)) + body[:5])
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
    until(lambda: server.service.engine.texts.room.count == 0)
    assert server.ask("/v1/embeddings", {"input": "a"})[0] == 200


@contextlib.contextmanager
def served(folder: Path) -> Generator[tuple[subprocess.Popen[str], int]]:
    """The command `siglip serve`, started in a folder, and its port."""
    words = [sys.executable, "-m", "siglip", "serve", "--port", "0", "--decoders", "1", "--device", "cpu"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stderr
        found = re.search(r"listening at http://127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert found
        yield process, int(found[1])


def test_sigterm_under_load_answers_what_was_taken_on(tmp_path: Path) -> None:
    with served(tmp_path) as (process, port):
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        body = json.dumps({"input": [f"text {number}" for number in range(40)]}).encode()
        for connection in connections:
            connection.sendall(head(len(body)) + body)
        connections[0].recv(1)  # the service is at work
        process.send_signal(signal.SIGTERM)
        answers = [b"".join(iter(lambda c=connection: c.recv(2**16), b"")) for connection in connections[1:]]
        for connection in connections:
            connection.close()
        assert process.wait(60) == -signal.SIGTERM
        assert process.stderr is not None and process.stderr.read() == ""
    # each was answered in full, or the connection was never taken
    assert all(answer == b"" or b'"prompt_tokens"' in answer for answer in answers)
    assert sum(b"200 OK" in answer for answer in answers) >= 10


def test_a_request_that_was_sent_and_not_yet_read_when_the_door_closes_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from siglip.server import run

    monkeypatch.setattr(run, "_LAST_WORD_S", 1.0)

    async def app(scope, receive, send) -> None:  # pyright: ignore
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def last_words() -> list[bytes]:
        config = run.uvicorn.Config(app, port=0, http=run._Impatient, lifespan="off", log_level="error")
        server = run.uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        place = server.servers[0].sockets[0].getsockname()
        pairs = [await asyncio.open_connection(*place) for _ in range(3)]
        pairs[1][1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # one that was used before
        await pairs[1][0].readuntil(b"ok")
        server.should_exit = True
        while server.servers[0].sockets:
            await asyncio.sleep(0.01)
        for _, writer in pairs[:2]:
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answers = [await asyncio.wait_for(reader.read(), 20) for reader, _ in pairs]
        await serving
        for _, writer in pairs:
            writer.close()
        return answers

    answers = asyncio.run(last_words())
    assert [answer[-2:] for answer in answers] == [b"ok", b"ok", b""]


def test_whoever_watches_is_told_before_the_door_closes_and_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as (process, port):

        def asked(path: str, body: bytes | None = None) -> int:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=250)) as connection:
                connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"})
                with connection.getresponse() as answer:
                    answer.read()
                    return answer.status

        assert asked("/readyz") == 200
        process.send_signal(signal.SIGTERM)
        until(lambda: asked("/readyz") == 503)
        assert asked("/v1/embeddings", b'{"input": "a"}') == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
