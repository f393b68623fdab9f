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
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip.cli import inputs, output
from siglip.errors import DataError, Failure
from siglip.releases import check_model_name

if TYPE_CHECKING:
    import numpy as np

    from siglip.data import Source
    from siglip.embedder import Embedder
    from siglip.evaluation import Pictures, Result
    from siglip.evaluation.report import Evaluation
    from siglip.evaluation.result import Setting

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
    sources, classes = _open(arguments, named)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)  # that it cannot be made is said before the work, not after it
    from siglip.evaluation.report import DataFacts, Evaluation, Judged, write_report

    numbers = [_numbers(source, classes) for source in sources]
    judged: list[Judged] = []
    broken: list[Failure] = []
    more: dict[str, str] = {}
    for model in arguments.models:
        if arguments.task in _WRITING:
            found, broken, fingerprint, written = _judge_writing(arguments, model, sources[0])
            more[f"{arguments.task}_{_slug(model)}_results.json"] = output.as_json(written)
            judged.append(Judged(model, fingerprint, found))
            continue
        if arguments.task == "classification":
            judged.append(Judged(model, *_judge_classifier(arguments, model, sources[0], broken)))
            continue
        embedder = inputs.load_embedder(arguments, model)
        pictures = [_embed(embedder, *pair) for pair in zip(sources, numbers, strict=True)]
        broken = [item for some in pictures for item in some.broken]  # the same for every model
        judged.append(Judged(model, embedder.fingerprint, _judge(arguments, embedder, pictures, classes, templates)))
    facts = [
        DataFacts(word, len(source), source.fingerprint())
        for word, source in zip((arguments.data, arguments.train), sources, strict=False)
    ]
    evaluation = Evaluation(data=facts[0], train=facts[1] if facts[1:] else None, judged=judged, broken=broken)
    if arguments.out is not None:
        write_report(evaluation, sources[0], arguments.out, more)
        output.say(f"wrote {', '.join(str(arguments.out / name) for name in ('report.html', 'results.json', *more))}")
    _print(output.form_of(arguments), evaluation)
    return output.report_failures(broken, sum(map(len, sources)))


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


def _class_names(word: str | None) -> list[str]:
    """The names that `--classes` gives, none if it was not."""
    from siglip.evaluation.zero_shot import BENCHMARKS, benchmark_classes

    if word is None or word in BENCHMARKS:
        return benchmark_classes(word) if word else []
    if not Path(word).exists():
        raise inputs.UsageError(f"--classes {word} is neither a file nor one of {', '.join(BENCHMARKS)}")
    return inputs.texts(None, Path(word))


def _template_list(words: list[str] | None) -> list[str] | None:
    """The sentences that `--templates` gives: themselves, those of a file, or the shipped ones; else None."""
    from siglip.evaluation.zero_shot import benchmark_templates

    if words is None:
        return None
    if words == ["imagenet"]:
        return benchmark_templates("imagenet")
    templates = inputs.texts(None, Path(words[0])) if len(words) == 1 and Path(words[0]).is_file() else words
    for template in templates:
        if "{}" not in template:
            raise inputs.UsageError(
                f"template {template!r} has no {{}} for the class, and is neither imagenet nor a file"
            )
    return templates


def _open(arguments: argparse.Namespace, named: list[str]) -> "tuple[list[Source], list[str]]":
    """The data, after them those to learn from if there are any; and the classes, which the latter name."""
    from siglip.data import open_source

    columns = inputs.columns(arguments)
    if arguments.task in ("retrieval", "classification", *_WRITING):
        return [open_source(arguments.data, columns=columns)], []
    naming = open_source(arguments.train or arguments.data, columns=columns, label_names=named)
    classes = named or [name.replace("_", " ") for name in naming.label_names]
    if not classes:
        raise DataError(f"{arguments.train or arguments.data} names no classes; name them with --classes")
    if arguments.train is None:
        return [naming], classes
    return [open_source(arguments.data, columns=columns, label_names=classes), naming], classes


def _numbers(source: "Source", classes: list[str]) -> "np.ndarray | None":
    """The number in `classes` of each label of the source; says so where names are taken in their order."""
    if not classes:
        return None
    from siglip.evaluation.classes import match_labels, plain_name

    numbers = match_labels(source.label_names, classes)
    pairs = [(name, classes[number]) for name, number in zip(source.label_names, numbers.tolist(), strict=True)]
    renamed = [f"{a} = {b}" for a, b in pairs if not a.isdecimal() and plain_name(a) != plain_name(b)]
    if renamed:
        output.say(f"classes are named in the order of the data: {', '.join(renamed[:3])}, {len(renamed)} such in all")
    return numbers


def _embed(embedder: "Embedder", source: "Source", numbers: "np.ndarray | None") -> "Pictures":
    from siglip.evaluation import embed_source

    with output.progress(len(source), "picture") as done:
        pictures = embed_source(embedder, source, done)
    return pictures if numbers is None else pictures.renumbered(numbers)


def _judge_classifier(
    arguments: argparse.Namespace, model: str, source: "Source", broken: list[Failure]
) -> "tuple[str, Result]":
    """Fingerprint and result of a trained classifier; `broken` becomes the pictures that could not be read."""
    from siglip.evaluation import embed_source, evaluate_classifier

    classifier = inputs.load_classifier(arguments, model)
    if classifier is None:
        raise inputs.UsageError(f"{model} is no trained classifier; --task zero-shot or linear-probe measure it")
    numbers = _numbers(source, classifier.labels)
    with output.progress(len(source), "picture") as done:
        pictures = embed_source(classifier, source, done)
    broken[:] = pictures.broken
    named = pictures if numbers is None else pictures.renumbered(numbers)
    return classifier.fingerprint, evaluate_classifier(named, classifier.labels)


def _judge(
    arguments: argparse.Namespace,
    embedder: "Embedder",
    pictures: "list[Pictures]",
    classes: list[str],
    templates: list[str] | None,
) -> "Result":
    from siglip.evaluation import evaluate_retrieval, evaluate_zero_shot, k_shot, linear_probe
    from siglip.evaluation.retrieval import distinct_texts

    tested, learned = pictures[0], pictures[-1]
    if arguments.task == "retrieval":
        every = bool(arguments.all_captions)
        with output.progress(len(distinct_texts(tested, all_captions=every)), "text") as done:
            return evaluate_retrieval(embedder, tested, all_captions=every, progress=done)
    if arguments.task == "zero-shot":
        with output.progress(len(classes), "class") as done:
            return evaluate_zero_shot(embedder, tested, classes, templates, progress=done)
    if arguments.task == "linear-probe":
        return linear_probe(learned, tested, classes)
    return k_shot(learned, tested, classes, shots=arguments.shots or 10)


def _judge_writing(
    arguments: argparse.Namespace, model: str, source: "Source"
) -> "tuple[Result, list[Failure], str, list[dict[str, Any]]]":
    """The result, what could not be used, the model's fingerprint, and what it wrote in the shape of the challenges."""
    from siglip.captioner import Captioner
    from siglip.checkpoints import fingerprint
    from siglip.evaluation import evaluate_answers, evaluate_captions, official_results, write_texts

    dtype = "float32" if arguments.dtype == "auto" else arguments.dtype
    captioner = Captioner.from_pretrained(model, device=arguments.device, dtype=dtype, batch_size=arguments.batch_size)
    embedder = inputs.load_embedder(arguments, arguments.clip_score) if arguments.clip_score else None
    choice = {"num_beams": arguments.beams or 1, "max_new_tokens": arguments.max_tokens or 32}
    prompt = arguments.prompt or "caption en"
    with output.progress(len(source), "picture") as done:
        texts = write_texts(captioner, source, prompt=prompt, progress=done, **choice)
    settings: dict[str, Setting] = {"dtype": dtype, **choice}
    if arguments.task == "vqa":
        result = evaluate_answers(texts)
    else:
        result = evaluate_captions(texts, source, embedder)
        settings |= {"prompts": sorted({item.prompt for item in texts.written})}
    if embedder is not None:
        settings |= {"clip_score": f"{arguments.clip_score}, {embedder.fingerprint}"}
    result = replace(result, settings=settings)
    name = fingerprint(captioner.model, captioner.processor)
    return result, list(texts.broken), name, official_results(arguments.task, texts)


def _slug(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-")


def _print(form: output.Form, evaluation: "Evaluation") -> None:
    """A row for each number and count, a column for each model; or the record of results.json."""
    from siglip.evaluation.report import BEYOND_ONE, as_record

    if form in ("json", "jsonl"):
        output.print_record(form, as_record(evaluation))
        return
    results = [result for _, _, result in evaluation.judged]

    def cell(name: str, value: float) -> output.Cell:
        return f"{100 * value:.1f}{'' if name in BEYOND_ONE else ' %'}" if form == "table" else value

    rows: list[Sequence[output.Cell]] = []
    rows += [[name, *(cell(name, result.numbers[name]) for result in results)] for name in results[0].numbers]
    rows += [[name, *(result.counts[name] for result in results)] for name in results[0].counts]
    columns = [
        output.Column(name, [row[place] for row in rows], right=place > 0)
        for place, name in enumerate(("number", *(model for model, _, _ in evaluation.judged)))
    ]
    report = output.Report(form, columns, key="", head={})
    for row in rows:
        report.add({}, [row])
