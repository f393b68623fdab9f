"""A library of pictures in one folder: index folders into it, search it, look after it."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float32, Int64

from siglip.errors import InputError, LibraryError, UnreadableImage
from siglip.pictures import cores
from siglip.search.book import book_of, images_there
from siglip.search.catalogue import Catalogue, alone
from siglip.search.encoder import Encoder
from siglip.search.exchange import ImportReport, export_vectors, import_vectors
from siglip.search.indexing import Indexing, IndexReport, compare, forget_gone, under_place, undone_in
from siglip.search.query import Term, combined, parse_query
from siglip.search.reading import thumbnail_of
from siglip.search.schema import PICTURES, Space
from siglip.search.searching import Hit, Searcher, by_date
from siglip.search.thumbs import Thumbs
from siglip.search.upkeep import (
    absence,
    check,
    compact,
    measure_absence,
    refresh_codes,
    settle,
    sweep,
    switch_space,
    target_space,
)
from siglip.search.vectors import Vectors
from siglip.search.where import parse_where

if TYPE_CHECKING:
    from siglip.embedder import Embedder

StrPath = str | Path
_FILES = ("file", "gone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a library holds: counts of pictures, and of files now there, gone, and broken."""

    folder: str
    model: str | None
    fingerprint: str | None
    pictures: int
    files: int
    gone: int
    broken: int
    roots: tuple[str, ...]
    dim: int | None
    rescored: int | None
    coded: int
    bytes: int


class Library:
    """Pictures that can be found by words or pictures. Reading is safe from many threads and beside a writer.

    Made by `Library.open`. `model` is a name or an Embedder; it is loaded when something new must be embedded.
    `notes` gathers what a user should know, such as damage that was worked around.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.folder = folder
        self.thumbs = Thumbs(folder)
        self._searcher: Searcher | None = None
        if (folder / "catalogue.db").exists():
            self._searcher = Searcher(Catalogue(folder))
        self.encoder = encoder
        if encoder.model is None and self._searcher is not None:
            active = self._searcher.catalogue.active_space()
            encoder.name = active.model if active is not None else encoder.name

    @classmethod
    def open(
        cls,
        folder: StrPath | None = None,
        *,
        model: "str | Embedder | None" = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int = 32,
    ) -> "Library":
        """The library in `folder`, by default the user's own; where there is none, `index` makes one.

        `model` None is the model that the library was indexed with, "nano" for a new one. Raises LibraryError for a
        folder that holds something else, a damaged catalogue, or one of a newer version.
        """
        place = Path(folder).expanduser().absolute() if folder is not None else default_folder()
        if place.exists() and not place.is_dir():
            raise LibraryError(f"{place} is a file; a library is a folder")
        if place.is_dir() and not (place / "catalogue.db").exists() and any(place.iterdir()):
            # what is left when a first run is killed
            ours = ("lock", "thumbs.db", ".catalogue.db.")
            if any(not entry.name.startswith(ours) for entry in place.iterdir()):
                raise LibraryError(
                    f"{place} is a folder with other things and no library; name an empty or a new folder, and the "
                    "folders with pictures to `siglip index`"
                )
        return cls(place, Encoder(model, device=device, dtype=dtype, batch_size=batch_size))

    def close(self) -> None:
        self.thumbs.close()
        if self._searcher is not None:
            self._searcher.catalogue.close()

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def searcher(self) -> Searcher:
        """Raises LibraryError while nothing was indexed."""
        if self._searcher is None:
            self._searcher = Searcher(Catalogue(self.folder))
        return self._searcher

    @property
    def catalogue(self) -> Catalogue:
        return self.searcher.catalogue

    @property
    def notes(self) -> list[str]:
        return self._searcher.notes if self._searcher is not None else []

    @property
    def space(self) -> Space:
        """The space that answers: its model, temperature and bias."""
        return self.searcher.state()[0]

    @property
    def vectors(self) -> Vectors:
        """The rows of the active space; `.array` is the mapped file, f16[rows, dim]."""
        return self.searcher.state()[1]

    def image_ids(self) -> Int64[np.ndarray, " rows"]:
        """For each row of `vectors` the id of its picture, -1 where that was forgotten or no file of it is there."""
        with self.catalogue.reading():
            space, vectors = self.searcher.state()
            ids = self.searcher.book(space)[:, 0][: len(vectors)].astype(np.int64)
            return np.where(np.isin(ids, images_there(self.catalogue)), ids, -1)

    def embedder(self) -> "Embedder":
        """The model, loaded now if it was not."""
        return self.encoder.embedder()

    def index(
        self,
        roots: Iterable[StrPath] = (),
        *,
        exclude: Sequence[str] | None = None,
        prune: bool = False,
        dry_run: bool = False,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> IndexReport:
        """Bring the library up to date with folders, by default all that were indexed before; none is forgotten.

        `exclude` are patterns of names or paths to leave out below these folders; None keeps those given before.
        `prune` forgets pictures whose files are gone. `dry_run` changes nothing and tells what would be read.
        `progress` is called with files done and to do. Raises LibraryError, also while another process writes.
        """
        started = monotonic()
        if dry_run:
            report = self._compare(roots, exclude)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder), Catalogue(self.folder, create=True) as catalogue:
                report = self._index(catalogue, roots, exclude, threads or cores(), progress)
                if prune:
                    report.forgotten = forget_gone(catalogue, self.thumbs, dry_run=False)
                    compact(catalogue)
                catalogue.pack()
                catalogue.checkpoint()
        report.seconds = monotonic() - started
        return report

    def _index(
        self, catalogue: Catalogue, roots: Iterable[StrPath], exclude: Sequence[str] | None, threads: int,
        progress: Callable[[int, int], None] | None,
    ) -> IndexReport:  # fmt: skip
        notes = settle(catalogue)
        chosen = _roots(catalogue, roots, exclude)
        space = target_space(catalogue, self.encoder)
        with catalogue.writing():
            for root, patterns in chosen.items():
                catalogue.set_root(root, patterns)
        indexing = Indexing(catalogue, self.thumbs, space, lambda: self.encoder.embedder_of(space), threads=threads)
        report = indexing.run(chosen, progress=progress)
        report.notes = notes + report.notes
        self._finish(catalogue, indexing.space, report.notes)
        return report

    def _finish(self, catalogue: Catalogue, space: Space, notes: list[str]) -> None:
        """After rows were added to a space: what is derived from them, and whether it answers now."""
        refresh_codes(catalogue, space, self.encoder.loaded)
        notes += switch_space(catalogue, space)
        sweep(catalogue)
        measure_absence(catalogue, self.encoder)

    def _compare(self, roots: Iterable[StrPath], exclude: Sequence[str] | None) -> IndexReport:
        report = IndexReport(dry_run=True)
        space = self.catalogue.active_space()
        undone = undone_in(self.catalogue, space)
        for root, patterns in _roots(self.catalogue, roots, exclude).items():
            changes = compare(self.catalogue, root, patterns, undone, report)
            if changes is not None:
                report.to_read += len(changes.work)
                report.returned += len(changes.back)
                report.gone += len(changes.gone)
        return report

    def export_vectors(self, folder: StrPath) -> int:
        """Write vectors and paths to a folder that other programs read; see `exchange`. Returns the number of rows."""
        return export_vectors(self.searcher, Path(folder))

    def import_vectors(self, path: StrPath, *, progress: Callable[[int, int], None] | None = None) -> ImportReport:
        """Take in vectors of this library's model that were made elsewhere, without embedding; see `exchange`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder), Catalogue(self.folder, create=True) as catalogue:
            settle(catalogue)
            report, space = import_vectors(catalogue, self.encoder, Path(path), progress=progress)
            self._finish(catalogue, space, report.notes)
        return report

    def status(self) -> Status:
        """Counts, roots and sizes."""
        catalogue = self.catalogue
        space = catalogue.active_space()
        files, gone = (catalogue.rows(f"SELECT count(*) FROM {table}")[0][0] for table in _FILES)
        ((broken,),) = catalogue.rows("SELECT count(*) FROM image WHERE error IS NOT NULL")
        pictures = int(np.count_nonzero(book_of(catalogue, space)[:, 0])) if space else 0
        return Status(
            folder=str(self.folder),
            model=space.model if space else None,
            fingerprint=space.fingerprint if space else None,
            pictures=pictures,
            files=files,
            gone=gone,
            broken=broken,
            roots=tuple(map(str, catalogue.roots())),
            dim=space.dim if space else None,
            rescored=space.rescored if space else None,
            coded=space.codes_rows if space else 0,
            bytes=sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file()),
        )

    def broken(self) -> dict[str, str]:
        """Files that could not be decoded, and why; they are tried again when they change."""
        rows = self.catalogue.rows(f"SELECT f.path, i.error FROM {PICTURES} WHERE i.error IS NOT NULL ORDER BY f.path")
        return {os.fsdecode(path): error for path, error in rows}

    def check(self, *, dry_run: bool = False) -> tuple[list[str], list[str]]:
        """Read everything against its checksums; see `upkeep.check`."""
        with nullcontext() if dry_run else alone(self.folder):
            return check(self.catalogue, self.thumbs, dry_run=dry_run)

    def prune(self, *, dry_run: bool = False) -> int:
        """Forget pictures whose files are gone, and vectors of models that no longer answer; return how many."""
        with alone(self.folder):
            count = forget_gone(self.catalogue, self.thumbs, dry_run=dry_run)
            if not dry_run:
                compact(self.catalogue)
        return count

    def forget(self, folder: StrPath, *, dry_run: bool = False) -> int:
        """Forget a folder (or file) and the pictures that lie nowhere else; return how many. No file is touched."""
        place = Path(folder).expanduser().absolute()
        with alone(self.folder):
            known = place in self.catalogue.roots()
            condition, values = under_place(place)
            listed = (
                self.catalogue.rows(f"SELECT 1 FROM {table} WHERE {condition} LIMIT 1", values) for table in _FILES
            )
            if not known and not any(listed):
                raise InputError(f"the library knows nothing of {place}; its folders are {_listed(self.catalogue)}")
            count = forget_gone(self.catalogue, self.thumbs, dry_run=dry_run, under=place)
            if not dry_run:
                with self.catalogue.writing():
                    self.catalogue.write("DELETE FROM root WHERE path = ?", [(os.fsencode(place),)])
        return count

    def thumbnail(self, digest: str, frame: int = 0) -> bytes | None:
        """A WebP file of at most 320 px; made anew if it was lost, None if the picture is not to be had."""
        kept = self.thumbs.get(digest, frame)
        if kept is not None:
            return kept
        for path in self.catalogue.paths([digest])[0].get(digest, []):
            with suppress(UnreadableImage):
                thumb = thumbnail_of(os.fsdecode(path), digest, frame)
                if thumb is not None:
                    self.thumbs.put([(digest, frame, thumb)])
                    return thumb
        return None

    def search(
        self,
        query: str = "",
        *,
        like: Sequence[StrPath] = (),
        not_like: Sequence[StrPath] = (),
        where: str | None = None,
        top: int = 20,
        page: int = 1,
        sort: Literal["score", "date"] = "score",
        min_probability: float = 0.0,
    ) -> list[Hit]:
        """The pictures that fit best: `top` of them, or the further ones of a later `page`; see `Hit.sure`.

        `query` as in `parse_query`; `like` and `not_like` are pictures to add or subtract; `where` as in
        `parse_where`. `sort` "date" shows the pictures of this page newest first. Raises InputError, LibraryError, and
        UnreadableImage for a picture of the query.
        """
        if top < 1 or page < 1:
            raise InputError(f"top and page count from 1, got top={top} and page={page}")
        condition = parse_where(where) if where is not None else None
        terms = parse_query(query, like=[*map(str, like)], not_like=[*map(str, not_like)])
        vectors = self.term_vectors(terms)
        hits = self.searcher.hits(combined(terms, vectors), top * page, where=condition, least=min_probability)
        hits = self.judged(hits[top * (page - 1) :], terms, vectors)
        return by_date(hits) if sort == "date" else hits

    def judged(
        self, hits: Sequence[Hit], terms: Sequence[Term], vectors: Float32[np.ndarray, "terms dim"]
    ) -> list[Hit]:
        """The hits with the confidence of the least sure added text; None where a picture is added, or nothing."""
        null = absence(self.catalogue, self.space)
        if null is None and self.catalogue.rows("SELECT 1 FROM meta WHERE key LIKE 'null-%'"):
            self.searcher.note("how sure a hit is cannot be told, as what was measured is damaged; run `siglip index`")
        texts = vectors[[term.weight > 0 for term in terms]]
        if null is None or not len(texts) or any(term.text is None and term.weight > 0 for term in terms):
            return [*hits]
        found = self.searcher.vectors_of(hits)
        return [
            replace(hit, confidence=min(null.confidence(float(text @ found[hit.image.id]), text) for text in texts))
            for hit in hits
            if hit.image.id in found
        ]

    def similar(
        self, picture: StrPath, *, where: str | None = None, top: int = 20, min_probability: float = 0.0
    ) -> list[Hit]:
        """The pictures most like one, which itself is left out; it need not be in the library."""
        condition = parse_where(where) if where is not None else None
        digest, vector = self.encoder.picture(self.searcher, str(picture))
        return self.searcher.hits(vector, top, where=condition, least=min_probability, without=digest)

    def term_vectors(self, terms: Sequence[Term]) -> Float32[np.ndarray, "terms dim"]:
        """Unit vectors of a parsed query. What was asked before, and pictures of the library, need no model."""
        texts = self.encoder.texts(self.searcher, [term.text for term in terms if term.text is not None])
        vectors = [
            texts[term.text] if term.text is not None else self.encoder.picture(self.searcher, str(term.picture))[1]
            for term in terms
        ]
        return np.stack(vectors)


def default_folder() -> Path:
    """SIGLIP_LIBRARY, or a folder among the user's data."""
    named = os.environ.get("SIGLIP_LIBRARY")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("siglip", appauthor=False) / "library"


def _roots(
    catalogue: Catalogue, roots: Iterable[StrPath], exclude: Sequence[str] | None
) -> dict[Path, tuple[str, ...]]:
    """The folders to index with what is left out below each; all that are known where none is given."""
    known = catalogue.roots()
    given = [Path(root).expanduser().absolute() for root in roots] or list(known)
    if not given:
        raise InputError("no folder is known yet; name one, such as `siglip index ~/Pictures`")
    absent = [str(root) for root in given if root not in known and not root.exists()]
    if absent:
        raise InputError(f"no file or folder {', '.join(absent)}; check the name")
    return {root: tuple(exclude) if exclude is not None else known.get(root, ()) for root in given}


def _listed(catalogue: Catalogue) -> str:
    return ", ".join(map(str, catalogue.roots())) or "none"
