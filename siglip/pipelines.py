"""Pictures and words in, plain Python out: three tasks under the names people know.

`pipeline(task, model)` gives one of the three callables below. One picture gives one result, a list of pictures a
list, and a generator a generator, which reads at most two batches ahead and so works on input that never ends.
A picture that cannot be read raises UnreadableImage; in a stream it becomes a Failure in its place instead, since
an error would end the stream and lose the good pictures behind it.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch

from siglip.embedder import Embedder, Result, is_one_picture
from siglip.errors import Failure, InputError, UnreadableImage, did_you_mean
from siglip.model import SiglipModel
from siglip.pretrained import HubOptions, StrPath
from siglip.processing import ImageInput

Pictures = ImageInput | Iterable[ImageInput]
Outcome = TypeVar("Outcome")


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
    ) -> Any:
        """Score each label, put in place of "{}" in the template, against each picture.

        Labels are a list, or one text with commas; without a template, the checkpoint's own (`processor.templates`) are
        taken. Several templates are averaged as in the paper's evaluation (see Embedder.embed_labels). Labels met
        before are not encoded again. Raises InputError for no, blank or repeated labels and for a template without
        "{}", UnreadableImage for a picture that cannot be read.
        """
        labels = _checked_labels(candidate_labels)
        label_vectors = self.embedder.embed_labels(labels, hypothesis_template)

        def ranked(vector: np.ndarray) -> list[Score]:
            scores: list[float] = self.embedder.probabilities(vector[None], label_vectors)[0].tolist()
            found = [Score(score=score, label=label) for score, label in zip(scores, labels, strict=True)]
            return sorted(found, key=lambda entry: -entry["score"])

        return _each(self.embedder, image, ranked)


@dataclass(frozen=True, slots=True)
class ImageFeatureExtraction:
    """Pictures -> for each its unit vector, as a list of floats."""

    embedder: Embedder

    def __call__(self, images: Pictures) -> Any:
        """Embed each picture. Raises UnreadableImage for a picture that cannot be read."""
        return _each(self.embedder, images, lambda vector: vector.tolist())


@dataclass(frozen=True, slots=True)
class ImageTextSimilarity:
    """Pictures and texts -> for each picture the probability of every text, in the order of the texts."""

    embedder: Embedder

    def __call__(self, images: Pictures, texts: Sequence[str]) -> Any:
        """Score every text, taken as it is, against each picture: a matrix whose rows are pictures.

        Raises InputError if `texts` is empty or a single text, UnreadableImage for a picture that cannot be read.
        """
        text_vectors = self.embedder.embed_labels(texts, "{}")
        return _each(
            self.embedder, images, lambda vector: self.embedder.probabilities(vector[None], text_vectors)[0].tolist()
        )


_TASKS = {
    "zero-shot-image-classification": ZeroShotImageClassification,
    "image-feature-extraction": ImageFeatureExtraction,
    "image-text-similarity": ImageTextSimilarity,
}


class PipelineOptions(HubOptions, total=False):
    """Where and how to compute, as in Embedder (None: its default), and how to find a hub name."""

    device: torch.device | str | int | None
    dtype: torch.dtype | str | None
    batch_size: int | None


@overload
def pipeline(
    task: Literal["zero-shot-image-classification"], model: StrPath | Embedder, **options: Unpack[PipelineOptions]
) -> ZeroShotImageClassification: ...
@overload
def pipeline(
    task: Literal["image-feature-extraction"], model: StrPath | Embedder, **options: Unpack[PipelineOptions]
) -> ImageFeatureExtraction: ...
@overload
def pipeline(
    task: Literal["image-text-similarity"], model: StrPath | Embedder, **options: Unpack[PipelineOptions]
) -> ImageTextSimilarity: ...
def pipeline(
    task: str,
    model: StrPath | Embedder,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | str | None = None,
    batch_size: int | None = None,
    **hub: Unpack[HubOptions],
) -> ZeroShotImageClassification | ImageFeatureExtraction | ImageTextSimilarity:
    """The callable for "zero-shot-image-classification", "image-feature-extraction" or "image-text-similarity".

    `model` is "nano", a local folder, a hub name "owner/name", or an Embedder holding a model and a processor of your
    own. `device`, `dtype` and `batch_size` are those of Embedder; -1 is the CPU too. Raises InputError for another
    task, or for options beside an Embedder, which has its own; else as Embedder.from_pretrained.
    """
    if task not in _TASKS:
        nearest = did_you_mean(task, _TASKS)
        hint = f"did you mean {nearest!r}? " if nearest else ""
        raise InputError(f"there is no task {task!r}; {hint}The tasks are {', '.join(_TASKS)}")
    return _TASKS[task](_embedder(model, {"device": device, "dtype": dtype, "batch_size": batch_size, **hub}))


def _embedder(model: StrPath | Embedder, options: dict[str, Any]) -> Embedder:
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(model, Embedder):
        if given:
            raise InputError(f"this Embedder has its own {', '.join(given)}; set them there: Embedder(..., device=...)")
        return model
    if isinstance(model, SiglipModel):
        raise InputError("a bare SiglipModel cannot prepare its input; pass Embedder(model, processor) instead")
    if given.get("device") == -1:
        given["device"] = "cpu"
    return Embedder.from_pretrained(model, **given)


def _each(embedder: Embedder, images: Any, finish: Callable[[np.ndarray], Outcome]) -> Any:
    """Embed and `finish` one picture, all of a list, or those of an iterator as they come."""
    single = is_one_picture(images)
    stream = embedder.stream_images([images] if single else images)
    if isinstance(images, Iterator) and not single:
        return _streamed(stream, finish)
    outcomes: list[Outcome] = []
    with closing(stream):
        for result in stream:
            if isinstance(result, Failure):
                raise UnreadableImage(result.name, result.reason)
            outcomes.append(finish(result[1]))
    return outcomes[0] if single else outcomes


def _streamed(
    stream: Generator[Result, None, None], finish: Callable[[np.ndarray], Outcome]
) -> Generator[Outcome | Failure, None, None]:
    with closing(stream):
        for result in stream:
            yield result if isinstance(result, Failure) else finish(result[1])


def _checked_labels(candidate_labels: str | Iterable[str]) -> list[str]:
    if isinstance(candidate_labels, str):
        candidate_labels = [label for label in map(str.strip, candidate_labels.split(",")) if label]
    labels: list[Any] = list(candidate_labels)
    if not labels:
        raise InputError('got no candidate_labels; give at least one, such as ["cat", "dog"]')
    wrong = [label for label in labels if not isinstance(label, str) or not label.strip()]
    wrong += [label for label, count in Counter(labels).items() if count > 1]
    if wrong:
        raise InputError(f"candidate_labels must be texts, none blank and none repeated, got {wrong}")
    return labels
