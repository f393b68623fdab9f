"""Pictures that are, as vectors, exactly one of the texts: what must be found is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from siglip.embedder import Embedder
from siglip.evaluation import evaluate_retrieval, retrieval
from siglip.evaluation.metrics import ranks, recall_at
from tests.evaluation.conftest import hand_made

TEXTS = ["a red kite", "two owls", "snow", "the old mill"]
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evaluation.json").read_text())


def test_pictures_that_are_their_captions_are_all_found(embedder: Embedder) -> None:
    done: list[int] = []
    pictures = hand_made(embedder.embed_texts(TEXTS).vectors, captions=[[text] for text in TEXTS])
    result = evaluate_retrieval(embedder, pictures, progress=done.append)
    assert set(result.numbers.values()) == {1.0}
    assert len(result.numbers) == 6
    assert (result.counts, result.mistakes) == ({"pictures": 4, "texts": 4, "broken": 0}, ())
    assert sum(done) == 4


def test_two_swapped_pictures_are_the_mistakes(embedder: Embedder) -> None:
    vectors = embedder.embed_texts(TEXTS).vectors
    pictures = hand_made(vectors[[1, 0, 2, 3]], captions=[[text] for text in TEXTS])
    result = evaluate_retrieval(embedder, pictures)
    assert result.numbers["image_to_text/recall@1"] == result.numbers["text_to_image/recall@1"] == 0.5
    assert {mistake.name for mistake in result.mistakes} == {"picture 0", "picture 1"}
    worst = next(mistake for mistake in result.mistakes if mistake.name == "picture 1")
    assert (worst.index, worst.expected.text, worst.found[0].text) == (10, TEXTS[1], TEXTS[0])
    assert worst.found[0].score == pytest.approx(1, abs=1e-5)
    assert worst.expected.score == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)
    assert len(evaluate_retrieval(embedder, pictures, num_mistakes=1).mistakes) == 1


def test_the_main_caption_or_all_of_them_ask(embedder: Embedder) -> None:
    # each picture is its second caption; "snow" is said of two pictures, and both are right answers to it
    captions = [["a red kite", "snow"], ["two owls", "snow"], ["the old mill", "a pond"]]
    vectors = embedder.embed_texts([given[1] for given in captions]).vectors
    main = evaluate_retrieval(embedder, hand_made(vectors, captions=captions))
    assert (main.counts["texts"], main.settings) == (3, {"captions": "main"})
    result = evaluate_retrieval(embedder, hand_made(vectors, captions=captions), all_captions=True)
    assert (result.counts["texts"], result.settings) == (5, {"captions": "all"})
    assert result.numbers["image_to_text/recall@1"] == 1.0
    texts = embedder.embed_texts(["a red kite", "snow", "two owls", "the old mill", "a pond"]).vectors
    relevant = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]], dtype=bool)
    expected = recall_at(ranks(texts @ vectors.T, relevant.T))
    assert result.numbers["text_to_image/recall@1"] == expected["recall@1"]


def test_the_size_of_the_blocks_changes_nothing(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [[f"caption {number}", f"other {number % 5}"] for number in range(23)]
    pictures = hand_made(np.random.default_rng(0).normal(size=(23, 24)), captions=captions)
    whole = evaluate_retrieval(embedder, pictures, all_captions=True)
    monkeypatch.setattr(retrieval, "_SCORES_AT_ONCE", 60)
    assert evaluate_retrieval(embedder, pictures, all_captions=True) == whole
    assert 0 < whole.numbers["text_to_image/recall@10"] < 1


@pytest.mark.parametrize("case", GOLDEN["retrieval"]["cases"], ids=lambda case: str(len(case["owners"])))
def test_recall_is_that_of_the_original_code(case: dict[str, list[int]]) -> None:
    scores = np.array(case["scores"])
    relevant = np.arange(len(scores))[:, None] == np.array(case["owners"])
    ways = {"image_to_text": ranks(scores, relevant), "text_to_image": ranks(scores.T, relevant.T)}
    found = {f"{way}/{name}": share for way, places in ways.items() for name, share in recall_at(places).items()}
    assert found == pytest.approx(case["expected"], abs=1e-12)
