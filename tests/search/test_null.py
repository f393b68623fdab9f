"""What absence looks like: the fit against a distribution whose parameters are known, and a library that says no."""

import math
from pathlib import Path

import numpy as np
import pytest

from siglip.search import Library
from siglip.search.null import SURE, Null, everyday_words, fit_null, names_of_things, nearest_cosines
from tests.search.conftest import CountingEmbedder


def test_the_words_are_a_thousand_different_ones_in_small_letters() -> None:
    words = everyday_words()
    assert len(words) == len(set(words)) == 1000
    assert all(word.isalpha() and word.islower() for word in words)
    assert {"dog", "house", "bicycle"} <= set(words)


def test_the_fit_finds_the_distribution_that_the_numbers_were_drawn_from() -> None:
    drawn = np.random.default_rng(0).gumbel(0.1, 0.02, 200_000)
    found = fit_null(drawn)
    assert found is not None
    assert (found.location, found.scale) == pytest.approx((0.1, 0.02), rel=0.01)
    assert np.mean([found.confidence(x) > 0.95 for x in drawn[:20_000]]) == pytest.approx(0.05, abs=0.005)


def test_things_that_are_there_do_not_move_the_fit() -> None:
    """Neither a few, which stand above the upper quartile, nor many, which take the upper quartile with them."""
    drawn = np.sort(np.random.default_rng(0).gumbel(0.1, 0.02, 2_000))
    for there in (400, 900):
        present = drawn.copy()
        present[-there:] += 0.5
        found, undisturbed = fit_null(present), fit_null(drawn)
        assert found is not None
        assert undisturbed is not None
        assert (found.location, found.scale) == pytest.approx((undisturbed.location, undisturbed.scale), rel=0.05)


def test_confidence_is_the_distribution_function() -> None:
    null = Null(location=0.2, scale=0.05)
    assert null.confidence(0.2) == pytest.approx(math.exp(-1))
    assert null.confidence(0.3) == pytest.approx(math.exp(-math.exp(-2)))
    assert null.confidence(-1e9) == 0.0
    assert null.confidence(1.0) == pytest.approx(1.0, abs=1e-6)


def test_too_few_numbers_or_equal_ones_tell_nothing() -> None:
    assert fit_null(np.linspace(0, 1, 49)) is None
    assert fit_null(np.full(1000, 0.3)) is None


def test_the_nearest_cosine_of_each_word_is_that_over_all_blocks() -> None:
    generator = np.random.default_rng(0)
    words, rows = (generator.normal(size=(count, 8)).astype(np.float32) for count in (5, 23))
    np.testing.assert_allclose(
        nearest_cosines(words, (rows[start : start + 7] for start in range(0, 23, 7))), (words @ rows.T).max(axis=1)
    )
    assert nearest_cosines(words, []).tolist() == [-1.0] * 5


def test_a_library_says_how_sure_its_hits_are(photos: Path, tmp_path: Path, embedder: CountingEmbedder) -> None:
    """The confidence is that of the fit to all names, done by hand here; it is that of one text and nothing else."""
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([photos])
        pictures = embedder.embed_images(sorted(photos.rglob("*.png"))).vectors
        names = embedder.embed_texts(names_of_things()).vectors
        null = fit_null((names @ pictures.T).max(axis=1))
        assert null is not None
        for hit in library.search("dog"):
            assert hit.confidence == pytest.approx(null.confidence(hit.score), abs=2e-2)
            assert hit.sure == (hit.confidence is not None and hit.confidence >= SURE)
        others = library.search("dog - cat") + library.search("- cat") + library.similar(photos / "a" / "00.png")
        assert all(hit.confidence is None and hit.sure for hit in others)
        texts = embedder.texts
        library.index()
        assert embedder.texts == texts


def test_names_of_drawings_that_are_not_there_are_seldom_a_find() -> None:
    """Of a hundred absent names, five at most may pass; here the maxima of absence are drawn, half of them to judge."""
    drawn = np.random.default_rng(3).gumbel(0.3, 0.06, 20_000)
    null = fit_null(drawn[:1000])
    assert null is not None
    assert np.mean([null.confidence(x) >= SURE for x in drawn[1000:]]) < 0.05
