"""The truth of a library, one SQLite file: which files there are, which pictures they hold, which row is whose vector.

Pictures are known by the SHA-256 of their file, so that names may change. Rows carry a seal, a CRC of their contents:
SQLite itself does not notice a flipped bit. Paths are bytes, as the file system has them.
"""

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from siglip.errors import LibraryError
from siglip.files import replacing

FILE_NAME = "catalogue.db"
SCHEMA_VERSION = 2
_APPLICATION = 0x51671B  # PRAGMA application_id, by which we know our own files
_BUSY_S = 30.0
_AT_ONCE = 500  # parameters in one statement; SQLite allows 999 and more

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL, seal INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE root(path BLOB PRIMARY KEY, exclude TEXT NOT NULL, seal INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE file(
    id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    digest BLOB NOT NULL, missing_since REAL, seal INTEGER NOT NULL);
CREATE INDEX file_digest ON file(digest);
CREATE TABLE image(
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, frame INTEGER NOT NULL, seconds REAL, format TEXT,
    width INTEGER, height INTEGER, taken TEXT, camera TEXT, latitude REAL, longitude REAL, error TEXT,
    seal INTEGER NOT NULL, UNIQUE(digest, frame));
CREATE TABLE space(
    id INTEGER PRIMARY KEY AUTOINCREMENT, fingerprint TEXT NOT NULL UNIQUE, model TEXT NOT NULL, dim INTEGER NOT NULL,
    scale REAL NOT NULL, bias REAL NOT NULL, vectors TEXT NOT NULL, rows INTEGER NOT NULL,
    codes_rows INTEGER NOT NULL, codes_crc INTEGER NOT NULL, rescored INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE vector(
    space INTEGER NOT NULL, row INTEGER NOT NULL, image INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY(space, row)) WITHOUT ROWID;
CREATE UNIQUE INDEX vector_image ON vector(image, space);
CREATE TABLE query(
    space INTEGER NOT NULL, text TEXT NOT NULL, vector BLOB NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY(space, text)) WITHOUT ROWID;
"""


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

    def values(self) -> tuple[Any, ...]:
        """What the catalogue keeps, in the order of its columns, without the id."""
        return (
            bytes.fromhex(self.digest), self.frame, self.seconds, self.format, self.width, self.height, self.taken,
            self.camera, self.latitude, self.longitude, self.error,
        )  # fmt: skip


class FileRow(NamedTuple):
    """What is known of one file; `missing_since` is a time as of time.time(), None while it is there."""

    path: bytes
    size: int
    mtime_ns: int
    digest: bytes
    missing_since: float | None = None

    def seal(self) -> int:
        """Over what does not change while the file is the same."""
        return seal(*self[:4])


# paths with the size and time of change in nanoseconds that they had when last seen
Files = set[tuple[bytes, int, int]]


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


_IMAGE = "id, digest, frame, seconds, format, width, height, taken, camera, latitude, longitude, error"
_FILE = "path, size, mtime_ns, digest"
_SPACE = "id, fingerprint, model, dim, scale, bias, vectors, rows, codes_rows, codes_crc, rescored"


def seal(*values: Any) -> int:
    """A CRC over values as SQLite gives them back."""
    return zlib.crc32(repr(values).encode())


def address_of(file: Path) -> str:
    """SQLite makes a log beside a file; where it cannot and there is none, it must be told to do without.

    What another user writes is then not seen until the file is opened again.
    """
    log = file.with_name(f"{file.name}-wal")
    written = log.exists() and log.stat().st_size > 0
    return file.absolute().as_uri() + ("" if written or os.access(file.parent, os.W_OK) else "?immutable=1")


class Catalogue:
    """One open connection; used from any thread. Raises LibraryError for what is no catalogue, or a damaged one.

    With `create` it is made where there is none; hold `alone` meanwhile.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.path = folder / FILE_NAME
        self.lock = threading.RLock()
        if not create and not self.path.is_file():
            raise LibraryError(f"{folder} holds no library of pictures; make one with `siglip index FOLDER`")
        if create and not self.path.exists():
            with replacing(self.path) as temporary:
                temporary.write_bytes(_empty())
        with self._told():
            self._db = sqlite3.connect(
                address_of(self.path), uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._prepare(create)

    def _prepare(self, create: bool) -> None:
        self._db.execute("PRAGMA cell_size_check = ON")
        application, version = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in _STAMPS)
        if application != _APPLICATION:
            raise LibraryError(
                f"{self.path} is no catalogue of pictures, or its first page is damaged; move the folder away and "
                "index anew: your pictures are not in it"
            )
        if version != SCHEMA_VERSION:
            raise LibraryError(
                f"{self.path} is of version {version}, this siglip knows version {SCHEMA_VERSION}; "
                + ("install a newer siglip" if version > SCHEMA_VERSION else "move the folder away and index anew")
                + ", or index into another folder with --library"
            )
        if create:
            self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _told(self) -> Generator[None, None, None]:
        """SQLite's errors in the words of this package."""
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "disk is full" in text:
                raise OSError(28, "No space left on device", str(self.path)) from error
            if "locked" in text:
                raise LibraryError(f"{self.path} is being written by another process; try again") from error
            if "readonly" in text or "unable to open" in text:
                raise LibraryError(f"{self.path} cannot be opened ({text}); check the folder's permissions") from error
            raise LibraryError(f"{self.path}: {text}; {_REPAIR}") from error
        except sqlite3.DatabaseError as error:
            raise LibraryError(f"{self.path} is damaged ({error}); {_REPAIR}") from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "Catalogue":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- transactions

    @contextmanager
    def writing(self) -> Generator[None, None, None]:
        """All statements of the block take effect together, and are on disk when it ends."""
        with self._transaction("IMMEDIATE"):
            yield

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        """All statements of the block see the same state."""
        with self._transaction("DEFERRED"):
            yield

    @contextmanager
    def _transaction(self, kind: str) -> Generator[None, None, None]:
        with self.lock, self._told():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        with self.lock, self._told():
            return self._db.execute(statement, values).fetchall()

    def rows_for(self, statement: str, keys: Sequence[Any], values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement that ends in `IN (...)`, written as `IN KEYS`, for any number of keys."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(keys), _AT_ONCE):
            block = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(block))
            found += self.rows(statement.replace("KEYS", f"({marks})"), [*values, *block])
        return found

    def version(self) -> tuple[int, int]:
        """Another one after every change, whoever made it; within `reading` that of what is read."""
        with self.lock:
            return self.rows("PRAGMA data_version")[0][0], self._db.total_changes

    def write(self, statement: str, many: Iterable[Sequence[Any]]) -> None:
        """One statement for each of many rows, within `writing`."""
        with self.lock, self._told():
            self._db.executemany(statement, many)

    def checkpoint(self) -> None:
        """Move what is in the log into the main file, when no reader is in the way."""
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def faults(self) -> list[str]:
        """What SQLite itself finds to be wrong with the file, its indexes among it."""
        return [fault for (fault,) in self.rows("PRAGMA integrity_check(10)") if fault != "ok"]

    # ---- small tables

    def meta(self, key: str) -> str | None:
        """None where nothing is kept, or what is kept is damaged."""
        found = self.rows("SELECT value, seal FROM meta WHERE key = ?", (key,))
        return found[0][0] if found and seal(key, found[0][0]) == found[0][1] else None

    def set_meta(self, key: str, value: str) -> None:
        self.write("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", [(key, value, seal(key, value))])

    def roots(self) -> dict[Path, tuple[str, ...]]:
        """Folders that were indexed, and the patterns left out below each. Raises LibraryError where one is damaged."""
        found = self.rows("SELECT path, exclude, seal FROM root ORDER BY path")
        if any(seal(path, exclude) != stored for path, exclude, stored in found):
            raise LibraryError(
                f"{self.path}: the name of a folder is damaged; `siglip library check` forgets it, then name your "
                "folders to `siglip index` again"
            )
        return {Path(os.fsdecode(path)): tuple(json.loads(exclude)) for path, exclude, _ in found}

    def set_root(self, root: Path, exclude: Sequence[str]) -> None:
        row = os.fsencode(root), json.dumps(list(exclude))
        self.write("INSERT OR REPLACE INTO root VALUES (?, ?, ?)", [(*row, seal(*row))])

    # ---- spaces

    def spaces(self) -> list[Space]:
        """Raises LibraryError where one is damaged: how its vectors are to be read is written nowhere else."""
        rows = self.rows(f"SELECT {_SPACE}, seal FROM space ORDER BY id")
        if any(seal(*row) != stored for *row, stored in rows):
            raise LibraryError(f"{self.path} is damaged (what it says of its model); {_REPAIR}")
        return [Space(*row) for *row, _ in rows]

    def active_space(self) -> Space | None:
        """The space that answers; None while there is none."""
        active = self.meta("space")
        return next((space for space in self.spaces() if str(space.id) == active), None)

    def add_space(self, *, fingerprint: str, model: str, dim: int, scale: float, bias: float) -> Space:
        """The space of this model, made if it is new; within `writing`."""
        found = next((space for space in self.spaces() if space.fingerprint == fingerprint), None)
        if found is not None:
            return found
        number = 1 + max((space.id for space in self.spaces()), default=0)
        space = Space(number, fingerprint, model, dim, scale, bias, f"vectors-{number}.f16", 0, 0, 0, 200)
        self.update_space(space)
        return space

    def update_space(self, space: Space) -> None:
        """Bring one space up to date; within `writing`."""
        values = [getattr(space, name) for name in _SPACE.split(", ")]
        self.write(
            f"INSERT OR REPLACE INTO space({_SPACE}, seal) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", [(*values, seal(*values))]
        )

    # ---- pictures and files

    def add_image(self, image: Image) -> int:
        """Insert or bring up to date one picture; return its id. Within `writing`."""
        values = image.values()
        names = ", ".join(_IMAGE.split(", ")[1:])
        self.rows(
            f"INSERT INTO image({names}, seal) VALUES ({'?,' * len(values)} ?) ON CONFLICT(digest, frame) DO UPDATE "
            "SET seconds=excluded.seconds, format=excluded.format, width=excluded.width, height=excluded.height, "
            "taken=excluded.taken, camera=excluded.camera, latitude=excluded.latitude, longitude=excluded.longitude, "
            "error=excluded.error, seal=excluded.seal",
            [*values, seal(*values)],
        )
        return self.rows("SELECT id FROM image WHERE digest = ? AND frame = ?", values[:2])[0][0]

    def add_files(self, files: Iterable[FileRow]) -> None:
        self.write(
            "INSERT INTO file(path, size, mtime_ns, digest, missing_since, seal) VALUES (?,?,?,?,?,?) "
            "ON CONFLICT(path) DO UPDATE SET size=excluded.size, mtime_ns=excluded.mtime_ns, digest=excluded.digest, "
            "missing_since=excluded.missing_since, seal=excluded.seal",
            [(*file, file.seal()) for file in files],
        )

    def files_under(self, root: Path, undone: Iterable[bytes] = ()) -> tuple[Files, Files, Files]:
        """Files below a folder, or the file itself: those there when last seen, those gone, and those there but undone.

        The third are of the digests `undone`, which are in neither of the others.
        """
        statement = (
            "SELECT path, size, mtime_ns FROM file WHERE missing_since IS {} AND (({p} >= ? AND {p} < ?) OR {p} = ?)"
        )
        place = below(root)
        present = set(self.rows(statement.format("NULL", p="path"), place))
        # few are gone, and looking through all costs less than going by the index, which + forbids
        gone = set(self.rows(statement.format("NOT NULL", p="+path"), place))
        without = set(self.rows_for("SELECT path, size, mtime_ns FROM file WHERE digest IN KEYS", [*undone]))
        unread = present & without
        present -= without
        gone -= without
        return present, gone, unread

    def images(self, ids: Sequence[int]) -> tuple[dict[int, Image], int]:
        """The pictures of these ids, and how many of them are damaged and left out."""
        found: dict[int, Image] = {}
        damaged = 0
        for number, digest, *rest, stored in self.rows_for(f"SELECT {_IMAGE}, seal FROM image WHERE id IN KEYS", ids):
            if seal(digest, *rest) == stored:
                found[number] = image_of(number, digest, *rest)
            else:
                damaged += 1
        return found, damaged

    def paths(self, digests: Sequence[str]) -> tuple[dict[str, list[bytes]], int]:
        """Where each picture lies now, in the order of names, and how many rows are damaged and left out."""
        keys = [bytes.fromhex(digest) for digest in digests]
        statement = f"SELECT {_FILE}, seal FROM file WHERE missing_since IS NULL AND digest IN KEYS"
        found: dict[str, list[bytes]] = {}
        damaged = 0
        for path, size, mtime_ns, digest, stored in sorted(self.rows_for(statement, keys)):
            if seal(path, size, mtime_ns, digest) == stored:
                found.setdefault(digest.hex(), []).append(path)
            else:
                damaged += 1
        return found, damaged


def _empty() -> bytes:
    """The file of a catalogue without rows. One that is there is whole: a kill never leaves a part of one."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(f"{_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {SCHEMA_VERSION};")
        return db.serialize()


def image_of(number: int, digest: bytes, *rest: Any) -> Image:
    """A picture from its columns."""
    return Image(id=number, digest=digest.hex(), **dict(zip(_IMAGE.split(", ")[2:], rest, strict=True)))


def below(root: Path) -> tuple[bytes, bytes, bytes]:
    """The range of paths below a folder: from, to (left out); and the folder's own path."""
    path = os.fsencode(root)
    separator = os.sep.encode()
    prefix = path if path.endswith(separator) else path + separator
    return prefix, prefix[:-1] + bytes([prefix[-1] + 1]), path


_STAMPS = ("application_id", "user_version")
_REPAIR = (
    "`siglip library check` tells more. Nothing but the work of indexing is lost if you move the folder away and index "
    "anew: your pictures are not in it"
)
