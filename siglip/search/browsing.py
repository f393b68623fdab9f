"""A library -> its pictures without a question: in an order, by what they are kept as, and the file of one of them."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from siglip.errors import InputError, UnreadableImage
from siglip.search.catalogue import Catalogue
from siglip.search.library import Library
from siglip.search.reading import read_file
from siglip.search.schema import PICTURES, Image
from siglip.search.where import parse_where

Order = Literal["newest", "oldest", "name", "largest"]
_WHEN = "coalesce(i.taken, strftime('%Y-%m-%dT%H:%M:%S', max(f.mtime_ns) / 1000000000, 'unixepoch', 'localtime'))"
_ORDERS: dict[Order, str] = {
    "newest": f"{_WHEN} DESC",
    "oldest": _WHEN,
    "name": "min(f.path)",
    "largest": "max(f.size) DESC",
}
_OF_PICTURES = f"FROM {PICTURES} WHERE i.error IS NULL"
# an indexing process that has not written for so long is not there any more; it writes twice as often
_SILENT_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """How many pictures (or files, for folders) there are in each folder, of each format, and of each year."""

    folders: dict[str, int]
    formats: dict[str, int]
    years: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a process that indexes has done of what it has to do, in files."""

    done: int
    total: int


def browse(
    library: Library, *, where: str | None = None, order: Order = "newest", top: int = 100, page: int = 1
) -> tuple[int, list[tuple[Image, list[str]]]]:
    """How many pictures there are, and one page of them with their paths. Raises InputError and LibraryError.

    Time is when a picture was taken, else when its file was last changed.
    """
    if top < 1 or page < 1:
        raise InputError(f"top and page count from 1, got top={top} and page={page}")
    condition = parse_where(where) if where is not None else None
    kept = f"{_OF_PICTURES} AND ({condition.sql})" if condition is not None else _OF_PICTURES
    values = condition.values if condition is not None else ()
    catalogue = library.catalogue
    with catalogue.reading():
        ((total,),) = catalogue.rows(f"SELECT count(DISTINCT i.id) {kept}", values)
        ids = [
            row[0]
            for row in catalogue.rows(
                f"SELECT i.id {kept} GROUP BY i.id ORDER BY {_ORDERS[order]}, i.id LIMIT ? OFFSET ?",
                (*values, top, top * (page - 1)),
            )
        ]
        return total, _named(catalogue, ids)


def picture(library: Library, digest: str) -> tuple[Image, list[str]] | None:
    """One picture of the library and where it lies, None if no file has this digest."""
    catalogue = library.catalogue
    with catalogue.reading():
        rows = catalogue.rows(f"SELECT i.id {_OF_PICTURES} AND i.digest = ?", (bytes.fromhex(digest),))
        return next(iter(_named(catalogue, [row[0] for row in rows[:1]])), None)


def original(library: Library, digest: str) -> tuple[str, bytes] | None:
    """The path and the bytes of a picture's file, if one is still there that holds just what was indexed."""
    for path in library.catalogue.paths([digest])[0].get(digest, []):
        try:
            row, data = read_file(os.fsdecode(path))
        except UnreadableImage:
            continue
        if row.digest.hex() == digest:
            return os.fsdecode(path), data
    return None


def contents(library: Library) -> Contents:
    """What the filters of a page can offer, most pictures first."""
    catalogue = library.catalogue
    with catalogue.reading():
        paths = catalogue.rows(f"SELECT f.path {_OF_PICTURES}")
        formats = catalogue.rows(f"SELECT i.format, count(DISTINCT i.id) {_OF_PICTURES} GROUP BY i.format")
        years = catalogue.rows(f"SELECT substr({_WHEN}, 1, 4) {_OF_PICTURES} GROUP BY i.id")
    folders = Counter(str(Path(os.fsdecode(path)).parent) for (path,) in paths)
    return Contents(
        folders=dict(folders.most_common()),
        formats=dict(sorted(((kind, count) for kind, count in formats if kind), key=lambda item: -item[1])),
        years=dict(sorted(Counter(year for (year,) in years).items(), reverse=True)),
    )


def progress(catalogue: Catalogue) -> Progress | None:
    """How far a process is that indexes now, None if there is none."""
    told = catalogue.meta("indexing")
    if told is None:
        return None
    done, total, at = told.split()
    return Progress(done=int(done), total=int(total)) if time.time() - float(at) < _SILENT_S else None


def _named(catalogue: Catalogue, ids: Sequence[int]) -> list[tuple[Image, list[str]]]:
    """Pictures in the order of their ids; damaged ones are left out."""
    images, _ = catalogue.images(ids)
    found = [images[number] for number in ids if number in images]
    paths, _ = catalogue.paths([image.digest for image in found])
    return [(image, [os.fsdecode(path) for path in paths[image.digest]]) for image in found if paths.get(image.digest)]
