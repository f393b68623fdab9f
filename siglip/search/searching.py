"""A unit vector -> the pictures of a library nearest to it, as hits: filters, damaged rows and rows of nothing."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from siglip.errors import LibraryError
from siglip.search.book import Book, book_of, rows_of
from siglip.search.catalogue import Catalogue
from siglip.search.null import SURE
from siglip.search.schema import FURTHER, PICTURES, Image, Space
from siglip.search.vectors import EXACT_ROWS, Vectors, is_sound, load_codes
from siglip.search.where import Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One picture that was found. `paths` are all files that hold it, `path` the first; `rank` counts from 1.

    `alike` are files of further hits that look the same, where these were folded (see siglip.search.duplicates).

    `score` is the cosine to the query, `probability` the model's own: the sigmoid of t * cosine + b. `confidence` is
    the share of things absent from the library whose nearest picture is farther (see siglip.search.null), the lowest
    of the query's added texts; None where it has none or adds a picture, and where the library is not yet measured.
    """

    path: str
    score: float
    probability: float
    confidence: float | None = None
    rank: int
    digest: str
    paths: tuple[str, ...]
    image: Image
    alike: tuple[str, ...] = ()

    @property
    def sure(self) -> bool:
        """Whether this counts as a find: a confidence of at least SURE, or no confidence to go by."""
        return self.confidence is None or self.confidence >= SURE


class Searcher:
    """The active space of a catalogue as it is now; reads anew when it has changed. Used from any thread."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.notes = [*catalogue.notes]
        self._folder = catalogue.path.parent
        self._state: tuple[Space, Vectors] | None = None
        self._book: tuple[object, Book] = (None, np.zeros((0, 2), np.uint32))
        self._filtered: tuple[object, Int64[np.ndarray, " rows"]] = (None, np.zeros(0, np.int64))

    def state(self) -> tuple[Space, Vectors]:
        """The space that answers and its vectors; raises LibraryError while there is none."""
        with self.catalogue.lock:
            space = self.catalogue.active_space()
            if space is None:
                raise LibraryError(f"the library {self._folder} holds no pictures yet; `siglip index FOLDER` adds some")
            # a file that was cut short may have been filled again
            state = self._state
            if state is None or state[0] != space or len(state[1]) < space.rows or not state[1].is_whole():
                state = self._state = space, self._opened(space)
            return state

    def _opened(self, space: Space) -> Vectors:
        before = self._state
        if before is not None and before[0].codes_crc == space.codes_crc and before[0].id == space.id:
            codes = before[1].codes
        else:
            codes = load_codes(codes_file(self._folder, space), space.codes_rows, space.codes_crc)
            if codes is None and space.codes_rows:
                self.note("the search codes are missing or damaged, or turbovec is not installed: searching is exact "
                          "but slower; the next `siglip index` makes them anew")  # fmt: skip
        vectors = Vectors(self._folder / space.vectors, space.dim, space.rows, codes=codes, rescored=space.rescored)
        if len(vectors) < space.rows:
            self.note(f"{space.vectors} is cut short: {space.rows - len(vectors)} pictures cannot be found until the "
                      "next `siglip index` embeds them again")  # fmt: skip
        elif len(vectors) <= EXACT_ROWS:
            self._look_over(space, vectors, first=before is None)
        return vectors

    def _look_over(self, space: Space, vectors: Vectors, *, first: bool) -> None:
        """A small library is checked throughout: a damaged row, or place in an index, could also hide a picture."""
        if first and self.catalogue.faults():
            self.note(f"{self.catalogue.path} is damaged: pictures may be missing; `siglip library check` mends it, or "
                      "tells what to do")  # fmt: skip
        book = self.book(space)[: len(vectors)]
        bad = sum(not is_sound(book[row], vectors.array[row]) for row in np.flatnonzero(book[:, 0]).tolist())
        if bad:
            self.note(_damaged(bad, "vectors"))

    def note(self, text: str) -> None:
        """Something the user should know, once."""
        if text not in self.notes:
            self.notes.append(text)

    def book(self, space: Space) -> Book:
        """Whose each row is; kept until the catalogue changes."""
        asked = space.id, space.rows, self.catalogue.version()
        if self._book[0] != asked:
            self._book = asked, book_of(self.catalogue, space)
        return self._book[1]

    def vector_of(self, digest: bytes) -> Float32[np.ndarray, " dim"] | None:
        """That of a picture, of a film the first that has one; None where there is none that is sound."""
        with self.catalogue.reading():
            space, vectors = self.state()
            book = self.book(space)[: len(vectors)]
            images, _ = self.catalogue.images(self.catalogue.ids([digest]).get(digest, []))
            for image in sorted(images.values(), key=lambda image: image.frame):
                for row in rows_of(book, [image.id]).tolist():
                    if is_sound(book[row], vectors.array[row]):
                        return vectors.take(np.array([row]))[0]
        return None

    def rows_where(self, space: Space, where: Where) -> Int64[np.ndarray, " rows"]:
        """Rows of pictures with a file for which the filter holds, ascending; kept until the catalogue changes."""
        asked = space.id, where, self.catalogue.version()
        if self._filtered[0] != asked:
            found = self.catalogue.rows(
                " UNION ALL ".join(f"SELECT i.id FROM {files} WHERE {where.sql}" for files in (PICTURES, FURTHER)),
                where.values * 2,
            )
            images = self.book(space)[:, 0]
            kept = np.zeros(1 + int(images.max(initial=0)), bool)
            ids = np.fromiter((row[0] for row in found), np.int64, len(found))
            kept[ids[ids < len(kept)]] = True
            kept[0] = False
            self._filtered = asked, np.flatnonzero(kept[images])
        return self._filtered[1]

    def hits(
        self, query: Float32[np.ndarray, " dim"], count: int, *, where: Where | None = None, least: float = 0.0,
        without: str | None = None,
    ) -> list[Hit]:  # fmt: skip
        """The `count` nearest pictures with a probability of at least `least`, best first, each file once.

        Fewer only where no more exist. `without` is the digest of a picture that is left out.
        """
        with self.catalogue.reading():
            space, vectors = self.state()
            among = None
            if where is not None:  # the file may have been cut short
                among = self.rows_where(space, where)
                among = among[: np.searchsorted(among, len(vectors))]
        considered = len(vectors) if among is None else len(among)
        wanted = min(considered, count + 32)
        while considered:
            rows, scores = vectors.nearest(query[None], wanted, among=among)[0]
            hits = self._named(space, vectors, rows, scores, least=least, without=without, where=where)
            weakest = _sigmoid(space.scale * float(scores[-1]) + space.bias) if len(scores) else 0.0
            if len(hits) >= count or wanted >= considered or weakest < least:
                return hits[:count]
            wanted = min(considered, 2 * wanted)  # rows of pictures that are gone took the place of others
        return []

    def vectors_of(self, hits: Sequence[Hit]) -> dict[int, Float32[np.ndarray, " dim"]]:
        """The vectors of hits by the id of their picture; one that was forgotten since has none."""
        with self.catalogue.reading():
            space, vectors = self.state()
            book = self.book(space)[: len(vectors)]
            rows = rows_of(book, [hit.image.id for hit in hits])
        return dict(zip(book[:, 0][rows].tolist(), vectors.take(rows), strict=True))

    def _named(
        self, space: Space, vectors: Vectors, rows: Int64[np.ndarray, " n"], scores: Float32[np.ndarray, " n"],
        *, least: float, without: str | None, where: Where | None,
    ) -> list[Hit]:  # fmt: skip
        """Hits of these rows, in their order; rows that nothing names any more and damaged ones are left out."""
        with self.catalogue.reading():
            book = self.book(space)
            named = [row for row in rows.tolist() if book[row, 0]]
            sound = {row: int(book[row, 0]) for row in named if is_sound(book[row], vectors.array[row])}
            images, bad_images = self.catalogue.images(list(sound.values()))
            paths, bad_files = self.catalogue.paths([image.digest for image in images.values()])
        if bad := len(named) - len(sound) + bad_images + bad_files:
            self.note(_damaged(bad, "rows"))
        hits: list[Hit] = []
        seen = {without}
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            image = images.get(sound.get(row, -1))
            probability = _sigmoid(space.scale * score + space.bias)
            if image is None or image.digest in seen or image.digest not in paths or probability < least:
                continue
            seen.add(image.digest)
            where_it_lies = tuple(os.fsdecode(path) for path in paths[image.digest])
            hits.append(
                Hit(path=where_it_lies[0], score=score, probability=probability, rank=len(hits) + 1,
                    digest=image.digest, paths=where_it_lies, image=image)
            )  # fmt: skip
        return hits


def codes_file(folder: Path, space: Space) -> Path:
    """Where the codes of a space lie; those of more rows lie beside them until the catalogue names them."""
    return folder / f"codes-{space.id}-{space.codes_rows}.tv"


def by_date(hits: Sequence[Hit]) -> list[Hit]:
    """Newest first, those without a date last; ranks stay as they are."""
    return sorted(sorted(hits, key=lambda hit: hit.rank), key=lambda hit: hit.image.taken or "", reverse=True)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _damaged(count: int, what: str) -> str:
    return f"{count} {what} of the library are damaged and left out; `siglip library check` mends them"
