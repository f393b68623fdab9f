"""Embedding many texts and labels equals embedding each alone; each is encoded once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from siglip.embedder import Embedder
from siglip.errors import InputError, PreparationError, SiglipWarning
from siglip.model import SiglipModel
from siglip.processing import SiglipProcessor


@pytest.mark.filterwarnings("ignore:1 of 4 texts")
def test_each_row_is_the_unit_vector_of_its_text_alone(embedder: Embedder) -> None:
    texts = ["a cat", "two dogs on a very long lead that goes round and round the garden twice", "", "a cat", "tea"]
    found = embedder.embed_texts(iter(texts))
    input_ids = [embedder.processor(text=text, return_tensors="pt")["input_ids"] for text in texts]
    with torch.no_grad():
        expected = [F.normalize(embedder.model.get_text_features(ids), dim=-1)[0].numpy() for ids in input_ids]
    np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
    assert found.indices.tolist() == [0, 1, 2, 3, 4]


def test_equal_texts_are_encoded_once(model: SiglipModel, processor: SiglipProcessor) -> None:
    rows: list[int] = []
    hook = model.text_model.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    embedder = Embedder(model, processor, device="cpu", dtype="float32", batch_size=4)
    hook.remove()
    found = embedder.embed_texts([f"text {index % 6}" for index in range(30)])
    assert rows == [4, 2]
    np.testing.assert_array_equal(found.vectors[:6], found.vectors[24:])


def test_what_is_no_text_is_reported_and_the_others_go_on(embedder: Embedder) -> None:
    found = embedder.embed_texts(text for text in ("a", None, "b", "\ud800", "a"))  # pyright: ignore[reportArgumentType]
    assert found.indices.tolist() == [0, 2, 4]
    assert [failure.index for failure in found.failures] == [1, 3]
    assert found.failures[0].reason == "must be a string, got NoneType: None"
    assert "lone surrogate" in found.failures[1].reason and found.failures[1].name == r"'\ud800'"
    np.testing.assert_allclose(found.vectors, embedder.embed_texts(["a", "b", "a"]).vectors, atol=1e-6)


def test_a_single_text_where_many_are_expected_is_an_error(embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"got the single text 'a cat'; pass \[text\]"):
        embedder.embed_texts("a cat")


def test_labels_are_averaged_over_templates_and_normalised_again(embedder: Embedder) -> None:
    first = embedder.embed_texts(["a cat.", "a {braced} pig."]).vectors
    second = embedder.embed_texts(["drawing of cat", "drawing of {braced} pig"]).vectors
    expected = (first + second) / 2
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = embedder.embed_labels(["cat", "{braced} pig"], ["a {}.", "drawing of {}"])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(embedder.embed_labels(["cat"], "a {}."), first[:1], atol=1e-6)


def test_labels_without_templates_go_into_those_of_the_checkpoint(embedder: Embedder) -> None:
    own = embedder.embed_labels(["cat", "pig"])
    prompts = embedder.embed_texts(["This is a photo of cat.", "This is a photo of pig."]).vectors
    np.testing.assert_allclose(own, prompts, atol=1e-6)
    tokenizer = embedder.processor.tokenizer
    before = tokenizer.settings
    tokenizer.settings = replace(before, templates=("{}!", "a {}"))
    try:
        named = embedder.embed_labels(["cat"], ["{}!", "a {}"])
        np.testing.assert_allclose(embedder.embed_labels(["cat"]), named, atol=1e-6)
    finally:
        tokenizer.settings = before


def test_labels_met_before_are_not_encoded_again(model: SiglipModel, processor: SiglipProcessor) -> None:
    rows: list[int] = []
    hook = model.text_model.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    embedder = Embedder(model, processor, device="cpu", dtype="float32")
    hook.remove()
    before = embedder.embed_labels(["cat", "dog"], ["{}", "a {}"])
    before[:] = 0.0  # what the caller does with it is not seen again
    assert embedder.new_labels(["pig", "dog", "cat", "pig"], ["{}", "a {}"]) == ["pig"]
    assert embedder.new_labels(["dog", "cat"], ["a {}"]) == ["dog", "cat"]
    found = embedder.embed_labels(["pig", "dog", "cat", "dog"], ["{}", "a {}"])
    assert rows == [4, 2]
    afresh = Embedder(model, processor, device="cpu", dtype="float32")
    np.testing.assert_allclose(found, afresh.embed_labels(["pig", "dog", "cat", "dog"], ["{}", "a {}"]), atol=1e-6)
    embedder.embed_labels(["cat"], ["a {}", "{}"])
    assert rows == [4, 2, 2]


def test_many_prompts_are_encoded_in_blocks_with_the_same_result(
    model: SiglipModel, processor: SiglipProcessor
) -> None:
    embedder = Embedder(model, processor, device="cpu", dtype="float32", batch_size=256)
    templates = [f"{number} {{}}" for number in range(1100)]
    prompts = [template.replace("{}", "pig") for template in templates]
    mean = embedder.embed_texts(prompts).vectors.mean(axis=0)
    found = embedder.embed_labels(["cat", "pig"], templates)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], "a {}", "at least one text"),
        ("cat", "a {}", "at least one text, got 'cat'"),
        (["cat"], [], "at least one template"),
        (["cat"], ["a {}", "a cat"], "template 'a cat' has no {}"),
        (["\ud800"], "{}", "lone surrogate"),
    ],
)
def test_labels_and_templates_that_make_no_sense_are_errors(
    embedder: Embedder, labels: list[str], templates: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        embedder.embed_labels(labels, templates)


def test_texts_are_encoded_in_one_pass_and_the_first_that_is_none_is_named(embedder: Embedder) -> None:
    np.testing.assert_allclose(embedder.encode_texts(["a", "b"]), embedder.embed_texts(["a", "b"]).vectors, atol=1e-6)
    with pytest.raises(PreparationError, match="text 1"):
        embedder.encode_texts(["a", "\ud800"])


def test_texts_cut_and_labels_with_commas_are_said_once_and_real_sentences_are_not() -> None:
    embedder = Embedder.from_pretrained("nano", device="cpu")
    with pytest.warns(SiglipWarning, match=r"^1 of 2 texts are longer than the \d+ tokens") as caught:
        embedder.embed_texts(["a cat", "a cat " * 100, "a cat"])
    assert len(caught) == 1
    for labels in (["cat,dog,bird"], ["cat, dog, bird"], ["a fish", "cat,dog"]):
        with pytest.warns(SiglipWarning, match="'cat.*' is taken as one label, commas and all"):
            embedder.embed_labels(labels, "a photo of {}")
    with pytest.warns(SiglipWarning, match="1 of 2 texts are empty"):
        embedder.embed_labels(["", "a cat"], "a photo of {}")
    embedder.embed_labels(["a cat", "a red, round ball"], "a photo of {}")
