"""Which picture each row of a vector file belongs to, and the seal of both; in the catalogue in blocks of rows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt32

from siglip.search.catalogue import Catalogue
from siglip.search.schema import BLOCK_ROWS, FURTHER, ROW_BYTES, ROW_TYPE, Space

# for each row of vectors the id of its picture, 0 for nobody, and the seal of both
Book = UInt32[np.ndarray, "rows 2"]


def book_of(catalogue: Catalogue, space: Space) -> Book:
    """All rows of a space; what a damaged block does not tell belongs to nobody."""
    found = np.zeros((space.rows, 2), ROW_TYPE)
    for number, data in catalogue.rows("SELECT number, rows FROM block WHERE space = ?", (space.id,)):
        if isinstance(data, bytes) and isinstance(number, int) and number >= 0:
            part = found[number * BLOCK_ROWS : (number + 1) * BLOCK_ROWS]
            told = _rows_in(data)[: len(part)]
            part[: len(told)] = told
    return found


def _rows_in(data: bytes) -> Book:
    return np.frombuffer(data[: len(data) // ROW_BYTES * ROW_BYTES], ROW_TYPE).reshape(-1, 2)


def write_rows(catalogue: Catalogue, space: int, first: int, rows: Book) -> None:
    """Say whose the rows from `first` on are; within `writing`."""
    for number in range(first // BLOCK_ROWS, -(-(first + len(rows)) // BLOCK_ROWS)):
        start = number * BLOCK_ROWS
        block = np.zeros((BLOCK_ROWS, 2), ROW_TYPE)
        kept = min(first + len(rows), start + BLOCK_ROWS) - start
        for (data,) in catalogue.rows("SELECT rows FROM block WHERE space = ? AND number = ?", (space, number)):
            told = _rows_in(data)[:BLOCK_ROWS]
            block[: len(told)] = told
            kept = max(kept, len(told))
        into = slice(max(0, first - start), min(BLOCK_ROWS, first + len(rows) - start))
        block[into] = rows[start + into.start - first : start + into.stop - first]
        catalogue.write("INSERT OR REPLACE INTO block VALUES (?, ?, ?)", [(space, number, block[:kept].tobytes())])


def unname_rows(catalogue: Catalogue, space: Space, rows: Int64[np.ndarray, " rows"]) -> None:
    """Let some rows belong to nobody; within `writing`."""
    book = book_of(catalogue, space)
    book[rows] = 0
    for number in np.unique(rows // BLOCK_ROWS).tolist():
        start = number * BLOCK_ROWS
        write_rows(catalogue, space.id, start, book[start : start + BLOCK_ROWS])


def forget_images(catalogue: Catalogue, images: Sequence[int]) -> None:
    """Remove pictures, and let their rows belong to nobody; within `writing`."""
    if not images:
        return
    for space in catalogue.spaces():
        unname_rows(catalogue, space, rows_of(book_of(catalogue, space), images))
    for table, key in (("still", "image"), ("image", "id")):
        catalogue.write(f"DELETE FROM {table} WHERE {key} = ?", [(number,) for number in images])


def rows_of(book: Book, images: Sequence[int]) -> Int64[np.ndarray, " found"]:
    """The rows of some pictures, ascending."""
    return np.flatnonzero(np.isin(book[:, 0], np.array(images, np.uint32)))


def images_there(catalogue: Catalogue) -> Int64[np.ndarray, " images"]:
    """The pictures of which a file is there."""
    found = catalogue.rows("SELECT DISTINCT image FROM file")
    found += catalogue.rows(f"SELECT s.image FROM {FURTHER}")
    return np.unique(np.fromiter((row[0] for row in found), np.int64, len(found)))
