"""Results of models on the same data -> results.json, and report.html to read: one file, no scripts, light.

The page shows the numbers, every class, and the worst mistakes with their pictures inside.
"""

import base64
import io
import itertools
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

import siglip
from siglip.data import Source
from siglip.errors import BrokenSample, Failure, UnreadableImage
from siglip.evaluation.result import Result
from siglip.files import replacing_together
from siglip.processing import read_image

_THUMBNAIL_PX = 256
_CLASSES_SHOWN = 40
_BROKEN_SHOWN = 100
_TITLES = {
    "retrieval": ("Retrieval", "Find the text of each picture, and the picture of each text, among all of them."),
    "zero-shot": ("Zero-shot classification", "Name the class of each picture by prompts alone, without training."),
    "classification": ("Classification", "Name the class of each picture with a trained classifier."),
    "linear-probe": ("Linear probe", "One linear layer on frozen picture vectors, trained with all labels."),
    "captioning": ("Captions", "Say in words what is in each picture, and compare it with what people wrote."),
    "vqa": ("Answers", "Answer a question about each picture, and compare it with what people answered."),
    "k-shot": ("Few-shot classification", "One linear layer on frozen picture vectors, trained with a few labels."),
}
_NAMES = {
    "image_to_text/recall@1": "a picture's text is found first",
    "image_to_text/recall@5": "... among the first 5",
    "image_to_text/recall@10": "... among the first 10",
    "text_to_image/recall@1": "a text's picture is found first",
    "text_to_image/recall@5": "... among the first 5",
    "text_to_image/recall@10": "... among the first 10",
    "cider": "CIDEr-D, times 100: words shared with people's captions, rare ones counting more",
    "bleu-1": "BLEU-1: words that people used too",
    "bleu-2": "... pairs of words (BLEU-2)",
    "bleu-3": "... three in a row (BLEU-3)",
    "bleu-4": "... four in a row (BLEU-4)",
    "rouge-l": "ROUGE-L: longest common sequence of words",
    "exact": "equal to what was expected",
    "clip_score": "CLIPScore, times 100: picture and caption compared by a SigLIP model",
    "vqa_accuracy": "VQA accuracy: agreement with several people",
    "top1": "the right class comes first",
    "top5": "... among the first 5",
    "mean_per_class": "the right class comes first, mean over classes",
}


# these are no shares, and are shown times 100 without a per cent sign, as in papers
BEYOND_ONE = ("cider", "clip_score")


class DataFacts(NamedTuple):
    """Where samples came from, how many they are, and their fingerprint."""

    source: str
    samples: int
    fingerprint: str


class Judged(NamedTuple):
    """A model, its fingerprint, how it did, and what it wrote in the form that the servers of challenges take."""

    model: str
    fingerprint: str
    result: Result
    official: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """At least one model, judged in one task on the same data; `train` are the data of probes.

    `source` are the samples of the data, for the pictures on the page.
    """

    source: Source
    data: DataFacts
    judged: Sequence[Judged]
    train: DataFacts | None = None
    broken: Sequence[Failure] = ()


def as_record(evaluation: Evaluation) -> dict[str, Any]:
    """What results.json holds: numbers are shares in [0, 1], scores those of the task."""
    models: list[dict[str, Any]] = []
    for model, fingerprint, result, _ in evaluation.judged:
        facts = asdict(result)
        models.append(
            {"model": model, "fingerprint": fingerprint, **{key: facts[key] for key in facts if key != "task"}}
        )
    train = {} if evaluation.train is None else {"train": evaluation.train._asdict()}
    return {
        "task": evaluation.judged[0].result.task,
        "siglip": siglip.__version__,
        "data": evaluation.data._asdict(),
        **train,
        "models": models,
        "failures": [item.record() for item in evaluation.broken],
    }


def write_report(evaluation: Evaluation, folder: str | Path) -> list[str]:
    """Write report.html, results.json and what the challenges' servers take into `folder`, all or none; their names."""
    page = report_page(evaluation)
    files = {"report.html": page, "results.json": json.dumps(as_record(evaluation), indent=2) + "\n"}
    for model, _, result, official in evaluation.judged:
        if official:
            files[_free_name(files, result.task, model)] = json.dumps(official, ensure_ascii=False, indent=2) + "\n"
    with replacing_together(folder) as staging:
        for name, text in reversed(files.items()):  # the page, which people wait for, last
            (staging / name).write_bytes(text.encode("utf-8", "replace"))
    return list(files)


def report_page(evaluation: Evaluation) -> str:
    """The whole page: report.html of this folder, filled in."""
    title, sense = _TITLES[evaluation.judged[0].result.task]
    results = [judged.result for judged in evaluation.judged]
    wanted = {mistake.index for result in results for mistake in (*result.mistakes, *result.best)}
    counted = {name.replace("_", " "): count for name, count in results[0].counts.items() if count}
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    return template.render(
        title=title,
        sense=sense,
        data=evaluation.data,
        judged=evaluation.judged,
        numbers=[
            (_name(name), [result.numbers[name] for result in results], name not in BEYOND_ONE)
            for name in results[0].numbers
        ],
        of_texts=results[0].task in ("captioning", "vqa"),
        counts=", ".join(f"{count:,} {name}" for name, count in counted.items()),
        pictures={index: _data_uri(evaluation.source, index) for index in wanted},
        classes_shown=_CLASSES_SHOWN,
        facts=_facts(evaluation),
        broken=evaluation.broken,
        broken_shown=_BROKEN_SHOWN,
    )


def _free_name(taken: Container[str], task: str, model: str) -> str:
    """TASK_MODEL_results.json, with a number if another model of that name has it."""
    slug = re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-")
    names = (
        f"{task}_{slug}{end}_results.json"
        for end in itertools.chain([""], (f"-{count}" for count in itertools.count(2)))
    )
    return next(name for name in names if name not in taken)


def _name(number: str) -> str:
    whole, _, kind = number.rpartition("/")
    return f"... {kind}" if whole == "vqa_accuracy" else _NAMES.get(number, number)


def _data_uri(source: Source, index: int) -> str:
    """The sample's picture, small, as PNG or JPEG, whichever is smaller; empty if it cannot be fetched any more."""
    try:
        image = source.sample(index).image
        assert image is not None
        picture = read_image(image, at_least_px=_THUMBNAIL_PX).copy()
    except (BrokenSample, UnreadableImage):
        return ""
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.LANCZOS)
    kinds = {"png": _encoded(picture, "PNG"), "jpeg": _encoded(picture, "JPEG")}
    kind = min(kinds, key=lambda name: len(kinds[name]))
    return f"data:image/{kind};base64,{base64.b64encode(kinds[kind]).decode()}"


def _encoded(picture: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, optimize=True, quality=85)
    return stream.getvalue()


def _facts(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and fingerprint of all that the numbers depend on."""
    rows = [("data", f"{evaluation.data.source}, {evaluation.data.samples:,} samples", evaluation.data.fingerprint)]
    if evaluation.train is not None:
        train = evaluation.train
        rows.append(("training data", f"{train.source}, {train.samples:,} samples", train.fingerprint))
    rows += [("model", judged.model, judged.fingerprint) for judged in evaluation.judged]
    for name, value in evaluation.judged[0].result.settings.items():
        listed = value if isinstance(value, list) else [str(value)]
        rest = f" and {len(listed) - 3} more, see results.json" if len(listed) > 3 else ""
        rows.append((name, ", ".join(listed[:3]) + rest, ""))
    return [*rows, ("made by", f"siglip {siglip.__version__}", "")]
