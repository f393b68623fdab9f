"""Strangers, floods, bombs and signals: nothing crashes, the right code comes back, what was taken on is answered."""

import asyncio
import gc
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from siglip import Embedder
from siglip.cli.main import main
from siglip.server import safety
from siglip.server.app import Service
from siglip.server.batches import Refused
from siglip.server.engine import Limits
from siglip.server.sizes import UNTOLD_PX, cost_px
from tests.server.conftest import SAMPLES, Running, data_uri, head, running, until

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


def test_nothing_is_reported_to_a_collector_that_the_environment_names(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    if not getattr(FastAPI(), "_telemetry", {}).get("auto_configure"):
        pytest.skip("this version of FastAPI does not report of itself")
    service = Service(embedder, "nano", limits=Limits(decoders=1))
    settings = service.asgi._app._telemetry  # pyright: ignore
    assert not any(settings[name] for name in ("auto_configure", "tracing", "metrics", "logs"))
    service.engine.close()


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


def test_a_picture_that_finds_no_decoder_in_time_is_a_503_as_is_work_that_finds_no_device(locked: Running) -> None:
    allowed, engine = {"Authorization": f"Bearer {KEY}"}, locked.service.engine
    worker = engine.decoders._idle.get()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(locked.ask, "/v1/embeddings", CAT, **allowed)  # has the place, and waits for the worker
        until(engine.decoders._places.locked)
        for path, body in (("/v1/embeddings", CAT), ("/v1/explain", {"image": CAT["input"][0], "texts": "a"})):
            start = time.monotonic()
            assert locked.ask(path, body, **allowed)[0] == 503 and time.monotonic() - start < 60
        engine.decoders._idle.put(worker)
        assert first.result()[0] == 200
        free = threading.Event()
        engine._device.submit(free.wait, 100)
        second = threads.submit(lambda: asyncio.run_coroutine_threadsafe(engine.computed(int), locked.loop).result())
        time.sleep(0.3)
        free.set()
        with pytest.raises(Refused, match="waited too long"):
            second.result()


def test_labels_are_taken_on_by_those_that_are_new_and_computed_in_parts(
    locked: Running, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed, picture = {"Authorization": f"Bearer {KEY}"}, CAT["input"]
    parts: list[int] = []
    embed = embedder.embed_labels

    def counted(labels, templates) -> np.ndarray:  # pyright: ignore
        parts.append(len(embedder.new_labels(labels, templates)) * len(templates))
        return embed(labels, templates)

    monkeypatch.setattr(embedder, "embed_labels", counted)

    def asked(first: int, count: int, templates: list[str]) -> int:
        labels = [f"label {number}" for number in range(first, first + count)]
        return locked.ask("/v1/classify", {"images": picture, "labels": labels, "templates": templates}, **allowed)[0]

    templates = ["{}", "a {}", "the {}"]
    assert [asked(0, 5, templates), asked(0, 4, templates), asked(4, 4, templates), asked(0, 8, templates)] == [
        413, 200, 200, 200,
    ]  # fmt: skip
    # the embedder takes eight texts at a time: two labels in three templates
    assert max(parts) == 6 and sum(parts) == 24
    # long ones cost more, before they are put together: this would be a prompt of 300 million characters
    start = time.monotonic()
    body = {"images": picture, "labels": ["a" * 100_000], "templates": ["{}" * 3000]}
    assert locked.ask("/v1/classify", body, **allowed)[0] == 413 and time.monotonic() - start < 60


def test_long_texts_cost_more_and_what_is_endless_is_an_error_of_its_own(server: Running) -> None:
    taken: list[int] = []
    room = server.service.engine.texts.room
    body = {"input": ["a" * 100_001, "a " * 40_000, "b"]}
    with ThreadPoolExecutor(1) as threads:
        free = threading.Event()
        server.service.engine._device.submit(free.wait, 100)
        answer = threads.submit(server.ask, "/v1/embeddings", body)
        until(lambda: room.count > 0)
        taken.append(room.count)
        free.set()
        first, second, third = answer.result()[1]["data"]
    assert taken == [1 + 80_000 // 8192 + 1]
    assert first["object"] == "error" and "100001 characters" in first["error"]["message"]
    assert second["object"] == third["object"] == "embedding"


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
        connection.sendall(head(len(body), f"Authorization: Bearer {KEY}") + body)
        until(lambda: locked.service.engine.texts.room.count == 2)
    until(lambda: locked.service.engine.texts.room.count == 0)
    free.set()


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


def test_a_signal_to_all_processes_leaves_the_decoders_at_work(server: Running) -> None:
    """As systemd sends it: what was taken on is still to be decoded."""
    before = server.service.engine.decoders.process_ids()
    for number in before:
        os.kill(number, signal.SIGTERM)
        os.kill(number, signal.SIGINT)
    time.sleep(0.3)
    assert [server.ask("/v1/embeddings", CAT)[0] for _ in range(4)] == [200] * 4
    assert server.service.engine.decoders.process_ids() == before


def test_an_error_of_ours_is_told_in_the_same_shape_with_an_id_that_the_log_has(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.service.embedder, "probabilities", None)
    status, answer, told = server.ask("/v1/score", {"images": CAT["input"], "texts": "a"})
    assert status == 500 and answer["error"]["type"] == "server_error"
    assert told["x-request-id"] in answer["error"]["message"] and told["x-request-id"] in caplog.text
    assert "probabilities" not in str(answer) and "not callable" in caplog.text


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


def test_a_program_that_leaves_the_decoders_open_ends() -> None:
    code = """
        import asyncio
        from siglip.server.decoding import Decoders
        kept = Decoders({}, count=2)
        try:
            asyncio.run(kept.pixels(b"GIF89a", "", due=None))
        except Exception as error:
            print(type(error).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "UnreadableImage\n"
