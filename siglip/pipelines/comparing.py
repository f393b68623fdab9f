"""Pictures and words in, scores or vectors out: labels of one's own, trained classes, features, similarity."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from siglip.classifier import Classifier
from siglip.embedder import Embedder
from siglip.errors import InputError, clip
from siglip.pipelines.calls import CallOptions, Pictures, checked_top_k, each, pace_of


class Score(TypedDict):
    """How likely a label fits a picture, each label for itself: the scores of a picture need not sum to one."""

    score: float
    label: str


@dataclass(frozen=True, slots=True)
class ZeroShotImageClassification:
    """Pictures and labels -> for each picture a list of Score, best first."""

    embedder: Embedder

    def __call__(
        self,
        image: Pictures,
        candidate_labels: str | Sequence[str],
        *,
        hypothesis_template: str | Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Score each label, put in place of "{}" in the template, against each picture.

        Labels are a list, or one text with commas; without a template, the checkpoint's own (`processor.templates`) are
        taken. Several templates are averaged as in the paper's evaluation (see Embedder.embed_labels). Labels met
        before are not encoded again. Raises InputError for no, blank or repeated labels, a template without "{}" and
        strange options, UnreadableImage for a picture that cannot be read.
        """
        pace = pace_of(self, options)
        labels = _checked_labels(candidate_labels)
        label_vectors = self.embedder.embed_labels(labels, hypothesis_template)

        def ranked(vector: np.ndarray) -> list[Score]:
            scores: list[float] = self.embedder.probabilities(vector[None], label_vectors)[0].tolist()
            found = [Score(score=score, label=label) for score, label in zip(scores, labels, strict=True)]
            return sorted(found, key=lambda entry: -entry["score"])

        return each(image, lambda items: self.embedder.stream_images(items, **pace), lambda result: ranked(result[1]))


@dataclass(frozen=True, slots=True)
class ImageClassification:
    """Pictures -> for each a list of Score over the classes that a trained classifier knows, best first."""

    classifier: Classifier

    def __call__(
        self,
        inputs: Pictures,
        *,
        top_k: int | None = 5,
        function_to_apply: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """The `top_k` likeliest classes of each picture; `function_to_apply` as of Classifier.stream_probabilities.

        Raises InputError for strange options, UnreadableImage for a picture that cannot be read.
        """
        pace, top_k = pace_of(self, options), checked_top_k(top_k)
        labels = self.classifier.labels

        def ranked(result: tuple[int, np.ndarray]) -> list[Score]:
            best = (-result[1]).argsort(kind="stable")[:top_k]
            return [Score(score=float(result[1][place]), label=labels[place]) for place in best]

        return each(
            inputs,
            lambda items: self.classifier.stream_probabilities(items, function=function_to_apply, **pace),
            ranked,
        )


@dataclass(frozen=True, slots=True)
class ImageFeatureExtraction:
    """Pictures -> for each its unit vector, as a list of floats."""

    embedder: Embedder

    def __call__(self, images: Pictures, **options: Unpack[CallOptions]) -> Any:
        """Embed each picture. Raises InputError for strange options, UnreadableImage for what cannot be read."""
        pace = pace_of(self, options)
        return each(images, lambda items: self.embedder.stream_images(items, **pace), lambda result: result[1].tolist())


@dataclass(frozen=True, slots=True)
class ImageTextSimilarity:
    """Pictures and texts -> for each picture the probability of every text, in the order of the texts."""

    embedder: Embedder

    def __call__(self, images: Pictures, texts: Sequence[str], **options: Unpack[CallOptions]) -> Any:
        """Score every text, taken as it is, against each picture: a matrix whose rows are pictures.

        Raises InputError if `texts` is empty or a single text and for strange options, UnreadableImage for a picture
        that cannot be read.
        """
        pace = pace_of(self, options)
        text_vectors = self.embedder.embed_labels(texts, "{}")
        return each(
            images,
            lambda items: self.embedder.stream_images(items, **pace),
            lambda result: self.embedder.probabilities(result[1][None], text_vectors)[0].tolist(),
        )


def _checked_labels(candidate_labels: str | Iterable[str]) -> list[str]:
    if isinstance(candidate_labels, str):
        candidate_labels = [label for label in map(str.strip, candidate_labels.split(",")) if label]
    labels: list[Any] = list(candidate_labels)
    if not labels:
        raise InputError('got no candidate_labels; give at least one, such as ["cat", "dog"]')
    wrong = [label for label in labels if not isinstance(label, str) or not label.strip()]
    wrong += [label for label, count in Counter(labels).items() if count > 1]
    if wrong:
        raise InputError(f"candidate_labels must be texts, none blank and none repeated, got {clip(wrong)}")
    return labels
