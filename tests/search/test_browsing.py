"""A library without a question: orders, filters, what there is, originals, and how far indexing is."""

import os
import time
from pathlib import Path

import pytest
from PIL import Image

from siglip.errors import InputError
from siglip.search import Library
from siglip.search.browsing import Contents, Progress, browse, contents, original, picture, progress
from tests.search.conftest import CountingEmbedder

YEAR_S = 365.25 * 86400


@pytest.fixture
def library(embedder: CountingEmbedder, tmp_path: Path) -> Library:
    """Three pictures a year apart, the largest file in the middle, and a copy of the oldest."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, (name, side) in enumerate([("more/c.png", 20), ("b.bmp", 90), ("a.png", 40)]):
        Image.new("RGB", (side, 20), (number * 90, 0, 0)).save(folder / name)
        when = 1.0e9 + number * YEAR_S
        os.utime(folder / name, (when, when))
    (folder / "more" / "d.png").write_bytes((folder / "more" / "c.png").read_bytes())
    os.utime(folder / "more" / "d.png", (9e8, 9e8))
    library = Library.open(tmp_path / "library", model=embedder)
    library.index([folder])
    return library


def names(library: Library, **options: object) -> list[str]:
    return [Path(paths[0]).name for _, paths in browse(library, **options)[1]]  # pyright: ignore[reportArgumentType]


def test_pictures_come_in_each_order_once_and_page_by_page(library: Library) -> None:
    assert names(library) == ["a.png", "b.bmp", "c.png"]
    assert names(library, order="oldest") == ["c.png", "b.bmp", "a.png"]
    assert names(library, order="name") == ["a.png", "b.bmp", "c.png"]
    assert names(library, order="largest")[0] == "b.bmp"
    assert browse(library, top=2, page=2)[0] == 3 and names(library, top=2, page=2) == ["c.png"]
    assert browse(library, where="format = 'PNG'")[0] == 2 and names(library, where="width > 50") == ["b.bmp"]
    (image, paths) = browse(library, order="oldest", top=1)[1][0]
    assert [Path(path).name for path in paths] == ["c.png", "d.png"] and image.width == 20
    with pytest.raises(InputError, match="no column"):
        browse(library, where="colour = 'red'")


def test_contents_count_files_by_folder_and_pictures_by_format_and_year(library: Library, tmp_path: Path) -> None:
    folder = str(tmp_path / "pictures")
    assert contents(library) == Contents(
        folders={folder: 2, f"{folder}/more": 2},
        formats={"PNG": 2, "BMP": 1},
        years={"2003": 1, "2002": 1, "2001": 1},
    )


def test_an_original_is_given_only_while_a_file_holds_what_was_indexed(library: Library, tmp_path: Path) -> None:
    image, paths = browse(library, order="oldest", top=1)[1][0]
    data = Path(paths[0]).read_bytes()
    assert picture(library, image.digest) == (image, paths) and picture(library, "00" * 32) is None
    assert original(library, image.digest) == (paths[0], data)
    Path(paths[0]).write_text("something else, and nothing that was meant to be shown")
    assert original(library, image.digest) == (paths[1], data)
    Path(paths[1]).unlink()
    assert original(library, image.digest) is None


def test_others_see_how_far_indexing_is_and_when_it_is_done(library: Library, tmp_path: Path) -> None:
    for number in range(20):
        Image.new("RGB", (9, 9), (0, number, 0)).save(tmp_path / "pictures" / f"new-{number}.png")
    seen: set[Progress | None] = set()
    with Library.open(library.folder) as other:
        library.index(progress=lambda *_: seen.add(progress(other.catalogue)))
        assert progress(other.catalogue) is None
        # the embedder takes 8 at a time, and a commit tells what was taken until then
        assert seen == {Progress(done=done, total=20) for done in (0, 8, 16)}
        with other.catalogue.writing():
            other.catalogue.set_meta("indexing", f"1 9 {time.time() - 3600:.0f}")
        assert progress(other.catalogue) is None, "a run that was killed an hour ago"
