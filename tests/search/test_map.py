"""A map keeps neighbours together, calls groups by what they show, and holds each picture once."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from siglip.errors import InputError
from siglip.search import Library
from siglip.search.map import grouped, layout, write_map
from tests.search.conftest import CountingEmbedder, draw


def three_heaps() -> np.ndarray:
    """Sixty unit vectors around three axes, and the heap of each."""
    generator = np.random.default_rng(0)
    rows = np.repeat(np.eye(8, dtype=np.float32)[:3], 20, axis=0) + 0.05 * generator.normal(size=(60, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_what_is_close_stays_close() -> None:
    places = layout(three_heaps())
    assert places.shape == (60, 2)
    assert places.min() >= 0 and places.max() <= 1
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 10 * np.eye(60)
    assert np.mean(apart.argmin(axis=1) // 20 == np.arange(60) // 20) == 1.0


def test_groups_are_called_by_the_name_that_fits_them_more_than_others() -> None:
    """Names along the axes; one more along all three, which fits every picture and so says nothing."""
    names = np.concatenate([np.eye(8, dtype=np.float32)[:3], np.full((1, 8), 8**-0.5, np.float32)])
    assert grouped(three_heaps(), names).tolist() == [0] * 20 + [1] * 20 + [2] * 20


def test_the_page_holds_every_picture_once(photos: Path, tmp_path: Path, embedder: CountingEmbedder) -> None:
    draw(photos / "</script>.png", 50)
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([photos])
        drawn = write_map(library, tmp_path / "map.html")
        assert (drawn.pictures, drawn.of) == (13, 13)
    page = (tmp_path / "map.html").read_text()
    found = re.search("const data = (.*);", page)
    assert found is not None
    data = json.loads(found.group(1))
    assert {picture["link"] for picture in data["pictures"]} == {path.as_uri() for path in photos.rglob("*.png")}
    assert sum(label["count"] for label in data["labels"]) == 13
    assert [label["name"] for label in data["labels"]] == list(drawn.groups)
    assert page.count("</script>") == 1
    assert len(data["sheets"]) == 1


def test_two_pictures_make_no_map(tmp_path: Path, embedder: CountingEmbedder) -> None:
    for seed in range(2):
        draw(tmp_path / "two" / f"{seed}.png", seed)
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([tmp_path / "two"])
        with pytest.raises(InputError, match="at least 3 pictures, this library has 2"):
            write_map(library, tmp_path / "map.html")
