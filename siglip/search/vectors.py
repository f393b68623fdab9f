"""Unit vectors on disk: append-only rows of float16, and the rows nearest to a query. Knows the vector engine, alone.

Up to EXACT_ROWS rows are compared one by one. Of more, 4-bit codes of all rows are scanned (turbovec) and the best are
compared exactly; text lies far from all pictures, so an index that visits a part of them would miss what a text asks
for. Codes are derived: built from the rows, checked by a CRC when loaded, and done without where they are missing.
"""

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int64, UInt32

from siglip.files import named_in_errors, replacing

EXACT_ROWS = 20_000
# so few rows left by a filter cost less one by one than a scan of all codes
FEW_ROWS = 1_000
RESCORED = 200
_CHUNK_ROWS = 16_384
_SAMPLE_ROWS = 4_096
_MAX_RESCORED = 3_200
_READ_BYTES = 2**22

Found = tuple[Int64[np.ndarray, " found"], Float32[np.ndarray, " found"]]


def append(path: Path, rows: int, vectors: Float32[np.ndarray, "n dim"]) -> Float16[np.ndarray, "n dim"]:
    """Write vectors behind the first `rows` rows, cutting off what lies there, and wait until they are on disk."""
    stored = np.ascontiguousarray(vectors, dtype="<f2")
    with named_in_errors(path), path.open("r+b" if path.exists() else "x+b") as file:
        file.seek(rows * stored.shape[1] * 2)
        file.truncate()
        file.write(stored.tobytes())
        file.flush()
        getattr(os, "fdatasync", os.fsync)(file.fileno())
    return stored


def row_seal(image: int, row: Float16[np.ndarray, " dim"]) -> int:
    """A CRC over a stored row and the id of the picture it belongs to."""
    return zlib.crc32(row.tobytes(), image & 0xFFFFFFFF)


def is_sound(told: UInt32[np.ndarray, "2"], row: Float16[np.ndarray, " dim"]) -> bool:
    """Whether a stored row is the one that was sealed for a picture; `told` is the picture's id and the seal."""
    return row_seal(int(told[0]), row) == int(told[1])


class Vectors:
    """The rows of one space: `array`, f16[rows, dim], mapped from the file and read-only.

    Where the file is shorter than `rows`, `array` holds what is there. `codes` are those of its first rows, or None.
    """

    def __init__(self, path: Path, dim: int, rows: int, *, codes: Any = None, rescored: int = RESCORED) -> None:
        held = path.stat().st_size // (2 * dim) if path.exists() else 0
        rows = min(rows, held)
        self.array: Float16[np.ndarray, "rows dim"] = (
            np.memmap(path, dtype="<f2", mode="r", shape=(rows, dim)) if rows else np.zeros((0, dim), "<f2")
        )
        self._path = path
        self.codes = codes if codes is not None and len(codes) <= rows else None
        self.rescored = rescored
        self._wide: Float32[np.ndarray, "rows dim"] | None = None

    def __len__(self) -> int:
        return len(self.array)

    def is_whole(self) -> bool:
        """Whether the file still holds all rows: touching one that was cut off would end the process by SIGBUS."""
        try:
            return self._path.stat().st_size >= self.array.nbytes
        except FileNotFoundError:
            return True  # its rows stay as long as they are mapped

    @property
    def uncoded(self) -> int:
        """Rows that no code covers."""
        return len(self) - (len(self.codes) if self.codes is not None else 0)

    def take(self, rows: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n dim"]:
        """Some rows in float32."""
        return np.asarray(self.array[rows], dtype=np.float32)

    def nearest(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        count: int,
        *,
        among: Int64[np.ndarray, " rows"] | None = None,
    ) -> list[Found]:
        """For each query the `count` nearest rows and their cosines, best first, equals in the order of rows.

        With `among`, ascending row numbers, only these are considered.
        """
        considered = len(self) if among is None else len(among)
        if self.codes is None or considered <= FEW_ROWS:
            return self.exact(queries, count, among=among)
        return self._by_codes(self.codes, queries, count, among)

    def exact(
        self,
        queries: Float32[np.ndarray, "queries dim"],
        count: int,
        *,
        among: Int64[np.ndarray, " rows"] | None = None,
    ) -> list[Found]:
        """The same by comparing every row; the truth that codes are measured against."""
        rows = np.arange(len(self)) if among is None else among
        scores = self._scores(queries, among)
        return [_best(rows, scores[:, query], count) for query in range(len(queries))]

    def _by_codes(
        self,
        codes: Any,
        queries: Float32[np.ndarray, "queries dim"],
        count: int,
        among: Int64[np.ndarray, " rows"] | None,
    ) -> list[Found]:
        coded = len(codes)
        mask = None
        tail = np.arange(coded, len(self))
        if among is not None:
            mask = np.zeros(coded, dtype=bool)
            mask[among[among < coded]] = True
            tail = among[among >= coded]
        pool = min(max(self.rescored, 2 * count), coded)
        _, candidates = codes.search(np.ascontiguousarray(queries), pool, mask=mask)
        tail_scores = self._scores(queries, tail)
        found: list[Found] = []
        for query, rows in enumerate(np.asarray(candidates, dtype=np.int64)):
            rows = np.sort(rows)
            with np.errstate(all="ignore"):  # in a damaged row there may be any numbers
                scores = self.take(rows) @ queries[query]
            found.append(_best(np.concatenate([rows, tail]), np.concatenate([scores, tail_scores[:, query]]), count))
        return found

    def _scores(
        self, queries: Float32[np.ndarray, "queries dim"], rows: Int64[np.ndarray, " rows"] | None
    ) -> Float32[np.ndarray, "n queries"]:
        if rows is None and len(self) <= EXACT_ROWS:
            if self._wide is None:
                self._wide = self.array.astype(np.float32)
            with np.errstate(all="ignore"):  # in a damaged row there may be any numbers
                return self._wide @ queries.T
        count = len(self) if rows is None else len(rows)
        scores = np.empty((count, len(queries)), np.float32)
        for start in range(0, count, _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            block = self.array[part] if rows is None else self.array[rows[part]]
            with np.errstate(all="ignore"):
                scores[part] = np.asarray(block, dtype=np.float32) @ queries.T
        return scores


# ---- codes


def has_engine() -> bool:
    """Whether the library that makes and scans codes is installed."""
    return find_spec("turbovec") is not None


def build_codes(vectors: Vectors, path: Path) -> tuple[Any, int]:
    """Code all rows into a new file; return the codes and the file's CRC."""
    from turbovec import TurboQuantIndex

    count, dim = vectors.array.shape
    codes: Any = TurboQuantIndex(dim, 4)
    sample = np.random.default_rng(0).permutation(count)[:_SAMPLE_ROWS]
    codes.calibrate(_finite(vectors.take(np.sort(sample))))
    for start in range(0, count, _CHUNK_ROWS):
        codes.add(_finite(np.asarray(vectors.array[start : start + _CHUNK_ROWS], dtype=np.float32)))
    with replacing(path) as temporary:
        codes.write(str(temporary), durable=False)
        crc = _file_crc(temporary)
    return codes, crc


def _finite(rows: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n dim"]:
    """The rows with 0 for what is no number, as a damaged row may hold; the engine would refuse all."""
    return np.nan_to_num(rows, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def load_codes(path: Path, rows: int, crc: int) -> Any:
    """The codes in a file; None if it is absent, not the one of this CRC, or the engine is not installed."""
    if not rows or not has_engine() or not path.is_file():
        return None
    from turbovec import TurboQuantIndex

    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(_file_crc, path)
        try:
            codes: Any = TurboQuantIndex.load(str(path))
        except (ValueError, OSError):
            return None
        return codes if checked.result() == crc and len(codes) == rows else None


def is_as_written(path: Path, crc: int) -> bool:
    """Whether a file of codes is there and has this CRC, which costs a third of loading it."""
    return path.is_file() and _file_crc(path) == crc


def enough_rescored(vectors: Vectors, kinds: Sequence[Float32[np.ndarray, "_ dim"]]) -> tuple[int, list[float]]:
    """How many candidates must be compared exactly so that 99 % of the true 100 best are among them.

    `kinds` are queries of different kinds, such as texts and pictures; each kind must reach it. Returns the number, a
    doubling of RESCORED, and the share found for each kind.
    """
    truth = [vectors.exact(queries, 100) for queries in kinds]
    rescored = RESCORED
    while True:
        vectors.rescored = rescored
        shares = [
            float(np.mean([np.isin(rows, found).mean() for (rows, _), (found, _) in zip(true, got, strict=True)]))
            for true, queries in zip(truth, kinds, strict=True)
            for got in [vectors.nearest(queries, 100)]
        ]
        if min(shares) >= 0.99 or rescored >= _MAX_RESCORED:
            return rescored, shares
        rescored *= 2


def _file_crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


def _best(rows: Int64[np.ndarray, " n"], scores: Float32[np.ndarray, " n"], count: int) -> Found:
    """The `count` highest scores; equal ones in the order of rows, also at the edge."""
    if count < len(scores):
        edge = np.partition(scores, len(scores) - count)[len(scores) - count]
        kept = np.flatnonzero(scores >= edge)
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:count]
    return rows[order].astype(np.int64), scores[order]
