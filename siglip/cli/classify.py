"""Say which of your labels fit each picture.

Each label is put into the templates and judged by itself: its probability is
the model's own sigmoid. Those of one picture need not add up to 1. All are
small when no label fits, or when the model is weak; their order still says
something.

A trained classifier (`siglip train recipes/finetune_classes.py`) has labels of
its own and needs none: siglip classify photos --model runs/x/export

for example:
  siglip classify samples/cat.jpg --labels "a cat" "a dog"
  siglip classify samples --labels-file samples/labels.txt --sheet sheet.png
  find samples -name "*.png" | siglip classify - --labels pig teapot --jsonl
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip.cli import inputs, output, sheet
from siglip.errors import clip

if TYPE_CHECKING:
    import numpy as np


_NO_LABELS = "one of the arguments --labels --labels-file is required"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "siglip classify IMAGES... (--labels LABEL... | --labels-file FILE) [...]\n"
        "       siglip classify IMAGES... --model CLASSIFIER [...]"
    )
    inputs.add_image_arguments(parser)
    inputs.add_text_arguments(parser, "labels", required=False)
    parser.add_argument(
        "--template",
        nargs="+",
        type=_template,
        metavar="T",
        help="sentences with {} for the label; several are averaged (default: the model's own, see `siglip info`)",
    )
    parser.add_argument("--top", type=inputs.positive, default=3, metavar="K", help="labels per picture (default: 3)")
    sheet.add_argument(parser)
    output.add_form_arguments(parser)
    inputs.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    labels = inputs.texts(arguments.labels, arguments.labels_file)
    if not labels and arguments.model == "nano":
        raise inputs.UsageError(_NO_LABELS)
    counts = Counter(labels)
    if repeated := [label for label, count in counts.items() if count > 1]:
        surplus = f"{len(labels) - len(counts)} of {len(labels)} labels repeat an earlier one and are left out"
        output.say(f"{surplus}; the first is {clip(repr(repeated[0]))}")
        labels = list(counts)
    names, failed = inputs.image_names(arguments.images, null=arguments.null)
    total = len(names) + len(failed)
    judge = _judge(arguments, labels)
    form = output.form_of(arguments)
    report = output.Report(
        form,
        [output.Column("image", names), output.Column("label", judge.labels), output.Column("probability")],
        key="images",
        head={"model": arguments.model, **judge.head},
    )
    captions: list[tuple[str, list[str]]] = []
    for name, row in inputs.picture_rows(judge.stream, names, failed, bar=form != "table"):
        order, probabilities = judge.scores(row)
        best = (-order).argsort(kind="stable")[: arguments.top]
        found = [(judge.labels[i], output.shortest(probabilities[i])) for i in best]
        report.add(
            {"image": name, "labels": [{"label": label, "probability": chance} for label, chance in found]},
            [(name, label, chance) for label, chance in found],
        )
        if arguments.sheet and len(captions) < sheet.MOST:
            captions.append((name, [*(f"{label} {output.shown(chance)}" for label, chance in found), Path(name).name]))
    report.close(failed)
    if captions:
        sheet.draw(captions, arguments.sheet, total - len(failed))
    return output.report_failures(failed, total)


@dataclass(frozen=True, slots=True)
class _Judge:
    """The labels; pictures -> rows; a row -> what ranks the labels, and their probabilities."""

    labels: list[str]
    stream: Callable[..., Any]
    scores: "Callable[[np.ndarray], tuple[np.ndarray, Any]]"
    head: dict[str, Any]


def _judge(arguments: argparse.Namespace, labels: list[str]) -> _Judge:
    classifier = inputs.load_classifier(arguments)
    if classifier is not None:
        if labels or arguments.template:
            some = ", ".join(classifier.labels[:5]) + (", ..." if len(classifier.labels) > 5 else "")
            raise inputs.UsageError(
                f"{arguments.model} is a classifier with its own {len(classifier.labels)} classes, {some}; leave out "
                "--labels, --labels-file and --template"
            )
        return _Judge(classifier.labels, classifier.stream_probabilities, lambda row: (row, row), {})
    if not labels:
        raise inputs.UsageError(_NO_LABELS)
    embedder = inputs.load_embedder(arguments)
    templates = arguments.template or list(embedder.processor.templates)
    vectors = embedder.embed_labels(labels, templates)

    def scores(row: "np.ndarray") -> "tuple[np.ndarray, Any]":
        # ranked by logit: probabilities close to 0 or 1 can be equal in float32
        return embedder.logits(row[None], vectors)[0], embedder.probabilities(row[None], vectors)[0]

    return _Judge(labels, embedder.stream_images, scores, {"templates": templates})


def _template(word: str) -> str:
    if "{}" not in word:
        raise argparse.ArgumentTypeError(f"{clip(repr(word))} has no {{}} for the label")
    return inputs.text(word)
