"""Vocabulary files: which are read as what, which are refused, and how ids become text again."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from transformers import SiglipTokenizer as PublishedTokenizer

from siglip.config import TextSettings
from siglip.errors import CheckpointError, PreparationError
from siglip.processing.tokenizer import SiglipTokenizer
from tests.processing.conftest import NANO, build_gemma, train_sentencepiece
from tests.processing.test_tokenizer import examples, random_texts, words_of

nano_ids = st.lists(st.integers(0, 2) | st.integers(0, 200), max_size=12)


def test_a_sentencepiece_vocabulary_is_padded_with_its_end_and_canonicalized(nano: SiglipTokenizer) -> None:
    assert nano.settings == TextSettings(context_length=64, clean="canonicalize-hf")
    assert (nano.eos_token_id, nano.pad_token_id) == (1, 1)
    assert nano("")["input_ids"] == [1] * 64


def test_a_gemma_vocabulary_is_padded_with_zero_on_the_right_and_lower_cased(gemma: SiglipTokenizer) -> None:
    assert gemma.settings == TextSettings(context_length=64, clean="lower")
    assert (gemma.eos_token_id, gemma.pad_token_id) == (1, 0)
    assert gemma("")["input_ids"] == [1, *[0] * 63]
    ids = gemma("A Photo, of a CAT")["input_ids"]
    assert ids == gemma("a photo, of a cat")["input_ids"]
    assert ids[gemma.count("a photo, of a cat") - 1 :] == [1, *[0] * (64 - gemma.count("a photo, of a cat"))]
    assert 2 not in ids


def test_what_a_tokenizer_json_says_about_bos_cutting_and_padding_is_not_used(
    gemma: SiglipTokenizer, tmp_path: Path
) -> None:
    other = build_gemma(tmp_path, template="<bos> $A")
    other.enable_truncation(4)
    other.enable_padding(direction="left", length=70)
    other.save(str(tmp_path / "tokenizer.json"))
    texts = random_texts(200, words_of(gemma))
    assert SiglipTokenizer(tmp_path / "tokenizer.json")(texts) == gemma(texts)


def test_gemma_is_known_by_its_ids_also_in_a_sentencepiece_file(tmp_path: Path) -> None:
    vocab_file = train_sentencepiece(tmp_path, model_type="bpe", byte_fallback=True, bos_id=2, unk_id=3)
    tokenizer = SiglipTokenizer(vocab_file)
    assert tokenizer.settings.clean == "lower"
    assert tokenizer("A Cat")["input_ids"] == tokenizer("a cat")["input_ids"]
    assert tokenizer("")["input_ids"] == [1, *[0] * 63]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.model", None, "No such file"),
        ("spiece.model", b"", "is not a vocabulary"),
        ("spiece.model", b"version https://git-lfs.github.com/spec/v1\n", "is not a vocabulary"),
        ("tokenizer.json", b'{"model": 1}', "is not a vocabulary"),
        ("tokenizer.json", Tokenizer(BPE({"a": 0}, [])).to_str().encode(), "<pad>, <eos>, <bos> at 0, 1, 2"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}.*{reason}.*spiece.model"):
        SiglipTokenizer(tmp_path / name)


def test_a_sentencepiece_file_without_an_end_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no end-of-sentence piece"):
        SiglipTokenizer(train_sentencepiece(tmp_path, eos_id=-1))


def test_a_pickled_tokenizer_is_the_same_and_needs_no_file(tmp_path: Path) -> None:
    build_gemma(tmp_path)
    train_sentencepiece(tmp_path)
    texts = [*random_texts(200, ["cat", "dog"]), "a<eos>b</s>"]
    for name in ("tokenizer.json", "spiece.model"):
        tokenizer = SiglipTokenizer(tmp_path / name, TextSettings(context_length=20, clean="none"))
        data = pickle.dumps(tokenizer)
        (tmp_path / name).unlink()
        copy = pickle.loads(data)
        assert copy(texts) == tokenizer(texts)
        assert copy.settings == tokenizer.settings


@examples
@given(ids=nano_ids, skip=st.booleans())
def test_decoding_is_that_of_the_published_class(
    nano: SiglipTokenizer, published: Any, ids: list[int], skip: bool
) -> None:
    expected = published.decode(ids, skip_special_tokens=skip)
    assert nano.decode(ids, skip_special_tokens=skip) == expected
    assert nano.batch_decode(torch.tensor([ids, ids]).long(), skip_special_tokens=skip) == [expected] * 2
    assert nano.decode(np.array(ids, dtype=np.int64), skip_special_tokens=skip) == expected


@examples
@given(ids=st.lists(st.integers(0, 300), max_size=12), skip=st.booleans())
def test_decoding_gemma_is_that_of_the_published_class(
    gemma: SiglipTokenizer, published_gemma: Any, ids: list[int], skip: bool
) -> None:
    assert gemma.decode(ids, skip_special_tokens=skip) == published_gemma.decode(ids, skip_special_tokens=skip)


@examples
@given(first=nano_ids, second=st.none() | nano_ids)
def test_special_tokens_are_added_and_masked_as_in_the_published_class(
    nano: SiglipTokenizer, published: Any, first: list[int], second: list[int] | None
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This sequence already has")
        built = published.build_inputs_with_special_tokens(first, second)
    assert nano.build_inputs_with_special_tokens(first, second) == built
    assert nano.get_special_tokens_mask(first, second) == published.get_special_tokens_mask(first, second)
    assert nano.get_special_tokens_mask(built, already_has_special_tokens=True) == published.get_special_tokens_mask(
        built, already_has_special_tokens=True
    )
    assert nano.create_token_type_ids_from_sequences(first, second) == published.create_token_type_ids_from_sequences(
        first, second
    )


def test_a_mask_of_finished_ids_takes_one_list(nano: SiglipTokenizer) -> None:
    with pytest.raises(PreparationError, match="drop token_ids_1"):
        nano.get_special_tokens_mask([5, 1], [6, 1], already_has_special_tokens=True)


def test_a_saved_vocabulary_is_the_same_file(nano: SiglipTokenizer, gemma: SiglipTokenizer, tmp_path: Path) -> None:
    for tokenizer, name in ((nano, "spiece.model"), (gemma, "tokenizer.json")):
        assert tokenizer.save_vocabulary(tmp_path) == (str(tmp_path / name),)
        (path,) = tokenizer.save_vocabulary(tmp_path, filename_prefix="old")
        assert path == str(tmp_path / f"old-{name}")
        assert Path(path).read_bytes() == tokenizer.vocab_file.read_bytes()
        saved = SiglipTokenizer(tmp_path / name)
        assert saved.save_vocabulary(tmp_path) == (str(tmp_path / name),)  # onto itself
        assert saved("a cat") == tokenizer("a cat")


@pytest.mark.parametrize("token", ["<obj>", "Foo", AddedToken("<s1>", special=True)])
def test_tokens_added_to_a_vocabulary_are_refused_because_the_ids_would_differ(tmp_path: Path, token: Any) -> None:
    published = PublishedTokenizer.from_pretrained(NANO)
    published.add_tokens([token])
    published.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"1 tokens were added to the .*, such as '.*', which are not read"):
        SiglipTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        {"additional_special_tokens": ["<loc>"]},
        {"additional_special_tokens": [{"content": "<loc>", "special": True}]},
        {"extra_special_tokens": {"loc_token": "<loc>"}},
        {"added_tokens_decoder": {"5": {"content": "<loc>"}}},
        {"added_tokens_decoder": {"5": {"content": "</s>"}}},
        {"eos_token": "<end>"},
        {"pad_token": "[PAD]"},
    ],
)
def test_tokens_that_settings_put_into_a_vocabulary_are_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    SiglipTokenizer.from_pretrained(NANO).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    mine = {"additional_special_tokens": [], "added_tokens_decoder": {"1": {"content": "</s>"}}, "pad_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | mine))
    assert SiglipTokenizer.from_pretrained(tmp_path)("a cat") == SiglipTokenizer.from_pretrained(NANO)("a cat")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | mine | said))
    with pytest.raises(CheckpointError, match="1 tokens were added to the vocabulary, such as"):
        SiglipTokenizer.from_pretrained(tmp_path)


def test_a_special_or_capital_token_added_to_gemma_is_refused(tmp_path: Path) -> None:
    gemma = build_gemma(tmp_path)
    assert SiglipTokenizer.from_pretrained(tmp_path).unread_tokens == []
    gemma.add_tokens([AddedToken("<Foo>", normalized=False)])
    gemma.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="such as '<Foo>'"):
        SiglipTokenizer.from_pretrained(tmp_path)
