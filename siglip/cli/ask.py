"""Ask one question of each picture.

The model is a PaliGemma; the built-in nano-caption knows questions such as
"what is this?" and "is this a bird?", and is often wrong. It answers freely,
and the probability is that of the whole answer; or it chooses among --answers,
whose probabilities add up to 1.

for example:
  siglip ask samples "what is this?"
  siglip ask samples "is this an animal?" --answers yes no --jsonl
  siglip ask samples/pig.png "is this a pig?" --answers yes no
  siglip ask photos "how many people?" --model google/paligemma2-3b-mix-224
"""

import argparse
from typing import TYPE_CHECKING

from siglip.cli import inputs, output, writing
from siglip.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siglip.captioner import Captioner


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip ask IMAGES... QUESTION [--model MODEL] [...]"
    inputs.add_image_arguments(parser)
    parser.add_argument("--answers", nargs="+", type=inputs.text, metavar="A", help="choose among these")
    writing.add_arguments(parser)
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    words, question = writing.split_last(arguments.images, "the question")
    if arguments.answers:
        if given := [word for word in ("beams", "max_tokens") if getattr(arguments, word) is not None]:
            word = given[0].replace("_", "-")
            raise inputs.UsageError(
                f"--answers chooses one of the given texts and --{word} is for writing; give one of the two"
            )
        if len(set(arguments.answers)) < len(arguments.answers):
            raise inputs.UsageError("one of the --answers is given twice; give each once")
    names, failed = inputs.image_names(words, null=arguments.null)
    total = len(names) + len(failed)
    captioner = writing.load(arguments)
    form = output.form_of(arguments)
    report = output.Report(
        form,
        [
            output.Column("image", names),
            output.Column("answer", arguments.answers or (), 24),
            output.Column("probability"),
        ],
        key="images",
        head={"model": arguments.model, "question": question},
    )
    for name, found in _answers(captioner, names, failed, arguments, question):
        record = [{"answer": answer, "probability": chance} for answer, chance in found]
        report.add({"image": name, "answers": record}, [(name, answer, chance) for answer, chance in found])
    report.close(failed)
    return output.report_failures(failed, total)


def _answers(
    captioner: "Captioner", names: list[str], failed: list[Failure], arguments: argparse.Namespace, question: str
) -> "Iterator[tuple[str, list[tuple[str, float]]]]":
    """Name of each picture, and answers with their probability, best first."""
    prompt = f"answer en {question}"
    bar = output.form_of(arguments) != "table"
    if not arguments.answers:
        options = writing.options(arguments)
        for name, result in writing.each(names, failed, lambda some: captioner.write(some, prompt, **options), bar=bar):
            yield name, [(result.text, result.probability)]
        return
    import numpy as np

    answers: list[str] = arguments.answers
    for name, result in writing.each(names, failed, lambda some: captioner.score(some, prompt, answers), bar=bar):
        logs = result.log_probabilities
        chances = np.exp(logs - logs.max())
        chances /= chances.sum()
        yield name, [(answers[i], output.shortest(chances[i])) for i in (-logs).argsort(kind="stable")]
