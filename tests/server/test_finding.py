"""A library over HTTP gives the hits of the library itself, and no way to a file that is not in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from siglip import Embedder, Library
from siglip.cli.main import main
from siglip.server.app import Service
from tests.server.conftest import SAMPLES, Running, running


@pytest.fixture(scope="module")
def library(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("library")
    with Library.open(folder / "library", model=embedder) as library:
        library.index([SAMPLES])
        yield library


@pytest.fixture(scope="module")
def finder(embedder: Embedder, library: Library) -> Iterator[Running]:
    yield from running(Service(embedder, "nano", library=library, decoders=1))


def test_words_filters_and_pages_find_what_the_library_finds(finder: Running, library: Library) -> None:
    for options in ({}, {"where": "width >= 200"}, {"page": 2, "top": 3}):
        expected = library.search("a penguin - a cat", **{"top": 5, **options})
        status, answer, _ = finder.ask("/v1/search", {"query": "a penguin - a cat", "top": 5, **options})
        assert status == 200 and expected
        found = [(hit["id"], hit["rank"], hit["paths"]) for hit in answer["data"]]
        assert found == [(hit.digest, hit.rank, list(hit.paths)) for hit in expected]
        assert [hit["score"] for hit in answer["data"]] == pytest.approx([hit.score for hit in expected])


def test_similar_pictures_and_thumbnails_are_asked_for_by_id(finder: Running, library: Library) -> None:
    digest = library.search("a pig", top=1)[0].digest
    expected = library.similar(library.search("a pig", top=1)[0].path, top=4)
    status, answer, _ = finder.ask("/v1/search", {"similar_to": digest, "top": 4})
    assert status == 200 and [hit["id"] for hit in answer["data"]] == [hit.digest for hit in expected]
    assert digest not in [hit["id"] for hit in answer["data"]]
    for unknown in ("0" * 64, "../../etc/passwd", "%2e%2e"):
        assert finder.ask(f"/v1/thumbnails/{unknown}")[0] in (400, 404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": str(SAMPLES / "cat.jpg")}, 400),
        ({"query": "a cat + ~/a.png"}, 400),
        ({"query": "a cat - http://127.0.0.1:1/a.png"}, 400),
        ({"query": '"http://127.0.0.1:1/a.png"'}, 200),
        ({"query": ""}, 400),
        ({"query": "a", "where": "nothing = 1"}, 400),
        ({"query": "a", "where": "1=1; drop table image"}, 400),
        ({"similar_to": "0" * 64}, 404),
        ({"similar_to": "/etc/passwd"}, 400),
        ({"query": "a", "top": 0}, 400),
        ({}, 400),
    ],
)
def test_no_path_and_no_address_is_taken_from_a_client(finder: Running, body: object, status: int) -> None:
    found, answer, _ = finder.ask("/v1/search", body)
    assert found == status and ("error" in answer) == (status != 200)


def test_a_service_without_a_library_has_no_search(server: Running) -> None:
    assert server.ask("/v1/search", {"query": "a"})[0] == 404


def test_a_folder_that_is_no_library_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").write_text("")
    assert main(["serve", str(tmp_path)]) == 1
    assert "no library" in capsys.readouterr().err
