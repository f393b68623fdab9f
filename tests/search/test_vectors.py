import os
from pathlib import Path

import numpy as np
import pytest

from siglip.search import vectors as module
from siglip.search.vectors import Vectors, append, build_codes, enough_rescored, load_codes


def unit(count: int, dim: int, seed: int) -> np.ndarray:
    """Unit rows around a common offset, as pictures have it."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, dim)) * np.linspace(2, 0.2, dim) + np.linspace(-0.5, 0.5, dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute(rows: np.ndarray, query: np.ndarray, count: int, among: np.ndarray | None = None) -> list[int]:
    """The best rows in float64 of what float16 holds."""
    scores = rows.astype(np.float16).astype(np.float64) @ query.astype(np.float64)
    allowed = np.arange(len(rows)) if among is None else among
    return sorted(allowed.tolist(), key=lambda row: (-scores[row], row))[:count]


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, Vectors]:
    """3,000 rows of which 2,500 have codes; codes are used from 100 rows on."""
    monkeypatch.setattr(module, "EXACT_ROWS", 100)
    monkeypatch.setattr(module, "FEW_ROWS", 100)
    rows = unit(3000, 64, 0)
    append(tmp_path / "v.f16", 0, rows[:2500])
    _, crc = build_codes(Vectors(tmp_path / "v.f16", 64, 2500), tmp_path / "c.tv")
    append(tmp_path / "v.f16", 2500, rows[2500:])
    assert load_codes(tmp_path / "c.tv", 2500, crc + 1) is None
    return rows, Vectors(tmp_path / "v.f16", 64, 3000, codes=load_codes(tmp_path / "c.tv", 2500, crc))


def test_the_best_rows_are_those_of_brute_force_with_and_without_codes(coded: tuple[np.ndarray, Vectors]):
    rows, vectors = coded
    queries = np.concatenate([unit(10, 64, 1), rows[[5, 2700]]])
    assert vectors.uncoded == 500
    for found in (vectors.nearest(queries, 20), vectors.exact(queries, 20)):
        for query, (best, scores) in zip(queries, found, strict=True):
            assert best.tolist() == brute(rows, query, 20)
            assert scores == pytest.approx(rows[best].astype(np.float16).astype(np.float32) @ query, abs=1e-5)


@pytest.mark.parametrize("kept", [1, 30, 99, 101, 1500, 2999])
def test_a_filter_keeps_as_many_as_there_are(coded: tuple[np.ndarray, Vectors], kept: int):
    rows, vectors = coded
    among = np.sort(np.random.default_rng(kept).permutation(3000)[:kept])
    for query in unit(4, 64, 2):
        (best, _) = vectors.nearest(query[None], 50, among=among)[0]
        assert best.tolist() == brute(rows, query, 50, among)


def test_equal_scores_come_in_the_order_of_rows(tmp_path: Path):
    rows = np.repeat(unit(2, 16, 3), 5, axis=0)
    append(tmp_path / "v.f16", 0, rows)
    vectors = Vectors(tmp_path / "v.f16", 16, 10)
    assert vectors.nearest(rows[:1], 3)[0][0].tolist() == [0, 1, 2]
    assert vectors.nearest(rows[:1], 99)[0][0].tolist() == list(range(10))


def test_appending_cuts_off_what_no_catalogue_names_and_a_short_file_shows_what_is_there(tmp_path: Path):
    file = tmp_path / "v.f16"
    rows = unit(6, 16, 4)
    append(file, 0, rows)
    append(file, 2, rows[4:])
    assert np.array_equal(Vectors(file, 16, 4).array, rows[[0, 1, 4, 5]].astype(np.float16))
    os.truncate(file, 3 * 32 + 5)
    assert len(Vectors(file, 16, 4)) == 3
    assert len(Vectors(tmp_path / "none", 16, 4)) == 0


def test_as_many_are_compared_exactly_as_recall_needs(coded: tuple[np.ndarray, Vectors]):
    rows, vectors = coded
    far = np.roll(unit(30, 64, 5), 7, axis=1)
    rescored, shares = enough_rescored(vectors, [rows[:30], far])
    assert rescored in (200, 400, 800, 1600, 3200)
    assert min(shares) >= 0.99
