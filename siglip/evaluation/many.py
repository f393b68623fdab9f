"""Names of models, a task and its data -> Evaluation: each model is loaded, judged on the same samples, and let go."""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from siglip.captioner import Captioner
from siglip.checkpoints import classifies, fingerprint
from siglip.classifier import Classifier
from siglip.data import Columns, Source, open_source
from siglip.embedder import Embedder
from siglip.errors import CheckpointError, ConfigError, DataError, Failure, SiglipWarning, clip, did_you_mean
from siglip.evaluation.classes import evaluate_classifier, match_labels, plain_name
from siglip.evaluation.pictures import Pictures, Progress, embed_source
from siglip.evaluation.probe import k_shot, linear_probe
from siglip.evaluation.report import DataFacts, Evaluation, Judged
from siglip.evaluation.result import Setting
from siglip.evaluation.retrieval import distinct_texts, evaluate_retrieval
from siglip.evaluation.texts import evaluate_answers, evaluate_captions, official_results, write_texts
from siglip.evaluation.zero_shot import evaluate_zero_shot
from siglip.releases import check_model_name

# called with the number of items to come and what they are; gives what is called with the number just done
Bars = Callable[[int, str], AbstractContextManager[Progress]]

# task -> the fields of Task that mean something in it, beside its name and data
_USES: Mapping[str, Sequence[str]] = {
    "retrieval": ["all_captions"],
    "zero-shot": ["classes", "templates"],
    "classification": [],
    "linear-probe": ["train", "classes"],
    "k-shot": ["train", "classes", "shots"],
    "captioning": ["num_beams", "max_new_tokens", "prompt", "clip_score"],
    "vqa": ["num_beams", "max_new_tokens"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is measured on which data. A field that means nothing in the task is a ConfigError, as is an unknown task.

    `data`, and `train` of the tasks that learn, are what `open_source` takes; `classes` name the classes in the order
    of their numbers (None: the data's own names); `clip_score` is the SigLIP model that compares captions and pictures.
    """

    name: str
    data: object
    columns: Columns | None = None
    train: object = None
    classes: Sequence[str] | None = None
    templates: Sequence[str] | None = None
    all_captions: bool | None = None
    shots: int | None = None
    prompt: str | None = None
    clip_score: str | None = None
    num_beams: int | None = None
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.name not in _USES:
            near = did_you_mean(self.name, _USES)
            raise ConfigError(
                f"no task {clip(self.name)!r}: expected one of {', '.join(_USES)}"
                + (f"; did you mean {near!r}?" if near else "")
            )
        for field in dict.fromkeys(field for fields in _USES.values() for field in fields):
            if getattr(self, field) is not None and field not in _USES[self.name]:
                others = [task for task, fields in _USES.items() if field in fields]
                raise ConfigError(f"{field} is for task {' or '.join(others)}, not for {self.name}")
        if "train" in _USES[self.name] and self.train is None:
            raise ConfigError(f"{self.name} learns from labelled pictures; give them as train")


class _Opened(NamedTuple):
    """The samples of a task, and the classes of those that have them."""

    data: Source
    train: Source | None
    classes: list[str]


class _Run(NamedTuple):
    """How models are loaded, and where they show how far they are."""

    options: dict[str, Any]
    bars: Bars


@contextmanager
def _no_bar(total: int, unit: str) -> Generator[Progress]:
    del total, unit
    yield lambda _: None


def evaluate_models(
    models: Sequence[str],
    task: Task,
    *,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int = 32,
    bars: Bars = _no_bar,
) -> Evaluation:
    """Judge each of `models` (nano, folders, hub names) in the task; for models that write, "auto" means float32.

    Every name is checked before anything is loaded. Raises CheckpointError for a name that is no model or a model of a
    kind that the task is not for, DataError for data that cannot be read or lack what the task needs.
    """
    for model in (*models, *([task.clip_score] if task.clip_score else [])):
        check_model_name(model)
    opened = _open(task)
    run = _Run({"device": device, "dtype": dtype, "batch_size": batch_size}, bars)
    judge = {"captioning": _judge_writing, "vqa": _judge_writing, "classification": _judge_classifier}
    found = [judge.get(task.name, _judge_vectors)(model, task, opened, run) for model in models]
    facts = [
        DataFacts(clip(spec), len(source), source.fingerprint())
        for spec, source in ((task.data, opened.data), (task.train, opened.train))
        if source is not None
    ]
    return Evaluation(
        source=opened.data,
        data=facts[0],
        train=facts[1] if facts[1:] else None,
        judged=[judged for judged, _ in found],
        broken=found[-1][1],  # the same for every model
    )


def _open(task: Task) -> _Opened:
    """The samples; and the classes, which the pictures to learn from name if there are any."""
    if task.name not in ("zero-shot", "linear-probe", "k-shot"):
        return _Opened(open_source(task.data, columns=task.columns), None, [])
    named = list(task.classes or [])
    naming = open_source(task.data if task.train is None else task.train, columns=task.columns, label_names=named)
    classes = named or [name.replace("_", " ") for name in naming.label_names]
    if not classes:
        raise DataError(
            f"{clip(task.data if task.train is None else task.train)} names no classes; give their names (--classes)"
        )
    if task.train is None:
        return _Opened(naming, None, classes)
    return _Opened(open_source(task.data, columns=task.columns, label_names=classes), naming, classes)


def _judge_vectors(model: str, task: Task, opened: _Opened, run: _Run) -> tuple[Judged, Sequence[Failure]]:
    """By the vectors of the pictures: retrieval, zero-shot, and the layers that are trained on vectors."""
    embedder = Embedder.from_pretrained(model, **run.options)
    tested = _embed(embedder, opened.data, opened.classes, run)
    learned = tested if opened.train is None else _embed(embedder, opened.train, opened.classes, run)
    if task.name == "retrieval":
        every = bool(task.all_captions)
        with run.bars(len(distinct_texts(tested, all_captions=every)), "text") as done:
            result = evaluate_retrieval(embedder, tested, all_captions=every, progress=done)
    elif task.name == "zero-shot":
        with run.bars(len(opened.classes), "class") as done:
            result = evaluate_zero_shot(embedder, tested, opened.classes, task.templates, progress=done)
    elif task.name == "linear-probe":
        result = linear_probe(learned, tested, opened.classes)
    else:
        result = k_shot(learned, tested, opened.classes, shots=10 if task.shots is None else task.shots)
    return Judged(model, embedder.fingerprint, result), learned.broken


def _judge_classifier(model: str, task: Task, opened: _Opened, run: _Run) -> tuple[Judged, Sequence[Failure]]:
    """By the probabilities that a trained classifier gives its own classes."""
    if not classifies(model):
        raise CheckpointError(f"{model} is not a trained classifier; evaluate it with task zero-shot or linear-probe")
    classifier = Classifier.from_pretrained(model, **run.options)
    pictures = _embed(classifier, opened.data, list(classifier.labels), run)
    return Judged(model, classifier.fingerprint, evaluate_classifier(pictures, classifier.labels)), pictures.broken


def _judge_writing(model: str, task: Task, opened: _Opened, run: _Run) -> tuple[Judged, Sequence[Failure]]:
    """By the captions or answers that it writes."""
    dtype = "float32" if run.options["dtype"] == "auto" else run.options["dtype"]
    options: dict[str, Any] = {**run.options, "dtype": dtype}
    captioner = Captioner.from_pretrained(model, **options)
    embedder = Embedder.from_pretrained(task.clip_score, **run.options) if task.clip_score else None
    choice: dict[str, int] = {"num_beams": task.num_beams or 1, "max_new_tokens": task.max_new_tokens or 32}
    with run.bars(len(opened.data), "picture") as done:
        texts = write_texts(captioner, opened.data, prompt=task.prompt or "caption en", progress=done, **choice)
    settings: dict[str, Setting] = {"dtype": dtype, **choice}
    if task.name == "vqa":
        result = evaluate_answers(texts)
    else:
        result = evaluate_captions(texts, opened.data, embedder)
        settings |= {"prompts": sorted({item.prompt for item in texts.written})}
    if embedder is not None:
        settings |= {"clip_score": f"{task.clip_score}, {embedder.fingerprint}"}
    name = fingerprint(captioner.model, captioner.processor)
    official = official_results(task.name, texts)
    return Judged(model, name, replace(result, settings=settings), official), texts.broken


def _embed(embedder: Embedder | Classifier, source: Source, classes: list[str], run: _Run) -> Pictures:
    """The vectors, with labels numbered as in `classes`; says so where the names are taken in their order."""
    numbers = None
    if classes:
        numbers = match_labels(source.label_names, classes)
        pairs = [(name, classes[number]) for name, number in zip(source.label_names, numbers.tolist(), strict=True)]
        renamed = [f"{a} = {b}" for a, b in pairs if not a.isdecimal() and plain_name(a) != plain_name(b)]
        if renamed:
            told = f"classes are named in the order of the data: {', '.join(renamed[:3])}, {len(renamed)} such in all"
            warnings.warn(told, SiglipWarning, stacklevel=2)
    with run.bars(len(source), "picture") as done:
        pictures = embed_source(embedder, source, done)
    return pictures if numbers is None else pictures.renumbered(numbers)
