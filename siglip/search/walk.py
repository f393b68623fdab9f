"""Folders -> the picture files in them, with size and time, and what could not be looked into."""

import fnmatch
import os
import stat
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from siglip.pictures import IMAGE_SUFFIXES, RAW_SUFFIXES, PassedOver
from siglip.search.media import FILM_SUFFIXES, can_read, kind_of_media

_SUFFIXES = (
    IMAGE_SUFFIXES
    | (FILM_SUFFIXES if can_read("film") else frozenset())
    | (RAW_SUFFIXES if can_read("camera raw") else frozenset())
)
# folders that systems and programs keep for themselves; hidden ones start with a dot and are left out anyway
_SYSTEM = frozenset(("$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "__MACOSX", "Thumbs.db"))


class Found(NamedTuple):
    """One picture file as the walk met it."""

    path: str
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Walk:
    """Files below `root`; iterate once, then `failed` says which folders or files could not be read, and why, and
    `passed` counts pictures of other kinds, `lacking` those that need libraries that are not installed.

    Hidden and system files are left out, as is what matches one of the `exclude` patterns by its name or by its path
    below the root. Links are followed, each folder is entered once. Names come in a stable order.
    """

    root: Path
    exclude: Sequence[str] = ()
    failed: dict[str, str] = field(default_factory=dict[str, str])
    passed: PassedOver = field(default_factory=PassedOver)
    lacking: Counter[str] = field(default_factory=Counter[str])

    def __iter__(self) -> Generator[Found, None, None]:
        if not self.root.is_dir():
            yield from self._file(str(self.root))
            return
        entered: set[tuple[int, int]] = set()
        # linked folders come last, so that a picture is met by its real path first
        waiting, linked = [str(self.root)], deque[str]()
        while waiting or linked:
            folder = waiting.pop() if waiting else linked.popleft()
            try:
                status = os.stat(folder)  # noqa: PTH116 (strings: a Path a file doubles the walk's time)
                if (status.st_dev, status.st_ino) in entered:
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    names = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.failed[folder] = error.strerror or str(error)
                continue
            inner: list[str] = []
            for entry in names:
                name = entry.name
                if name.startswith(".") or name in _SYSTEM or (self.exclude and self._excluded(entry)):
                    continue
                if entry.is_file(follow_symlinks=False) and name[name.rfind(".") :].lower() in _SUFFIXES:
                    try:  # nearly all of a large tree comes by here
                        status = entry.stat()
                        yield Found(entry.path, status.st_size, status.st_mtime_ns)
                    except OSError as error:
                        self._tell(entry.path, error)
                elif entry.is_dir(follow_symlinks=False):
                    inner.append(entry.path)
                elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 (is_dir raises where links loop)
                    linked.append(entry.path)
                else:
                    yield from self._file(entry.path)
            waiting += reversed(inner)

    def _file(self, path: str) -> Generator[Found, None, None]:
        if Path(path).suffix.lower() not in _SUFFIXES:
            kind = kind_of_media(path)
            if kind is None:
                self.passed.add(Path(path))
            else:
                self.lacking[kind] += 1
            return
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as error:
            self._tell(path, error)
            return
        if stat.S_ISREG(status.st_mode):
            yield Found(path, status.st_size, status.st_mtime_ns)

    def _tell(self, path: str, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a broken link, or gone since its name was read
            self.failed[path] = error.strerror or str(error)

    def _excluded(self, entry: os.DirEntry[str]) -> bool:
        relative = os.path.relpath(entry.path, self.root)
        return any(
            fnmatch.fnmatch(entry.name, pattern) or fnmatch.fnmatch(relative, pattern) for pattern in self.exclude
        )
