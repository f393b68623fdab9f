"""Scores of captions and answers equal those of the reference implementations, on invented captions."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siglip.errors import InputError
from siglip.evaluation import normalise_answer, ptb_tokens, score_captions, score_tokens, vqa_accuracy
from tests.conftest import ROOT

GOLDEN = ROOT / "tests" / "golden" / "paligemma"
METRICS: dict[str, Any] = json.loads((GOLDEN / "caption_metrics.json").read_text())
ANSWERS: dict[str, Any] = json.loads((GOLDEN / "vqa_accuracy.json").read_text())


@pytest.mark.parametrize("selection", ["all", "first_ten", "with_empty_candidate", "one_image"])
def test_scores_are_those_of_pycocoevalcap(selection: str) -> None:
    expected = METRICS[selection]
    chosen = {key: METRICS["captions"][key] for key in expected["ids"]}
    captions = {key: entry["candidate"].split() for key, entry in chosen.items()}
    references = {key: [text.split() for text in entry["references"]] for key, entry in chosen.items()}
    found = score_tokens(captions, references)
    assert found.cider == pytest.approx(expected["cider"], abs=1e-9)
    assert found.each == pytest.approx(expected["cider_each"], abs=1e-9)
    assert found.bleu == pytest.approx(expected["bleu"], abs=1e-9)
    assert found.rouge_l == pytest.approx(expected["rouge_l"], abs=1e-9)


WORDS = st.lists(st.sampled_from(["a", "red", "cat", "dog", "sees", "the"]), min_size=1, max_size=9)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=6))
def test_scores_of_any_words_are_those_of_pycocoevalcap(pairs: list[tuple[list[str], list[list[str]]]]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions = {str(place): words for place, (words, _) in enumerate(pairs)}
    references = {str(place): texts for place, (_, texts) in enumerate(pairs)}
    given_ = {key: [" ".join(words)] for key, words in captions.items()}
    wanted = {key: [" ".join(words) for words in texts] for key, texts in references.items()}
    found = score_tokens(captions, references)
    cider, each = Cider().compute_score(wanted, given_)
    assert found.cider == pytest.approx(cider, abs=1e-9)
    assert list(found.each.values()) == pytest.approx(each.tolist(), abs=1e-9)
    assert found.bleu == pytest.approx(Bleu(4).compute_score(wanted, given_, verbose=0)[0], abs=1e-9)
    assert found.rouge_l == pytest.approx(Rouge().compute_score(wanted, given_)[0], abs=1e-9)


@pytest.mark.parametrize(("text", "tokens"), METRICS["ptb"], ids=[text for text, _ in METRICS["ptb"]])
def test_words_are_cut_as_stanfords_tokenizer_cuts_them(text: str, tokens: str) -> None:
    assert " ".join(ptb_tokens(text)) == tokens


def test_raw_captions_are_tokenised_first() -> None:
    found = score_captions({"1": "A dog, running!", "2": "A cat."}, {"1": ["a dog running"], "2": ["The cat"]})
    # "dog running" of one picture of two: rarity log 2; three words of three right
    assert found.each["1"] == pytest.approx(10 * 3 / 4)
    with pytest.raises(InputError, match="each of the 1 pictures needs one caption"):
        score_captions({}, {"1": ["a"]})


@pytest.mark.parametrize(("text", "normal"), ANSWERS["normalised"], ids=[text for text, _ in ANSWERS["normalised"]])
def test_answers_are_normalised_as_in_the_challenge(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


@pytest.mark.parametrize("case", ANSWERS["accuracy"])
def test_accuracy_is_that_of_the_challenge(case: dict[str, Any]) -> None:
    assert vqa_accuracy(case["prediction"], case["answers"]) == pytest.approx(case["accuracy"])


def test_one_answer_is_too_few() -> None:
    with pytest.raises(InputError, match="several people"):
        vqa_accuracy("yes", ["yes"])
