import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from siglip import SiglipConfig
from siglip.embeddings import Maker
from siglip.errors import InputError, LibraryError
from siglip.search import Library
from tests.search.conftest import CountingEmbedder, draw

Make = Callable[..., Library]
DIM = SiglipConfig.from_pretrained("nano").text_config.embedding_size


@pytest.fixture(autouse=True)
def _without_measuring_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand words a library take longer than all else here."""
    monkeypatch.setattr("siglip.search.library.measure_absence", lambda *_: None)


def exported(folder: Path) -> tuple[np.ndarray, dict[str, list[object]]]:
    table = pq.read_table(folder / "metadata" / "metadata_0.parquet").to_pydict()
    return np.load(folder / "img_emb" / "img_emb_0.npy"), table


def foreign(folder: Path, part: str, paths: list[str], vectors: np.ndarray) -> None:
    """One part as clip-retrieval writes it."""
    import pyarrow as pa

    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{part}.npy", vectors)
    pq.write_table(pa.table({"image_path": paths}), folder / "metadata" / f"metadata_{part}.parquet")


def test_an_export_holds_the_rows_of_the_library_to_the_bit_one_for_each_file(
    photos: Path, make: Make, embedder: CountingEmbedder, tmp_path: Path
):
    shutil.copy(photos / "a" / "00.png", photos / "copy.png")
    (photos / "b" / "01.png").rename(photos / "b" / os.fsdecode(b"caf\xe9.png"))
    with make() as library:
        library.index([photos])
        assert library.export_vectors(tmp_path / "out") == 13
        vectors, table = exported(tmp_path / "out")
        assert (vectors.dtype, vectors.shape) == (np.float16, (13, DIM))
        names = [
            os.fsdecode(raw) if raw else name
            for name, raw in zip(table["image_path"], table["image_path_bytes"], strict=True)
        ]
        assert names == sorted(map(str, photos.rglob("*.png")), key=os.fsencode)
        assert str(photos / "b" / "caf\\xe9.png") in table["image_path"]
        assert set(table["fingerprint"]) == {embedder.fingerprint}
        assert (vectors == embedder.embed_images(names).vectors.astype(np.float16)).mean() > 0.99
        assert (vectors[names.index(str(photos / "copy.png"))] == vectors[names.index(str(photos / "a/00.png"))]).all()


def test_what_was_exported_is_imported_to_the_same_library_without_embedding(
    photos: Path, make: Make, embedder: CountingEmbedder, tmp_path: Path
):
    with make("one") as one, make("two") as two:
        one.index([photos])
        one.export_vectors(tmp_path / "out")
        embedder.pictures = 0
        report = two.import_vectors(tmp_path / "out")
        assert (report.rows, report.added, report.missing, report.changed, report.notes) == (12, 12, 0, 0, [])
        two.export_vectors(tmp_path / "again")
        (vectors, table), (vectors_again, table_again) = exported(tmp_path / "out"), exported(tmp_path / "again")
        assert (vectors == vectors_again).all()
        assert table == table_again
        assert two.import_vectors(tmp_path / "out").known == 12
        assert two.index([photos]).unchanged == 12
        assert embedder.pictures == 0
        assert two.check() == ([], [])
        assert [hit.path for hit in two.search("blocks")] == [hit.path for hit in one.search("blocks")]


def test_rows_of_files_that_are_gone_or_changed_are_counted_and_told(photos: Path, make: Make, tmp_path: Path):
    with make("one") as one, make("two") as two:
        one.index([photos])
        one.export_vectors(tmp_path / "out")
        (photos / "a" / "00.png").unlink()
        draw(photos / "a" / "03.png", 77)
        report = two.import_vectors(tmp_path / "out")
        assert (report.added, report.missing, report.changed) == (10, 1, 1)
        assert len(report.notes) == 2
        assert any("03.png" in note and "changed after" in note for note in report.notes)
        assert two.status().files == 10


@pytest.mark.parametrize("suffix", ["", ".parquet"])
def test_what_siglip_embed_wrote_is_imported(
    suffix: str, photos: Path, make: Make, embedder: CountingEmbedder, tmp_path: Path
):
    files = sorted(map(str, photos.rglob("*.png")))
    embedder.embed_images(files).save(tmp_path / f"v{suffix}")
    draw(photos / "b" / "01.png", 78)
    os.utime(photos / "b" / "01.png", (2**33, 2**33))
    with make("two") as two, make("one") as one:
        report = two.import_vectors(tmp_path / "v.npy" if not suffix else tmp_path / "v.parquet")
        assert (report.added, report.changed) == (11, 1)
        assert two.index([photos]).embedded == 1
        one.index([photos])
        scores = {hit.path: hit.score for hit in one.search("blocks")}
        assert {hit.path: hit.score for hit in two.search("blocks")} == pytest.approx(scores, abs=1e-3)


def test_parts_of_clip_retrieval_are_tried_against_the_model_and_brought_to_length_1(
    photos: Path, make: Make, embedder: CountingEmbedder, tmp_path: Path
):
    files = sorted(map(str, photos.rglob("*.png")))
    vectors = embedder.embed_images(files).vectors
    foreign(tmp_path / "f", "00", files[:7], (7 * vectors[:7]).astype(np.float16))
    bad = np.array(vectors[7:])
    bad[-1] = np.nan
    foreign(tmp_path / "f", "01", files[7:], bad)
    with make() as library:
        report = library.import_vectors(tmp_path / "f")
        assert (report.rows, report.added, report.unusable) == (12, 11, 1)
        lengths = np.linalg.norm(library.vectors.array.astype(np.float32), axis=1)
        assert np.abs(lengths - 1).max() < 2e-3
        assert (library.vectors.take(np.arange(11)) * vectors[:11]).sum(1) == pytest.approx(1, abs=2e-3)
    foreign(tmp_path / "g", "0", files, np.roll(vectors, 1, axis=1))
    with make("other") as library, pytest.raises(LibraryError, match="does not say which model"):
        library.import_vectors(tmp_path / "g")


def test_vectors_of_another_model_or_width_and_files_that_hold_none_are_refused(
    photos: Path, make: Make, embedder: CountingEmbedder, tmp_path: Path
):
    files = sorted(map(str, photos.rglob("*.png")))
    replace(embedder.embed_images(files), maker=Maker("x", "ab" * 32)).save(tmp_path / "v")
    embedder.embed_texts(["a"]).save(tmp_path / "t")
    foreign(tmp_path / "wide", "0", files, np.ones((12, DIM + 1), np.float32))
    foreign(tmp_path / "short", "0", files[:5], np.ones((12, DIM), np.float32))
    (tmp_path / "empty").mkdir()
    with make() as library:
        for name, error, words in (
            ("v", LibraryError, "by fingerprint abababababab"),
            ("wide", LibraryError, f"vectors of width {DIM + 1}"),
            ("t", InputError, "vectors of texts"),
            ("short", InputError, "one row a vector"),
            ("empty", InputError, "no folder img_emb"),
            ("nowhere", InputError, "no file or folder"),
        ):
            with pytest.raises(error, match=words):
                library.import_vectors(tmp_path / name)
        library.index([photos])
        (tmp_path / "taken" / "img_emb").mkdir(parents=True)
        (tmp_path / "taken" / "img_emb" / "img_emb_1.npy").touch()
        with pytest.raises(InputError, match=r"holds img_emb_1\.npy"):
            library.export_vectors(tmp_path / "taken")
