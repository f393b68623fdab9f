"""Pictures and a prompt or question in, texts out: captions, what goes on behind a prompt, answers."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, cast

import torch

from siglip.captioner import Captioner, Scores, Text, told_task
from siglip.embedder import Embedder
from siglip.errors import Failure, InputError, clip
from siglip.keywords import agreed
from siglip.pipelines.calls import Pictures, WritingOptions, checked_top_k, choice_of, each, pace_of, task_of
from siglip.processing import ImageInput


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

    def __call__(
        self, images: Pictures, *, prompt: str | None = "caption en", **options: Unpack[WritingOptions]
    ) -> Any:
        """Write a text for each picture. Raises UnreadableImage for a picture that cannot be read, InputError."""
        pace, choice = pace_of(self, options), choice_of(self, options)
        asked = told_task("caption en" if prompt is None else prompt)

        def finish(result: Text) -> list[GeneratedText]:
            return [GeneratedText(generated_text=result.text)]

        return each(images, lambda items: self.captioner.write(items, asked, **pace, **choice), finish)


@dataclass(frozen=True, slots=True)
class ImageTextToText:
    """Pictures and a prompt -> for each picture a list with the prompt and what the model wrote."""

    captioner: Captioner

    def __call__(
        self,
        images: Pictures,
        text: str | Sequence[Any],
        *,
        return_full_text: bool | None = None,
        **options: Unpack[WritingOptions],
    ) -> Any:
        """Go on from `text`, taken as it is, for each picture; a list has one for each picture of a list.

        `return_full_text` may say that the text alone is given. Raises UnreadableImage, InputError for no text.
        """
        pace, choice = pace_of(self, options), choice_of(self, options)
        agreed({"return_full_text": return_full_text}, {"return_full_text": (False, None)}, f"{task_of(self)}")
        if isinstance(text, str):
            asked = told_task(text)
            return each(
                images,
                lambda items: self.captioner.write(items, asked, **pace, **choice),
                lambda result: [{"input_text": text, "generated_text": result.text}],
            )
        texts = _one_each(text, images)
        return each(
            images,
            lambda items: self.captioner.write(items, iter(texts), **pace, **choice),
            lambda result: [{"input_text": texts[result.index], "generated_text": result.text}],
        )


def _one_each(texts: object, images: Pictures) -> list[str]:
    """The texts, if there is one for each picture of a list; raises InputError."""
    given: list[Any] = list(cast(list[Any], texts)) if isinstance(texts, list | tuple) else [texts]
    if wrong := [text for text in given if not isinstance(text, str)]:
        raise InputError(
            f"expected one text, or a list with one for each picture, got {clip(repr(wrong[0]))}; a conversation is "
            "not understood here: give its picture and its last text"
        )
    count = len(images) if isinstance(images, list | tuple) else None
    if count != len(given):
        raise InputError(
            f"a list of texts has one for each picture of a list, got {len(given)} texts and "
            f"{'no list' if count is None else count} of pictures"
        )
    return list(map(told_task, given))


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
        top_k: int | None = 5,
        **options: Unpack[WritingOptions],
    ) -> Any:
        """Answer freely, or choose among `candidate_answers`, of which the best `top_k` are given.

        Raises InputError for an empty question, no candidates, or candidates together with `options`, which only a free
        answer has, UnreadableImage for a picture that cannot be read.
        """
        pace, choice, top_k = pace_of(self, options), choice_of(self, options), checked_top_k(top_k)
        # what a script hands over need not be what the signature says
        if not isinstance(cast(object, question), str) or not question.strip():
            raise InputError(
                f"expected one question about the pictures, such as 'what is on the table?', got {clip(repr(question))}"
            )
        prompt = f"answer en {question}"
        if candidate_answers is None:

            def written(result: Text) -> list[Answer]:
                return [Answer(answer=result.text, score=result.probability)]

            return each(image, lambda items: self.captioner.write(items, prompt, **pace, **choice), written)
        if choice:
            raise InputError(
                f"{', '.join(choice)} cannot be used with candidate_answers, which are compared rather than "
                "written; leave them out"
            )
        answers = candidate_answers if isinstance(candidate_answers, str) else list(candidate_answers)

        def chosen(result: Scores) -> list[Answer]:
            chances: list[float] = torch.from_numpy(result.log_probabilities).softmax(dim=0).tolist()
            found = [Answer(answer=text, score=chance) for text, chance in zip(answers, chances, strict=True)]
            return sorted(found, key=lambda entry: -entry["score"])[:top_k]

        return each(image, lambda items: self.captioner.score(items, prompt, answers, **pace), chosen)


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
