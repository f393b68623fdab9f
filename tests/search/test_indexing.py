import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from siglip.embedder import Embedder
from siglip.errors import InputError, LibraryError
from siglip.search import Library
from siglip.search.catalogue import alone
from tests.search.conftest import CountingEmbedder, draw

Make = Callable[..., Library]


def paths(library: Library) -> set[str]:
    return {path for hit in library.search("blocks", top=1000) for path in hit.paths}


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*.png")}


def test_every_picture_is_found_after_indexing_and_a_second_run_reads_nothing(photos: Path, make: Make):
    with make() as library:
        report = library.index([photos])
        assert (report.found, report.to_read, report.embedded) == (12, 12, 12)
        assert paths(library) == files(photos)
        report = library.index()
        assert (report.unchanged, report.to_read, report.embedded, report.gone) == (12, 0, 0, 0)


def test_renamed_moved_copied_and_touched_files_cost_no_model_calls_and_lose_no_picture(
    photos: Path, make: Make, embedder: CountingEmbedder
):
    with make() as library:
        library.index([photos])
        embedder.pictures = 0
        (photos / "a" / "00.png").rename(photos / "a" / "new name.png")
        (photos / "b").rename(photos / "moved")
        shutil.copy(photos / "c" / "02.png", photos / "copy.png")
        os.utime(photos / "c" / "05.png", (1, 1))
        report = library.index()
        assert (report.known, report.embedded, report.gone, embedder.pictures) == (7, 0, 5, 0)
        assert paths(library) == files(photos)
        copied = next(hit for hit in library.search("blocks", top=50) if str(photos / "copy.png") in hit.paths)
        assert copied.paths == (str(photos / "c" / "02.png"), str(photos / "copy.png"))
        assert library.status().pictures == 12


def test_an_unmounted_folder_keeps_its_pictures_and_says_so(photos: Path, make: Make, embedder: CountingEmbedder):
    with make() as library:
        library.index([photos])
        embedder.pictures = 0
        away = photos.rename(photos.with_name("away"))
        for empty in (False, True):
            if empty:
                photos.mkdir()
            report = library.index(prune=True)
            assert report.forgotten == report.gone == 0
            assert "12 pictures stay" in report.notes[0]
            assert library.status().pictures == 12
        photos.rmdir()
        away.rename(photos)
        assert library.index().unchanged == 12
        assert embedder.pictures == 0


def test_a_file_that_comes_back_is_found_again_at_once_and_prune_forgets_what_is_gone(
    photos: Path, make: Make, embedder: CountingEmbedder, tmp_path: Path
):
    with make() as library:
        library.index([photos])
        embedder.pictures = 0
        away = shutil.move(photos / "a", tmp_path / "a")
        assert library.index().gone == 4
        assert paths(library) == files(photos)
        assert library.status().pictures == 12
        shutil.move(away, photos / "a")
        report = library.index()
        assert (report.returned, report.to_read, embedder.pictures) == (4, 0, 0)
        assert paths(library) == files(photos)
        shutil.rmtree(photos / "a")
        library.index()
        assert library.prune(dry_run=True) == 4
        assert library.status().pictures == 12
        assert library.index(prune=True).forgotten == 4
        assert library.status().pictures == 8
        assert paths(library) == files(photos)
        assert library.check() == ([], [])


def test_files_of_equal_size_and_equal_ends_are_different_pictures(photos: Path, make: Make):
    one, two = photos / "x.bmp", photos / "y.bmp"
    draw(one, 50)
    data = bytearray(one.read_bytes())
    data[5000:5300] = bytes(300)
    two.write_bytes(data)
    with make() as library:
        library.index([photos])
        hits = {hit.path: hit for hit in library.search("blocks", top=50)}
        assert hits[str(one)].digest != hits[str(two)].digest
        assert library.status().pictures == 14


def test_a_broken_picture_is_recorded_and_tried_again_only_when_it_changes(photos: Path, make: Make):
    broken = photos / "broken.jpg"
    broken.write_bytes(b"no picture at all")
    with make() as library:
        report = library.index([photos])
        assert (report.broken, report.embedded) == (1, 12)
        assert "no picture" in report.failed[str(broken)]
        report = library.index()
        assert (report.to_read, report.failed) == (0, {})
        assert list(library.broken()) == [str(broken)]
        draw(broken, 99)
        assert library.index().embedded == 1
        assert library.broken() == {}


def test_hidden_files_excluded_patterns_and_endless_links_are_left_out(photos: Path, make: Make):
    draw(photos / ".hidden" / "x.png", 20)
    draw(photos / ".x.png", 21)
    draw(photos / "raw" / "x.png", 22)
    draw(photos / "a" / "scan_1.png", 23)
    (photos / "a" / "loop").symlink_to(photos)
    (photos / "broken link.png").symlink_to(photos / "nowhere.png")
    (photos / "itself").symlink_to(photos / "itself")
    os.mkfifo(photos / "pipe.png")
    with make() as library:
        report = library.index([photos], exclude=["raw", "a/scan*"])
        assert (report.found, report.failed) == (12, {})
        assert library.index().found == 12  # the patterns are kept
        assert library.index([photos], exclude=[]).found == 14


def test_linked_folders_are_followed_once(photos: Path, tmp_path: Path, make: Make):
    draw(tmp_path / "elsewhere" / "x.png", 30)
    (photos / "1").symlink_to(tmp_path / "elsewhere")
    (photos / "2").symlink_to(tmp_path / "elsewhere")
    with make() as library:
        assert library.index([photos]).found == 13


def test_a_name_that_is_not_utf8_is_indexed_found_and_filtered(photos: Path, make: Make):
    name = os.fsdecode(b"caf\xe9 \xff.png")
    (photos / "a" / "00.png").rename(photos / name)
    with make() as library:
        library.index([photos])
        assert str(photos / name) in paths(library)
        assert [hit.path for hit in library.search("x", where="name like 'caf%'")] == [str(photos / name)]


def test_a_dry_run_changes_nothing(photos: Path, make: Make, tmp_path: Path):
    with make() as library:
        with pytest.raises(LibraryError, match="holds no library of pictures"):
            library.index([photos], dry_run=True)
        assert not (tmp_path / "library").exists()
        library.index([photos / "a"])
        draw(photos / "a" / "new.png", 40)
        (photos / "a" / "00.png").unlink()
        report = library.index([photos / "a"], dry_run=True)
        assert (report.found, report.to_read, report.gone, report.embedded) == (4, 1, 1, 0)
        assert library.status().pictures == 4


def test_folders_within_one_another_are_indexed_once(photos: Path, make: Make, embedder: CountingEmbedder):
    with make() as library:
        library.index([photos / "a"])
        library.index([photos])
        assert embedder.pictures == 12
        library.index([photos, photos / "a"])
        assert library.status().files == 12
        assert library.forget(photos / "a", dry_run=True) == 4
        assert library.forget(photos / "a") == 4
        assert paths(library) == files(photos / "b") | files(photos / "c")
        with pytest.raises(InputError, match="knows nothing of"):
            library.forget(photos / "z")


def test_a_second_writer_is_told_and_readers_go_on(photos: Path, make: Make):
    with make() as library, make() as other:
        library.index([photos])
        with alone(library.folder):
            with pytest.raises(LibraryError, match="being written by another process"):
                other.index()
            assert len(library.search("blocks")) == 12


def test_a_second_model_is_a_second_space_that_answers_when_it_is_complete(photos: Path, make: Make):
    other = Embedder.from_pretrained("nano", device="cpu")
    with torch.no_grad():
        next(other.model.vision_model.parameters()).mul_(1.01)
    other = Embedder(other.model, other.processor, device="cpu")
    with make() as library:
        library.index([photos])
        before = [hit.digest for hit in library.search("blocks", top=12)]
        with Library.open(library.folder, model=other) as changing:
            report = changing.index([photos / "a"])
            assert report.embedded == 4
            assert "keeps answering: 8 of its pictures" in report.notes[0]
            with pytest.raises(LibraryError, match="fingerprint"):
                changing.search("a text not asked before")
            assert [hit.digest for hit in library.search("blocks", top=12)] == before
            assert changing.index().embedded == 8
            assert changing.status().fingerprint == other.fingerprint
            assert len(changing.search("blocks")) == 12
            changing.prune()
            assert changing.status().pictures == 12
            assert {path.name for path in library.folder.glob("vectors*")} == {"vectors-2.f16"}


def test_dates_camera_and_place_are_read_and_pictures_turned_upright(tmp_path: Path, make: Make):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = 6, "Canon", "EOS 5D"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:31 18:20:01"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "S", (33.0, 51.0, 24.0), "E", (151.0, 12.0, 36.0)
    draw(tmp_path / "photos" / "x.jpg", 1, exif=exif)
    with make() as library:
        library.index([tmp_path / "photos"])
        (hit,) = library.search("blocks")
        image = hit.image
        assert (image.width, image.height, image.format) == (48, 64, "JPEG")
        assert (image.taken, image.camera) == ("2024-05-31T18:20:01", "Canon EOS 5D")
        assert (image.latitude, image.longitude) == pytest.approx((-33.856667, 151.21), abs=1e-5)
        thumb = library.thumbnail(hit.digest)
        assert thumb is not None
        (tmp_path / "thumb.webp").write_bytes(thumb)
        with Image.open(tmp_path / "thumb.webp") as small:
            assert small.size == (48, 64)
            assert not {"exif", "icc_profile", "xmp"} & small.info.keys()


def test_a_folder_with_other_things_is_no_library(photos: Path, embedder: CountingEmbedder, tmp_path: Path):
    with pytest.raises(LibraryError, match="other things"):
        Library.open(photos, model=embedder)
    with pytest.raises(LibraryError, match="is a file"):
        Library.open(photos / "a" / "00.png")
    with pytest.raises(InputError, match="no file or folder"):
        Library.open(tmp_path / "l", model=embedder).index([tmp_path / "nowhere"])
    with pytest.raises(LibraryError, match="holds no library of pictures"):
        Library.open(tmp_path / "empty").search("x")


def test_a_filter_asked_again_sees_what_changed_meanwhile(photos: Path, make: Make) -> None:
    """Changed by another connection, and by this one."""
    with make() as writer, make() as reader:
        writer.index([photos])

        def found() -> int:
            return len(reader.search("blocks", where="width > 10", top=50))

        assert (found(), found()) == (12, 12)
        (photos / "a" / "00.png").unlink()
        writer.index()
        assert (found(), found()) == (11, 11)
        reader.forget(photos / "b")
        assert found() == 7
