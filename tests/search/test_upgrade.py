"""A library of the version before is brought to this one when it is opened: nothing is lost, and nothing embedded."""

import os
import shutil
import signal
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siglip.errors import LibraryError
from siglip.search import Hit, Library, schema
from tests.search.conftest import CountingEmbedder, draw, in_child

Make = Callable[..., Library]

# as version 2 had it; its other tables are those of today
OLD = """
CREATE TABLE file(
    id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    digest BLOB NOT NULL, missing_since REAL, seal INTEGER NOT NULL);
CREATE INDEX file_digest ON file(digest);
CREATE TABLE image(
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, frame INTEGER NOT NULL, seconds REAL, format TEXT,
    width INTEGER, height INTEGER, taken TEXT, camera TEXT, latitude REAL, longitude REAL, error TEXT,
    seal INTEGER NOT NULL, UNIQUE(digest, frame));
CREATE TABLE vector(
    space INTEGER NOT NULL, row INTEGER NOT NULL, image INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY(space, row)) WITHOUT ROWID;
CREATE UNIQUE INDEX vector_image ON vector(image, space);
"""


def to_version_2(file: Path) -> None:
    """Write a catalogue of this version as the one before wrote it."""

    def old_seal(*values: Any) -> int:
        return zlib.crc32(repr(values).encode())

    with sqlite3.connect(file) as db:
        images = db.execute("SELECT * FROM picture").fetchall()
        digests = {row[0]: row[1] for row in images}
        files = [
            (bytes(path), size, mtime_ns, digests[image], since)
            for table, since in (("file", "NULL"), ("gone", "f.since"))
            for path, size, mtime_ns, image, since in db.execute(
                f"SELECT CAST(d.path || f.name AS BLOB), f.size, f.mtime_ns, f.image, {since} FROM {table} f "
                "JOIN folder d ON d.id = f.folder"
            )
        ]
        blocks = db.execute("SELECT space, number, rows FROM block").fetchall()
        for view in ("located", "picture"):
            db.execute(f"DROP VIEW {view}")
        for table in ("folder", "file", "gone", "word", "image", "still", "block"):
            db.execute(f"DROP TABLE {table}")
        db.executescript(OLD)
        for number, *values, _ in images:
            marks = ",".join("?" * 13)
            db.execute(f"INSERT INTO image VALUES ({marks})", (number, *values, old_seal(*values)))
        for *row, since in files:
            db.execute("INSERT INTO file VALUES (NULL,?,?,?,?,?,?)", (*row, since, old_seal(*row)))
        for space, number, rows in blocks:
            for index, (image, stored) in enumerate(np.frombuffer(rows, "<u4").reshape(-1, 2).tolist()):
                if image:
                    db.execute("INSERT INTO vector VALUES (?,?,?,?)", (space, 1024 * number + index, image, stored))
        for table in ("meta", "root", "space", "query"):
            db.execute(f"UPDATE {table} SET seal = seal + 2147483648")
        db.execute("PRAGMA user_version = 2")
    db.close()


def told(hits: list[Hit]) -> list[tuple[Any, ...]]:
    return [(hit.paths, hit.score, hit.confidence, hit.image) for hit in hits]


@pytest.fixture
def old(photos: Path, make: Make, tmp_path: Path) -> tuple[Path, list[tuple[Any, ...]]]:
    """A library of version 2 with a copy, a broken picture, one that is gone, and a date; and its hits."""
    shutil.copy(photos / "a" / "00.png", photos / "b" / "copy.png")
    (photos / "a" / "broken.png").write_bytes(b"no picture")
    exif = draw(photos / "dated.jpg", 99)
    from PIL import Image

    with Image.open(exif) as picture:
        found = picture.getexif()
        found.get_ifd(0x8769)[0x9003] = "2024:05:31 18:20:00"
        found[0x010F] = "Canon"
        picture.save(exif, exif=found)
    with make() as library:
        library.index([photos])
        (photos / "c" / "02.png").rename(photos.parent / "away.png")
        library.index()
        right = told(library.search("blocks", top=50))
        assert len(right) == 12 and any(hit[3].taken == "2024-05-31T18:20:00" for hit in right)
    to_version_2(tmp_path / "library" / "catalogue.db")
    return tmp_path / "library", right


def test_a_library_of_version_2_is_brought_to_this_one_without_embedding(
    photos: Path, make: Make, embedder: CountingEmbedder, old: tuple[Path, list[tuple[Any, ...]]]
):
    embedder.pictures = embedder.texts = 0
    with make() as library:
        assert told(library.search("blocks", top=50)) == old[1]
        assert "now of version 3" in library.notes[0] and len(library.notes) == 1
        assert (library.status().files, library.status().gone, library.status().broken) == (14, 1, 1)
        assert library.check() == ([], [])
        (photos.parent / "away.png").rename(photos / "c" / "02.png")
        report = library.index()
        assert (report.unchanged, report.returned, report.to_read) == (14, 1, 0)
        assert len(library.search("blocks", top=50, where="camera = 'Canon' and taken = 2024-05")) == 1
        (photos / "a" / "00.png").unlink()
        assert library.index(prune=True).forgotten == 0, "its copy is there"
    assert (embedder.pictures, embedder.texts) == (0, 0)
    with make() as library:
        assert library.notes == []
        assert len(library.search("blocks", top=50)) == 13


def test_a_kill_while_it_is_brought_to_this_version_leaves_the_old_one(
    make: Make, old: tuple[Path, list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
):
    def killed(db: sqlite3.Connection) -> int:
        db.execute("DELETE FROM old_file")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with monkeypatch.context() as patched:
        patched.setattr(schema, "_files", killed)
        assert in_child(make) == -signal.SIGKILL
    with sqlite3.connect(old[0] / "catalogue.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM file").fetchone() == (15,)
    db.close()
    with make() as library:
        assert told(library.search("blocks", top=50)) == old[1]


def test_damaged_rows_of_version_2_are_told_and_read_again(
    make: Make, old: tuple[Path, list[tuple[Any, ...]]], embedder: CountingEmbedder
):
    with sqlite3.connect(old[0] / "catalogue.db") as db:
        db.execute("UPDATE image SET width = 65 WHERE id = 3")
        db.execute("UPDATE file SET mtime_ns = mtime_ns + 1 WHERE id = 1")
    db.close()
    embedder.pictures = 0
    with make() as library:
        assert set(told(library.search("blocks", top=50))) < set(old[1])
        assert "2 damaged rows of it were left out" in library.notes[1]
        library.index()
        assert {row[0] for row in told(library.search("blocks", top=50))} == {row[0] for row in old[1]}
        assert embedder.pictures == 1
        assert library.check() == ([], [])


def test_a_library_of_version_2_that_cannot_be_written_is_refused_with_what_to_do(
    make: Make, old: tuple[Path, list[tuple[Any, ...]]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("siglip.search.catalogue.os.access", lambda *_: False)
    with pytest.raises(LibraryError, match="is of version 2 and must become one of version 3; use it once where"):
        make()


def test_room_that_rows_have_left_is_given_back(photos: Path, make: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("siglip.search.catalogue._FEW_PAGES", 1)
    with make() as library:
        library.index([photos])
        right = told(library.search("blocks", top=50))
        with library.catalogue.writing():
            library.catalogue.write(
                "INSERT INTO query VALUES (9, ?, ?, 0)", [(str(n), bytes(4000)) for n in range(999)]
            )
        library.catalogue.checkpoint()
        large = library.catalogue.path.stat().st_size
        with library.catalogue.writing():
            library.catalogue.rows("DELETE FROM query WHERE space = 9")
        library.index()
        assert library.catalogue.path.stat().st_size < large - 3_900_000
        assert told(library.search("blocks", top=50)) == right
        assert library.check() == ([], [])
