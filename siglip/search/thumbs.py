"""Thumbnails by digest, in a file that may be thrown away: bounded, and made anew when damaged."""

import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from siglip.search.catalogue import address_of

FILE_NAME = "thumbs.db"
LIMIT_BYTES = 2**31
_SCHEMA = """CREATE TABLE IF NOT EXISTS thumb(
    digest TEXT NOT NULL, frame INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE(digest, frame))"""
Answer = TypeVar("Answer")


class Thumbs:
    """WebP files by digest and frame; the oldest go when all together take more than `limit_bytes`."""

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = folder / FILE_NAME
        self._limit_bytes = limit_bytes
        self._db: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def get(self, digest: str, frame: int = 0) -> bytes | None:
        """None if there is none, or it is damaged."""

        def look(db: sqlite3.Connection) -> bytes | None:
            statement = "SELECT data, crc FROM thumb WHERE digest = ? AND frame = ?"
            found = db.execute(statement, (digest, frame)).fetchone()
            return found[0] if found and found[1] == _seal(digest, frame, found[0]) else None

        return self._try(look)

    def put(self, thumbs: Iterable[tuple[str, int, bytes]]) -> None:
        """Keep thumbnails; on a full disk or in a folder that cannot be written, they are not kept."""
        rows = [(digest, frame, _seal(digest, frame, data), data) for digest, frame, data in thumbs]

        def write(db: sqlite3.Connection) -> None:
            with db:
                db.executemany("INSERT OR REPLACE INTO thumb VALUES (?, ?, ?, ?)", rows)
                size, pages, free = (
                    db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
                )
                if size * (pages - free) > self._limit_bytes:
                    (count,) = db.execute("SELECT count(*) FROM thumb").fetchone()
                    oldest = "SELECT rowid FROM thumb ORDER BY rowid LIMIT ?"
                    db.execute(f"DELETE FROM thumb WHERE rowid IN ({oldest})", (max(1, count // 10),))

        self._try(write)

    def forget(self, digests: Iterable[str]) -> None:
        """Drop the thumbnails of pictures that are no longer in the library."""
        rows = [(digest,) for digest in digests]

        def write(db: sqlite3.Connection) -> None:
            with db:
                db.executemany("DELETE FROM thumb WHERE digest = ?", rows)

        self._try(write)

    def healthy(self) -> bool:
        """Whether the file can be read throughout; nothing is changed."""
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(address_of(self.path), uri=True)) as db:
            rows = db.execute("SELECT digest, frame, data, crc FROM thumb")
            sealed = all(crc == _seal(digest, frame, data) for digest, frame, data, crc in rows)
            return sealed and db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return False

    def clear(self) -> None:
        """Throw all away."""
        with self._lock:
            self._remove()

    def _remove(self) -> None:
        self.close()
        for name in (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"):
            self.path.with_name(name).unlink(missing_ok=True)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _try(self, action: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        with self._lock:
            try:
                return action(self._opened())
            except sqlite3.OperationalError:  # busy, full or not to be written: a cache may fail
                return None
            except sqlite3.DatabaseError:
                self._remove()
                return None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(address_of(self.path), uri=True, check_same_thread=False)
            if os.access(self.path.parent, os.W_OK):
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = OFF")
                self._db.execute(_SCHEMA)
        return self._db


def _seal(digest: object, frame: object, data: object) -> int:
    """A CRC over a thumbnail and the picture it belongs to, so that it is never taken for another one's.

    What is read from a damaged file may be of any type.
    """
    return zlib.crc32(data if isinstance(data, bytes) else b"", zlib.crc32(f"{digest} {frame}".encode()))
