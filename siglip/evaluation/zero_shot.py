"""Labelled pictures and class names -> accuracy without training, with prompt ensembles."""

from collections.abc import Sequence
from importlib import resources

import numpy as np

from siglip.embedder import Embedder
from siglip.errors import ConfigError, DataError
from siglip.evaluation.metrics import class_places, classification, per_class
from siglip.evaluation.pictures import Pictures
from siglip.evaluation.result import Mistake, Result

# class names and prompts of public benchmarks, as shipped in assets/prompts
BENCHMARKS = ("cifar10", "cifar100", "imagenet")


def evaluate_zero_shot(
    embedder: Embedder, pictures: Pictures, classes: Sequence[str], templates: Sequence[str], *, num_mistakes: int = 40
) -> Result:
    """Top-1 and top-5 accuracy of the class whose averaged prompt is nearest to the picture.

    Label i of a picture is `classes[i]`. A class vector is the mean over templates of unit text vectors, normalised
    again, as in the paper's evaluation; pictures are squashed as the checkpoint does, where the paper's ImageNet
    numbers crop the centre. Raises DataError if a label has no class name.
    """
    pictures = pictures.labelled()
    if pictures.labels.max() >= len(classes):
        raise DataError(f"the pictures have labels up to {pictures.labels.max()}, but {len(classes)} classes are named")
    scores = pictures.vectors @ embedder.embed_labels(list(classes), list(templates)).T
    places = class_places(scores, pictures.labels)
    return Result(
        task="zero-shot",
        numbers={
            **classification(scores, pictures.labels),
            "pictures": float(len(pictures)),
            "broken": float(pictures.num_broken),
        },
        per_class={classes[label]: value for label, value in per_class(places, pictures.labels).items()},
        mistakes=worst(pictures, scores, classes, num_mistakes),
    )


def worst(pictures: Pictures, scores: np.ndarray, classes: Sequence[str], count: int) -> tuple[Mistake, ...]:
    """Pictures whose best wrong class beats their own by most."""
    own = np.take_along_axis(scores, pictures.labels[:, None], axis=1)[:, 0]
    margin = scores.max(axis=1) - own
    return tuple(
        Mistake(
            index=int(pictures.indices[row]),
            name=pictures.names[row],
            expected=classes[int(pictures.labels[row])],
            found=tuple(classes[int(place)] for place in np.argsort(-scores[row])[:3]),
            margin=float(margin[row]),
        )
        for row in np.argsort(-margin)[:count]
        if margin[row] > 0
    )


def benchmark_classes(name: str) -> list[str]:
    """Class names of a public benchmark in the order of its labels; raises ConfigError for another name."""
    if name not in BENCHMARKS:
        raise ConfigError(f"no class names for {name!r} are shipped; there are {', '.join(BENCHMARKS)}")
    return _lines(f"{name}.classes.txt")


def benchmark_templates(name: str) -> list[str]:
    """The 81 prompts of the paper's zero-shot evaluation for "imagenet"; raises ConfigError for another name."""
    if name != "imagenet":
        raise ConfigError(f"no prompts for {name!r} are shipped; there are those of imagenet")
    return _lines("imagenet.templates.txt")


def _lines(name: str) -> list[str]:
    text = resources.files("siglip").joinpath("assets", "prompts", name).read_text(encoding="utf-8")
    return text.splitlines()
