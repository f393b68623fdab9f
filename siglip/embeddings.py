"""Embeddings: unit rows, what each is, what failed; in memory and in two files that other programs read too.

OUT.npy holds one float32 vector of length 1 a row; OUT.jsonl (or OUT.parquet) says of each row what it is and which
model made it. Both files appear complete, or not at all.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64
from numpy.lib.format import write_array_header_1_0

from siglip.errors import DataError, Failure, InputError
from siglip.files import replacing

_ROWS = (".jsonl", ".parquet")
Kind = Literal["image", "text"]
Row = tuple[str, Float32[np.ndarray, " dim"]]


class Maker:
    """The model that vectors are from: what it is called, and its fingerprint, or what computes that when asked for."""

    def __init__(self, name: str, fingerprint: str | Callable[[], str]) -> None:
        self.name, self._fingerprint = name, fingerprint

    @property
    def fingerprint(self) -> str:
        """Hex digest of weights, configuration and preparation; only vectors of equal ones can be compared."""
        if not isinstance(self._fingerprint, str):
            self._fingerprint = self._fingerprint()
        return self._fingerprint

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy for another process does not take the model along
        return Maker, (self.name, self.fingerprint)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Embeddings:
    """Unit rows of the good inputs, the positions of those in the input, and the failures. Also reads as an array.

    `names` say what each row is: a path, a web address, "image 3", or the text. `maker` is the model that made the
    rows, where that is known. Indexing and iterating give rows.
    """

    vectors: Float32[np.ndarray, "n dim"]
    indices: Int64[np.ndarray, " n"]
    failures: tuple[Failure, ...]
    names: tuple[str, ...]
    kind: Kind
    maker: Maker | None = None

    @property
    def fingerprint(self) -> str | None:
        """That of the model that made the rows, where it is known."""
        return None if self.maker is None else self.maker.fingerprint

    @property
    def shape(self) -> tuple[int, ...]:
        return self.vectors.shape

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.vectors[index]

    def __repr__(self) -> str:
        count, width = self.vectors.shape
        return f"Embeddings({count} vectors of width {width}, {len(self.failures)} failures)"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.vectors, dtype=dtype, copy=copy)

    def save(self, out: str | Path) -> None:
        """Write OUT.npy and OUT.jsonl, replacing older ones; OUT.parquet if `out` ends so.

        What failed is not written. Raises InputError, also for rows whose model is not known.
        """
        if self.maker is None:
            raise InputError(
                "it is not known which model made these vectors; embed again, or give that of an Embedder as `maker`"
            )
        with writing_vectors(*vector_files(out)) as write:
            rows = zip(self.names, self.vectors, strict=True)
            write(rows, self.vectors.shape[1], Origin(self.kind, self.maker.name, self.maker.fingerprint))

    @staticmethod
    def load(out: str | Path) -> "Embeddings":
        """Read what `save` or `siglip embed` wrote, under the same name. Raises DataError if the files do not fit."""
        vectors_file, rows_file = vector_files(out)
        if Path(out).suffix not in _ROWS and not rows_file.exists():
            rows_file = rows_file.with_suffix(".parquet")
        try:
            vectors = np.load(vectors_file, allow_pickle=False)
            rows: list[dict[str, Any]]
            if rows_file.suffix == ".parquet":
                import pyarrow.parquet as pq

                rows = pq.read_table(rows_file).to_pylist()
            else:
                with rows_file.open(encoding="utf-8") as stream:
                    rows = [json.loads(line) for line in stream]
            names = tuple(str(row["name"]) for row in rows)
            origins = {(row["kind"], row["fingerprint"]): str(row["model"]) for row in rows}
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise DataError(f"{vectors_file} and {rows_file} are not what `siglip embed` writes: {error}") from error
        if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(rows) or len(origins) > 1:
            raise DataError(
                f"{vectors_file} holds {vectors.dtype} {list(vectors.shape)} and {rows_file} {len(rows)} rows of "
                f"{len(origins)} models; expected float32 vectors, one a row, of one model; write both again"
            )
        if not origins:
            return Embeddings(vectors, np.arange(0), (), names, "image")
        (kind, made), name = origins.popitem()
        return Embeddings(vectors, np.arange(len(rows)), (), names, kind, None if made is None else Maker(name, made))


class Origin(NamedTuple):
    """What the rows of a file are, and the model that made them."""

    kind: Kind
    model: str
    fingerprint: str


# rows (name, unit vector), the width of the vectors, where they come from -> the number of rows
Write = Callable[[Iterable[Row], int, Origin], int]


def vector_files(out: str | Path, suffix: str = "jsonl") -> tuple[Path, Path]:
    """OUT.npy and the file of its rows, by `out` with or without a suffix; that of the rows goes before `suffix`."""
    out = Path(out)
    stem = out.with_suffix("") if out.suffix in (".npy", *_ROWS) else out
    return Path(f"{stem}.npy"), Path(f"{stem}{out.suffix if out.suffix in _ROWS else '.' + suffix}")


@contextmanager
def writing_vectors(vectors_file: Path, rows_file: Path) -> Generator[Write]:
    """Open both files that `vector_files` names; yields what writes them, row by row so that memory does not grow.

    A place that cannot be written is told here, before the work. Raises InputError.
    """
    for file in (vectors_file, rows_file):
        if file.is_dir():
            raise InputError(f"{file} is a folder; choose another name")
    if rows_file.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError("Parquet files need pyarrow; pip install 'siglip[parquet]', or write JSON lines instead")
    with replacing(rows_file) as new_rows, replacing(vectors_file) as new_vectors:

        def write(rows: Iterable[Row], dim: int, origin: Origin) -> int:
            names = _write_vectors(new_vectors, rows, dim)
            (_write_parquet if rows_file.suffix == ".parquet" else _write_jsonl)(new_rows, names, origin)
            return len(names)

        yield write
    for suffix in _ROWS:  # rows of the vectors that were here before
        if suffix != rows_file.suffix:
            rows_file.with_suffix(suffix).unlink(missing_ok=True)


def _write_vectors(file: Path, rows: Iterable[Row], dim: int) -> list[str]:
    names: list[str] = []
    with file.open("wb") as stream:
        write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (0, dim)})
        for name, vector in rows:
            names.append(name)
            stream.write(vector.astype("<f4").tobytes())
        # the heading left room for the number of rows, so it is as long as before
        stream.seek(0)
        write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (len(names), dim)})
    return names


def _write_jsonl(file: Path, names: list[str], origin: Origin) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for row, name in enumerate(names):
            record = {"row": row, "name": name, **origin._asdict()}
            try:
                stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            except UnicodeEncodeError:
                # a file name that is not UTF-8; escapes are its only form in JSON
                stream.write(json.dumps(record) + "\n")


def _write_parquet(file: Path, names: list[str], origin: Origin) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # a file name that is not UTF-8 keeps its odd bytes as \x escapes
    readable = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
    constants = {key: pa.repeat(value, len(names)) for key, value in origin._asdict().items()}
    pq.write_table(pa.table({"row": range(len(names)), "name": pa.array(readable, pa.string()), **constants}), file)
