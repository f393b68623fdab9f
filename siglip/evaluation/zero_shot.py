"""Labelled pictures and class names -> accuracy without training, with prompt ensembles."""

from collections.abc import Sequence
from importlib import resources

import numpy as np

from siglip.embedder import Embedder
from siglip.errors import ConfigError, clip
from siglip.evaluation.classes import check_labels, classified
from siglip.evaluation.pictures import Pictures, Progress
from siglip.evaluation.result import Result

# public benchmarks whose class names are shipped in assets/prompts
BENCHMARKS = ("cifar10", "cifar100", "imagenet")
# classes encoded between two calls of `progress`
_CLASSES_AT_ONCE = 16


def evaluate_zero_shot(
    embedder: Embedder,
    pictures: Pictures,
    classes: Sequence[str],
    templates: Sequence[str] | None = None,
    *,
    num_mistakes: int = 40,
    progress: Progress | None = None,
) -> Result:
    """Top-1 and top-5 accuracy of the class whose averaged prompt is nearest to the picture; scores are cosines.

    Label i of a picture is `classes[i]`; pictures without a label are left out and counted. A class vector is the mean
    over templates of unit text vectors, normalised again, as in the paper's evaluation; without `templates`, those of
    the checkpoint are taken. Pictures are squashed as the checkpoint does, where the paper's ImageNet numbers crop the
    centre. `progress` gets the number of classes just encoded. Raises DataError if no picture has a label or a label
    has no class name.
    """
    templates = embedder.processor.templates if templates is None else templates
    labelled = pictures.labelled()
    check_labels(labelled, classes)
    blocks: list[np.ndarray] = []
    for start in range(0, len(classes), _CLASSES_AT_ONCE):
        blocks.append(embedder.embed_labels(classes[start : start + _CLASSES_AT_ONCE], templates))
        if progress is not None:
            progress(len(blocks[-1]))
    return classified(
        "zero-shot",
        labelled,
        [labelled.vectors @ np.concatenate(blocks).T],
        classes,
        counts={"without_class": len(pictures) - len(labelled)},
        settings={"templates": list(templates)},
        num_mistakes=num_mistakes,
    )


def benchmark_classes(name: str) -> list[str]:
    """Class names of a public benchmark in the order of its labels; raises ConfigError for another name."""
    if name not in BENCHMARKS:
        raise ConfigError(f"no class names for {clip(repr(name))} are shipped; there are {', '.join(BENCHMARKS)}")
    return _lines(f"{name}.classes.txt")


def benchmark_templates(name: str) -> list[str]:
    """The 81 prompts of the paper's zero-shot evaluation for "imagenet"; raises ConfigError for another name."""
    if name != "imagenet":
        raise ConfigError(f"no prompts for {clip(repr(name))} are shipped; there are those of imagenet")
    return _lines("imagenet.templates.txt")


def _lines(name: str) -> list[str]:
    text = resources.files("siglip").joinpath("assets", "prompts", name).read_text(encoding="utf-8")
    return text.splitlines()
