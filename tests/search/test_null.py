"""What absence looks like: the fit against a distribution whose parameters are known, and a library that says no."""

import math
from pathlib import Path

import numpy as np
import pytest

from siglip.search import Library
from siglip.search.null import SURE, Gumbel, Null, everyday_words, fit_gumbel, fit_null, measure, names_of_things
from tests.search.conftest import CountingEmbedder


def test_the_words_are_a_thousand_different_ones_in_small_letters() -> None:
    words = everyday_words()
    assert len(words) == len(set(words)) == 1000
    assert all(word.isalpha() and word.islower() for word in words)
    assert {"dog", "house", "bicycle"} <= set(words)


def test_the_fit_finds_the_distribution_that_the_numbers_were_drawn_from() -> None:
    drawn = np.random.default_rng(0).gumbel(0.1, 0.02, 200_000)
    found = fit_gumbel(drawn)
    assert found is not None
    assert (found.location, found.scale) == pytest.approx((0.1, 0.02), rel=0.01)
    assert np.mean([found.share_below(x) > 0.95 for x in drawn[:20_000]]) == pytest.approx(0.05, abs=0.005)


def test_things_that_are_there_do_not_move_the_fit() -> None:
    """Neither a few, which stand above the upper quartile, nor many, which take the upper quartile with them."""
    drawn = np.sort(np.random.default_rng(0).gumbel(0.1, 0.02, 2_000))
    for there in (400, 900):
        present = drawn.copy()
        present[-there:] += 0.5
        found, undisturbed = fit_gumbel(present), fit_gumbel(drawn)
        assert found is not None
        assert undisturbed is not None
        assert (found.location, found.scale) == pytest.approx((undisturbed.location, undisturbed.scale), rel=0.05)


def test_confidence_is_the_lower_one_of_two_distribution_functions() -> None:
    """By hand: the text's cosine with the mean of the library is 0.3, half of which counts."""
    text = np.array([0.6, 0.8], np.float32)
    null = Null(Gumbel(0.2, 0.05), Gumbel(0.1, 0.05), slope=0.5, centre=(0.5, 0.0))
    assert null.confidence(0.2, -text) == pytest.approx(math.exp(-1))
    assert null.confidence(0.3, text) == pytest.approx(math.exp(-math.exp(-(0.3 - 0.15 - 0.1) / 0.05)))
    assert null.confidence(0.3, -text) == pytest.approx(math.exp(-math.exp(-2)))
    assert null.confidence(-1e9, text) == 0.0
    assert null.confidence(1.0, text) == pytest.approx(1.0, abs=1e-6)


def test_too_few_numbers_or_equal_ones_tell_nothing() -> None:
    assert fit_gumbel(np.linspace(0, 1, 49)) is None
    assert fit_gumbel(np.full(1000, 0.3)) is None
    assert fit_null(np.ones((1000, 1), np.float32), []) is None


def test_nearest_cosines_and_the_mean_are_those_over_all_blocks() -> None:
    generator = np.random.default_rng(0)
    words, rows = (generator.normal(size=(count, 8)).astype(np.float32) for count in (5, 23))
    best, mean = measure(words, (rows[start : start + 7] for start in range(0, 23, 7)))
    np.testing.assert_allclose(best, (words @ rows.T).max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-5)
    best, mean = measure(words, [])
    assert (best.tolist(), mean.tolist()) == ([-1.0] * 5, [0.0] * 8)


def test_in_a_collection_of_one_subject_an_absent_name_of_it_is_no_find() -> None:
    """Names lie at any angle to the subject; the pictures all lie near it. A name that is no nearer than its angle
    foretells is absent, however near it is; a picture that lies nearer is a find."""
    generator = np.random.default_rng(0)

    def unit(rows: np.ndarray) -> np.ndarray:
        return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)

    subject = unit(generator.normal(size=64))
    pictures = unit(subject + 0.6 * unit(generator.normal(size=(300, 64))))
    # one name in fifty is of the subject, as are all that are asked for
    leaning = np.where(np.arange(1000) % 50 == 0, 0.8, generator.uniform(-0.3, 0.3, 1000))[:, None]
    null = fit_null(unit(leaning * subject + unit(generator.normal(size=(1000, 64)))), [pictures])
    assert null is not None
    absent = unit(0.8 * subject + unit(generator.normal(size=(200, 64))))
    nearest = (absent @ pictures.T).max(axis=1)
    assert np.mean([null.nearest.share_below(float(cosine)) >= SURE for cosine in nearest]) > 0.5
    assert (
        np.mean([null.confidence(float(cosine), text) >= SURE for cosine, text in zip(nearest, absent, strict=True)])
        < 0.05
    )
    present = unit(pictures[:20] - 0.5 * subject + 0.3 * unit(generator.normal(size=(20, 64))))
    nearest = (present @ pictures.T).max(axis=1)
    assert all(null.confidence(float(cosine), text) >= SURE for cosine, text in zip(nearest, present, strict=True))


def test_a_library_says_how_sure_its_hits_are(photos: Path, tmp_path: Path, embedder: CountingEmbedder) -> None:
    """The confidence is that of the fit to all names, done by hand here; pictures alone have none."""
    with Library.open(tmp_path / "library", model=embedder) as library:
        library.index([photos])
        pictures = embedder.embed_images(sorted(photos.rglob("*.png"))).vectors
        names = embedder.embed_texts(names_of_things()).vectors
        null = fit_null(names, [pictures])
        assert null is not None
        (dog,) = embedder.embed_texts(["dog"]).vectors
        for hit in library.search("dog"):
            assert hit.confidence == pytest.approx(null.confidence(hit.score, dog), abs=2e-2)
            assert hit.sure == (hit.confidence is not None and hit.confidence >= SURE)
        # of several terms each added text is judged alone, and the lowest counts
        tree, place = embedder.embed_texts(["tree"]).vectors[0], photos / "a" / "00.png"
        for query, texts in (("dog - cat", [dog]), ("2:dog + tree", [dog, tree]), (f"tree - {place}", [tree])):
            for hit in library.search(query):
                (vector,) = embedder.embed_images([hit.path]).vectors
                expected = min(null.confidence(float(text @ vector), text) for text in texts)
                assert hit.confidence == pytest.approx(expected, abs=2e-2)
        others = library.search("- cat") + library.search(f"dog + {place} - cat") + library.similar(place)
        assert all(hit.confidence is None and hit.sure for hit in others)
        asked = embedder.texts
        library.index()
        assert embedder.texts == asked


def test_names_of_drawings_that_are_not_there_are_seldom_a_find() -> None:
    """Of a hundred absent names, five at most may pass; here the maxima of absence are drawn, half of them to judge."""
    drawn = np.random.default_rng(3).gumbel(0.3, 0.06, 20_000)
    null = fit_gumbel(drawn[:1000])
    assert null is not None
    assert np.mean([null.share_below(x) >= SURE for x in drawn[1000:]]) < 0.05
