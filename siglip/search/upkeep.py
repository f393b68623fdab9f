"""Keeping a library sound: what is damaged is found and mended from what is not, what is no longer used is removed."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float16

from siglip.search.book import book_of, forget_images, images_there, unname_rows, write_rows
from siglip.search.catalogue import Catalogue
from siglip.search.encoder import Encoder
from siglip.search.null import Gumbel, Null, fit_null, names_of_things
from siglip.search.schema import Space, seal
from siglip.search.searching import Searcher, codes_file
from siglip.search.thumbs import Thumbs
from siglip.search.vectors import (
    EXACT_ROWS,
    RESCORED,
    Vectors,
    append,
    build_codes,
    enough_rescored,
    has_engine,
    is_as_written,
    is_sound,
    load_codes,
    row_seal,
)

if TYPE_CHECKING:
    from siglip.embedder import Embedder

_PROBES = 200
_DEAD_SHARE = 0.2
_ROWS_AT_ONCE = 8192


def target_space(catalogue: Catalogue, encoder: Encoder) -> Space:
    """The space of the encoder's model, made if need be; the model is loaded only if it may be another than before."""
    active = catalogue.active_space()
    if encoder.model is None and active is not None:
        return active
    embedder = encoder.embedder()
    with catalogue.writing():
        return catalogue.add_space(
            fingerprint=embedder.fingerprint,
            model=encoder.name,
            dim=embedder.model.config.text_config.embedding_size,
            scale=float(embedder.model.logit_scale.detach().float().exp()),
            bias=float(embedder.model.logit_bias.detach().float()),
        )


def switch_space(catalogue: Catalogue, space: Space) -> list[str]:
    """Let a space answer once it knows every picture that the old one knows and whose file is there; say if not yet."""
    active = catalogue.active_space()
    if active is not None and active.id == space.id:
        return []
    if active is not None:
        old, new = (book_of(catalogue, one)[:, 0] for one in (active, space))
        lacking = int(np.isin(np.setdiff1d(old, new), images_there(catalogue)).sum())
        if lacking:
            return [
                f"{active.model} keeps answering: {lacking} of its pictures are not embedded with {space.model} yet; "
                "index all folders with --model"
            ]
    with catalogue.writing():
        catalogue.set_meta("space", str(space.id))
    return []


def settle(catalogue: Catalogue) -> list[str]:
    """Before writing: let go of rows that a vector file cut short no longer holds; say what was done."""
    notes: list[str] = []
    for space in catalogue.spaces():
        held = len(Vectors(_file(catalogue, space), space.dim, space.rows))
        if held < space.rows:
            lost = held + np.flatnonzero(book_of(catalogue, space)[:, 0][held:])
            with catalogue.writing():
                unname_rows(catalogue, space, lost)
                catalogue.update_space(replace(space, rows=held, codes_rows=0, codes_crc=0))
            notes.append(f"{space.vectors} was cut short; {len(lost)} pictures are embedded again")
    return notes


def check(catalogue: Catalogue, thumbs: Thumbs, *, dry_run: bool) -> tuple[list[str], list[str]]:
    """Read everything against its seals; return what was found damaged and mended, and what cannot be mended.

    Vectors that are damaged are forgotten, so that the next indexing embeds their pictures again; codes and thumbnails
    are made anew when needed. With `dry_run` nothing is changed.
    """
    mended: list[str] = []
    found = catalogue.faults()
    if found and not dry_run:  # what is found by sorting rows can be sorted again
        catalogue.rows("REINDEX")
        mended += [f"{catalogue.path}: {fault}" for fault in found]
        found = catalogue.faults()
    if found:
        return [], [f"{catalogue.path}: {fault}" for fault in found]
    mended += _check_rows(catalogue, dry_run)
    for space in catalogue.spaces():
        mended += _check_vectors(catalogue, space, dry_run)
        if space.codes_rows and has_engine():
            codes = load_codes(codes_file(catalogue.path.parent, space), space.codes_rows, space.codes_crc)
            if codes is None:
                mended.append(f"the search codes of {space.model} are damaged or missing; they are made anew")
                if not dry_run:
                    refresh_codes(catalogue, replace(space, codes_rows=0, codes_crc=0), None)
                    sweep(catalogue)
    if thumbs.path.exists() and not thumbs.healthy():
        mended.append("thumbnails are damaged; they are made anew when needed")
        if not dry_run:
            thumbs.clear()
    return mended, []


def _check_rows(catalogue: Catalogue, dry_run: bool) -> list[str]:
    """Files and pictures whose seals do not fit are forgotten; the next indexing reads them again."""
    files = {
        table: [
            (folder, name)
            for folder, name, *row, stored in catalogue.rows(
                "SELECT f.folder, f.name, CAST(d.path || f.name AS BLOB), f.size, f.mtime_ns, f.image, f.seal "
                f"FROM {table} f LEFT JOIN folder d ON d.id = f.folder"
            )
            if seal(*row) != stored
        ]
        for table in ("file", "gone")
    }
    images = [row[0] for row in catalogue.rows("SELECT * FROM picture") if seal(*row[:-1]) != row[-1]]
    queries = [
        (space, text)
        for space, text, vector, stored in catalogue.rows("SELECT space, text, vector, seal FROM query")
        if seal(text, vector) != stored
    ]
    meta, roots = (
        [(row[0],) for row in catalogue.rows(f"SELECT * FROM {table}") if seal(*row[:-1]) != row[-1]]
        for table in ("meta", "root")
    )
    if (any(files.values()) or images or queries or meta or roots) and not dry_run:
        with catalogue.writing():
            for table, bad in files.items():
                catalogue.write(f"DELETE FROM {table} WHERE folder = ? AND name = ?", bad)
            forget_images(catalogue, images)
            catalogue.write("DELETE FROM query WHERE space = ? AND text = ?", queries)
            catalogue.write("DELETE FROM meta WHERE key = ?", meta)
            catalogue.write("DELETE FROM root WHERE path = ?", roots)
    all_files = [bad for table in files.values() for bad in table]
    told = {"files": all_files, "pictures": images, "kept queries": queries, "what was measured": meta}
    again = "forgotten; the next `siglip index` reads them again"
    mended = [f"{len(rows)} damaged rows of {what} in the catalogue; {again}" for what, rows in told.items() if rows]
    if roots:
        mended.append(f"{len(roots)} damaged names of folders in the catalogue; name these to `siglip index` again")
    return mended


def _check_vectors(catalogue: Catalogue, space: Space, dry_run: bool) -> list[str]:
    vectors = Vectors(_file(catalogue, space), space.dim, space.rows)
    book = book_of(catalogue, space)
    bad = [
        row
        for row in np.flatnonzero(book[:, 0]).tolist()
        if row >= len(vectors) or not is_sound(book[row], vectors.array[row])
    ]
    if not bad:
        return []
    if not dry_run:
        with catalogue.writing():
            unname_rows(catalogue, space, np.array(bad))
    return [f"{len(bad)} damaged vectors of {space.model}; the next `siglip index` embeds those pictures again"]


def refresh_codes(catalogue: Catalogue, space: Space, embedder: "Embedder | None") -> None:
    """Make the codes of a space anew where they are missing, damaged, or leave too many rows uncovered.

    How many candidates are compared exactly is measured on pictures of the library and, if the model is loaded, on
    texts. Does nothing for a small library, or without the vector engine.
    """
    if not has_engine() or space.rows <= EXACT_ROWS:
        return
    folder = catalogue.path.parent
    enough = space.codes_rows and space.rows - space.codes_rows <= EXACT_ROWS
    if enough and is_as_written(codes_file(folder, space), space.codes_crc):
        return
    plain = Vectors(_file(catalogue, space), space.dim, space.rows)
    codes, crc = build_codes(plain, codes_file(folder, replace(space, codes_rows=len(plain))))
    vectors = Vectors(_file(catalogue, space), space.dim, space.rows, codes=codes)
    chosen = np.random.default_rng(1).permutation(len(vectors))[:_PROBES]
    probes = [vectors.take(np.sort(chosen))]
    if embedder is not None:
        names = names_of_things()
        probes.append(embedder.embed_texts(names[:: len(names) // _PROBES]).vectors)
    rescored, _ = enough_rescored(vectors, probes)
    if embedder is None:
        rescored = max(rescored, space.rescored)  # measured on texts before
    with catalogue.writing():
        catalogue.update_space(replace(space, codes_rows=len(codes), codes_crc=crc, rescored=rescored))


def compact(catalogue: Catalogue) -> None:
    """Forget spaces that do not answer; rewrite vector files of which a fifth of the rows is named by nothing."""
    active = catalogue.active_space()
    if active is None:
        return
    with catalogue.writing():
        for table in ("block", "query"):
            catalogue.rows(f"DELETE FROM {table} WHERE space != ?", (active.id,))
        catalogue.rows("DELETE FROM space WHERE id != ?", (active.id,))
    book = book_of(catalogue, active)
    rows = np.flatnonzero(book[:, 0])
    if len(rows) >= (1 - _DEAD_SHARE) * active.rows:
        sweep(catalogue)
        return
    old = Vectors(_file(catalogue, active), active.dim, active.rows)
    number = 1 + int(active.vectors.removesuffix(".f16").rpartition("-")[2]) if active.vectors.count("-") == 2 else 2
    name = f"vectors-{active.id}-{number}.f16"
    path = catalogue.path.with_name(name)
    path.unlink(missing_ok=True)
    new: list[tuple[int, int]] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        kept = old.array[block]
        append(path, start, kept.astype(np.float32))
        new += [(int(image), row_seal(int(image), row)) for image, row in zip(book[:, 0][block], kept, strict=True)]
    if not new:
        path.touch()
    space = replace(active, vectors=name, rows=len(new), codes_rows=0, codes_crc=0, rescored=RESCORED)
    with catalogue.writing():
        catalogue.rows("DELETE FROM block WHERE space = ?", (active.id,))
        write_rows(catalogue, active.id, 0, np.array(new, np.uint32).reshape(-1, 2))
        catalogue.update_space(space)
    sweep(catalogue)
    refresh_codes(catalogue, space, None)


def sweep(catalogue: Catalogue) -> None:
    """Remove files of vectors and codes that nothing names, such as a kill leaves behind; the writer alone may."""
    folder = catalogue.path.parent
    used = {name for space in catalogue.spaces() for name in (space.vectors, codes_file(folder, space).name)}
    for pattern in ("vectors-*.f16", "codes-*.tv", ".codes-*", ".catalogue.db.*"):
        for path in folder.glob(pattern):
            if path.name not in used:
                path.unlink(missing_ok=True)


def _file(catalogue: Catalogue, space: Space) -> Path:
    return catalogue.path.with_name(space.vectors)


def measure_absence(catalogue: Catalogue, encoder: Encoder) -> None:
    """Fit what names of things find in the library as it is now; see `null`. Done again when a hundredth was added."""
    space = catalogue.active_space()
    if space is None or absence(catalogue, space, least_rows=space.rows - space.rows // 100) is not None:
        return
    searcher = Searcher(catalogue)
    names = names_of_things()
    vectors = encoder.texts(searcher, names)
    null = fit_null(np.stack([vectors[name] for name in names]), _sound(catalogue, space, searcher.state()[1]))
    if null is not None:
        with catalogue.writing():
            catalogue.set_meta(f"null-{space.id}", json.dumps({**asdict(null), "rows": space.rows}))


def _sound(catalogue: Catalogue, space: Space, vectors: Vectors) -> Iterator[Float16[np.ndarray, "_ dim"]]:
    """The rows that belong to pictures and are not damaged, in blocks."""
    book = book_of(catalogue, space)[: len(vectors)]
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = book[start : start + _ROWS_AT_ONCE]
        named = np.flatnonzero(block[:, 0]).tolist()
        yield vectors.array[[start + row for row in named if is_sound(block[row], vectors.array[start + row])]]


def absence(catalogue: Catalogue, space: Space, *, least_rows: int = 0) -> Null | None:
    """What was measured, None if it was not, or when the space had fewer rows."""
    values = json.loads(catalogue.meta(f"null-{space.id}") or "{}")
    if values.pop("rows", -1) < least_rows:
        return None
    return Null(Gumbel(**values["nearest"]), Gumbel(**values["beyond"]), values["slope"], tuple(values["centre"]))
