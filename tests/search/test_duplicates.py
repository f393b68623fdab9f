"""Copies: the same bytes, and the same picture in other bytes; never two pictures of one thing."""

import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from siglip.embedder import Embedder
from siglip.errors import InputError
from siglip.search import Library
from siglip.search.duplicates import find_duplicates
from tests.conftest import ROOT


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Three samples; one also as the same bytes twice, one also smaller, and again as a poor JPEG."""
    folder = tmp_path / "copies"
    folder.mkdir()
    for name in ("teapot.png", "bicycle.png", "cat.jpg"):
        shutil.copy(ROOT / "samples" / name, folder)
    shutil.copy(folder / "teapot.png", folder / "teapot again.png")
    shutil.copy(folder / "teapot.png", folder / "a.png")
    with Image.open(folder / "cat.jpg") as cat:
        cat.save(folder / "cat poor.jpg", quality=30)
        cat.resize((cat.width // 2, cat.height // 2)).save(folder / "cat small.webp")
    return folder


def groups_of(library: Library, **options: float | bool) -> dict[str, list[str]]:
    found = find_duplicates(library, **options)  # pyright: ignore[reportArgumentType]
    return {"exact" if g.exact else "alike": [Path(copy.path).name for copy in g.copies] for g in found}


def test_copies_are_grouped_with_the_best_first(copies: Path, tmp_path: Path, embedder: Embedder) -> None:
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([copies])
        found = groups_of(library)
        assert found["exact"] == ["a.png", "teapot.png", "teapot again.png"]
        assert found["alike"][0] == "cat.jpg"
        assert set(found["alike"]) == {"cat.jpg", "cat poor.jpg", "cat small.webp"}
        assert groups_of(library, exact=True) == {"exact": found["exact"]}
        (copies / "a.png").unlink()
        library.index()
        assert groups_of(library)["exact"] == ["teapot.png", "teapot again.png"]


def test_two_pictures_with_one_vector_need_to_look_the_same(photos: Path, tmp_path: Path, embedder: Embedder) -> None:
    """However low the bar for vectors: twelve different pictures are no copies of one another."""
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([photos])
        assert find_duplicates(library, least_cosine=0.01) == []
        with pytest.raises(InputError, match="least_cosine must be above 0"):
            find_duplicates(library, least_cosine=0.0)


def test_signs_that_differ_in_a_corner_are_no_copies(tmp_path: Path, embedder: Embedder) -> None:
    """One disc, with another small sign on it each time: the vectors are close, the pictures are not the same."""
    (tmp_path / "signs").mkdir()
    for name, box in (("dot", (118, 118, 138, 138)), ("bar", (80, 118, 176, 138)), ("pole", (118, 80, 138, 176))):
        sign = Image.new("RGB", (256, 256), "white")
        pen = ImageDraw.Draw(sign)
        pen.ellipse((20, 20, 236, 236), fill=(40, 120, 240), outline="black", width=8)
        pen.rectangle(box, fill="white")
        sign.save(tmp_path / "signs" / f"{name}.png")
        if name == "bar":
            sign.save(tmp_path / "signs" / "bar again.jpg", quality=60)
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([tmp_path / "signs"])
        found = groups_of(library, least_cosine=0.5)
        assert {kind: sorted(names) for kind, names in found.items()} == {"alike": ["bar again.jpg", "bar.png"]}
