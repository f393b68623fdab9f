"""Find things in each picture: their boxes, in pixels of the picture.

The model is a PaliGemma that was trained to detect, such as the mix ones.
Several things are separated by " ; ".

for example:
  siglip detect photo.jpg "cat ; dog" --model google/paligemma2-3b-mix-448
  siglip detect photos car --model my-detector --sheet sheet.png
  siglip detect photos "door ; window" --model my-detector --jsonl
"""

import argparse
from typing import TYPE_CHECKING, Any

from siglip.cli import inputs, output, sheet, writing
from siglip.errors import Failure, UnreadableImage

if TYPE_CHECKING:
    from siglip.processing import Box

# four for the place of each thing, and its name
_MAX_TOKENS = 128


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip detect IMAGES... THINGS --model MODEL [...]"
    inputs.add_image_arguments(parser)
    writing.add_arguments(parser, built_in=None, max_tokens=_MAX_TOKENS)
    sheet.add_argument(parser)
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    words, things = writing.split_last(arguments.images, "the things to find")
    names, failed = inputs.image_names(words, null=arguments.null)
    total = len(names) + len(failed)
    captioner = writing.load(arguments)
    from siglip.download import fetched
    from siglip.processing import boxes, read_image

    form = output.form_of(arguments)
    places = [output.Column(name, right=True, width=6) for name in ("left", "top", "right", "bottom")]
    report = output.Report(
        form,
        [output.Column("image", names), output.Column("thing", [things]), *places],
        key="images",
        head={"model": arguments.model, "things": things},
    )
    shown: list[tuple[str, list[str]]] = []
    frames: list[list[Box]] = []
    options = writing.options(arguments, max_tokens=_MAX_TOKENS)
    results = writing.each(
        names, failed, lambda some: captioner.write(some, f"detect {things}", **options), bar=form != "table"
    )
    for name, result in results:
        try:
            width, height = read_image(fetched(name)).size
        except UnreadableImage as error:
            # it was there a moment ago
            failed.append(Failure(name, error.reason))
            continue
        found = boxes(result.text, width=width, height=height)
        rows: list[tuple[Any, ...]] = [(name, box.label, *map(round, box[1:5])) for box in found]
        report.add(
            {"image": name, "boxes": [_record(box) for box in found]}, rows or [(name, "(nothing)", "", "", "", "")]
        )
        shown.append((name, [box.label for box in found] or ["(nothing)"]))
        frames.append(found)
    report.close(failed)
    if shown and arguments.sheet:
        sheet.draw(shown[: sheet.MOST], arguments.sheet, total - len(failed), frames)
    return output.report_failures(failed, total)


def _record(box: "Box") -> dict[str, Any]:
    return {"thing": box.label, "box": [round(number, 1) for number in box[1:5]]}
