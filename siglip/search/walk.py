"""Folders -> the picture files in them, with size and time, and what could not be looked into."""

import fnmatch
import os
import stat
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from siglip.pictures import IMAGE_SUFFIXES, RAW_SUFFIXES, PassedOver
from siglip.search.media import FILM_SUFFIXES, can_read, kind_of_media
from siglip.search.schema import below, split

# a picture file: its path (or in a folder its name), as bytes from the system to the catalogue, its size, and its time
# of change in nanoseconds
Found = tuple[bytes, int, int]
_SUFFIXES = (
    IMAGE_SUFFIXES
    | (FILM_SUFFIXES if can_read("film") else frozenset())
    | (RAW_SUFFIXES if can_read("camera raw") else frozenset())
)
# folders that systems and programs keep for themselves; hidden ones start with a dot and are left out anyway
_SYSTEM = frozenset(("$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "__MACOSX", "Thumbs.db"))


@dataclass(slots=True)
class Walk:
    """Folders at and below `root`, each with a separator at its end and the files in it by name; of a file its folder
    with it alone. Iterate once, then `failed` says which folders or files could not be read, and why, `passed` counts
    pictures of other kinds, `lacking` those that need libraries that are not installed.

    Hidden and system files are left out, as is what matches one of the `exclude` patterns by its name or by its path
    below the root. Links are followed, each folder is entered once; folders come in a stable order.
    """

    root: Path
    exclude: Sequence[str] = ()
    failed: dict[str, str] = field(default_factory=dict[str, str])
    passed: PassedOver = field(default_factory=PassedOver)
    lacking: Counter[str] = field(default_factory=Counter[str])

    def __iter__(self) -> Generator[tuple[bytes, list[Found]], None, None]:
        """One folder after the other."""
        root = os.fsencode(self.root)
        try:
            is_folder = stat.S_ISDIR(self.root.stat().st_mode)
        except OSError as error:
            self._tell(root, error)
            return
        if not is_folder:
            folder, name = split(root)
            yield folder, [(name, *found) for found in self._stated(root)]
            return
        entered: set[tuple[int, int]] = set()
        # linked folders come last, so that a picture is met by its real path first
        waiting, linked = [below(self.root)[0]], deque[bytes]()
        while waiting or linked:
            folder = waiting.pop() if waiting else linked.popleft()
            inner: list[bytes] = []
            linked_here: list[bytes] = []
            try:
                opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    status = os.fstat(opened)
                    if (status.st_dev, status.st_ino) in entered:
                        continue
                    entered.add((status.st_dev, status.st_ino))
                    with os.scandir(opened) as entries:
                        found = self._looked_at(folder, entries, inner, linked_here)
                finally:
                    os.close(opened)
            except OSError as error:
                self.failed[os.fsdecode(folder[:-1] or folder)] = error.strerror or str(error)
                continue
            yield folder, found
            waiting += sorted(inner, reverse=True)
            linked += sorted(linked_here)

    def _looked_at(
        self, folder: bytes, entries: Iterable[os.DirEntry[str]], inner: list[bytes], linked: list[bytes]
    ) -> list[Found]:
        """The files of a folder; folders in it go to `inner` and `linked`.

        Names are looked up in the open folder, not by their whole path, which takes the system a third longer.
        """
        found: list[Found] = []
        for entry in entries:
            name = entry.name
            if name[0] == "." or name in _SYSTEM or (self.exclude and self._excluded(folder, name)):
                continue
            suffix = name[name.rfind(".") :]
            if (suffix in _SUFFIXES or suffix.lower() in _SUFFIXES) and entry.is_file(follow_symlinks=False):
                try:  # nearly all of a large tree comes by here
                    status = entry.stat(follow_symlinks=False)
                    found.append((name.encode(_CODING, "surrogateescape"), status.st_size, status.st_mtime_ns))
                except OSError as error:
                    self._tell(folder + os.fsencode(name), error)
                continue
            path = folder + os.fsencode(name)
            if entry.is_dir(follow_symlinks=False):
                inner.append(path + _SEPARATOR)
            elif entry.is_symlink() and os.path.isdir(path):  # noqa: PTH112 (is_dir raises where links loop)
                linked.append(path + _SEPARATOR)
            else:
                found += [(os.fsencode(name), *seen) for seen in self._stated(path)]
        return found

    def _stated(self, path: bytes) -> Generator[tuple[int, int], None, None]:
        """Size and time of a picture file, or nothing."""
        name = os.fsdecode(path)
        if os.path.splitext(name)[1].lower() not in _SUFFIXES:  # noqa: PTH122
            kind = kind_of_media(name)
            if kind is None:
                self.passed.add(Path(name))
            else:
                self.lacking[kind] += 1
            return
        try:
            status = os.stat(path)  # noqa: PTH116 (paths are bytes here)
        except OSError as error:
            self._tell(path, error)
            return
        if stat.S_ISREG(status.st_mode):
            yield status.st_size, status.st_mtime_ns

    def _tell(self, path: bytes, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a broken link, or gone since its name was read
            self.failed[os.fsdecode(path)] = error.strerror or str(error)

    def _excluded(self, folder: bytes, name: str) -> bool:
        relative = os.path.relpath(os.fsdecode(folder) + name, self.root)
        return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(relative, pattern) for pattern in self.exclude)


_SEPARATOR = os.sep.encode()
_CODING = sys.getfilesystemencoding()  # as os.fsencode, without a call for each file
