"""A captioner and a source -> what it writes about each picture, and how that compares with what people wrote.

Captions: CIDEr-D, BLEU, ROUGE-L, exact match and, with a SigLIP model at hand, CLIPScore (Hessel et al. 2021, arXiv
2104.08718). Answers: exact match and, where several people answered, VQA accuracy.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from siglip.captioner import Captioner, GenerateOptions
from siglip.data import Source
from siglip.embedder import Embedder
from siglip.errors import BrokenSample, DataError, Failure
from siglip.evaluation.answers import vqa_accuracy
from siglip.evaluation.captions import score_captions
from siglip.evaluation.pictures import Progress
from siglip.evaluation.result import Answer, Mistake, Result
from siglip.processing import ImageInput

# what a picture is put under in the paper's score, and its factor
_DEPICTS, _CLIP_FACTOR = "A photo depicts {}", 2.5


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for sample `index`, what people wrote, and what else is known of it (`image_id`, ...)."""

    index: int
    name: str
    prompt: str
    text: str
    references: tuple[str, ...]
    facts: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """One text for each sample that could be used; `broken` are the others."""

    written: tuple[Written, ...]
    broken: tuple[Failure, ...] = ()


def write_texts(
    captioner: Captioner,
    source: Source,
    *,
    prompt: str = "caption en",
    progress: Progress | None = None,
    **options: Unpack[GenerateOptions],
) -> Texts:
    """Write for every sample behind its own prefix, else `prompt`. `options` are those of Captioner.write.

    `progress` gets the number of samples just done. Raises DataError if nothing could be written.
    """
    written: list[Written] = []
    broken: list[Failure] = []
    waiting: deque[Any] = deque()
    prompts: deque[str] = deque()

    def done() -> None:
        if progress is not None:
            progress(1)

    def pictures() -> Iterator[ImageInput]:
        for index in range(len(source)):
            try:
                sample = source.sample(index)
                if "question" in sample.facts and not str(sample.facts["question"]).strip():
                    raise BrokenSample(sample.name, "its question is empty")
            except BrokenSample as error:
                broken.append(Failure(error.name, error.reason))
                done()
                continue
            own = str(sample.facts.get("prefix") or prompt)
            prompts.append(own)
            waiting.append((index, sample.name, own, sample.captions, sample.facts))
            assert sample.image is not None
            yield sample.image

    for item in captioner.write(pictures(), iter(prompts.popleft, None), **options):
        index, name, own, references, facts = waiting.popleft()
        if isinstance(item, Failure):
            broken.append(Failure(name, item.reason))
        else:
            written.append(Written(index, name, own, item.text, references, facts))
        done()
    if not written:
        first = f", the first is {broken[0].name}: {broken[0].reason}" if broken else ""
        raise DataError(f"none of the {len(source)} samples could be used{first}")
    return Texts(written=tuple(written), broken=tuple(broken))


def evaluate_captions(texts: Texts, source: Source, embedder: Embedder | None = None, *, num_shown: int = 20) -> Result:
    """CIDEr-D, BLEU-1 to 4, ROUGE-L and the share of captions equal to a reference; with an embedder, CLIPScore too.

    Captions are equal that differ only in case and white space. Papers print CIDEr-D and CLIPScore times 100.
    """
    written = texts.written
    scores = score_captions(
        {str(item.index): item.text for item in written}, {str(item.index): item.references for item in written}
    )
    exact = [_plain(item.text) in set(map(_plain, item.references)) for item in written]
    numbers = {
        "cider": scores.cider,
        **{f"bleu-{n}": value for n, value in enumerate(scores.bleu, start=1)},
        "rouge-l": scores.rouge_l,
        "exact": sum(exact) / len(exact),
    }
    if embedder is not None:
        numbers["clip_score"] = float(np.mean(clip_scores(embedder, texts, source)))
    each = [scores.each[str(item.index)] for item in written]
    worst, best = _shown(written, each, [item.references[0] for item in written], num_shown)
    return Result(
        task="captioning",
        numbers=numbers,
        counts={"pictures": len(written), "references": sum(len(item.references) for item in written)}
        | {"broken": len(texts.broken)},
        mistakes=worst,
        best=best,
    )


def clip_scores(embedder: Embedder, texts: Texts, source: Source) -> list[float]:
    """2.5 max(cos, 0) of each picture and "A photo depicts" with its caption, by a SigLIP model.

    The cosines of a SigLIP model are smaller than those of CLIP: scores of different models cannot be compared.
    """

    def pictures() -> Iterator[ImageInput]:
        for item in texts.written:
            image = source.sample(item.index).image
            assert image is not None
            yield image

    images = embedder.embed_images(pictures())
    captions = embedder.embed_texts([_DEPICTS.format(item.text) for item in texts.written])
    for failure in (*images.failures, *captions.failures):
        raise DataError(f"{failure.name} cannot be embedded for CLIPScore: {failure.reason}")
    cosines = (images.vectors * captions.vectors).sum(axis=1)
    return (_CLIP_FACTOR * np.maximum(cosines, 0.0)).tolist()


def evaluate_answers(texts: Texts, *, num_shown: int = 20) -> Result:
    """The share of answers equal to the most frequent one but for case and white space; and where all questions have
    several answers, VQA accuracy, also by type.
    """
    written = texts.written
    said: list[Sequence[str]] = [item.facts.get("answers") or item.references for item in written]
    usual = [Counter(answers).most_common(1)[0][0] for answers in said]
    exact = [float(_plain(item.text) == _plain(answer)) for item, answer in zip(written, usual, strict=True)]
    numbers: dict[str, float] = {"exact": sum(exact) / len(exact)}
    each = exact
    if min(map(len, said)) > 1:
        each = [vqa_accuracy(item.text, answers) for item, answers in zip(written, said, strict=True)]
        numbers = {"vqa_accuracy": sum(each) / len(each), **numbers}
        kinds = [str(item.facts.get("answer_type") or "") for item in written]
        for kind in sorted({*kinds} - {""}):
            some = [score for score, other in zip(each, kinds, strict=True) if other == kind]
            numbers[f"vqa_accuracy/{kind}"] = sum(some) / len(some)
    worst, best = _shown(written, each, usual, num_shown)
    return Result(
        task="vqa",
        numbers=numbers,
        counts={"questions": len(written), "broken": len(texts.broken)},
        mistakes=worst,
        best=best,
    )


def official_results(task: str, texts: Texts) -> list[dict[str, Any]]:
    """What the COCO and VQA servers take: captions by `image_id`, answers by `question_id`.

    Where the data give no such number it is that of the sample.
    """
    name, value = ("image_id", "caption") if task == "captioning" else ("question_id", "answer")
    return [{name: item.facts.get(name, item.index), value: item.text} for item in texts.written]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _shown(
    written: Sequence[Written], scores: Sequence[float], right: Sequence[str], count: int
) -> tuple[tuple[Mistake, ...], tuple[Mistake, ...]]:
    """The `count` worst samples and as many best ones, none in both."""
    order: list[int] = np.argsort(scores, kind="stable").tolist()

    def card(place: int) -> Mistake:
        item = written[place]
        name = item.name if "question" not in item.facts else f"{item.facts['question']} ({item.name})"
        return Mistake(
            index=item.index,
            name=name,
            expected=Answer(right[place], None),
            found=(Answer(item.text, float(scores[place])),),
        )

    half = min(count, (len(order) + 1) // 2)
    return tuple(map(card, order[:half])), tuple(map(card, order[half:][::-1][:count]))
