"""What a catalogue is made of, and how one of the version before becomes one of this version.

Names are kept once: the folders of files, and words such as cameras. A row of `file` names the first picture of its
contents, and of films the further ones are found by their digest, through an index of its first four bytes.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

VERSION = 3
APPLICATION = 0x51671B  # PRAGMA application_id, by which we know our own files
# of each row of a vector file the picture whose vector it is, 0 for nobody, and the seal of both, in blocks of bytes
ROW_TYPE = np.dtype("<u4")
ROW_BYTES = 8
BLOCK_ROWS = 1024

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, seal INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE root(path BLOB PRIMARY KEY, exclude TEXT NOT NULL, seal INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE folder(id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE);
CREATE TABLE file(
    folder INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    image INTEGER NOT NULL, seal INTEGER NOT NULL, PRIMARY KEY(folder, name)) WITHOUT ROWID;
CREATE INDEX file_image ON file(image);
CREATE TABLE gone(
    folder INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    image INTEGER NOT NULL, seal INTEGER NOT NULL, since REAL NOT NULL, PRIMARY KEY(folder, name)) WITHOUT ROWID;
CREATE TABLE word(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE image(
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, format INTEGER, width INTEGER, height INTEGER,
    taken INTEGER, camera INTEGER, latitude REAL, longitude REAL, error TEXT, seal INTEGER NOT NULL);
CREATE INDEX image_digest ON image(substr(digest, 1, 4));
CREATE TABLE still(image INTEGER PRIMARY KEY, frame INTEGER NOT NULL, seconds REAL);
CREATE TABLE space(
    id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL UNIQUE, model TEXT NOT NULL, dim INTEGER NOT NULL,
    scale REAL NOT NULL, bias REAL NOT NULL, vectors TEXT NOT NULL, rows INTEGER NOT NULL,
    codes_rows INTEGER NOT NULL, codes_crc INTEGER NOT NULL, rescored INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE block(space INTEGER NOT NULL, number INTEGER NOT NULL, rows BLOB NOT NULL, UNIQUE(space, number));
CREATE TABLE query(
    space INTEGER NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY(space, text)) WITHOUT ROWID;
CREATE VIEW located AS
    SELECT CAST(d.path || f.name AS BLOB) AS path, f.name, f.size, f.mtime_ns, f.image, f.seal
    FROM file f JOIN folder d ON d.id = f.folder;
CREATE VIEW picture AS
    SELECT i.id, i.digest, coalesce(s.frame, 0) AS frame, s.seconds,
        (SELECT text FROM word WHERE id = i.format) AS format, i.width, i.height,
        strftime('%Y-%m-%dT%H:%M:%S', i.taken, 'unixepoch') AS taken,
        (SELECT text FROM word WHERE id = i.camera) AS camera, i.latitude, i.longitude, i.error, i.seal
    FROM image i LEFT JOIN still s ON s.image = i.id;
"""

# files that are there and the picture in each, of a film the first that is kept; and the further ones of films, which
# are few, so that SQLite has to begin with them (CROSS JOIN keeps the order)
PICTURES = "located f JOIN picture i ON i.id = f.image"
FURTHER = (
    "still s CROSS JOIN picture i ON i.id = s.image CROSS JOIN image a ON "
    "substr(a.digest, 1, 4) = substr(i.digest, 1, 4) AND a.digest = i.digest AND a.id != i.id "
    "CROSS JOIN located f ON f.image = a.id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture (or frame of a film) of the library. `taken` is local time, "2024-05-31T18:20:00"."""

    id: int = 0
    digest: str
    frame: int = 0
    seconds: float | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    taken: str | None = None
    camera: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    error: str | None = None


class FileRow(NamedTuple):
    """What is known of one file."""

    path: bytes
    size: int
    mtime_ns: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Space:
    """The vectors of one model: its fingerprint, temperature and bias, and which files hold them."""

    id: int
    fingerprint: str
    model: str
    dim: int
    scale: float
    bias: float
    vectors: str
    rows: int
    codes_rows: int
    codes_crc: int
    rescored: int


def seal(*values: Any) -> int:
    """A CRC over values as SQLite gives them back, as a signed number, which it keeps in four bytes."""
    return zlib.crc32(repr(values).encode()) - 2**31


def empty() -> bytes:
    """The file of a catalogue without rows. One that is there is whole: a kill never leaves a part of one."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(f"{_SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};")
        return db.serialize()


def to_seconds(taken: str | None) -> int | None:
    """A local time such as "2024-05-31T18:20:00" as the catalogue keeps it; None for what is no time."""
    if taken is None:
        return None
    try:
        return int(datetime.fromisoformat(taken).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def to_time(seconds: int | None) -> str | None:
    """The other way round, and as the view `picture` gives it."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


# ---- from version 2, which kept every path, time and name in full, and a digest for each file


def upgrade(db: sqlite3.Connection) -> int:
    """Bring a catalogue of version 2 to this one, within a transaction; return how many damaged rows were left out."""
    old = ("file", "image", "vector")
    (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'image'").fetchone()
    for table in old:
        db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    kept = ("meta", "root", "space", "query")
    for statement in _SCHEMA.split(";\n"):
        if statement.strip() and not statement.strip().startswith(tuple(f"CREATE TABLE {name}(" for name in kept)):
            db.execute(statement)
    for table in kept:
        db.execute(f"UPDATE {table} SET seal = seal - {2**31}")
    damaged = _images(db) + _files(db)
    if db.execute("SELECT count(*) FROM sqlite_sequence WHERE name = 'image'").fetchone()[0]:
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'image'", (last,))
    else:
        db.execute("INSERT INTO sqlite_sequence VALUES ('image', ?)", (last,))
    for space, rows in db.execute("SELECT id, rows FROM space").fetchall():
        book = np.zeros((rows, 2), ROW_TYPE)
        statement = "SELECT v.row, i.id, v.seal FROM old_vector v JOIN image i ON i.id = v.image WHERE v.space = ?"
        for row, image, stored in db.execute(statement, (space,)):
            if 0 <= row < rows and 0 < image < 2**32:
                book[row] = image, stored & 0xFFFFFFFF
        blocks = [
            (space, number, book[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS].tobytes())
            for number in range(-(-rows // BLOCK_ROWS))
        ]
        db.executemany("INSERT INTO block VALUES (?, ?, ?)", blocks)
    for table in old:
        db.execute(f"DROP TABLE old_{table}")
    db.execute(f"PRAGMA user_version = {VERSION}")
    return damaged


def _images(db: sqlite3.Connection) -> int:
    damaged = 0
    words: dict[str, int] = {}

    def number(word: str | None) -> int | None:
        return None if word is None else words.setdefault(word, len(words) + 1)

    def rows(stills: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        nonlocal damaged
        for image, *values, stored in db.execute("SELECT * FROM old_image ORDER BY id"):
            if _seal_2(*values) != stored:
                damaged += 1
                continue
            digest, frame, seconds, format_, width, height, taken, camera, latitude, longitude, error = values
            at = to_seconds(taken)
            if frame or seconds is not None:
                stills.append((image, frame, seconds))
            new = (image, digest, frame, seconds, format_, width, height, to_time(at), camera,
                   latitude, longitude, error)  # fmt: skip
            yield (image, digest, number(format_), width, height, at, number(camera), latitude, longitude, error,
                   seal(*new))  # fmt: skip

    stills: list[tuple[Any, ...]] = []
    db.executemany("INSERT INTO image VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows(stills))
    db.executemany("INSERT INTO still VALUES (?, ?, ?)", stills)
    db.executemany("INSERT INTO word VALUES (?, ?)", [(number, word) for word, number in words.items()])
    return damaged


def _files(db: sqlite3.Connection) -> int:
    damaged = 0
    folders: dict[bytes, int] = {}

    def rows(gone: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        nonlocal damaged
        statement = (
            "SELECT path, size, mtime_ns, digest, missing_since, seal, (SELECT min(i.id) FROM old_image i "
            "WHERE i.digest = f.digest) FROM old_file f ORDER BY path"
        )
        for path, size, mtime_ns, digest, since, stored, image in db.execute(statement):
            if _seal_2(path, size, mtime_ns, digest) != stored:
                damaged += 1
                continue
            folder, name = split(path)
            image = image or 0
            row = (folders.setdefault(folder, len(folders) + 1), name, size, mtime_ns, image,
                   seal(path, size, mtime_ns, image))  # fmt: skip
            if since is None:
                yield row
            else:
                gone.append((*row, since))

    gone: list[tuple[Any, ...]] = []
    db.executemany("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?)", rows(gone))
    db.executemany("INSERT INTO gone VALUES (?, ?, ?, ?, ?, ?, ?)", gone)
    db.executemany("INSERT INTO folder VALUES (?, ?)", [(number, folder) for folder, number in folders.items()])
    return damaged


def split(path: bytes) -> tuple[bytes, bytes]:
    """The folder of a file, with the separator at its end, and its name; together they are the path."""
    name = os.path.basename(path)  # noqa: PTH119 (paths are bytes here)
    return path[: len(path) - len(name)], name


def below(root: Path) -> tuple[bytes, bytes, bytes]:
    """The range of paths below a folder: from, to (left out); and the folder's own path."""
    path = os.fsencode(root)
    separator = os.sep.encode()
    prefix = path if path.endswith(separator) else path + separator
    return prefix, prefix[:-1] + bytes([prefix[-1] + 1]), path


def _seal_2(*values: Any) -> int:
    return zlib.crc32(repr(values).encode())
