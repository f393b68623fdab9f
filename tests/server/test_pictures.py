"""The pictures of a library by id over HTTP: lists, originals, many in a zip; and the files of the page itself."""

import base64
import io
import shutil
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from PIL import Image

from siglip import Embedder, Library
from siglip.server.app import Service
from siglip.server.engine import Limits
from tests.server.conftest import SAMPLES, Running, running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three formats that browsers show and one that they do not; two files of one name."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "other").mkdir()
    for name in ("cat.jpg", "pig.png"):
        shutil.copy(SAMPLES / name, folder / name)
    Image.new("RGB", (3000, 30), (200, 0, 0)).save(folder / "long.tiff")
    Image.new("RGB", (20, 30), (0, 0, 200)).save(folder / "other" / "pig.png")
    return folder


@pytest.fixture(scope="module")
def service(embedder: Embedder, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Library.open(tmp_path_factory.mktemp("library"), model=embedder) as library:
        library.index([folder])
        yield from running(Service(embedder, "nano", library=library, limits=Limits(decoders=1)))


def file_of(service: Running, path: str, body: bytes | None = None) -> tuple[int, bytes, str]:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=250)
    connection.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"} if body else {})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, data, response.headers["content-type"]


def ids(service: Running) -> dict[str, str]:
    """Id by the last two parts of the path."""
    _, answer, _ = service.ask("/v1/pictures?order=name")
    return {
        "/".join(Path(item["paths"][0]).parts[-2:]).removeprefix("pictures0/"): item["id"] for item in answer["data"]
    }


def test_pictures_are_listed_filtered_and_told_of_one_by_one(service: Running) -> None:
    status, answer, _ = service.ask("/v1/pictures?order=name&top=3&page=2")
    assert status == 200 and answer["total"] == 4 and [item["width"] for item in answer["data"]] == [415]
    assert [item["format"] for item in service.ask("/v1/pictures?where=width>1000")[1]["data"]] == ["TIFF"]
    cat = ids(service)["cat.jpg"]
    assert service.ask(f"/v1/pictures/{cat}.json")[1]["format"] == "JPEG"
    for wrong in ("order=prettiest", "top=0", "where=colour=1", "colour=red"):
        assert service.ask(f"/v1/pictures?{wrong}")[0] == 400


def test_an_original_comes_as_it_is_or_as_webp_where_browsers_cannot_show_it(service: Running, folder: Path) -> None:
    known = ids(service)
    assert file_of(service, f"/v1/pictures/{known['cat.jpg']}") == (
        200,
        (folder / "cat.jpg").read_bytes(),
        "image/jpeg",
    )
    status, data, kind = file_of(service, f"/v1/pictures/{known['long.tiff']}")
    assert (status, kind) == (200, "image/webp") and Image.open(io.BytesIO(data)).size == (2048, 20)
    for unknown in ("0" * 64, "../../etc/passwd", "%2e%2e%2fetc%2fpasswd", "abc", "0" * 63):
        assert service.ask(f"/v1/pictures/{unknown}")[0] in (400, 404)
        assert service.ask(f"/v1/pictures/{unknown}.json")[0] in (400, 404)


def test_a_zip_holds_the_files_under_their_names_and_says_what_is_gone(service: Running, folder: Path) -> None:
    chosen = [*ids(service).values(), "0" * 64]
    status, data, kind = file_of(service, "/v1/pictures/zip", b'{"ids": ["' + '", "'.join(chosen).encode() + b'"]}')
    assert (status, kind) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["cat.jpg", "long.tiff", "not-found.txt", "pig (2).png", "pig.png"]
        assert archive.read("cat.jpg") == (folder / "cat.jpg").read_bytes()
        assert archive.read("not-found.txt") == b"0" * 64 + b"\n"
    assert service.ask("/v1/pictures/zip", {"ids": ["/etc/passwd"]})[0] == 400


def test_the_page_allows_scripts_and_styles_of_this_service_alone(service: Running) -> None:
    status, text, headers = service.ask("/")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"] and "http" not in headers["content-security-policy"]
    assert "style=" not in text and "<style" not in text and "onclick" not in text
    assert service.ask("/page/app.js")[2]["content-type"].startswith("text/javascript")
    for wrong in ("/page/../app.py", "/page/%2e%2e%2fapp.py", "/page/nothing.js", "/page/"):
        assert service.ask(wrong)[0] in (400, 404)
    assert service.ask("/v1/models")[2]["content-security-policy"].startswith("default-src 'none'")


def test_a_browser_that_asks_for_a_password_takes_the_key(embedder: Embedder) -> None:
    key = "a-key-of-thirty-characters-yes"
    for service in running(Service(embedder, "nano", keys=[key], limits=Limits(decoders=1))):
        status, _, headers = service.ask("/")
        assert status == 401 and "Basic" in headers["www-authenticate"]
        for words, expected in ((f"anyone:{key}", 200), (f"{key}:", 401), ("anyone:", 401)):
            sent = base64.b64encode(words.encode()).decode()
            assert service.ask("/", Authorization=f"Basic {sent}")[0] == expected
        assert service.ask("/", Authorization=f"Bearer {key}")[0] == 200
        assert service.ask("/", Authorization="Basic !")[0] == service.ask("/", Authorization=key)[0] == 401
