"""What can go wrong around a library: a full disk, files that change or may not be read, another hand on its files."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from siglip.errors import LibraryError, UnreadableImage
from siglip.search import Library, indexing, reading
from siglip.search.duplicates import find_duplicates
from siglip.search.reading import hash_file, read_file
from tests.search.conftest import CountingEmbedder, draw, in_child

Make = Callable[..., Library]


@pytest.fixture(autouse=True)
def _without_measuring_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand words a library take longer than all else here."""
    monkeypatch.setattr("siglip.search.library.measure_absence", lambda *_: None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_one_clear_error_and_the_library_answers_and_goes_on_when_there_is_room(
    small_disk: Path, photos: Path, make: Make
):
    with make("disk/library") as library:
        library.index([photos / "a"])
        before = [hit.path for hit in library.search("blocks")]
        left = shutil.disk_usage(small_disk).free
        (small_disk / "other").write_bytes(bytes(left - 4096))
        with pytest.raises((OSError, LibraryError), match=r"No space left.*(catalogue\.db|vectors-1\.f16)"):
            library.index([photos])
        assert [hit.path for hit in library.search("blocks")] == before
        (small_disk / "other").unlink()
        assert library.index([photos]).embedded == 8
        assert len(library.search("blocks")) == 12
        assert library.check() == ([], [])


def test_a_write_that_is_cut_off_leaves_the_rows_before_it(photos: Path, make: Make):
    with make() as library:
        library.index([photos / "a"])
        vectors = library.folder / "vectors-1.f16"
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (vectors.stat().st_size + 100, limits[1]))
        try:
            with pytest.raises((OSError, LibraryError)):
                library.index([photos])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert len(library.search("blocks")) == 4
        assert library.index([photos]).embedded == 8
        assert library.check() == ([], [])


def test_a_file_that_changes_or_vanishes_while_it_is_read_is_counted_and_read_by_the_next_run(
    photos: Path, make: Make, monkeypatch: pytest.MonkeyPatch
):
    changing, going = photos / "a" / "00.png", photos / "b" / "01.png"

    def meddled(path: str) -> object:
        if path == str(going):
            going.unlink()
        return read_file(path)

    class Changing:
        """The file grows as soon as it was looked at."""

        def __init__(self) -> None:
            self.left = 1

        def __call__(self, handle: int) -> os.stat_result:
            status = os.fstat(handle)
            if self.left and status.st_ino == changing.stat().st_ino:
                self.left -= 1
                with changing.open("ab") as file:
                    file.write(b"more")
            return status

    class Meddling:
        fsencode, fstat = staticmethod(os.fsencode), Changing()

    monkeypatch.setattr(indexing, "read_file", meddled)
    monkeypatch.setattr(reading, "os", Meddling)
    with make() as library:
        report = library.index([photos])
        assert (report.embedded, sorted(report.failed)) == (10, [str(changing), str(going)])
        assert "changed while it was read" in report.failed[str(changing)]
        assert report.failed[str(going)] == "No such file or directory"
        monkeypatch.undo()
        monkeypatch.setattr("siglip.search.library.measure_absence", lambda *_: None)
        assert library.index().embedded == 1
        assert library.broken() == {}


def test_what_is_hashed_without_being_held_in_memory_has_the_same_digest(photos: Path):
    file = photos / "a" / "00.png"
    assert hash_file(str(file)) == read_file(str(file))[0]
    with pytest.raises(UnreadableImage, match="No such file"):
        hash_file(str(photos / "none.mp4"))


def test_a_vector_file_cut_under_a_running_reader_kills_nobody_and_gives_no_wrong_hit(photos: Path, make: Make):
    with make() as library, make() as writer:
        library.index([photos])
        right = {(hit.digest, round(hit.score, 4)) for hit in library.search("blocks")}
        vectors = library.folder / "vectors-1.f16"
        kept = vectors.read_bytes()
        for size in (len(kept) // 2 + 3, 0):

            def searching(size: int = size) -> None:
                os.truncate(vectors, size)
                assert {(hit.digest, round(hit.score, 4)) for hit in library.search("blocks")} <= right

            assert in_child(searching) == 0  # a SIGBUS would end this process
            vectors.write_bytes(kept)
        os.truncate(vectors, 256 * 5)
        assert writer.index().embedded == 7
        assert {(hit.digest, round(hit.score, 4)) for hit in library.search("blocks")} == right


def as_nobody(action: Callable[[], None]) -> int:
    """Run it in a child that is not root, who may do everything; its exit code."""

    def unprivileged() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        action()

    return in_child(unprivileged)


def test_what_may_not_be_read_or_written_is_told_and_loses_nothing(embedder: CountingEmbedder):
    place = Path(tempfile.mkdtemp())  # the folders above those of pytest are closed to others
    try:
        for seed in range(4):
            draw(place / "photos" / "ab"[seed % 2] / f"{seed}.png", seed)
        with Library.open(place / "library", model=embedder) as library:
            library.index([place / "photos"])
        for path in (place, *place.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)

        def closed_pictures() -> None:
            with Library.open(place / "library", model=embedder) as library:
                report = library.index()
                assert report.failed == {str(place / "photos" / "a"): "Permission denied"}
                assert (report.unchanged, report.gone, report.embedded) == (2, 0, 0)
                assert len(library.search("blocks")) == 4

        def closed_library() -> None:
            """It answers, also what was never asked; indexing says what is wrong."""
            with Library.open(place / "library", model=embedder) as library:
                assert len(library.search("blocks")) == len(library.search("what was never asked")) == 4
                with pytest.raises(PermissionError, match="lock"):
                    library.index()
                assert library.check(dry_run=True) == ([], [])
                assert library.thumbs.get(library.search("blocks")[0].digest) is not None

        (place / "photos" / "a").chmod(0)
        assert as_nobody(closed_pictures) == 0
        (place / "photos" / "a").chmod(0o755)
        shutil.copy(place / "photos" / "a" / "0.png", place / "photos" / "b" / "copy.png")
        with Library.open(place / "library", model=embedder) as library:
            library.index([place / "photos" / "b", place / "photos"])
        (place / "photos").chmod(0)

        def closed_root() -> None:
            """Nothing is concluded from it, and what is known of its pictures is of use."""
            with Library.open(place / "library", model=embedder) as library:
                report = library.index()
                assert report.failed == dict.fromkeys(map(str, (place / "photos" / "b", place / "photos")),
                                                      "Permission denied")  # fmt: skip
                assert (report.gone, report.notes) == (0, [])
                assert len(find_duplicates(library)) == 1

        assert as_nobody(closed_root) == 0
        (place / "photos").chmod(0o755)
        for path in (place / "library").iterdir():
            path.chmod(0o444)
        (place / "library").chmod(0o555)
        assert as_nobody(closed_library) == 0
        for path in (place / "library", *(place / "library").iterdir()):
            path.chmod(0o755)
        with Library.open(place / "library", model=embedder) as library:
            assert library.index().to_read == 0
    finally:
        shutil.rmtree(place)
