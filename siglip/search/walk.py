"""Folders -> the picture files in them, with size and time, and what could not be looked into."""

import fnmatch
import os
import stat
from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from siglip.pictures import IMAGE_SUFFIXES, RAW_SUFFIXES, PassedOver
from siglip.search.media import FILM_SUFFIXES, can_read, kind_of_media

# a picture file: its path, as bytes from the system to the catalogue, its size, and its time of change in nanoseconds
Found = tuple[bytes, int, int]
_SUFFIXES = frozenset(
    map(
        str.encode,
        IMAGE_SUFFIXES
        | (FILM_SUFFIXES if can_read("film") else frozenset())
        | (RAW_SUFFIXES if can_read("camera raw") else frozenset()),
    )
)
# folders that systems and programs keep for themselves; hidden ones start with a dot and are left out anyway
_SYSTEM = frozenset(
    (b"$RECYCLE.BIN", b"System Volume Information", b"lost+found", b"@eaDir", b"__MACOSX", b"Thumbs.db")
)


@dataclass(slots=True)
class Walk:
    """Files below `root`, a folder at a time; iterate once, then `failed` says which folders or files could not be
    read, and why, `passed` counts pictures of other kinds, `lacking` those that need libraries that are not installed.

    Hidden and system files are left out, as is what matches one of the `exclude` patterns by its name or by its path
    below the root. Links are followed, each folder is entered once; folders come in a stable order.
    """

    root: Path
    exclude: Sequence[str] = ()
    failed: dict[str, str] = field(default_factory=dict[str, str])
    passed: PassedOver = field(default_factory=PassedOver)
    lacking: Counter[str] = field(default_factory=Counter[str])

    def __iter__(self) -> Generator[list[Found], None, None]:
        """The files of one folder after the other."""
        try:
            folder = stat.S_ISDIR(self.root.stat().st_mode)
        except OSError as error:
            self._tell(os.fsencode(self.root), error)
            return
        if not folder:
            yield list(self._file(os.fsencode(self.root)))
            return
        entered: set[tuple[int, int]] = set()
        # linked folders come last, so that a picture is met by its real path first
        waiting, linked = [os.fsencode(self.root)], deque[bytes]()
        while waiting or linked:
            folder = waiting.pop() if waiting else linked.popleft()
            inner: list[bytes] = []
            linked_here: list[bytes] = []
            try:
                status = os.stat(folder)  # noqa: PTH116 (a Path a file doubles the walk's time)
                if (status.st_dev, status.st_ino) in entered:
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    found = list(self._looked_at(entries, inner, linked_here))
            except OSError as error:
                self.failed[os.fsdecode(folder)] = error.strerror or str(error)
                continue
            yield found
            waiting += sorted(inner, reverse=True)
            linked += sorted(linked_here)

    def _looked_at(
        self, entries: Iterable[os.DirEntry[bytes]], inner: list[bytes], linked: list[bytes]
    ) -> Generator[Found, None, None]:
        """The files of a folder; folders in it go to `inner` and `linked`."""
        for entry in entries:
            name = entry.name
            if name.startswith(b".") or name in _SYSTEM or (self.exclude and self._excluded(entry)):
                continue
            if name[name.rfind(b".") :].lower() in _SUFFIXES and entry.is_file(follow_symlinks=False):
                try:  # nearly all of a large tree comes by here
                    status = entry.stat()
                    yield entry.path, status.st_size, status.st_mtime_ns
                except OSError as error:
                    self._tell(entry.path, error)
            elif entry.is_dir(follow_symlinks=False):
                inner.append(entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 (is_dir raises where links loop)
                linked.append(entry.path)
            else:
                yield from self._file(entry.path)

    def _file(self, path: bytes) -> Generator[Found, None, None]:
        if os.path.splitext(path)[1].lower() not in _SUFFIXES:  # noqa: PTH122
            name = os.fsdecode(path)
            kind = kind_of_media(name)
            if kind is None:
                self.passed.add(Path(name))
            else:
                self.lacking[kind] += 1
            return
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            self._tell(path, error)
            return
        if stat.S_ISREG(status.st_mode):
            yield path, status.st_size, status.st_mtime_ns

    def _tell(self, path: bytes, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a broken link, or gone since its name was read
            self.failed[os.fsdecode(path)] = error.strerror or str(error)

    def _excluded(self, entry: os.DirEntry[bytes]) -> bool:
        name, relative = os.fsdecode(entry.name), os.path.relpath(os.fsdecode(entry.path), self.root)
        return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(relative, pattern) for pattern in self.exclude)
