"""Write the vectors of pictures or texts to files, for search or statistics.

OUT.npy holds one float32 vector of length 1 a row. OUT.jsonl (or OUT.parquet)
says for each row what it is and which model made it, by the fingerprint of
its weights and preparation: only vectors of equal fingerprints can be
compared. Both files appear complete when all is done, or not at all; older
ones are replaced.

for example:
  siglip embed samples --out pictures
  siglip embed --texts "a penguin" "a pig" --out texts
  find samples -name "*.jpg" | siglip embed - --out photos --parquet
"""

import argparse
import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import inputs, output
from siglip.errors import InputError
from siglip.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

    from siglip.embedder import Embedder


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip embed (IMAGES... | --texts TEXT... | --texts-file FILE) --out OUT"
    inputs.add_image_arguments(parser)
    inputs.add_text_arguments(parser, "texts", required=False)
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="name of both files, without suffix")
    parser.add_argument("--parquet", action="store_true", help="write the rows as OUT.parquet instead of OUT.jsonl")
    output.add_form_arguments(parser)
    inputs.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    texts = inputs.texts(arguments.texts, arguments.texts_file)
    if bool(arguments.images) == bool(texts):
        raise inputs.UsageError("give pictures, or --texts, or --texts-file: one of them")
    names, failed = inputs.image_names(arguments.images, null=arguments.null) if arguments.images else (texts, [])
    total = len(names) + len(failed)
    vectors_file, rows_file = _files(arguments.out, "parquet" if arguments.parquet else "jsonl")
    # opened first: a place that cannot be written is told before the work, not after it
    with replacing(rows_file) as new_rows, replacing(vectors_file) as new_vectors:
        embedder = inputs.load_embedder(arguments)
        dim = embedder.model.config.text_config.embedding_size
        found = _texts(embedder, texts) if texts else inputs.picture_vectors(embedder, names, failed, bar=True)
        kept = _write_vectors(new_vectors, found, dim)
        origin = {"model": arguments.model, "fingerprint": embedder.fingerprint}
        write_rows = _write_parquet if arguments.parquet else _write_jsonl
        write_rows(new_rows, kept, {"kind": "text" if texts else "image", **origin})
    record = {"vectors": str(vectors_file), "rows": str(rows_file), "count": len(kept), "dim": dim, **origin}
    form = output.form_of(arguments)
    failures = [item.record() for item in failed] if form in ("json", "jsonl") else len(failed)
    output.print_record(form, {**record, "failures": failures})
    return output.report_failures(failed, total)


def _files(out: Path, suffix: str) -> tuple[Path, Path]:
    stem = out.with_suffix("") if out.suffix in (".npy", f".{suffix}") else out
    files = Path(f"{stem}.npy"), Path(f"{stem}.{suffix}")
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder; choose another name with --out")
    if suffix == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError("--parquet needs pyarrow; pip install 'siglip[parquet]', or leave it out to write JSON lines")
    return files


def _texts(embedder: "Embedder", texts: list[str]) -> "Iterator[tuple[str, Float32[np.ndarray, ' dim']]]":
    with output.progress(len(texts), "text") as done:
        vectors = embedder.embed_texts(texts, progress=done).vectors
    yield from zip(texts, vectors, strict=True)


def _write_vectors(file: Path, found: "Iterable[tuple[str, Float32[np.ndarray, ' dim']]]", dim: int) -> list[str]:
    """Write a .npy file row by row, so that memory does not grow with it; return the names of the rows."""
    from numpy.lib.format import write_array_header_1_0

    names: list[str] = []
    with file.open("wb") as stream:
        write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (0, dim)})
        for name, vector in found:
            names.append(name)
            stream.write(vector.astype("<f4").tobytes())
        # the heading left room for the number of rows, so it is as long as before
        stream.seek(0)
        write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (len(names), dim)})
    return names


def _write_jsonl(file: Path, names: list[str], origin: dict[str, str]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for row, name in enumerate(names):
            stream.write(output.as_json({"row": row, "name": name, **origin}) + "\n")


def _write_parquet(file: Path, names: list[str], origin: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # a file name that is not UTF-8 keeps its odd bytes as \x escapes
    readable = [os.fsencode(name).decode("utf-8", "backslashreplace") for name in names]
    constants = {key: pa.repeat(value, len(names)) for key, value in origin.items()}
    pq.write_table(pa.table({"row": range(len(names)), "name": pa.array(readable, pa.string()), **constants}), file)
