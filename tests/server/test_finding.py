"""A library over HTTP gives the hits of the library itself, and no way to a file that is not in it."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from siglip import Embedder, Library
from siglip.cli.main import main
from siglip.search.explain import heat_maps
from siglip.search.query import Term, combined
from siglip.server.app import Service
from siglip.server.engine import Limits
from tests.server.conftest import SAMPLES, Running, data_uri, running


@pytest.fixture(scope="module")
def library(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("library")
    with Library.open(folder / "library", model=embedder) as library:
        library.index([SAMPLES])
        yield library


@pytest.fixture(scope="module")
def finder(embedder: Embedder, library: Library) -> Iterator[Running]:
    yield from running(Service(embedder, "nano", library=library, limits=Limits(decoders=1)))


def test_words_filters_and_pages_find_what_the_library_finds(finder: Running, library: Library) -> None:
    for options in ({}, {"where": "width >= 200"}, {"page": 2, "top": 3}):
        expected = library.search("a penguin - a cat", **{"top": 5, **options})
        status, answer, _ = finder.ask("/v1/search", {"query": "a penguin - a cat", "top": 5, **options})
        assert status == 200 and expected
        found = [(hit["id"], hit["rank"], hit["paths"]) for hit in answer["data"]]
        assert found == [(hit.digest, hit.rank, list(hit.paths)) for hit in expected]
        assert [hit["score"] for hit in answer["data"]] == pytest.approx([hit.score for hit in expected])
        by_address = urlencode({"query": "a penguin - a cat", "top": 5, **options})
        assert finder.ask(f"/v1/search?{by_address}")[1] == answer
        assert [hit["confidence"] for hit in answer["data"]] == [pytest.approx(hit.confidence) for hit in expected]


def test_a_picture_is_searched_by_whether_it_is_sent_or_named_by_its_id(finder: Running, library: Library) -> None:
    expected = library.search("a penguin", like=[SAMPLES / "cat.jpg"], not_like=[SAMPLES / "pig.png"], top=5)
    digests = {hit.path: hit.digest for hit in library.search("a", top=100)}
    cat, pig = (digests[str(SAMPLES / name)] for name in ("cat.jpg", "pig.png"))
    for like, not_like in (([data_uri(SAMPLES / "cat.jpg")], {"image": data_uri(SAMPLES / "pig.png")}),
                           (f"id:{cat}", [f"id:{pig}"])):  # fmt: skip
        body = {"query": "a penguin", "like": like, "not_like": not_like, "top": 5}
        status, answer, _ = finder.ask("/v1/search", body)
        assert status == 200 and [hit["id"] for hit in answer["data"]] == [hit.digest for hit in expected]
    terms = [Term(1.0, text="a penguin"), Term(0.25, picture=str(SAMPLES / "cat.jpg"))]
    weighted = library.searcher.hits(combined(terms, library.term_vectors(terms)), 5)
    body = {"query": "a penguin", "like": {"image": f"id:{cat}", "weight": 0.25}, "top": 5}
    assert [hit["id"] for hit in finder.ask("/v1/search", body)[1]["data"]] == [hit.digest for hit in weighted]
    assert finder.ask("/v1/search", {"like": {"image": f"id:{cat}", "weight": -1}})[0] == 400
    for nothing in ("id:" + "0" * 64, "id:../..", "id:", "/etc/passwd", "http://127.0.0.1/a.png"):
        status, answer, _ = finder.ask("/v1/search", {"like": [nothing]})
        assert status == 400 and answer["error"]["param"] == "like.0"


def test_a_picture_is_found_by_its_id_when_its_disk_is_not_there(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("cat.jpg", "pig.png"):
        (tmp_path / "pictures" / name).write_bytes((SAMPLES / name).read_bytes())
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([tmp_path / "pictures"])
        digests = {Path(hit.path).name: hit.digest for hit in library.search("a")}
        (tmp_path / "pictures").rename(tmp_path / "away")
        for running_now in running(Service(embedder, "nano", library=library, limits=Limits(decoders=1))):
            _, answer, _ = running_now.ask("/v1/search", {"similar_to": digests["cat.jpg"]})
            assert [hit["id"] for hit in answer["data"]] == [digests["pig.png"]]
            assert running_now.ask(f"/v1/thumbnails/{digests['cat.jpg']}")[0] == 200
            assert running_now.ask("/v1/search", {"like": [f"id:{digests['cat.jpg']}"]})[0] == 400


def test_copies_are_found_anew_when_the_library_has_changed(embedder: Embedder, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "cat.jpg").write_bytes((SAMPLES / "cat.jpg").read_bytes())
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([pictures])
        for finder in running(Service(embedder, "nano", library=library, limits=Limits(decoders=1))):
            assert finder.ask("/v1/duplicates")[1]["total"] == 0
            (pictures / "copy.jpg").write_bytes((SAMPLES / "cat.jpg").read_bytes())
            with Image.open(SAMPLES / "cat.jpg") as picture:
                picture.save(pictures / "again.png")
            library.index([pictures])
            for exact, count in (("true", 2), ("false", 3)):
                _, answer, _ = finder.ask(f"/v1/duplicates?exact={exact}")
                (group,) = answer["data"]
                assert answer["total"] == 1 and len(group["copies"]) == count and group["exact"] == (count == 2)
            _, answer, _ = finder.ask("/v1/library")
            assert (answer["pictures"], answer["files"], answer["roots"]) == (2, 3, [str(pictures)])
            assert answer["fingerprint"] == embedder.fingerprint and "folder" not in answer
            assert finder.ask("/v1/duplicates?top=0")[0] == 400
            assert "siglip_library_pictures 2.0" in finder.ask("/metrics")[1]


def test_heat_of_a_picture_of_the_library_is_that_of_the_function(finder: Running, library: Library) -> None:
    digests = {hit.path: hit.digest for hit in library.search("a", top=100)}
    digest = digests[str(SAMPLES / "cat.jpg")]
    with Image.open(SAMPLES / "cat.jpg") as picture:
        assert max(picture.size) <= 1600
        expected = heat_maps(library.embedder(), picture.convert("RGB"), ["a cat", "a wall"])
    for image in (f"id:{digest}", data_uri(SAMPLES / "cat.jpg")):
        status, answer, _ = finder.ask("/v1/explain", {"image": image, "texts": ["a cat", "a wall"]})
        assert status == 200 and [heat["text"] for heat in answer["data"]] == ["a cat", "a wall"]
        np.testing.assert_allclose([heat["heat"] for heat in answer["data"]], expected, atol=1e-5)
    status, answer, told = finder.ask("/v1/explain", {"image": f"id:{digest}", "texts": "a cat", "format": "png"})
    assert status == 200 and told["content-type"] == "image/png"
    for body in ({"image": "id:00", "texts": ["a"]}, {"image": data_uri(b"x"), "texts": ["a"]},
                 {"image": f"id:{digest}", "texts": ["a", "b"], "format": "png"}):  # fmt: skip
        assert finder.ask("/v1/explain", body)[0] == 400


def test_similar_pictures_and_thumbnails_are_asked_for_by_id(finder: Running, library: Library) -> None:
    digest = library.search("a pig", top=1)[0].digest
    expected = library.similar(library.search("a pig", top=1)[0].path, top=4)
    status, answer, _ = finder.ask("/v1/search", {"similar_to": digest, "top": 4})
    assert status == 200 and [hit["id"] for hit in answer["data"]] == [hit.digest for hit in expected]
    assert digest not in [hit["id"] for hit in answer["data"]]
    for unknown in ("0" * 64, "0" * 63, "0" * 9, "../../etc/passwd", "%2e%2e"):
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
        ({"similar_to": "0" * 9}, 400),
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
