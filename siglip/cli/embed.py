"""Write the vectors of pictures or texts to files, for search or statistics.

OUT.npy holds one float32 vector of length 1 a row. OUT.jsonl (or OUT.parquet)
says for each row what it is and which model made it, by the fingerprint of
its weights and preparation: only vectors of equal fingerprints can be
compared. Both files appear complete when all is done, or not at all; older
ones are replaced. Of a trained classifier, the vector of a picture is the mean
of its patch tokens, which the classifier reads.

for example:
  siglip embed samples --out pictures
  siglip embed --texts "a penguin" "a pig" --out texts
  find samples -name "*.jpg" | siglip embed - --out photos --parquet
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import inputs, output

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
        raise inputs.UsageError("give one of these: pictures, --texts or --texts-file")
    if texts and arguments.null:
        raise inputs.UsageError("--null (-0) is for names of pictures on stdin, and texts are given; leave it out")
    if arguments.parquet and arguments.out.suffix == ".jsonl":
        raise inputs.UsageError(f"--parquet writes no {arguments.out.name}; give --out a name without suffix")
    names, failed = inputs.image_names(arguments.images, null=arguments.null) if arguments.images else (texts, [])
    total = len(names) + len(failed)
    from siglip.embeddings import Origin, vector_files, writing_vectors

    vectors_file, rows_file = vector_files(arguments.out, "parquet" if arguments.parquet else "jsonl")
    with writing_vectors(vectors_file, rows_file) as write:
        model = (None if texts else inputs.load_classifier(arguments)) or inputs.load_embedder(arguments)
        dim = model.model.config.vision_config.hidden_size
        if texts:
            found = _texts(inputs.load_embedder(arguments), texts)
        else:
            found = inputs.picture_rows(model.stream_images, names, failed, bar=True)
        origin = Origin("text" if texts else "image", arguments.model, model.fingerprint)
        count = write(found, dim, origin)
    made_by = {"model": origin.model, "fingerprint": origin.fingerprint}
    record = {"vectors": str(vectors_file), "rows": str(rows_file), "count": count, "dim": dim, **made_by}
    form = output.form_of(arguments)
    failures = [item.record() for item in failed] if form in ("json", "jsonl") else len(failed)
    output.print_record(form, {**record, "failures": failures})
    return output.report_failures(failed, total)


def _texts(embedder: "Embedder", texts: list[str]) -> "Iterator[tuple[str, Float32[np.ndarray, ' dim']]]":
    with output.progress(len(texts), "text") as done:
        vectors = embedder.embed_texts(texts, progress=done).vectors
    yield from zip(texts, vectors, strict=True)
