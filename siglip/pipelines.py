"""Pictures and words in, plain Python out: seven tasks under the names people know.

`pipeline(task, model)` gives one of the callables below. One picture gives one result, a list of pictures a
list, and a generator a generator, which reads at most two batches ahead and so works on input that never ends.
A picture that cannot be read raises UnreadableImage; in a stream it becomes a Failure in its place instead, since
an error would end the stream and lose the good pictures behind it.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack, cast, overload

import numpy as np
import torch
from torch import nn

from siglip.captioner import Captioner, GenerateOptions, Scores, Text, told_task
from siglip.classifier import Classifier
from siglip.embedder import Embedder
from siglip.errors import Failure, InputError, UnreadableImage, clip, did_you_mean
from siglip.keywords import LoadOptions, accepted, chosen_dtype
from siglip.model import SiglipForImageClassification, SiglipModel
from siglip.pretrained import StrPath
from siglip.processing import ImageInput, SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from siglip.streaming import is_one_picture

Pictures = ImageInput | Iterable[ImageInput]


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

        return _each(image, self.embedder.stream_images, lambda result: ranked(result[1]))


@dataclass(frozen=True, slots=True)
class ImageClassification:
    """Pictures -> for each a list of Score over the classes that a trained classifier knows, best first."""

    classifier: Classifier

    def __call__(self, inputs: Pictures, *, top_k: int = 5) -> Any:
        """The `top_k` likeliest classes of each picture. Raises UnreadableImage for a picture that cannot be read."""
        labels = self.classifier.labels

        def ranked(result: tuple[int, np.ndarray]) -> list[Score]:
            best = (-result[1]).argsort(kind="stable")[:top_k]
            return [Score(score=float(result[1][place]), label=labels[place]) for place in best]

        return _each(inputs, self.classifier.stream_probabilities, ranked)


@dataclass(frozen=True, slots=True)
class ImageFeatureExtraction:
    """Pictures -> for each its unit vector, as a list of floats."""

    embedder: Embedder

    def __call__(self, images: Pictures) -> Any:
        """Embed each picture. Raises UnreadableImage for a picture that cannot be read."""
        return _each(images, self.embedder.stream_images, lambda result: result[1].tolist())


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
            images,
            self.embedder.stream_images,
            lambda result: self.embedder.probabilities(result[1][None], text_vectors)[0].tolist(),
        )


class GeneratedText(TypedDict):
    """A text that a model wrote."""

    generated_text: str


class Answer(TypedDict):
    """An answer and its probability: of the whole text, or among the candidates if these were given."""

    answer: str
    score: float


@dataclass(frozen=True, slots=True)
class ImageToText:
    """Pictures -> for each a list with its caption."""

    captioner: Captioner

    def __call__(self, images: Pictures, *, prompt: str = "caption en", **options: Unpack[GenerateOptions]) -> Any:
        """Write a text for each picture. Raises UnreadableImage for a picture that cannot be read."""

        def finish(result: Text) -> list[GeneratedText]:
            return [GeneratedText(generated_text=result.text)]

        return _each(images, lambda items: self.captioner.write(items, told_task(prompt), **options), finish)


@dataclass(frozen=True, slots=True)
class ImageTextToText:
    """Pictures and a prompt -> for each picture a list with the prompt and what the model wrote."""

    captioner: Captioner

    def __call__(self, images: Pictures, text: str, **options: Unpack[GenerateOptions]) -> Any:
        """Go on from `text`, taken as it is, for each picture. Raises UnreadableImage, InputError for no text."""

        def finish(result: Text) -> list[dict[str, str]]:
            return [{"input_text": text, "generated_text": result.text}]

        return _each(images, lambda items: self.captioner.write(items, told_task(text), **options), finish)


@dataclass(frozen=True, slots=True)
class VisualQuestionAnswering:
    """Pictures and a question -> for each picture a list of Answer, best first."""

    captioner: Captioner

    def __call__(
        self,
        image: Pictures,
        question: str,
        *,
        candidate_answers: Sequence[str] | None = None,
        top_k: int = 5,
        **options: Unpack[GenerateOptions],
    ) -> Any:
        """Answer freely, or choose among `candidate_answers`, of which the best `top_k` are given.

        Raises InputError for an empty question, no candidates, or candidates together with `options`, which only a free
        answer has, UnreadableImage for a picture that cannot be read.
        """
        if not question.strip():
            raise InputError("the question is empty; ask something, such as 'what is on the table?'")
        if top_k < 1:
            raise InputError(f"top_k must be at least 1, got {top_k}")
        prompt = f"answer en {question}"
        if candidate_answers is None:

            def written(result: Text) -> list[Answer]:
                return [Answer(answer=result.text, score=result.probability)]

            return _each(image, lambda items: self.captioner.write(items, prompt, **options), written)
        if options:
            raise InputError(
                f"{', '.join(options)} mean nothing with candidate_answers, which are chosen among, not written"
            )
        answers = candidate_answers if isinstance(candidate_answers, str) else list(candidate_answers)

        def chosen(result: Scores) -> list[Answer]:
            chances: list[float] = torch.from_numpy(result.log_probabilities).softmax(dim=0).tolist()
            found = [Answer(answer=text, score=chance) for text, chance in zip(answers, chances, strict=True)]
            return sorted(found, key=lambda entry: -entry["score"])[:top_k]

        return _each(image, lambda items: self.captioner.score(items, prompt, answers), chosen)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text for a picture, its probability by the model that wrote it, and its score by the one that compares."""

    text: str
    probability: float
    score: float


def reranked(
    captioner: Captioner,
    embedder: Embedder,
    images: Sequence[ImageInput],
    prompt: str = "caption en",
    *,
    count: int = 5,
    seed: int = 0,
    max_new_tokens: int = 32,
) -> Generator[list[Candidate] | Failure, None, None]:
    """For each picture the likeliest text and `count` drawn ones, the one that fits the picture best first.

    The score is the probability that text and picture belong together, by the SigLIP model of `embedder`. Empty texts
    come last. Raises as `Captioner.draw`.
    """
    drawn = captioner.draw(images, prompt, count=count, seed=seed, max_new_tokens=max_new_tokens)
    with closing(drawn), closing(embedder.stream_images(images)) as vectors:
        for texts, picture in zip(drawn, vectors, strict=True):
            if isinstance(texts, Failure) or isinstance(picture, Failure):
                yield texts if isinstance(texts, Failure) else cast(Failure, picture)
                continue
            words = [item for item in texts if item.text]
            found = [Candidate(item.text, item.probability, 0.0) for item in texts if not item.text]
            if words:
                encoded = embedder.embed_texts([item.text for item in words]).vectors
                scores: list[float] = embedder.probabilities(picture[1][None], encoded)[0].tolist()
                pairs = zip(words, scores, strict=True)
                found = [Candidate(item.text, item.probability, score) for item, score in pairs] + found
            yield sorted(found, key=lambda candidate: (not candidate.text, -candidate.score))


_Maker = Embedder | Classifier | Captioner
# what does the work of a task, and what that is made of
_TASKS: dict[str, tuple[type, type[Embedder] | type[Classifier] | type[Captioner]]] = {
    "zero-shot-image-classification": (ZeroShotImageClassification, Embedder),
    "image-feature-extraction": (ImageFeatureExtraction, Embedder),
    "image-text-similarity": (ImageTextSimilarity, Embedder),
    "image-classification": (ImageClassification, Classifier),
    "image-to-text": (ImageToText, Captioner),
    "image-text-to-text": (ImageTextToText, Captioner),
    "visual-question-answering": (VisualQuestionAnswering, Captioner),
}


class PipelineOptions(LoadOptions, total=False):
    """Where and how to compute, as in Embedder (None: its default), and how to find a hub name."""

    device: torch.device | str | int | None
    dtype: torch.dtype | str | None
    batch_size: int | None
    image_processor: SiglipImageProcessor
    tokenizer: SiglipTokenizer
    processor: Any


@overload
def pipeline(
    task: Literal["image-classification"],
    model: StrPath | SiglipForImageClassification | Classifier,
    **options: Unpack[PipelineOptions],
) -> ImageClassification: ...
@overload
def pipeline(
    task: Literal["zero-shot-image-classification"],
    model: StrPath | SiglipModel | Embedder,
    **options: Unpack[PipelineOptions],
) -> ZeroShotImageClassification: ...
@overload
def pipeline(
    task: Literal["image-feature-extraction"],
    model: StrPath | SiglipModel | Embedder,
    **options: Unpack[PipelineOptions],
) -> ImageFeatureExtraction: ...
@overload
def pipeline(
    task: Literal["image-text-similarity"], model: StrPath | SiglipModel | Embedder, **options: Unpack[PipelineOptions]
) -> ImageTextSimilarity: ...
@overload
def pipeline(
    task: Literal["image-to-text"], model: StrPath | Captioner, **options: Unpack[PipelineOptions]
) -> ImageToText: ...
@overload
def pipeline(
    task: Literal["image-text-to-text"], model: StrPath | Captioner, **options: Unpack[PipelineOptions]
) -> ImageTextToText: ...
@overload
def pipeline(
    task: Literal["visual-question-answering"], model: StrPath | Captioner, **options: Unpack[PipelineOptions]
) -> VisualQuestionAnswering: ...
def pipeline(
    task: str,
    model: Any,
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | str | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Any:
    """The callable for a task: one of the seven classes above.

    "zero-shot-image-classification", "image-feature-extraction" and "image-text-similarity" compare;
    "image-classification" wants a trained classifier; "image-to-text", "image-text-to-text" and
    "visual-question-answering" write, and want a PaliGemma. `model` is "nano", which compares, or "nano-caption", which
    writes, a local folder, a hub name "owner/name", an Embedder, Classifier or Captioner, or a bare model together with
    its `processor`, or with its `image_processor` (and `tokenizer`). `device`, `dtype` and `batch_size` are those of
    Embedder; -1 is the CPU too. Raises InputError for another task, or for options beside an Embedder, which has its
    own; else as `from_pretrained`.
    """
    if task not in _TASKS:
        nearest = did_you_mean(task, _TASKS)
        hint = f"; did you mean {nearest!r}? " if nearest else ". "
        raise InputError(f"there is no task {clip(repr(task))}{hint}The tasks are {', '.join(_TASKS)}")
    parts = {name: options.pop(name) for name in ("processor", "image_processor", "tokenizer") if name in options}
    known = accepted(options, "pipeline", known=("device", "device_map", "dtype", "batch_size"))
    if (mapped := known.pop("device_map", None)) is not None:
        if device is not None:
            raise InputError(f"got device={clip(repr(device))} and device_map={clip(repr(mapped))}; give one of them")
        device = mapped
    dtype = chosen_dtype(dtype, known.pop("dtype", None))
    given = {"device": device, "dtype": dtype, "batch_size": batch_size, **known}
    if given["device"] == -1:
        given["device"] = "cpu"
    made, kind = _TASKS[task]
    return made(_prepared(model, parts, {name: value for name, value in given.items() if value is not None}, kind))


def _prepared(model: Any, parts: dict[str, Any], given: dict[str, Any], kind: Any) -> _Maker:
    """What works for a task: as given, of a bare model and the `parts` that prepare its input, or of a checkpoint."""
    name = kind.__name__
    if isinstance(model, kind):
        if given or parts:
            raise InputError(f"this {name} has its own {', '.join((*given, *parts))}; set them there: {name}(...)")
        return model
    if isinstance(model, _Maker):
        raise InputError(f"this task needs a {name}, got the {type(model).__name__} of another kind of model")
    if not isinstance(model, nn.Module):
        # scripts name the processor of the checkpoint again, beside the checkpoint
        return kind.from_pretrained(model, **given)
    processor = parts.get("processor")
    if kind is Classifier:
        processor = getattr(processor, "image_processor", parts.get("image_processor", processor))
    elif processor is None and len(parts) == 2:
        processor = SiglipProcessor(parts["image_processor"], parts["tokenizer"])
    if processor is None:
        raise InputError(
            f"a bare {type(model).__name__} cannot prepare its input; pass processor=... too, or {name}(model, "
            "processor) in place of both"
        )
    made: Any = kind
    return made(model, processor, **given)


def _each(images: Any, open_stream: Callable[[Any], Generator[Any, None, None]], finish: Callable[[Any], Any]) -> Any:
    """Work on and `finish` one picture, all of a list, or those of an iterator as they come."""
    single = is_one_picture(images)
    stream = open_stream([images] if single else images)
    if isinstance(images, Iterator) and not single:
        return _streamed(stream, finish)
    outcomes: list[Any] = []
    with closing(stream):
        for result in stream:
            if isinstance(result, Failure):
                raise UnreadableImage(result.name, result.reason)
            outcomes.append(finish(result))
    return outcomes[0] if single else outcomes


def _streamed(stream: Generator[Any, None, None], finish: Callable[[Any], Any]) -> Generator[Any, None, None]:
    with closing(stream):
        for result in stream:
            yield result if isinstance(result, Failure) else finish(result)


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
