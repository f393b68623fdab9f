"""A library -> its vectors in files that other programs read; files of vectors -> a library, without embedding.

Written is the layout of clip-retrieval: img_emb/img_emb_0.npy holds the vectors, and metadata/metadata_0.parquet says
in its column image_path whose each is. Read is this layout in any number of parts, and what `siglip embed` writes.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy.lib.format import write_array_header_1_0

from siglip.embeddings import Embeddings, vector_files
from siglip.errors import InputError, LibraryError, UnreadableImage, clip
from siglip.files import replacing
from siglip.search.book import book_of
from siglip.search.catalogue import Catalogue
from siglip.search.encoder import Encoder
from siglip.search.indexing import store
from siglip.search.media import kind_of_media
from siglip.search.reading import described, hash_file, read_file
from siglip.search.schema import FURTHER, PICTURES, FileRow, Image, Space, seal
from siglip.search.searching import Searcher
from siglip.search.upkeep import target_space
from siglip.search.vectors import is_sound

_FACTS = ("frame", "seconds", "format", "width", "height", "taken", "camera", "latitude", "longitude")
_BATCH = 1_000
_TRIED = 8
# vectors of one picture by one model that was prepared by two programs; those of two models are near 0
_SAME_COSINE = 0.97


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What became of the rows that were read: `added`, `known` before, or of a file that is `missing` or `changed`."""

    rows: int = 0
    added: int = 0
    known: int = 0
    missing: int = 0
    changed: int = 0
    unusable: int = 0  # vectors of length 0, or with numbers that are none
    notes: list[str] = field(default_factory=list[str])


def export_vectors(searcher: Searcher, folder: Path) -> int:
    """Write a row for each file of each picture, in the order of paths, as float16; return how many.

    Raises InputError if pyarrow is missing, or the folder holds vectors of other origin.
    """
    _check_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    targets = (folder / "img_emb" / "img_emb_0.npy", folder / "metadata" / "metadata_0.parquet")
    for target in targets:
        if others := [path.name for path in sorted(target.parent.glob("*")) if path != target]:
            raise InputError(f"{target.parent} holds {others[0]}, which is not of this export; name a new folder")
    with searcher.catalogue.reading():
        space, vectors = searcher.state()
        book = searcher.book(space)[: len(vectors)]
        row_of = {image: row for row, image in enumerate(book[:, 0].tolist()) if image}
        columns = "f.path, f.size, f.mtime_ns, f.image, f.seal, i.id"
        found = [
            row
            for row in searcher.catalogue.rows(
                f"SELECT {columns}, i.frame FROM {PICTURES} UNION ALL SELECT {columns}, i.frame FROM {FURTHER} "
                "ORDER BY 1, 7"
            )
            if row[5] in row_of
        ]
        images, _ = searcher.catalogue.images(list(dict.fromkeys(row[5] for row in found)))
    sound = [
        (row, path, images[image])
        for path, size, mtime_ns, first, stored, image, _ in found
        for row in [row_of[image]]
        if image in images and is_sound(book[row], vectors.array[row]) and seal(path, size, mtime_ns, first) == stored
    ]
    if len(sound) < len(found):
        searcher.note(f"{len(found) - len(sound)} damaged rows are left out; `siglip library check` mends them")
    paths = [path for _, path, _ in sound]
    columns = {
        # a name that is not UTF-8 is readable here with its odd bytes as \x escapes, and exact in the next column
        "image_path": pa.array([path.decode("utf-8", "backslashreplace") for path in paths], pa.string()),
        "image_path_bytes": pa.array([None if _is_utf8(path) else path for path in paths], pa.binary()),
        "digest": pa.array([image.digest for *_, image in sound], pa.string()),
        **{name: [getattr(image, name) for *_, image in sound] for name in _FACTS},
        "model": pa.array([space.model] * len(sound), pa.string()),
        "fingerprint": pa.array([space.fingerprint] * len(sound), pa.string()),
    }
    with replacing(targets[0]) as new_vectors, replacing(targets[1]) as new_rows:
        pq.write_table(pa.table(columns), new_rows)
        with new_vectors.open("wb") as stream:
            shape = (len(sound), space.dim)
            write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": shape})
            for row, *_ in sound:
                stream.write(vectors.array[row].tobytes())
    return len(sound)


def import_vectors(
    catalogue: Catalogue, encoder: Encoder, path: Path, *, progress: Callable[[int, int], None] | None
) -> tuple[ImportReport, Space]:
    """Add the vectors in a folder or in the files of `siglip embed`; hold `alone` meanwhile.

    Files are read for their digest and size, and not decoded. A row whose file is not there, or is another one than
    was embedded, is counted and left out. `progress` is called with the rows done and to do. Raises InputError for
    what holds no vectors, and LibraryError for those of another model.
    """
    parts = list(_parts(path))
    space = target_space(catalogue, encoder)
    for part in parts:
        _check_model(part, space, encoder)
    embedded = set(book_of(catalogue, space)[:, 0].tolist())
    known = {
        (digest, frame)
        for image, digest, frame in catalogue.rows("SELECT id, digest, frame FROM picture")
        if image in embedded
    }
    report = ImportReport()
    total = sum(len(part.rows) for part in parts)
    examples: dict[str, str] = {}
    for part in parts:
        taken = _taken(part, known, report, examples)
        while batch := list(islice(taken, _BATCH)):
            new = [(image, vector) for _, image, vector in batch if image is not None]
            vectors = np.stack([vector for _, vector in new]) if new else np.zeros((0, space.dim), np.float32)
            images = [image for image, _ in new]
            space = store(catalogue, space, images, vectors, list({row.path: row for row, _, _ in batch}.values()))
            report.added += len(new)
            if progress is not None:
                progress(report.rows, total)
    for what, name in examples.items():
        report.notes.append(f"{getattr(report, what)} rows are left out, {_WHY[what]}; such as {clip(name)}")
    return report, space


_WHY = {
    "missing": "since their files are not there or cannot be read",
    "changed": "since their files changed after they were embedded; index them",
    "unusable": "since their vectors have length 0 or are no numbers",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Vectors of one file and what its rows are; of foreign files `fingerprint` and digests are not known."""

    file: Path
    vectors: np.ndarray
    rows: list[dict[str, Any]]
    fingerprint: str | None


def _parts(path: Path) -> Iterator[_Part]:
    if not (path / "img_emb").is_dir():
        if path.is_dir():
            raise InputError(f"{path} holds no folder img_emb with vectors; expected the layout of clip-retrieval")
        file, _ = vector_files(path)
        if not file.exists():
            what = f"{path} holds no vectors" if path.exists() else f"no file or folder {path}"
            raise InputError(f"{what}; name a folder with img_emb, or what `siglip embed` wrote")
        embeddings = Embeddings.load(path)
        if embeddings.kind != "image":
            raise InputError(f"{file} holds vectors of texts; a library takes those of pictures")
        yield _Part(
            file, embeddings.vectors, [{"image_path": name} for name in embeddings.names], embeddings.fingerprint
        )
        return
    _check_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((path / "img_emb").glob("img_emb_*.npy"))
    if not files:
        raise InputError(f"{path / 'img_emb'} holds no img_emb_*.npy; expected the layout of clip-retrieval")
    for file in files:
        table = path / "metadata" / f"metadata_{file.stem.removeprefix('img_emb_')}.parquet"
        try:
            vectors = np.load(file, mmap_mode="r", allow_pickle=False)
            names = [*_FACTS, "image_path", "image_path_bytes", "digest", "fingerprint"]
            wanted = [name for name in pq.read_schema(table).names if name in names]
            rows = pq.read_table(table, columns=wanted).to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{file} and {table} cannot be read together: {clip(str(error))}") from error
        if "image_path" not in wanted or vectors.ndim != 2 or len(vectors) != len(rows):
            raise InputError(
                f"{file} holds the shape {list(vectors.shape)} and {table} {len(rows)} rows with the columns "
                f"{', '.join(wanted)}; expected one row a vector, and a column image_path"
            )
        fingerprints = {row.get("fingerprint") for row in rows}
        if len(fingerprints) > 1:
            raise LibraryError(f"{table} names {len(fingerprints)} models; a library takes vectors of one")
        yield _Part(file, vectors, rows, fingerprints.pop() if fingerprints else None)


def _check_model(part: _Part, space: Space, encoder: Encoder) -> None:
    """Raises LibraryError unless the vectors are of the space's model; where no name tells, some files are embedded."""
    width = part.vectors.shape[1]
    if part.fingerprint is None and width == space.dim:
        tried = [index for index, row in enumerate(part.rows) if Path(_path(row)).is_file()][:_TRIED]
        if not tried:
            return  # no row can be used anyway
        embedded = encoder.embedder_of(space).embed_images([_path(part.rows[index]) for index in tried])
        given = _unit(np.asarray(part.vectors[tried], np.float32))[embedded.indices]
        cosine = float(np.nanmedian((given * embedded.vectors).sum(1))) if len(embedded) else 0.0
        if not cosine >= _SAME_COSINE:
            raise LibraryError(
                f"{part.file} does not say which model made its vectors, and those of {space.model} are others: "
                f"{len(tried)} pictures embedded for comparison have a median cosine of {cosine:.2f} to them; export "
                "with the library's model, or index the pictures"
            )
    elif part.fingerprint != space.fingerprint or width != space.dim:
        made = f"fingerprint {part.fingerprint[:12]}" if part.fingerprint else "a model it does not name"
        raise LibraryError(
            f"{part.file} holds vectors of width {width} by {made}, the library those of {space.model}, width "
            f"{space.dim}, fingerprint {space.fingerprint[:12]}; import into a library of the same model, or index "
            "the pictures"
        )


def _taken(
    part: _Part, known: set[tuple[bytes, int]], report: ImportReport, examples: dict[str, str]
) -> Iterator[tuple[FileRow, Image | None, Float32[np.ndarray, " dim"]]]:
    """The rows that can be used; the picture is None where its vector is known."""
    written_ns = part.file.stat().st_mtime_ns
    last: tuple[str, FileRow, bytes] | None = None
    for index, row in enumerate(part.rows):
        report.rows += 1
        path = _path(row)
        vector = np.asarray(part.vectors[index], np.float32)
        length = float(np.linalg.norm(vector))
        reason = ""
        try:
            if last is None or last[0] != path:
                last = (path, hash_file(path), b"") if kind_of_media(path) else (path, *read_file(path))
        except UnreadableImage:
            reason = "missing"
        else:
            stated = row.get("digest")
            if last[1].digest.hex() != stated if stated else last[1].mtime_ns > written_ns:
                reason = "changed"
            elif not (np.isfinite(length) and length > 0):
                reason = "unusable"
        if reason or last is None:
            setattr(report, reason, getattr(report, reason) + 1)
            examples.setdefault(reason, path)
            continue
        _, file, data = last
        frame = int(row.get("frame") or 0)
        if (file.digest, frame) in known:
            report.known += 1
            yield file, None, vector
        else:
            known.add((file.digest, frame))
            yield file, _image(row, path, file.digest.hex(), data), _scaled(vector, length)


def _image(row: dict[str, Any], path: str, digest: str, data: bytes) -> Image:
    """What is known of a picture: by its file, of films and raw files by the row."""
    if kind_of_media(path):
        return Image(digest=digest, **{name: row[name] for name in _FACTS if row.get(name) is not None})
    return described(data, digest)


def _scaled(vector: Float32[np.ndarray, " dim"], length: float) -> Float32[np.ndarray, " dim"]:
    """To length 1; what is so but for the rounding of float16 stays to the bit."""
    return vector if abs(length - 1) < 2e-3 else vector / length


def _path(row: dict[str, Any]) -> str:
    exact = row.get("image_path_bytes")
    name = os.fsdecode(exact) if exact else str(row["image_path"])
    return str(Path(name).absolute())


def _unit(rows: Float32[np.ndarray, "n dim"]) -> Float32[np.ndarray, "n dim"]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _is_utf8(path: bytes) -> bool:
    return path.decode("utf-8", "ignore").encode() == path


def _check_pyarrow() -> None:
    if find_spec("pyarrow") is None:
        raise InputError("Parquet files need pyarrow; pip install 'siglip[parquet]'")
