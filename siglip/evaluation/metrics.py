"""Score matrices -> places, and places -> shares in [0, 1].

In retrieval ties count against the model, so a constant score finds nothing; among classes the first of equals is the
answer, as with argmax.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from siglip.errors import ShapeError

Scores = Float[np.ndarray, "queries items"]
Relevance = Bool[np.ndarray, "rows columns"]


def ranks(scores: Scores, relevant: Relevance) -> Int[np.ndarray, " queries"]:
    """Place, from 0, of each query's best relevant item; an item that scores the same as it goes before it.

    Raises ShapeError if the shapes differ or a query has no relevant item.
    """
    if scores.shape != relevant.shape:
        raise ShapeError(f"scores {scores.shape} and relevance {relevant.shape} must be one matrix [queries, items]")
    lonely = np.flatnonzero(~relevant.any(axis=1))
    if len(lonely):
        raise ShapeError(f"{len(lonely)} queries have no relevant item, the first is row {lonely[0]}; drop them")
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    # a score that is not a number must not look like a miss of the others
    return ((~(scores < best)) & ~relevant).sum(axis=1)


def margins(scores: Scores, relevant: Relevance) -> Float[np.ndarray, " queries"]:
    """By how much the best item that is not relevant beats the best relevant one; -inf where all items are relevant."""
    wrong = np.where(relevant, -np.inf, scores).max(axis=1)
    return wrong - np.where(relevant, scores, -np.inf).max(axis=1)


def recall_at(places: Int[np.ndarray, " queries"], ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Share of queries whose best relevant item is among the first k, as {"recall@1": ...}."""
    return {f"recall@{k}": float((places < k).mean()) for k in ks}


def class_places(
    scores: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"]
) -> Int[np.ndarray, " images"]:
    """Place, from 0, of each picture's own class; among equal scores the class with the lower number goes first.

    Raises ShapeError for a label without a column.
    """
    num_classes = scores.shape[1]
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise ShapeError(f"labels count from 0 to {num_classes - 1} for {num_classes} classes, got {outside[0]}")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(num_classes)[None, :] < labels[:, None]
    return (~(scores <= own) | ((scores == own) & earlier)).sum(axis=1)


def accuracies(
    places: Int[np.ndarray, " images"], labels: Int[np.ndarray, " images"], num_classes: int
) -> dict[str, float]:
    """Share of pictures whose own class is among the first 1 and 5, and the mean over classes of the first.

    "top5" is left out where there are fewer classes.
    """
    top = {f"top{k}": float((places < k).mean()) for k in (1, 5) if k <= num_classes}
    return {**top, "mean_per_class": float(np.mean(list(per_class(places, labels).values())))}


def classification(scores: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"]) -> dict[str, float]:
    """The `accuracies` of a score matrix. Raises ShapeError for a label without a column."""
    return accuracies(class_places(scores, labels), labels, scores.shape[1])


def per_class(places: Int[np.ndarray, " images"], labels: Int[np.ndarray, " images"]) -> dict[int, float]:
    """Top-1 accuracy of each class that has pictures."""
    return {int(label): float((places[labels == label] == 0).mean()) for label in np.unique(labels)}
