"""Folders -> a library brought up to date: walk, compare, decode and embed what is new, commit in batches.

A kill at any moment loses at most the batch in hand: vectors are on disk before the commit that names them.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Int64

from siglip.errors import UnreadableImage
from siglip.search.book import book_of, forget_images, write_rows
from siglip.search.catalogue import Catalogue
from siglip.search.media import kind_of_media
from siglip.search.reading import Picture, hash_file, pictures_in, pictures_of_media, read_file
from siglip.search.schema import FileRow, Image, Space, below, split
from siglip.search.thumbs import Thumbs
from siglip.search.vectors import append, row_seal
from siglip.search.walk import Found, Walk

if TYPE_CHECKING:
    from siglip.embedder import Embedder

COMMIT_S = 30.0
# name, size and time of change in nanoseconds of files in one folder
Files = set[tuple[bytes, int, int]]
_MOST_AHEAD_BYTES = 2**28  # of files read but not yet embedded: few large ones, or many small ones


@dataclass(slots=True, kw_only=True)
class IndexReport:
    """What one run found and did. Counts are files, but `embedded`, `broken` and `forgotten` count pictures."""

    found: int = 0
    unchanged: int = 0
    to_read: int = 0  # new or changed files; a dry run stops here
    embedded: int = 0
    known: int = 0  # read, but the picture was known: renamed, moved, copied or touched
    broken: int = 0
    returned: int = 0
    gone: int = 0
    forgotten: int = 0
    failed: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    dry_run: bool = False
    seconds: float = 0.0


class Indexing:
    """One run over some folders into one space; hold `alone` meanwhile. `embedder` is asked for when first needed."""

    def __init__(
        self, catalogue: Catalogue, thumbs: Thumbs, space: Space, embedder: "Callable[[], Embedder]", *, threads: int
    ) -> None:
        self.catalogue = catalogue
        self.thumbs = thumbs
        self.space = space
        self.report = IndexReport()
        self._embedder = embedder
        self._threads = threads
        self._done: set[bytes] = set()
        self._files: list[FileRow] = []
        self._pictures: list[Picture] = []
        self._broken: list[Image] = []
        self._taken = 0
        self._committed = time.monotonic()

    def run(self, roots: dict[Path, tuple[str, ...]], *, progress: Callable[[int, int], None] | None) -> IndexReport:
        """Bring the library up to date with these folders and their left-out patterns.

        `progress` is called with the files done and those to do.
        """
        undone = undone_in(self.catalogue, self.space)
        work: list[Found] = []
        back: list[bytes] = []
        gone: list[bytes] = []
        for root, exclude in roots.items():
            changes = compare(self.catalogue, root, exclude, undone, self.report)
            if changes is not None:
                work += changes.work
                back += changes.back
                gone += changes.gone
        unique = list({found[0]: found for found in work}.values())
        self.report.to_read = len(unique)
        self.report.returned, self.report.gone = len(set(back)), len(set(gone))
        if back or gone:
            now = time.time()
            with self.catalogue.writing():
                # what is gone from one folder may be there in another one that was given too
                self.catalogue.set_gone(gone, now)
                self.catalogue.set_back(back)
        if unique:
            self._done = {digest for (digest,) in self.catalogue.rows("SELECT digest FROM image")} - undone.digests
            with self.catalogue.writing():
                self._tell()
        for done, result in enumerate(self._read_ahead(unique), start=1):
            self._take(result)
            if progress is not None:
                progress(done, len(unique))
        self._commit()
        if unique:
            with self.catalogue.writing():
                self.catalogue.write("DELETE FROM meta WHERE key = 'indexing'", [()])
        return self.report

    def _tell(self) -> None:
        """What others who read the catalogue may know of this run, and when it was so; within `writing`."""
        self.catalogue.set_meta("indexing", f"{self._taken} {self.report.to_read} {time.time():.0f}")

    def _read_ahead(self, work: Sequence[Found]) -> "Generator[_Read, None, None]":
        source = iter(work)
        waiting: deque[tuple[int, Future[_Read]]] = deque()
        ahead_bytes = 0
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="siglip-index")
        try:
            while True:
                while len(waiting) < 4 * self._threads and (ahead_bytes < _MOST_AHEAD_BYTES or not waiting):
                    found = next(source, None)
                    if found is None:
                        break
                    path, size, _ = found
                    ahead_bytes += size
                    waiting.append((size, pool.submit(self._read, os.fsdecode(path))))
                if not waiting:
                    return
                size, future = waiting.popleft()
                yield future.result()
                ahead_bytes -= size
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, path: str) -> "_Read":
        """In a thread: never raises for what is wrong with a file."""
        kind = kind_of_media(path)
        try:
            row, data = (hash_file(path), b"") if kind else read_file(path)
        except UnreadableImage as error:
            return _Read(path, None, (), error.reason)
        if row.digest in self._done:
            return _Read(path, row, ())
        try:
            settings = self._embedder().processor.image_processor.settings
            if kind is not None:
                return _Read(path, row, tuple(pictures_of_media(path, row, kind, settings)))
            return _Read(path, row, tuple(pictures_in(data, row.digest.hex(), settings)))
        except UnreadableImage as error:
            return _Read(path, row, (), error.reason)

    def _take(self, read: "_Read") -> None:
        self._taken += 1
        if read.row is None:
            self.report.failed[read.path] = read.reason
            return
        self._files.append(read.row)
        if read.row.digest in self._done:
            self.report.known += 1
        elif read.reason:
            self.report.broken += 1
            self.report.failed[read.path] = read.reason
            self._broken.append(Image(digest=read.row.digest.hex(), error=read.reason))
        else:
            self._pictures += read.pictures
        self._done.add(read.row.digest)
        late = time.monotonic() - self._committed > COMMIT_S
        full = len(self._pictures) >= (self._embedder().batch_size if self._pictures else 1)
        if late or full or len(self._files) >= 1000:
            self._commit()

    def _commit(self) -> None:
        """Embed what is in hand and store it."""
        pictures = self._pictures
        vectors = np.zeros((0, self.space.dim), np.float32)
        if pictures:
            vectors = self._embedder().encode_pixels(np.stack([picture.square for picture in pictures]))
            self.thumbs.put((picture.image.digest, picture.image.frame, picture.thumb) for picture in pictures)
        if pictures or self._broken or self._files:
            images = [picture.image for picture in pictures]
            self.space = store(self.catalogue, self.space, images, vectors, self._files, broken=self._broken)
            with self.catalogue.writing():
                self._tell()
        self.report.embedded += len(pictures)
        self._pictures, self._broken, self._files = [], [], []
        self._committed = time.monotonic()


def store(
    catalogue: Catalogue, space: Space, images: Sequence[Image], vectors: Float32[np.ndarray, "images dim"],
    files: Sequence[FileRow], *, broken: Sequence[Image] = (),
) -> Space:  # fmt: skip
    """Write vectors, wait until they are on disk, then commit the rows that name them; the space as it is after."""
    stored = append(catalogue.path.with_name(space.vectors), space.rows, vectors) if images else vectors[:0]
    grown = replace(space, rows=space.rows + len(stored))
    with catalogue.writing():
        for image in broken:
            catalogue.add_image(image)
        ids = [catalogue.add_image(image) for image in images]
        sealed = [(image, row_seal(image, vector)) for image, vector in zip(ids, stored, strict=True)]
        write_rows(catalogue, space.id, space.rows, np.array(sealed, np.uint32).reshape(-1, 2))
        catalogue.add_files(files)
        catalogue.update_space(grown)
    return grown


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A file that was read: its row, and its pictures unless they are known or broken; `reason` says what is wrong."""

    path: str
    row: FileRow | None
    pictures: tuple[Picture, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """Files to be read, and known paths that came back or went."""

    work: list[Found]
    back: list[bytes]
    gone: list[bytes]


@dataclass(frozen=True, slots=True)
class Undone:
    """What could have vectors in a space and has none: the digests of known pictures, and what files name as theirs."""

    digests: set[bytes]
    images: set[int]


def undone_in(catalogue: Catalogue, space: Space | None) -> Undone:
    """Nearly always there is nothing. A film is done when one of its pictures is."""
    embedded = book_of(catalogue, space)[:, 0] if space is not None else np.zeros(0, np.int64)
    ((count, lowest, highest),) = catalogue.rows(
        "SELECT count(*), coalesce(min(id), 1), coalesce(max(id), 0) FROM image"
    )
    # where none is missing between them, nothing need be read
    whole = count == highest - lowest + 1
    without = np.zeros(highest + 1, bool)
    without[np.arange(lowest, highest + 1) if whole else _numbers(catalogue, "SELECT id FROM image")] = True
    without[_numbers(catalogue, "SELECT id FROM image WHERE error IS NOT NULL")] = False
    without[embedded[embedded <= highest]] = False
    lacking = np.flatnonzero(without)
    unknown = "SELECT image FROM file f WHERE NOT EXISTS (SELECT 1 FROM image i WHERE i.id = f.image)"
    images = {*lacking.tolist(), *_numbers(catalogue, unknown).tolist()}
    digests = {row[0] for row in catalogue.rows_for("SELECT digest FROM image WHERE id IN KEYS", lacking.tolist())}
    kept = catalogue.ids(digests)
    films = {digest for digest, ids in kept.items() if np.isin(ids, embedded).any()}
    for digest in films:
        images.difference_update(kept[digest])
    return Undone(digests - films, images)


def _numbers(catalogue: Catalogue, statement: str) -> Int64[np.ndarray, " n"]:
    found = catalogue.rows(statement)
    return np.fromiter((number for (number,) in found), np.int64, len(found))


class _Known:
    """What the catalogue knows at and below a root; each folder, or the folder of a single file, is asked for once."""

    def __init__(self, catalogue: Catalogue, root: Path, undone: Undone) -> None:
        self._catalogue, self._undone = catalogue, undone
        self._only: bytes | None = None
        self.folders = catalogue.folders_under(root)
        if not self.folders:
            folder, self._only = split(os.fsencode(root))
            self.folders = dict(catalogue.rows("SELECT path, id FROM folder WHERE path = ?", (folder,)))
        self._with_gone = {number for (number,) in catalogue.rows("SELECT DISTINCT folder FROM gone")}

    def files(self, folder: bytes) -> tuple[Files, Files, Files]:
        """Name, size and time of the files there when last seen; of those gone; and of those there but undone.

        Files that are undone are in neither of the others.
        """
        number = self.folders.pop(folder, None)
        if number is None:
            return set(), set(), set()
        present = set(self._rows("SELECT name, size, mtime_ns FROM file WHERE folder = ?", number))
        gone: Files = set()
        unread: Files = set()
        if number in self._with_gone:
            rows = self._rows("SELECT name, size, mtime_ns, image FROM gone WHERE folder = ?", number)
            gone = {row[:3] for row in rows if row[3] not in self._undone.images}
        if self._undone.images:
            rows = self._rows("SELECT name, size, mtime_ns, image FROM file WHERE folder = ?", number)
            unread = {row[:3] for row in rows if row[3] in self._undone.images}
        return present - unread if unread else present, gone, unread

    def _rows(self, statement: str, number: int) -> list[tuple[Any, ...]]:
        found = self._catalogue.rows(statement, (number,))
        return found if self._only is None else [row for row in found if row[0] == self._only]


def compare(
    catalogue: Catalogue, root: Path, exclude: Sequence[str], undone: Undone, report: IndexReport
) -> Changes | None:
    """A folder as it is against the catalogue; None, and a note, where nothing may be concluded from it.

    Nearly all files are as they were, so sets of (name, size, time) are compared, not one file after the other.
    """
    known = _Known(catalogue, root, undone)
    walk = Walk(root, exclude)
    work: list[Found] = []
    back: list[bytes] = []
    lost: list[bytes] = []
    count = 0
    for folder, files in walk:
        present, missing, unread = known.files(folder)
        same = present.intersection(files)
        count += len(files)
        report.unchanged += len(same)
        if len(same) < len(files):
            for found in sorted(files):
                if found in missing:
                    back.append(folder + found[0])
                elif found not in same:
                    work.append((folder + found[0], *found[1:]))
        if len(same) < len(present) + len(unread):
            names = {name for name, _, _ in files}
            lost += [folder + name for name, _, _ in (*present, *unread) if name not in names]
    for folder in [*known.folders]:
        present, _, unread = known.files(folder)
        lost += [folder + name for name, _, _ in (*present, *unread)]
    walk.passed.warn(root)
    if walk.lacking:
        told = ", ".join(f"{number} {kind} files" for kind, number in walk.lacking.most_common())
        report.notes.append(f"{root}: {told} are passed over; pip install 'siglip[media]' to index them")
    report.found += count
    report.failed.update(walk.failed)
    if str(root) in walk.failed:
        return None
    if not count and lost:
        what = "is empty" if root.exists() else "is not there"
        report.notes.append(
            f"{root} {what}: its {len(lost)} pictures stay in the library, in case it is not mounted; "
            f"`siglip library forget {root}` forgets them"
        )
        return None
    if not root.exists():
        report.failed[str(root)] = "no such file or folder"
        return None
    blind = [below(Path(folder)) for folder in walk.failed]
    gone = [path for path in lost if not any(low <= path < high or path == it for low, high, it in blind)]
    return Changes(work, back, gone)


def forget_gone(catalogue: Catalogue, thumbs: Thumbs, *, dry_run: bool, under: Path | None = None) -> int:
    """Forget files that are gone, or all `under` a folder, and pictures of which no file is left; return how many.

    Their vectors stay in the file as rows that nothing names.
    """
    conditions: dict[str, tuple[str, tuple[bytes, ...]]] = {"gone": ("1", ())}
    if under is not None:
        conditions = dict.fromkeys(("file", "gone"), under_place(under))
    kept = " UNION ".join(
        f"SELECT image FROM {table} WHERE NOT {conditions.get(table, ('0',))[0]}" for table in ("file", "gone")
    )
    values = [value for table in ("file", "gone") for value in conditions.get(table, ("", ()))[1]]
    with catalogue.writing():
        rows = catalogue.rows(f"SELECT id, digest FROM image WHERE id NOT IN ({kept})", values)
        films = {
            digest
            for (digest,) in catalogue.rows(
                f"SELECT i.digest FROM still s JOIN image i ON i.id = s.image WHERE i.id IN ({kept})", values
            )
        }
        rows = [(number, digest) for number, digest in rows if digest not in films]
        if not dry_run:
            for table, (condition, these) in conditions.items():
                catalogue.rows(f"DELETE FROM {table} WHERE {condition}", these)
            catalogue.rows("DELETE FROM folder WHERE id NOT IN (SELECT folder FROM file UNION SELECT folder FROM gone)")
            forget_images(catalogue, [number for number, _ in rows])
    if not dry_run:
        thumbs.forget(digest.hex() for _, digest in rows)
    return len(rows)


def under_place(place: Path) -> tuple[str, tuple[bytes, ...]]:
    """A condition on `file` or `gone`: at or below a folder, or the file itself; and its values."""
    within = "folder IN (SELECT id FROM folder WHERE path >= ? AND path < ?)"
    itself = "(folder = (SELECT id FROM folder WHERE path = ?) AND name = ?)"
    return f"({within} OR {itself})", (*below(place)[:2], *split(os.fsencode(place)))
