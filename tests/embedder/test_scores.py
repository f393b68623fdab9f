"""Cosines, logits and probabilities of vectors."""

import numpy as np
import pytest
import torch

from siglip.embedder import Embedder
from siglip.embeddings import Embeddings
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
    theirs = Embeddings(ours.vectors, ours.indices, (), ours.names, "text", "f" * 64)
    with pytest.raises(InputError, match=f"made by the model {'f' * 64}, this one is {embedder.fingerprint}"):
        embedder.similarity(ours, theirs)


def test_scores_equal_those_of_the_model(embedder: Embedder) -> None:
    images, texts = [picture(0), picture(1)], ["a", "b", "c"]
    with torch.no_grad():
        expected = embedder.model(**embedder.processor(text=texts, images=images, return_tensors="pt"))
    found = embedder.logits(embedder.embed_images(images).vectors, embedder.embed_texts(texts).vectors)
    np.testing.assert_allclose(found, expected.logits_per_image, atol=1e-5)
