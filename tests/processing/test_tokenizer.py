"""Texts become the ids of the published tokenizer classes, always of the checkpoint's width."""

import random
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from transformers import SiglipTokenizer as PublishedTokenizer

from siglip.config import Clean
from siglip.errors import PreparationError, SiglipWarning
from siglip.processing.tokenizer import SiglipTokenizer
from siglip.processing.vocabulary import clean_text
from tests.processing.conftest import NANO, published_ids, train_sentencepiece, with_context

WHITESPACE = [chr(code) for code in range(0x110000) if chr(code).isspace()]
CONTROL_AND_FORMAT = [chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) in ("Cc", "Cf")]
ODD = ["\u2581", "</s>", "<unk>", "<pad>", "<eos>", "<bos>", "\n\n", "\u03a3", "\u0130", "\ufb01", "\u2167", "\uff1c"]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

any_text = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from([*"aboe ", *ODD, *PUNCTUATION, *WHITESPACE]), max_size=40
).map("".join)
examples = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def random_texts(count: int, words: list[str], seed: int = 0) -> list[str]:
    """Strings of every kind of character there is, and runs of few letters, which split into pieces of equal score."""
    rng = random.Random(seed)
    kinds: list[Callable[[], str]] = [
        lambda: rng.choice(words),
        lambda: rng.choice(words),
        lambda: "".join(rng.choices("aboe ", k=rng.randrange(20))),
        lambda: rng.choice(WHITESPACE),
        lambda: rng.choice(CONTROL_AND_FORMAT),
        lambda: rng.choice(PUNCTUATION),
        lambda: rng.choice(ODD),
        lambda: rng.choice("eao") + chr(rng.randrange(0x300, 0x370)),
        lambda: chr(rng.randrange(0x1F300, 0x1FB00)) + rng.choice(["", "\ufe0f", "\u200d"]),
        lambda: chr(rng.choice([rng.randrange(0xD800), rng.randrange(0xE000, 0x10000)])),
        lambda: chr(rng.randrange(0x10000, 0x110000)),
    ]
    lengths = (0, 1, 2, 4, 8, 16, 32)
    return ["".join(rng.choice(kinds)() for _ in range(rng.choice(lengths))) for _ in range(count)]


def words_of(tokenizer: SiglipTokenizer) -> list[str]:
    return [tokenizer.decode([index]) or " " for index in range(tokenizer.vocab_size)]


# ids of the published classes


@pytest.mark.parametrize("context_length", [16, 64])
def test_ids_equal_the_published_class_on_ten_thousand_random_texts(
    nano: SiglipTokenizer, published: Any, context_length: int
) -> None:
    texts = random_texts(10_000, words_of(nano), seed=context_length)
    ours = with_context(nano.vocab_file, context_length)(texts)["input_ids"]
    theirs = published_ids(published, texts, context_length, split_special_tokens=True)
    assert [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b] == []
    # without that option, which old scripts do not know, only the special tokens differ
    plain = [text for text in texts[:2_000] if "</s>" not in text and "<unk>" not in text]
    assert len(plain) > 1_000
    assert with_context(nano.vocab_file, context_length)(plain)["input_ids"] == published_ids(
        published, plain, context_length
    )


@pytest.mark.parametrize(
    "options",
    [
        {"byte_fallback": True},
        {"byte_fallback": False},
        {"byte_fallback": False, "character_coverage": 0.98},
        {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        {"model_type": "bpe", "byte_fallback": True},
    ],
    ids=lambda options: ",".join(f"{key}={value}" for key, value in options.items()),
)
def test_ids_equal_the_published_class_for_other_vocabularies(tmp_path: Path, options: dict[str, Any]) -> None:
    vocab_file = train_sentencepiece(tmp_path, add_dummy_prefix=True, **options)
    ours = with_context(vocab_file, 32)
    texts = random_texts(2_000, words_of(ours))
    theirs = published_ids(PublishedTokenizer(str(vocab_file)), texts, 32, split_special_tokens=True)
    assert [text for text, a, b in zip(texts, ours(texts)["input_ids"], theirs, strict=True) if a != b] == []


@examples
@given(text=any_text)
def test_ids_equal_the_published_class_for_any_text(nano: SiglipTokenizer, published: Any, text: str) -> None:
    assert nano(text)["input_ids"] == published_ids(published, [text], 64, split_special_tokens=True)[0]


def test_a_very_long_text_is_cut_as_in_the_published_class(nano: SiglipTokenizer, published: Any) -> None:
    text = "a photo of a cat, " * 10_000
    assert nano(text)["input_ids"] == published_ids(published, [text], 64)[0]


def test_ids_equal_the_published_gemma_classes_fed_lower_case(
    gemma: SiglipTokenizer, published_gemma: Any, gemma_folder: Path
) -> None:
    texts = random_texts(5_000, words_of(gemma))
    lower = [text.lower() for text in texts]
    assert type(published_gemma).__name__ == "GemmaTokenizer"
    for theirs in (published_gemma, PreTrainedTokenizerFast.from_pretrained(gemma_folder)):
        assert gemma(texts)["input_ids"] == published_ids(theirs, lower, 64, split_special_tokens=True)


# special tokens


def test_the_end_token_written_in_a_text_does_not_end_it(nano: SiglipTokenizer, published: Any) -> None:
    text = "a cat</s> and a dog"
    ours = nano(text)["input_ids"]
    assert ours.index(nano.eos_token_id) == nano.count(text) - 1
    assert ours == nano("a cats and a dog")["input_ids"]  # its punctuation is dropped like any other
    assert published_ids(published, [text], 64)[0].index(nano.eos_token_id) < nano.count(text) - 1


@pytest.mark.parametrize("token", ["<eos>", "<bos>", "<pad>", "<unk>", "<mask>"])
def test_special_tokens_of_gemma_written_in_a_text_are_text(gemma: SiglipTokenizer, token: str) -> None:
    ids = gemma(f"a {token} b")["input_ids"]
    assert not {0, 1, 2, 3, 4} & set(ids[: gemma.count(f"a {token} b") - 1])
    assert gemma.decode(ids, skip_special_tokens=True) == f"a {token} b"


@pytest.mark.parametrize("clean", ["none", "lower", "canonicalize-hf", "canonicalize-bv"])
@examples
@given(text=any_text)
def test_no_text_holds_an_end_before_its_end(nano: SiglipTokenizer, clean: Clean, text: str) -> None:
    tokenizer = with_context(nano.vocab_file, 512, clean)
    ids = tokenizer(text)["input_ids"]
    assert ids.index(tokenizer.eos_token_id) == min(tokenizer.count(text), 512) - 1


# cleaning


@pytest.mark.parametrize(
    ("text", "lower", "hf", "bv"),
    [
        ("", "", "", ""),
        ("A Photo, of a Cat!", "a photo, of a cat!", "a photo of a cat", "a photo of a cat"),
        ("tabby_cat", "tabby_cat", "tabbycat", "tabby cat"),
        ("_a__b_", "_a__b_", "ab", "a b"),
        ("  two \t\n spaces\u3000", "  two \t\n spaces\u3000", "two spaces", "two spaces"),
        ("don't {} [stop] (now) <b>", "don't {} [stop] (now) <b>", "dont stop now b", "dont stop now b"),
        ("\u00c9T\u00c9 \u2014 \u201cQUOTED\u201d", *["\u00e9t\u00e9 \u2014 \u201cquoted\u201d"] * 3),
        ("- , .", "- , .", "", ""),
        # the final sigma: lower-cased before, or after, what follows it is dropped
        ("\u0391\u03a3,\u0391", "\u03b1\u03c2,\u03b1", "\u03b1\u03c2\u03b1", "\u03b1\u03c3\u03b1"),
    ],
)
def test_each_way_of_cleaning_does_what_it_says(text: str, lower: str, hf: str, bv: str) -> None:
    assert clean_text(text, "none") == text
    assert clean_text(text, "lower") == lower
    assert clean_text(text, "canonicalize-hf") == hf
    assert clean_text(text, "canonicalize-bv") == bv


@examples
@given(text=any_text)
def test_canonical_text_is_that_of_the_published_class(published: Any, text: str) -> None:
    assert clean_text(text, "canonicalize-hf") == published.canonicalize_text(text)


@pytest.mark.parametrize(
    ("clean", "cleaned"),
    [
        ("none", "A Photo_of </s> Cats!"),
        ("lower", "a photo_of </s> cats!"),
        ("canonicalize-hf", "a photoof s cats"),
        ("canonicalize-bv", "a photo of s cats"),
    ],
)
def test_the_pieces_are_those_of_the_cleaned_text(nano: SiglipTokenizer, clean: Clean, cleaned: str) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(nano.vocab_file)).encode(cleaned)
    ids = with_context(nano.vocab_file, 64, clean)("A Photo_of </s> Cats!")["input_ids"]
    assert ids == [*pieces, *[nano.eos_token_id] * (64 - len(pieces))]


# the width


@examples
@given(text=any_text, context_length=st.integers(2, 20))
def test_every_text_is_as_wide_as_the_context_and_keeps_its_end(
    nano: SiglipTokenizer, gemma: SiglipTokenizer, text: str, context_length: int
) -> None:
    for whole in (nano, gemma):
        tokenizer = with_context(whole.vocab_file, context_length, whole.settings.clean)
        ids = tokenizer(text)["input_ids"]
        length = min(tokenizer.count(text), context_length)
        assert len(ids) == context_length
        assert ids[length - 1 :] == [tokenizer.eos_token_id, *[tokenizer.pad_token_id] * (context_length - length)]
        assert (
            ids[: length - 1]
            == with_context(whole.vocab_file, 500, whole.settings.clean)(text)["input_ids"][: length - 1]
        )


@examples
@given(texts=st.lists(any_text, min_size=1, max_size=8))
def test_the_ids_of_a_text_do_not_depend_on_its_batch(
    nano: SiglipTokenizer, gemma: SiglipTokenizer, texts: list[str]
) -> None:
    for tokenizer in (nano, gemma):
        assert tokenizer(texts)["input_ids"] == [tokenizer(text)["input_ids"] for text in texts]


def test_count_is_the_number_of_tokens_before_cutting(nano: SiglipTokenizer) -> None:
    assert nano.count("") == 1
    assert nano.count("cat " * 500) > 500


# options of existing scripts


def test_options_that_say_what_happens_anyway_are_accepted(nano: SiglipTokenizer) -> None:
    texts = ["a cat", "a dog " * 100]
    expected = nano(texts)
    assert nano(texts, padding="max_length", truncation=True, max_length=64) == expected
    assert nano(texts, padding=None, truncation="longest_first", max_length=None) == expected
    assert nano(texts[:1], truncation=False)["input_ids"] == expected["input_ids"][:1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"padding": True}, "padding=True would change the embedding.*64 tokens.*max_length"),
        ({"padding": False}, "padding=False would change"),
        ({"padding": "longest"}, "padding='longest' would change"),
        ({"padding": "do_not_pad"}, "padding='do_not_pad' would change"),
        ({"max_length": 77}, "max_length=77.*exactly 64 tokens.*max_length=64"),
        ({"truncation": "only_second"}, "truncation must be True, False or None, got 'only_second'"),
        ({"truncation": False}, "text 1 has 101 tokens.*reads 64.*shorten"),
        ({"return_tensors": "tf"}, "return_tensors must be 'pt', 'np' or None.*'tf'"),
    ],
)
def test_options_that_would_change_the_result_are_errors(
    nano: SiglipTokenizer, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PreparationError, match=reason):
        nano(["a cat", "cat " * 100], **options)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "string or a list of strings, got NoneType"),
        (b"a cat", "string or a list of strings, got bytes"),
        (3, "string or a list of strings, got int"),
        ((word for word in ["a"]), "got generator"),
        ({"a": 1}, "got dict"),
        ([], "empty list"),
        (["a", None], "text 1 must be a string, got NoneType"),
        (["a", b"b"], "text 1 must be a string, got bytes"),
        ([["a", "b"]], r"text 0 must be a string, got list: \['a', 'b'\]"),
        (["a", float("nan")], "text 1 must be a string, got float: nan"),
        (["a", "b\ud800c"], "text 1 holds a lone surrogate.*replace"),
    ],
)
def test_what_is_no_text_is_an_error_that_names_it(nano: SiglipTokenizer, text: Any, reason: str) -> None:
    with pytest.raises(PreparationError, match=reason):
        nano(text)


def test_ids_come_as_lists_arrays_or_tensors(nano: SiglipTokenizer) -> None:
    one, many = nano("a cat")["input_ids"], nano(("a cat", "a dog"))["input_ids"]
    assert isinstance(one, list) and isinstance(one[0], int)
    assert many[0] == one
    array = nano(["a cat", "a dog"], return_tensors="np").input_ids
    assert array.dtype == np.int64 and array.tolist() == many
    tensor = nano(["a cat", "a dog"], return_tensors="pt").input_ids
    assert tensor.dtype == torch.int64 and tensor.tolist() == many
    assert nano("a cat", return_tensors="pt").input_ids.shape == (1, 64)


def test_threads_may_share_a_tokenizer(nano: SiglipTokenizer, gemma: SiglipTokenizer) -> None:
    batches = [random_texts(50, ["cat", "dog"], seed) for seed in range(32)]
    for tokenizer in (nano, gemma):
        expected = [tokenizer(batch) for batch in batches]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(tokenizer, batches)) == expected


# the documented methods


def test_texts_of_which_less_is_seen_than_was_written_are_said_once_with_their_count() -> None:
    tokenizer = with_context(NANO / "spiece.model", 6)
    texts = ["a cat", "!?", "", "\U0001f984", "a very long text about cats and dogs and all the others", "a cat"]
    with pytest.warns(SiglipWarning) as caught:
        tokenizer.warn_of_loss(texts)
    assert sorted(str(item.message) for item in caught) == [
        "1 of 5 texts are longer than the 6 tokens this model reads, and cut, the first is "
        "'a very long text about cats and dogs and all the others'",
        "1 of 5 texts are made only of characters that this model does not know, the first is '\U0001f984'",
        "2 of 5 texts are empty, or hold only what is left out before the model reads them, the first is '!?'",
    ]
    tokenizer.warn_of_loss(["a cat", 3, "\ud800"])
