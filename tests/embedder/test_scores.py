"""Cosines, logits and probabilities of vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from siglip.embedder import Embedder
from siglip.embeddings import Embeddings, Maker
from siglip.errors import InputError, ShapeError
from tests.embedder.conftest import picture


def test_logits_are_scaled_and_shifted_cosines_and_probabilities_their_sigmoid(embedder: Embedder) -> None:
    # a fresh model has t = 10 and b = -10
    images, texts = np.eye(2, 3, dtype=np.float32), np.array([[0, 1, 0]], dtype=np.float32)
    np.testing.assert_allclose(embedder.logits(images, texts), [[-10.0], [0.0]], atol=1e-5)
    np.testing.assert_allclose(embedder.probabilities(images, texts), [[4.5397868e-05], [0.5]], rtol=1e-4)
    with pytest.raises(ShapeError, match="3 wide and those 2"):
        embedder.logits(images, texts[:, :2])


def test_similarity_is_the_cosine_of_all_pairs_of_either_kind(embedder: Embedder) -> None:
    images, texts = embedder.embed_images([picture(0), picture(1)]), embedder.embed_texts(["a", "b", "c"])
    expected = [
        [sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) for b in texts.vectors] for a in images.vectors
    ]
    np.testing.assert_allclose(embedder.similarity(images, texts), expected, atol=1e-6)
    np.testing.assert_allclose(embedder.similarity(images.vectors, texts), expected, atol=1e-6)
    np.testing.assert_allclose(np.diag(embedder.similarity(texts, texts)), 1.0, atol=1e-6)
    np.testing.assert_allclose(embedder.logits(images, texts), embedder.logits(images.vectors, texts.vectors))


def test_vectors_of_another_model_are_refused(embedder: Embedder) -> None:
    ours = embedder.embed_texts(["a"])
    theirs = Embeddings(ours.vectors, ours.indices, (), ours.names, "text", Maker("x", "f" * 64))
    with pytest.raises(InputError, match=f"made by the model {'f' * 64}, this one is {embedder.fingerprint}"):
        embedder.similarity(ours, theirs)


def test_vectors_may_be_tensors_or_lists_and_a_single_one_is_one_row(embedder: Embedder) -> None:
    # as similarity() of sentence-transformers takes them
    rows, columns = [[0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.8, 0.6], [0.0, -1.0]]
    expected = np.array([[0.6, 0.96, -0.8], [0.0, 0.6, -1.0]])
    needing_gradients = torch.tensor(columns, dtype=torch.float64, requires_grad=True)
    for found in (
        embedder.similarity(rows, columns),
        embedder.similarity(np.array(rows), needing_gradients),
        embedder.similarity(torch.tensor(rows), columns),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
    half = embedder.similarity(torch.tensor(rows, dtype=torch.bfloat16), columns)
    np.testing.assert_allclose(half, expected, atol=4e-3)
    np.testing.assert_allclose(embedder.similarity(rows[0], columns), expected[:1], atol=1e-6)
    np.testing.assert_allclose(
        embedder.similarity(torch.tensor(rows), np.array(columns[1])), expected[:, [1]], atol=1e-6
    )
    texts = embedder.embed_texts(["a", "b", "c"])
    np.testing.assert_allclose(
        embedder.similarity(texts[1], texts), (texts.vectors @ texts.vectors[1])[None], atol=1e-6
    )
    np.testing.assert_allclose(embedder.logits(rows, columns), 10 * expected - 10, atol=1e-4)


def test_what_is_no_rows_of_numbers_is_refused(embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"expected rows of numbers, got \[\[1.0, 0.0\], \[1.0\]\]"):
        embedder.similarity([[1.0, 0.0], [1.0]], [[1.0, 0.0]])
    with pytest.raises(ShapeError, match=r"expected vectors \[rows, dim\], got \[2, 3, 2\]"):
        embedder.similarity([[1.0, 0.0]], np.zeros((2, 3, 2)))


def test_vectors_from_a_file_are_compared_with_those_of_the_same_model(embedder: Embedder, tmp_path: Path) -> None:
    images, texts = embedder.embed_images([picture(0), picture(1)]), embedder.embed_texts(["a", "b"])
    images.save(tmp_path / "images")
    again = Embeddings.load(tmp_path / "images")
    assert again.maker is not None
    assert (again.maker.name, again.fingerprint, again.kind) == ("a model in memory", embedder.fingerprint, "image")
    np.testing.assert_allclose(embedder.similarity(again, texts), images.vectors @ texts.vectors.T, atol=1e-6)
    nano = Embedder.from_pretrained("nano", device="cpu", dtype="float32")
    nano.embed_texts(["a"]).save(tmp_path / "texts")
    assert '"model": "nano"' in (tmp_path / "texts.jsonl").read_text()
    with pytest.raises(InputError, match=f"made by the model {nano.fingerprint}"):
        embedder.similarity(texts, Embeddings.load(tmp_path / "texts"))


def test_scores_equal_those_of_the_model(embedder: Embedder) -> None:
    images, texts = [picture(0), picture(1)], ["a", "b", "c"]
    with torch.no_grad():
        expected = embedder.model(**embedder.processor(text=texts, images=images, return_tensors="pt"))
    found = embedder.logits(embedder.embed_images(images).vectors, embedder.embed_texts(texts).vectors)
    np.testing.assert_allclose(found, expected.logits_per_image, atol=1e-5)
