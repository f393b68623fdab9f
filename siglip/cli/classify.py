"""Say which of your labels fit each picture.

Each label is put into the templates and judged by itself: its probability is
the model's own sigmoid. Those of one picture need not add up to 1. All are
small when no label fits, or when the model is weak; their order still says
something.

for example:
  siglip classify samples/cat.jpg --labels "a cat" "a dog"
  siglip classify samples --labels-file samples/labels.txt --sheet sheet.png
  find samples -name "*.png" | siglip classify - --labels pig teapot --jsonl
"""

import argparse
from pathlib import Path

from siglip.cli import inputs, output, sheet


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip classify IMAGES... (--labels LABEL... | --labels-file FILE) [...]"
    inputs.add_image_arguments(parser)
    inputs.add_text_arguments(parser, "labels")
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
    names, failed = inputs.image_names(arguments.images, null=arguments.null)
    total = len(names) + len(failed)
    embedder = inputs.load_embedder(arguments)
    templates = arguments.template or list(embedder.processor.templates)
    label_vectors = embedder.embed_labels(labels, templates)
    form = output.form_of(arguments)
    report = output.Report(
        form,
        [output.Column("image", names), output.Column("label", labels), output.Column("probability")],
        key="images",
        head={"model": arguments.model, "templates": templates},
    )
    captions: list[tuple[str, list[str]]] = []
    for name, vector in inputs.picture_vectors(embedder, names, failed, bar=form != "table"):
        logits = embedder.logits(vector[None], label_vectors)[0]
        probabilities = embedder.probabilities(vector[None], label_vectors)[0]
        # by logit: probabilities close to 0 or 1 can be equal in float32
        best = (-logits).argsort(kind="stable")[: arguments.top]
        found = [(labels[i], output.shortest(probabilities[i])) for i in best]
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


def _template(word: str) -> str:
    if "{}" not in word:
        raise argparse.ArgumentTypeError(f"{word!r} has no {{}} for the label")
    return inputs.text(word)
