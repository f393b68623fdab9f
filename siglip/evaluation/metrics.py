"""Score matrices -> numbers in [0, 1]. In retrieval, ties count against the model: a constant score finds nothing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from siglip.errors import ShapeError

Scores = Float[np.ndarray, "queries items"]


def ranks(scores: Scores, relevant: Bool[np.ndarray, "rows columns"]) -> Int[np.ndarray, " queries"]:
    """Place, from 0, of each query's best relevant item; an item that scores the same as it goes before it.

    Raises ShapeError if the shapes differ or a query has no relevant item.
    """
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise ShapeError(f"scores {scores.shape} and relevance {relevant.shape} must be one matrix [queries, items]")
    lonely = np.flatnonzero(~relevant.any(axis=1))
    if len(lonely):
        raise ShapeError(f"{len(lonely)} queries have no relevant item, the first is row {lonely[0]}; drop them")
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    # a score that is not a number must not look like a miss of the others
    return ((~(scores < best)) & ~relevant).sum(axis=1)


def recall_at(places: Int[np.ndarray, " queries"], ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Share of queries whose best relevant item is among the first k, as {"recall@1": ...}."""
    return {f"recall@{k}": float((places < k).mean()) for k in ks}


def retrieval(image_to_text: Scores, relevant: Bool[np.ndarray, "rows columns"]) -> dict[str, float]:
    """Recall at 1, 5 and 10 both ways. Rows are images; an image may have several texts and a text several images."""
    both = {
        "image_to_text": ranks(image_to_text, relevant),
        "text_to_image": ranks(np.ascontiguousarray(image_to_text.T), np.ascontiguousarray(relevant.T)),
    }
    return {f"{way}/{name}": value for way, places in both.items() for name, value in recall_at(places).items()}


def class_places(
    scores: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"]
) -> Int[np.ndarray, " images"]:
    """Place, from 0, of each picture's own class; among equal scores the class with the lower number goes first."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    return (~(scores <= own) | ((scores == own) & earlier)).sum(axis=1)


def classification(scores: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"]) -> dict[str, float]:
    """Accuracy among the first 1 and 5 classes, and the mean over classes of the accuracy in each."""
    places = class_places(scores, labels)
    top = {f"top{k}": float((places < k).mean()) for k in (1, 5) if k <= scores.shape[1]}
    return {**top, "mean_per_class": float(np.mean(list(per_class(places, labels).values())))}


def per_class(places: Int[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> dict[int, float]:
    """Top-1 accuracy of each class that has pictures."""
    return {int(label): float((places[labels == label] == 0).mean()) for label in np.unique(labels)}
