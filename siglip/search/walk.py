"""Folders -> the picture files in them, with size and time, and what could not be looked into."""

import fnmatch
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from siglip.pictures import IMAGE_SUFFIXES, PassedOver

_SUFFIXES = tuple(IMAGE_SUFFIXES)
# folders that systems and programs keep for themselves; hidden ones start with a dot and are left out anyway
_SYSTEM = frozenset(("$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "__MACOSX", "Thumbs.db"))


@dataclass(frozen=True, slots=True)
class Found:
    """One picture file as the walk met it."""

    path: str
    size: int
    mtime_ns: int


@dataclass(slots=True)
class Walk:
    """Files below `root`; iterate once, then `failed` says which folders or files could not be read, and why, and
    `passed` counts pictures of other kinds.

    Hidden and system files are left out, as is what matches one of the `exclude` patterns by its name or by its path
    below the root. Links are followed, each folder is entered once. Names come in a stable order.
    """

    root: Path
    exclude: Sequence[str] = ()
    failed: dict[str, str] = field(default_factory=dict[str, str])
    passed: PassedOver = field(default_factory=PassedOver)

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
                if self._left_out(entry):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.path)
                elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 (is_dir raises where links loop)
                    linked.append(entry.path)
                else:
                    yield from self._file(entry.path, entry.stat)
            waiting += reversed(inner)

    def _file(self, path: str, look: Callable[[], os.stat_result] | None = None) -> Generator[Found, None, None]:
        if not path.lower().endswith(_SUFFIXES):
            self.passed.add(Path(path))
            return
        try:
            status = look() if look is not None else os.stat(path)  # noqa: PTH116
        except FileNotFoundError:
            return  # a broken link, or gone since its name was read
        except OSError as error:
            self.failed[path] = error.strerror or str(error)
            return
        if stat.S_ISREG(status.st_mode):
            yield Found(path, status.st_size, status.st_mtime_ns)

    def _left_out(self, entry: os.DirEntry[str]) -> bool:
        if entry.name.startswith(".") or entry.name in _SYSTEM:
            return True
        if not self.exclude:
            return False
        relative = os.path.relpath(entry.path, self.root)
        return any(
            fnmatch.fnmatch(entry.name, pattern) or fnmatch.fnmatch(relative, pattern) for pattern in self.exclude
        )
