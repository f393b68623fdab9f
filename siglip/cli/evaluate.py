"""Measure how good models are on data with known answers.

retrieval     find the caption of each picture and the picture of each caption:
              recall at 1, 5 and 10
zero-shot     name the class of each picture, by its name put into prompts:
              top-1 and top-5 accuracy
classification  the same with a trained classifier and its own classes
linear-probe  train one layer on the vectors of the pictures of --train
k-shot        the same with K of them a class, mean over three draws
captioning    write a caption, and compare it with those of people: CIDEr-D,
              BLEU, ROUGE-L; with --clip-score also with the picture
vqa           answer questions: VQA accuracy, exact match

The last two need a PaliGemma, which writes; it is run in float32 unless --dtype
says otherwise.

SRC is a folder of pictures with captions beside them (a.jpg and a.txt), a
folder with one folder of pictures for each class, a table (.csv, .tsv, .jsonl,
.parquet), shards (.tar), a folder that `datasets` saved, COCO's captions or
VQAv2's questions (.json); see docs/evaluation.md. With --out also a page to
read, with the pictures of the worst mistakes, and all numbers as JSON.

for example:
  siglip evaluate nano --task retrieval --data samples
  siglip evaluate nano --task zero-shot --data samples --templates "{}" "a {}"
  siglip evaluate nano --task retrieval --data samples --out report --json
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import inputs, output
from siglip.errors import clip
from siglip.files import existing
from siglip.releases import check_model_name

if TYPE_CHECKING:
    from siglip.evaluation.report import Evaluation

_WRITING = ("captioning", "vqa")
_TASKS = ("retrieval", "zero-shot", "classification", "linear-probe", "k-shot", *_WRITING)
# option -> the tasks that have it
BELONGS: Mapping[str, Sequence[str]] = {
    "all_captions": ["retrieval"],
    "classes": ["zero-shot", "linear-probe", "k-shot"],
    "templates": ["zero-shot"],
    "train": ["linear-probe", "k-shot"],
    "shots": ["k-shot"],
    "prompt": ["captioning"],
    "clip_score": ["captioning"],
    "beams": _WRITING,
    "max_tokens": _WRITING,
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip evaluate MODEL... --task TASK --data SRC [options]"
    parser.add_argument("models", metavar="MODEL", nargs="+", help="nano, folders, or hub names; see `siglip models`")
    parser.add_argument("--task", required=True, choices=_TASKS, help="one of the above")
    parser.add_argument("--data", required=True, metavar="SRC", help="the pictures with the right answers")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DIR/report.html and DIR/results.json")
    parser.add_argument("--all-captions", action="store_true", default=None, help="retrieval: ask with every caption")
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help="cifar10, cifar100, imagenet, or a file with one class a line in the order of their numbers "
        "(default: the data's own names)",
    )
    parser.add_argument(
        "--templates",
        nargs="+",
        metavar="T",
        help="zero-shot: sentences with {} for the class, a file with one a line, or imagenet, the 81 prompts of the "
        "paper; several are averaged (default: the model's own)",
    )
    parser.add_argument("--train", metavar="SRC", help="linear-probe and k-shot: the pictures to learn from")
    parser.add_argument(
        "--shots", type=inputs.positive, metavar="K", help="k-shot: pictures a class to learn from (default: 10)"
    )
    parser.add_argument(
        "--prompt", type=inputs.text, help="captioning: where the data give no prefix (default: 'caption en')"
    )
    parser.add_argument(
        "--clip-score",
        metavar="SIGLIP",
        help="captioning: also compare captions and pictures by this model, such as nano",
    )
    parser.add_argument(
        "--beams", type=inputs.positive, metavar="N", help="captioning and vqa: search with N beams (default: 1)"
    )
    parser.add_argument(
        "--max-tokens", type=inputs.positive, metavar="N", help="captioning and vqa: longest text (default: 32 tokens)"
    )
    inputs.add_column_argument(parser)
    output.add_form_arguments(parser)
    inputs.add_model_arguments(parser, named=True)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    named, templates = _class_names(arguments.classes), _template_list(arguments.templates)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)  # that it cannot be made is said before the work, not after it
    from siglip.evaluation import Task, evaluate_models
    from siglip.evaluation.report import write_report

    task = Task(
        name=arguments.task,
        data=arguments.data,
        columns=inputs.columns(arguments),
        classes=named,
        templates=templates,
        num_beams=arguments.beams,
        max_new_tokens=arguments.max_tokens,
        **{name: getattr(arguments, name) for name in ("train", "all_captions", "shots", "prompt", "clip_score")},
    )
    evaluation = evaluate_models(
        arguments.models,
        task,
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        bars=output.progress,
    )
    if arguments.out is not None:
        names = write_report(evaluation, arguments.out)
        output.say(f"wrote {', '.join(str(arguments.out / name) for name in names)}")
    _print(output.form_of(arguments), evaluation)
    samples = evaluation.data.samples + (evaluation.train.samples if evaluation.train else 0)
    return output.report_failures(evaluation.broken, samples)


def _check(arguments: argparse.Namespace) -> None:
    """Usage that argparse cannot judge, and model names, before anything heavy is loaded."""
    for name, tasks in BELONGS.items():
        if getattr(arguments, name) is not None and arguments.task not in tasks:
            word = "--" + name.replace("_", "-")
            raise inputs.UsageError(f"{word} is for --task {' or '.join(tasks)}, not for {arguments.task}")
    if arguments.train is None and arguments.task in BELONGS["train"]:
        raise inputs.UsageError(f"{arguments.task} learns from labelled pictures; name them with --train")
    for model in (*arguments.models, *([arguments.clip_score] if arguments.clip_score else [])):
        check_model_name(model)


def _class_names(word: str | None) -> list[str] | None:
    """The names that `--classes` gives, None if it was not."""
    from siglip.evaluation.zero_shot import BENCHMARKS, benchmark_classes

    if word is None or word in BENCHMARKS:
        return benchmark_classes(word) if word else None
    if existing(word) is None:
        raise inputs.UsageError(f"--classes {clip(word)} is neither a file nor one of {', '.join(BENCHMARKS)}")
    return inputs.texts(None, Path(word))


def _template_list(words: list[str] | None) -> list[str] | None:
    """The sentences that `--templates` gives: themselves, those of a file, or the shipped ones; else None."""
    from siglip.evaluation.zero_shot import benchmark_templates

    if words is None:
        return None
    if words == ["imagenet"]:
        return benchmark_templates("imagenet")
    file = existing(words[0]) if len(words) == 1 else None
    templates = inputs.texts(None, file) if file is not None and file.is_file() else words
    for template in templates:
        if "{}" not in template:
            raise inputs.UsageError(
                f"template {clip(repr(template))} has no {{}} for the class, and is neither imagenet nor a file"
            )
    return templates


def _print(form: output.Form, evaluation: "Evaluation") -> None:
    """A row for each number and count, a column for each model; or the record of results.json."""
    from siglip.evaluation.report import BEYOND_ONE, as_record

    if form in ("json", "jsonl"):
        output.print_record(form, as_record(evaluation))
        return
    results = [judged.result for judged in evaluation.judged]

    def cell(name: str, value: float) -> output.Cell:
        return f"{100 * value:.1f}{'' if name in BEYOND_ONE else ' %'}" if form == "table" else value

    rows: list[Sequence[output.Cell]] = []
    rows += [[name, *(cell(name, result.numbers[name]) for result in results)] for name in results[0].numbers]
    rows += [[name, *(result.counts[name] for result in results)] for name in results[0].counts]
    columns = [
        output.Column(name, [row[place] for row in rows], right=place > 0)
        for place, name in enumerate(("number", *(judged.model for judged in evaluation.judged)))
    ]
    report = output.Report(form, columns, key="", head={})
    for row in rows:
        report.add({}, [row])
