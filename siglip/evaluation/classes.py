"""Scores of labelled pictures for named classes -> Result; and the classes of data -> numbers in a list of names."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64

from siglip.errors import DataError, clip, warn
from siglip.evaluation.metrics import accuracies, class_places
from siglip.evaluation.pictures import Pictures
from siglip.evaluation.result import ClassResult, Result, Setting, worst_mistakes


def evaluate_classifier(pictures: Pictures, classes: Sequence[str], *, num_mistakes: int = 40) -> Result:
    """Top-1 and top-5 accuracy of a trained classifier, whose probabilities are the rows of `pictures`.

    Pictures without a label are left out and counted. Raises DataError if none has one.
    """
    labelled = pictures.labelled()
    check_labels(labelled, classes)
    return classified(
        "classification",
        labelled,
        [labelled.vectors],
        classes,
        counts={"without_class": len(pictures) - len(labelled)},
        settings={},
        num_mistakes=num_mistakes,
    )


def classified(
    task: str,
    pictures: Pictures,
    scores: Sequence[Float[np.ndarray, "n classes"]],
    classes: Sequence[str],
    *,
    counts: Mapping[str, int],
    settings: Mapping[str, Setting],
    num_mistakes: int,
) -> Result:
    """The Result of one score matrix, or the mean over several; mistakes are those of the first. All have a label."""
    places = np.concatenate([class_places(matrix, pictures.labels) for matrix in scores])
    labels = np.tile(pictures.labels, len(scores))
    answers = np.concatenate([matrix.argmax(axis=1) for matrix in scores])
    own = np.take_along_axis(scores[0], pictures.labels[:, None], axis=1)[:, 0]
    return Result(
        task=task,
        numbers=accuracies(places, labels, len(classes)),
        counts={"pictures": len(pictures), "classes": len(classes), **counts, "broken": len(pictures.broken)},
        settings=settings,
        per_class=tuple(
            _class_result(int(label), answers[labels == label], len(scores), classes) for label in np.unique(labels)
        ),
        mistakes=worst_mistakes(
            pictures,
            scores[0].max(axis=1) - own,
            classes,
            lambda row: (scores[0][row], [int(pictures.labels[row])]),
            num_mistakes,
        ),
    )


def check_labels(pictures: Pictures, classes: Sequence[str]) -> None:
    """Raises DataError if a label has no class name."""
    if len(pictures) and pictures.labels.max() >= len(classes):
        raise DataError(
            f"the pictures have labels up to {pictures.labels.max()}, counted from 0, but {len(classes)} classes are "
            "named; name them all"
        )


def match_labels(label_names: Sequence[str], classes: Sequence[str]) -> Int64[np.ndarray, " labels"]:
    """The number in `classes` of each class of the data: by name, or by number where the data's names are numbers.

    Names are equal whatever their case, `_` is a space, and among numbers 07 is 7. Other names, if they are as many,
    are taken in their order, such as ImageNet's folders n01440764 ..., unless that gives a class another class's name.
    Raises DataError for names that fit in none of these ways.
    """
    theirs, ours = [plain_name(name) for name in label_names], [plain_name(name) for name in classes]
    if all(name.isdecimal() for name in (*theirs, *ours)):
        theirs, ours = [str(int(name)) for name in theirs], [str(int(name)) for name in ours]
    place = {name: number for number, name in reversed(list(enumerate(ours)))}
    in_order = np.arange(len(theirs))
    if theirs == ours:
        return in_order
    unknown = [name for name in theirs if name not in place]
    if not unknown:
        return np.array([place[name] for name in theirs], np.int64)
    if all(name.isdecimal() for name in theirs) and not all(name.isdecimal() for name in ours):
        numbers = [int(name) for name in theirs]
        if sorted(numbers) == list(range(1, len(ours))):
            raise DataError(
                f"the classes of the data are the numbers 1 to {len(ours) - 1}, and {len(ours)} names are given: "
                f"either they count from 0 and {ours[0]!r} is missing, or from 1 and {ours[-1]!r} is; give the folders "
                "the names of their classes"
            )
        if max(numbers) < len(ours):
            if 0 not in numbers:
                warn(f"class {theirs[0]} of the data is taken for {ours[numbers[0]]!r}: numbers count from 0")
            return np.array(numbers, np.int64)
    elif len(theirs) == len(ours) and all(place.get(name, number) == number for number, name in enumerate(theirs)):
        return in_order
    raise DataError(
        f"{len(unknown)} of the {len(theirs)} classes of the data are not among the {len(ours)} names given, the first "
        f"is {clip(repr(unknown[0]))}; give one name for each class of the data, in this order: "
        f"{', '.join(label_names[:5])}" + (", ..." if len(label_names) > 5 else "")
    )


def plain_name(name: str) -> str:
    """What two names of a class are compared by."""
    return name.replace("_", " ").strip().casefold()


def _class_result(label: int, answers: np.ndarray, repeats: int, classes: Sequence[str]) -> ClassResult:
    wrong: list[tuple[int, int]] = Counter(answers[answers != label].tolist()).most_common(1)
    return ClassResult(
        name=classes[label],
        pictures=len(answers) // repeats,
        top1=float((answers == label).mean()),
        taken_for=classes[wrong[0][0]] if wrong else None,
    )
