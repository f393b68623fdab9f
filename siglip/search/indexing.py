"""Folders -> a library brought up to date: walk, compare, decode and embed what is new, commit in batches.

A kill at any moment loses at most the batch in hand: vectors are on disk before the commit that names them.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from siglip.errors import LibraryError, UnreadableImage
from siglip.search.catalogue import Catalogue, FileRow, Image, Space, below
from siglip.search.media import kind_of_media
from siglip.search.reading import Picture, hash_file, pictures_in, pictures_of_media, read_file
from siglip.search.thumbs import Thumbs
from siglip.search.vectors import append, row_seal
from siglip.search.walk import Found, Walk

if TYPE_CHECKING:
    from siglip.embedder import Embedder

COMMIT_S = 30.0
_LOCK = "lock"
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
        undone = digests_undone(self.catalogue, self.space.id)
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
                self.catalogue.write("UPDATE file SET missing_since = ? WHERE path = ?", [(now, path) for path in gone])
                self.catalogue.write("UPDATE file SET missing_since = NULL WHERE path = ?", [(path,) for path in back])
        if unique:
            self._done = {digest for (digest,) in self.catalogue.rows("SELECT digest FROM image")} - undone
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
        rows = enumerate(zip(ids, stored, strict=True), start=space.rows)
        catalogue.write(
            "INSERT INTO vector(space, row, image, seal) VALUES (?, ?, ?, ?)",
            [(space.id, row, image, row_seal(image, vector)) for row, (image, vector) in rows],
        )
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


def digests_undone(catalogue: Catalogue, space: int) -> set[bytes]:
    """Files whose pictures could have vectors in this space and have none; nearly always there are few."""
    vector = "EXISTS (SELECT 1 FROM vector v WHERE v.image = i.id AND v.space = ?)"
    lacking = catalogue.rows(
        "SELECT i.digest FROM image i LEFT JOIN vector v ON v.image = i.id AND v.space = ? "
        "WHERE v.image IS NULL AND i.error IS NULL",
        (space,),
    )
    unknown = catalogue.rows("SELECT digest FROM file f WHERE NOT EXISTS (SELECT 1 FROM image WHERE digest = f.digest)")
    # a film is done when one of its pictures is
    digests = list({digest for (digest,) in lacking})
    films = catalogue.rows_for(f"SELECT digest FROM image i WHERE {vector} AND digest IN KEYS", digests, (space,))
    return {*digests, *(digest for (digest,) in unknown)} - {digest for (digest,) in films}


def compare(
    catalogue: Catalogue, root: Path, exclude: Sequence[str], undone: set[bytes], report: IndexReport
) -> Changes | None:
    """A folder as it is against the catalogue; None, and a note, where nothing may be concluded from it.

    Nearly all files are as they were, so sets of (path, size, time) are compared, not one file after the other.
    """
    known, missing, unread = catalogue.files_under(root, undone)
    present = len(known) + len(unread)
    walk = Walk(root, exclude)
    changes = Changes([], [], [])
    count = 0
    for files in walk:
        same = known.intersection(files)
        known -= same
        count += len(files)
        report.unchanged += len(same)
        if len(same) < len(files):
            for found in sorted(files):
                if found in missing:
                    changes.back.append(found[0])
                elif found not in same:
                    changes.work.append(found)
    walk.passed.warn(root)
    if walk.lacking:
        told = ", ".join(f"{number} {kind} files" for kind, number in walk.lacking.most_common())
        report.notes.append(f"{root}: {told} are passed over; pip install 'siglip[media]' to index them")
    report.found += count
    report.failed.update(walk.failed)
    if str(root) in walk.failed:
        return None
    if not count and present:
        what = "is empty" if root.exists() else "is not there"
        report.notes.append(
            f"{root} {what}: its {present} pictures stay in the library, in case it is not mounted; "
            f"`siglip library forget {root}` forgets them"
        )
        return None
    if not root.exists():
        report.failed[str(root)] = "no such file or folder"
        return None
    blind = [below(Path(folder)) for folder in walk.failed]
    for path in {path for path, _, _ in (*known, *unread)} - {path for path, _, _ in changes.work}:
        if not any(low <= path < high or path == itself for low, high, itself in blind):
            changes.gone.append(path)
    return changes


def forget_gone(catalogue: Catalogue, thumbs: Thumbs, *, dry_run: bool, under: Path | None = None) -> int:
    """Forget files that are gone, or all `under` a folder, and pictures of which no file is left; return how many.

    Their vectors stay in the file as rows that nothing names.
    """
    if under is None:
        condition, values = "missing_since IS NOT NULL", ()
    else:
        condition, values = "((path >= ? AND path < ?) OR path = ?)", below(under)
    orphans = f"SELECT id, digest FROM image WHERE digest NOT IN (SELECT digest FROM file WHERE NOT ({condition}))"
    with catalogue.writing():
        rows = catalogue.rows(orphans, values)
        if not dry_run:
            catalogue.rows(f"DELETE FROM file WHERE {condition}", values)
            catalogue.write("DELETE FROM vector WHERE image = ?", [(number,) for number, _ in rows])
            catalogue.write("DELETE FROM image WHERE id = ?", [(number,) for number, _ in rows])
    if not dry_run:
        thumbs.forget(digest.hex() for _, digest in rows)
    return len(rows)
