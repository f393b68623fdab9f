"""What every task returns: numbers, the same by class, and the worst mistakes to look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from siglip.evaluation.pictures import Pictures

Setting = str | int | float | list[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A caption, class or answer, and its score; None for what people wrote."""

    text: str
    score: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A picture and what the model made of it: its number in the source, what was right, what it said, best first."""

    index: int
    name: str
    expected: Answer
    found: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassResult:
    """One class: its pictures, the share of them found, and the class that most of the others were taken for."""

    name: str
    pictures: int
    top1: float
    taken_for: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """`numbers` are shares in [0, 1], but for CIDEr-D (up to 10) and CLIPScore (up to 2.5).

    `settings` are what they depend on beside model and data. `mistakes` begin with the worst: those where a wrong
    answer beats the right one by most, and of texts those with the lowest score; `best` are texts with the highest.
    """

    task: str
    numbers: dict[str, float]
    counts: Mapping[str, int]
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    per_class: tuple[ClassResult, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    best: tuple[Mistake, ...] = ()


def worst_mistakes(
    pictures: Pictures,
    margins: Float[np.ndarray, " n"],
    texts: Sequence[str],
    answers: Callable[[int], tuple[Float[np.ndarray, " texts"], Sequence[int]]],
    count: int,
) -> tuple[Mistake, ...]:
    """The `count` pictures with the largest margin above 0; `answers(row)` are the scores of `texts`, and the right."""
    mistakes: list[Mistake] = []
    for row in np.argsort(-margins, kind="stable")[:count]:
        if not margins[row] > 0:
            break
        scores, right = answers(int(row))
        first: list[int] = np.argsort(-scores, kind="stable")[:3].tolist()
        best = max(right, key=lambda place: float(scores[place]))
        mistakes.append(
            Mistake(
                index=int(pictures.indices[row]),
                name=pictures.names[row],
                expected=Answer(texts[best], float(scores[best])),
                found=tuple(Answer(texts[place], float(scores[place])) for place in first),
            )
        )
    return tuple(mistakes)
