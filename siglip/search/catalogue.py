"""The truth of a library, one SQLite file: which files there are, which pictures they hold, which row is whose vector.

Pictures are known by the SHA-256 of their file, so that names may change. Rows carry a seal, a CRC of their contents:
SQLite itself does not notice a flipped bit. Paths are bytes, as the file system has them.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from siglip.errors import LibraryError
from siglip.files import replacing
from siglip.search.schema import (
    APPLICATION,
    VERSION,
    FileRow,
    Image,
    Space,
    below,
    empty,
    seal,
    split,
    to_seconds,
    to_time,
    upgrade,
)

FILE_NAME = "catalogue.db"
_BUSY_S = 30.0
_FEW_PAGES = 2_500
_LOCK = "lock"
_AT_ONCE = 500  # parameters in one statement; SQLite allows 999 and more

_IMAGE = "id, digest, frame, seconds, format, width, height, taken, camera, latitude, longitude, error"
_SPACE = "id, fingerprint, model, dim, scale, bias, vectors, rows, codes_rows, codes_crc, rescored"


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
        self.notes: list[str] = []
        if not create and not self.path.is_file():
            raise LibraryError(f"{folder} holds no library of pictures; make one with `siglip index FOLDER`")
        if create and not self.path.exists():
            with replacing(self.path) as temporary:
                temporary.write_bytes(empty())
        with self._told():
            self._db = sqlite3.connect(
                address_of(self.path), uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._prepare(create)

    def _prepare(self, create: bool) -> None:
        self._db.execute("PRAGMA cell_size_check = ON")
        application, version = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in _STAMPS)
        if application != APPLICATION:
            raise LibraryError(
                f"{self.path} is not a catalogue of pictures, or its first page is damaged; move the folder away and "
                "index anew: your pictures are not in it"
            )
        if version == VERSION - 1:
            self._upgrade()
        elif version != VERSION:
            raise LibraryError(
                f"{self.path} is of version {version}, this siglip knows version {VERSION}; "
                + ("install a newer siglip" if version > VERSION else "move the folder away and index anew")
                + ", or index into another folder with --library"
            )
        if create:
            self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")

    def _upgrade(self) -> None:
        """From the version before to this one, all or nothing."""
        if not os.access(self.path.parent, os.W_OK):
            raise LibraryError(
                f"{self.path} is of version {VERSION - 1} and must become one of version {VERSION}; use it once where "
                "it can be written, or from a copy"
            )
        with alone(self.path.parent), self.writing():
            if self.rows("PRAGMA user_version")[0][0] == VERSION:
                return  # by another process, while this one waited
            damaged = upgrade(self._db)
        self.notes.append(f"the library is now of version {VERSION}, which an older siglip does not read")
        if damaged:
            self.notes.append(f"{damaged} damaged rows of it were left out; the next `siglip index` reads them again")
        self.pack()

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

    def pack(self) -> None:
        """Give back the room between rows where much came or went since this was last done."""
        pages, free = (self.rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count"))
        if pages < _FEW_PAGES or max(pages - int(self.meta("packed") or 0), free) < pages / 5:
            return
        with suppress(OSError, LibraryError):  # it is only smaller afterwards, and wants room meanwhile
            self.rows("VACUUM")
            with self.writing():
                self.set_meta("packed", str(self.rows("PRAGMA page_count")[0][0]))
            self.checkpoint()

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
        digest, at = bytes.fromhex(image.digest), to_seconds(image.taken)
        facts = (
            image.frame, image.seconds, image.format, image.width, image.height, to_time(at), image.camera,
            image.latitude, image.longitude, image.error,
        )  # fmt: skip
        found = self.rows(f"SELECT id FROM picture WHERE {_OF_DIGEST} AND frame = ?", (digest, digest, image.frame))
        found = found or self.rows("SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'image'")
        ((number,),) = found
        row = (
            number, digest, self._word(image.format), image.width, image.height, at, self._word(image.camera),
            image.latitude, image.longitude, image.error, seal(number, digest, *facts),
        )  # fmt: skip
        self.write("INSERT OR REPLACE INTO image VALUES (?,?,?,?,?,?,?,?,?,?,?)", [row])
        if image.frame or image.seconds is not None:
            self.write("INSERT OR REPLACE INTO still VALUES (?, ?, ?)", [(number, image.frame, image.seconds)])
        return number

    def _word(self, text: str | None) -> int | None:
        """The number by which a word is kept."""
        if text is None:
            return None
        self.write("INSERT OR IGNORE INTO word(text) VALUES (?)", [(text,)])
        return self.rows("SELECT id FROM word WHERE text = ?", (text,))[0][0]

    def add_files(self, files: Sequence[FileRow]) -> None:
        """Insert or bring up to date files, whose pictures are there already; within `writing`."""
        ids = self.ids([file.digest for file in files])
        places = self._places([file.path for file in files], new=True)
        first = [min(ids.get(file.digest, [0])) for file in files]  # 0 is no picture: such a file is read again
        self.write("DELETE FROM gone WHERE folder = ? AND name = ?", places)
        self.write(
            "INSERT OR REPLACE INTO file VALUES (?,?,?,?,?,?)",
            [
                (*place, file.size, file.mtime_ns, image, seal(file.path, file.size, file.mtime_ns, image))
                for place, file, image in zip(places, files, first, strict=True)
            ],
        )

    def set_gone(self, paths: Sequence[bytes], since: float) -> None:
        """Files that were there and are not any more; `since` is a time as of time.time(). Within `writing`."""
        places = self._places(paths)
        self.write(
            f"INSERT OR REPLACE INTO gone SELECT {_FILE}, ? FROM file WHERE folder = ? AND name = ?",
            [(since, *place) for place in places],
        )
        self.write("DELETE FROM file WHERE folder = ? AND name = ?", places)

    def set_back(self, paths: Sequence[bytes]) -> None:
        """Files that were gone and are there again as they were; within `writing`."""
        places = self._places(paths)
        self.write(f"INSERT OR REPLACE INTO file SELECT {_FILE} FROM gone WHERE folder = ? AND name = ?", places)
        self.write("DELETE FROM gone WHERE folder = ? AND name = ?", places)

    def _places(self, paths: Sequence[bytes], *, new: bool = False) -> list[tuple[int, bytes]]:
        """The number of its folder and its name for each path; folders that are not known are left out, or made."""
        parts = [split(path) for path in paths]
        folders = list({folder: None for folder, _ in parts})
        if new:
            self.write("INSERT OR IGNORE INTO folder(path) VALUES (?)", [(folder,) for folder in folders])
        numbers: dict[bytes, int] = dict(self.rows_for("SELECT path, id FROM folder WHERE path IN KEYS", folders))
        return [(numbers[folder], name) for folder, name in parts if folder in numbers]

    def folders_under(self, root: Path) -> dict[bytes, int]:
        """The folders of files at and below a folder, with their numbers."""
        return dict(self.rows("SELECT path, id FROM folder WHERE path >= ? AND path < ?", below(root)[:2]))

    def ids(self, digests: Iterable[bytes]) -> dict[bytes, list[int]]:
        """The pictures of files with these digests: of a film all that are kept."""
        wanted = set(digests)
        starts = list({digest[:4] for digest in wanted})
        found: dict[bytes, list[int]] = {}
        for number, digest in self.rows_for(f"SELECT id, digest FROM image WHERE {_START} IN KEYS", starts):
            if digest in wanted:
                found.setdefault(digest, []).append(number)
        return found

    def images(self, ids: Sequence[int]) -> tuple[dict[int, Image], int]:
        """The pictures of these ids, and how many of them are damaged and left out."""
        found: dict[int, Image] = {}
        damaged = 0
        for number, digest, *rest, stored in self.rows_for(f"SELECT {_IMAGE}, seal FROM picture WHERE id IN KEYS", ids):
            if seal(number, digest, *rest) == stored:
                found[number] = _image_of(number, digest, *rest)
            else:
                damaged += 1
        return found, damaged

    def paths(self, digests: Sequence[str]) -> tuple[dict[str, list[bytes]], int]:
        """Where each picture lies now, in the order of names, and how many rows are damaged and left out."""
        ids = self.ids(map(bytes.fromhex, digests))
        digest_of = {number: digest.hex() for digest, numbers in ids.items() for number in numbers}
        statement = (
            "SELECT CAST(d.path || f.name AS BLOB), f.size, f.mtime_ns, f.image, f.seal FROM file f "
            "LEFT JOIN folder d ON d.id = f.folder WHERE f.image IN KEYS"
        )
        found: dict[str, list[bytes]] = {}
        damaged = 0
        for path, size, mtime_ns, image, stored in self.rows_for(statement, list(digest_of)):
            if path is not None and seal(path, size, mtime_ns, image) == stored:
                found.setdefault(digest_of[image], []).append(path)
            else:
                damaged += 1
        return {digest: sorted(places) for digest, places in found.items()}, damaged


@contextmanager
def alone(folder: Path) -> Generator[None, None, None]:
    """One writer at a time; the system ends the lock with the process. Raises LibraryError if there is another."""
    import fcntl  # there is none on Windows, where only this is missing

    with (folder / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LibraryError(
                f"{folder} is being written by another process; searching goes on, try this again when it is done"
            ) from error
        yield


def _image_of(number: int, digest: bytes, *rest: Any) -> Image:
    """A picture from its columns."""
    return Image(id=number, digest=digest.hex(), **dict(zip(_IMAGE.split(", ")[2:], rest, strict=True)))


_START = "substr(digest, 1, 4)"
_OF_DIGEST = "substr(digest, 1, 4) = substr(?, 1, 4) AND digest = ?"
_FILE = "folder, name, size, mtime_ns, image, seal"
_STAMPS = ("application_id", "user_version")
_REPAIR = (
    "`siglip library check` tells more. Nothing but the work of indexing is lost if you move the folder away and index "
    "anew: your pictures are not in it"
)
