"""Any file of a library cut, emptied, flipped or gone: told, mended or refused, and never a wrong hit."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from siglip.errors import SiglipError
from siglip.search import Hit, Library
from tests.search.conftest import CountingEmbedder

Make = Callable[..., Library]
Key = tuple[str, tuple[str, ...], float]


def keys(hits: list[Hit]) -> list[Key]:
    return [(hit.digest, hit.paths, round(hit.score, 4)) for hit in hits]


def damage(file: Path, how: str, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if how == "emptied":
        data.clear()
    elif how == "cut":
        del data[rng.randrange(len(data)) :]
    else:
        for _ in range(3):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


@pytest.fixture
def sound(photos: Path, make: Make, tmp_path: Path) -> tuple[Path, list[Key]]:
    """The folder of a library, and all its hits for one query."""
    with make() as library:
        library.index([photos])
        return tmp_path / "library", keys(library.search("blocks", top=50))


@pytest.mark.parametrize("how", ["emptied", "cut", "flipped", "gone"])
@pytest.mark.parametrize("name", ["catalogue.db", "vectors-1.f16", "thumbs.db", "lock"])
def test_a_damaged_file_gives_no_wrong_hit_and_is_mended_or_refused(
    name: str, how: str, sound: tuple[Path, list[Key]], make: Make
):
    folder, right = sound
    for seed in range(3 if how in ("emptied", "gone") else 12):
        copy = folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        if how == "gone":
            (copy / name).unlink()
        elif (copy / name).stat().st_size:
            damage(copy / name, how, random.Random(seed))
        try:
            with make("copy") as library:
                found = keys(library.search("blocks", top=50))
                assert set(found) <= set(right), (seed, "a wrong hit")
                if found != right:
                    assert name != "thumbs.db"
                thumb = library.thumbnail(right[0][0])
                assert thumb is None or thumb[8:12] == b"WEBP"
                mended, hopeless = library.check()
                assert found == right or mended or hopeless or library.notes, (seed, "in silence")
                if not hopeless:
                    library.index()
                    assert keys(library.search("blocks", top=50)) == right
                    assert library.check() == ([], [])
        except SiglipError as error:
            # refused: only the catalogue cannot be had from anything else
            assert name in ("catalogue.db",), (seed, error)
            assert str(copy) in str(error) and ("index" in str(error) or "siglip" in str(error))


def test_a_filter_over_a_vector_file_that_was_cut_finds_what_is_left(sound: tuple[Path, list[Key]], make: Make):
    folder, right = sound
    os.truncate(folder / "vectors-1.f16", 5 * 256)
    with make() as library:
        found = keys(library.search("blocks", top=50, where="width > 1"))
        assert len(found) == 5 and set(found) < set(right)
        assert "cut short" in library.notes[0]


def test_what_the_catalogue_says_of_the_model_of_files_and_of_absence_is_sealed(
    sound: tuple[Path, list[Key]], make: Make
):
    """Values of the right type that were never written, as a flipped bit makes them."""
    folder, right = sound
    with make() as library:
        before = [hit.confidence for hit in library.search("blocks", top=50)]
    with sqlite3.connect(folder / "catalogue.db") as damaged:
        damaged.execute("UPDATE meta SET value = replace(value, '0.1', '0.5') WHERE key = 'null-1'")
        damaged.execute("UPDATE file SET size = size + 65536 WHERE image = 1")
    damaged.close()
    with make() as library:
        found = library.search("blocks", top=50)
        assert set(keys(found)) < set(right) and len(found) == 11
        assert {hit.confidence for hit in found} == {None}
        assert "1 rows of the library are damaged" in library.notes[0]
        assert "how sure a hit is cannot be told" in library.notes[1]
        assert len(library.check()[0]) == 2
        library.index()
        assert [hit.confidence for hit in library.search("blocks", top=50)] == pytest.approx(before)
    with sqlite3.connect(folder / "catalogue.db") as damaged:
        damaged.execute("UPDATE space SET scale = scale * 2")
    damaged.close()
    with make() as library, pytest.raises(SiglipError, match=r"what it says of its model.*index anew"):
        library.search("blocks")


def test_a_damaged_index_of_the_catalogue_is_told_and_sorted_anew(sound: tuple[Path, list[Key]], make: Make):
    folder, right = sound
    file = folder / "catalogue.db"
    with sqlite3.connect(file) as db:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'image_digest'")
        ((size,),) = db.execute("PRAGMA page_size")
        ((digest,),) = db.execute("SELECT digest FROM image WHERE id = 1")
    db.close()
    data = bytearray(file.read_bytes())
    data[data.index(digest[:4], (page - 1) * size) + 2] ^= 4
    file.write_bytes(data)
    with make() as library:
        assert len(library.search("blocks", top=50)) == 11
        assert "pictures may be missing" in library.notes[0]
        mended, hopeless = library.check()
        assert mended and not hopeless
        assert library.check() == ([], [])
        assert keys(library.search("blocks", top=50)) == right


def test_damaged_codes_are_not_used_and_made_anew(photos: Path, make: Make, monkeypatch: pytest.MonkeyPatch):
    for module in ("vectors", "upkeep", "searching"):
        monkeypatch.setattr(f"siglip.search.{module}.EXACT_ROWS", 5)
    monkeypatch.setattr("siglip.search.vectors.FEW_ROWS", 5)
    with make() as library:
        library.index([photos])
        assert library.status().coded == 12
        right = keys(library.search("blocks", top=50))
        folder = library.folder
    codes = folder / "codes-1-12.tv"
    kept = codes.read_bytes()
    for how in ("emptied", "cut", "flipped", "gone"):
        codes.unlink() if how == "gone" else damage(codes, how, random.Random(how))
        with make() as library:
            assert keys(library.search("blocks", top=50)) == right
            assert "codes are missing or damaged" in library.notes[0]
            assert library.check()[0]
        with make() as library:
            assert library.check() == ([], [])
            assert library.notes == []
            assert keys(library.search("blocks", top=50)) == right
    assert len(codes.read_bytes()) == len(kept)


def test_one_flipped_vector_costs_one_picture_until_it_is_embedded_again(
    photos: Path, make: Make, embedder: CountingEmbedder
):
    with make() as library:
        library.index([photos])
        right = keys(library.search("blocks", top=50))
    with (library.folder / "vectors-1.f16").open("r+b") as file:
        file.seek(3 * 256)
        file.write(os.urandom(8))
    embedder.pictures = 0
    with make() as library:
        found = keys(library.search("blocks", top=50))
        assert len(found) == 11 and set(found) < set(right)
        assert "damaged" in library.notes[0]
        assert library.check(dry_run=True) == library.check()
        library.index()
        assert embedder.pictures == 1
        assert keys(library.search("blocks", top=50)) == right


def test_a_library_of_a_newer_version_is_refused(photos: Path, make: Make):
    with make() as library:
        library.index([photos])
        library.catalogue.rows("PRAGMA user_version = 99")
    with pytest.raises(SiglipError, match="of version 99, this siglip knows version 3; install a newer"):
        make()


def test_dead_rows_are_compacted_and_answers_stay(photos: Path, make: Make):
    with make() as library:
        library.index([photos])
        shutil.rmtree(photos / "a")
        library.index(prune=True)
        names = [path.name for path in library.folder.glob("vectors*")]
        assert names == ["vectors-1-2.f16"]
        assert (library.folder / names[0]).stat().st_size == 8 * 256
        ids = library.image_ids()
        assert (ids > 0).all() and len(np.unique(ids)) == 8
        assert library.check() == ([], [])
        assert len(library.search("blocks", top=50)) == 8
