"""Results of models on the same data -> results.json, and report.html to read: one file, no scripts, light.

The page shows the numbers, every class, and the worst mistakes with their pictures inside.
"""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

import siglip
from siglip.data import Source
from siglip.errors import BrokenSample, Failure, UnreadableImage
from siglip.evaluation.result import Answer, ClassResult, Mistake, Result
from siglip.files import replacing_together
from siglip.processing import read_image

_THUMBNAIL_PX = 256
_CLASSES_SHOWN = 40
_BROKEN_SHOWN = 100
_TITLES = {
    "retrieval": ("Retrieval", "Find the text of each picture, and the picture of each text, among all of them."),
    "zero-shot": ("Zero-shot classification", "Name the class of each picture by prompts alone, without training."),
    "linear-probe": ("Linear probe", "One linear layer on frozen picture vectors, trained with all labels."),
    "k-shot": ("Few-shot classification", "One linear layer on frozen picture vectors, trained with a few labels."),
}
_NAMES = {
    "image_to_text/recall@1": "a picture's text is found first",
    "image_to_text/recall@5": "... among the first 5",
    "image_to_text/recall@10": "... among the first 10",
    "text_to_image/recall@1": "a text's picture is found first",
    "text_to_image/recall@5": "... among the first 5",
    "text_to_image/recall@10": "... among the first 10",
    "top1": "the right class comes first",
    "top5": "... among the first 5",
    "mean_per_class": "the right class comes first, mean over classes",
}


class DataFacts(NamedTuple):
    """Where samples came from, how many they are, and their fingerprint."""

    source: str
    samples: int
    fingerprint: str


class Judged(NamedTuple):
    """A model, the fingerprint of its weights and preparation, and how it did."""

    model: str
    fingerprint: str
    result: Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """At least one model, judged in one task on the same data; `train` are the data of probes."""

    data: DataFacts
    judged: Sequence[Judged]
    train: DataFacts | None = None
    broken: Sequence[Failure] = ()


def as_record(evaluation: Evaluation) -> dict[str, Any]:
    """What results.json holds: numbers are shares in [0, 1], scores those of the task."""
    models: list[dict[str, Any]] = []
    for model, fingerprint, result in evaluation.judged:
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


def write_report(evaluation: Evaluation, source: Source, folder: str | Path) -> None:
    """Write results.json and report.html into `folder`, both or none; the pictures of mistakes come from `source`."""
    page = report_page(evaluation, source)
    with replacing_together(folder) as staging:
        (staging / "results.json").write_text(json.dumps(as_record(evaluation), indent=2) + "\n", encoding="utf-8")
        (staging / "report.html").write_bytes(page.encode("utf-8", "replace"))


def report_page(evaluation: Evaluation, source: Source) -> str:
    """The whole page."""
    title, sense = _TITLES[evaluation.judged[0].result.task]
    wanted = {mistake.index for judged in evaluation.judged for mistake in judged.result.mistakes}
    pictures = {index: _data_uri(source, index) for index in sorted(wanted)}
    several = len(evaluation.judged) > 1
    sections = [
        _model_section(judged.model if several else "", judged.result, pictures) for judged in evaluation.judged
    ]
    models = ", ".join(judged.model for judged in evaluation.judged)
    return _PAGE.format(
        title=escape(title),
        models=escape(models),
        data=escape(evaluation.data.source),
        sense=escape(sense),
        style=_STYLE,
        numbers=_numbers(evaluation.judged),
        sections="\n".join(sections),
        facts=_facts(evaluation),
    )


def _numbers(judged: Sequence[Judged]) -> str:
    """One row a number, one column a model; the best of several is bold."""
    results = [item.result for item in judged]
    rows: list[str] = []
    for name in results[0].numbers:
        shares = [result.numbers[name] for result in results]
        cells = "".join(_bar(share, best=share == max(shares) > min(shares)) for share in shares)
        plain = _NAMES.get(name, name)
        rows.append(f"<tr{' class=more' if plain[0] == '.' else ''}><th scope=row>{escape(plain)}</th>{cells}</tr>")
    heads = "".join(f"<th scope=col>{escape(item.model)}</th>" for item in judged)
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in results[0].counts.items() if count)
    return (
        f"<table class=numbers><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<p class=note>Of {escape(counts)}.</p>"
    )


def _bar(share: float, *, best: bool = False) -> str:
    text = f"{100 * share:.1f} %"
    return (
        f"<td class=share><span class=bar><i style='width:{100 * share:.1f}%'></i></span>"
        f"<span class='{'percent best' if best else 'percent'}'>{text}</span></td>"
    )


def _model_section(model: str, result: Result, pictures: dict[int, str]) -> str:
    parts = [f"<h2>{escape(model)}</h2>"] if model else []
    if result.per_class:
        parts.append(_classes(sorted(result.per_class, key=lambda found: (found.top1, found.name))))
    if result.mistakes:
        parts.append(
            "<h3>The worst mistakes</h3><p class=note>Pictures for which a wrong answer beats the right one by"
        )
        parts.append("most. The first line is what is right, then what the model said, each with its score.</p>")
        cards = "\n".join(_card(mistake, pictures[mistake.index]) for mistake in result.mistakes)
        parts.append(f"<div class=cards>\n{cards}\n</div>")
    return "<section>" + "\n".join(parts) + "</section>"


def _classes(found: Sequence[ClassResult]) -> str:
    rest = found[_CLASSES_SHOWN:]
    more = f"<details><summary>{len(rest)} more classes</summary>{_class_table(rest)}</details>" if rest else ""
    return f"<h3>Classes, the hardest first</h3>{_class_table(found[:_CLASSES_SHOWN])}{more}"


def _class_table(found: Iterable[ClassResult]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(item.name)}</th>{_bar(item.top1)}<td class=count>{item.pictures:,}</td>"
        f"<td class=grey>{escape(item.taken_for or '')}</td></tr>"
        for item in found
    )
    heads = "<th scope=col>found</th><th scope=col class=count>pictures</th><th scope=col>most others taken for</th>"
    return f"<table class=classes><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _card(mistake: Mistake, picture: str) -> str:
    said = "".join(_answer(answer, right=answer.text == mistake.expected.text) for answer in mistake.found)
    shown = f'<img src="{picture}" alt="{escape(mistake.expected.text)}">' if picture else ""
    return (
        f"<figure><div class=picture>{shown}</div><figcaption><ul>{_answer(mistake.expected, right=True)}</ul>"
        f"<ol>{said}</ol><small>{escape(mistake.name)}</small></figcaption></figure>"
    )


def _answer(answer: Answer, *, right: bool) -> str:
    mark = " class=right" if right else ""
    return f"<li{mark}><span>{escape(answer.text)}</span><em>{answer.score:.3f}</em></li>"


def _data_uri(source: Source, index: int) -> str:
    """The sample's picture, small, as PNG or JPEG, whichever is smaller; empty if it cannot be had any more."""
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


def _facts(evaluation: Evaluation) -> str:
    rows = [("data", f"{evaluation.data.source}, {evaluation.data.samples:,} samples", evaluation.data.fingerprint)]
    if evaluation.train is not None:
        train = evaluation.train
        rows.append(("training data", f"{train.source}, {train.samples:,} samples", train.fingerprint))
    rows += [("model", judged.model, judged.fingerprint) for judged in evaluation.judged]
    for name, value in evaluation.judged[0].result.settings.items():
        listed = value if isinstance(value, list) else [str(value)]
        rest = f" and {len(listed) - 3} more, see results.json" if len(listed) > 3 else ""
        rows.append((name, ", ".join(listed[:3]) + rest, ""))
    rows.append(("made by", f"siglip {siglip.__version__}", ""))
    cells = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}<code>{digest}</code></td></tr>"
        for name, value, digest in rows
    )
    return f"<table class=facts><tbody>{cells}</tbody></table>{_broken(evaluation.broken)}"


def _broken(broken: Sequence[Failure]) -> str:
    if not broken:
        return ""
    items = "".join(f"<li>{escape(item.name)}: {escape(item.reason)}</li>" for item in broken[:_BROKEN_SHOWN])
    return f"<details><summary>{len(broken):,} samples could not be used</summary><ul class=grey>{items}</ul></details>"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: {models} on {data}</title>
<style>{style}</style>
</head>
<body>
<header><p class=kicker>{models} on {data}</p><h1>{title}</h1><p>{sense}</p></header>
<section>{numbers}</section>
{sections}
<section><h3>What was measured</h3>{facts}</section>
</body>
</html>
"""

_STYLE = """
:root { --ink: #24292f; --grey: #6e7781; --rule: #e7e7e4; --blue: #2a5d9f; --green: #22734a; --paper: #fbfbf9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 3rem 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { margin: 0; font-size: 2.2rem; font-weight: 650; letter-spacing: -.02em; }
h2 { margin: 3rem 0 0; padding-top: 1.5rem; border-top: 1px solid var(--rule); font-size: 1.5rem; }
h3 { margin: 2.2rem 0 .4rem; font-size: 1.1rem; }
p { margin: .4rem 0; }
.kicker { color: var(--blue); font-weight: 600; overflow-wrap: anywhere; }
.note, .grey, small { color: var(--grey); }
.note { font-size: .9rem; max-width: 46rem; }
section { margin-top: 1.6rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--rule); text-align: left; font-weight: 400;
  vertical-align: top; }
thead th, thead td { color: var(--grey); font-size: .85rem; padding-bottom: .2rem; }
.numbers tbody th { width: 22rem; }
.more th { padding-left: 1.4rem; color: var(--grey); }
.classes tbody th { width: 15rem; }
.share { white-space: nowrap; }
.bar { display: inline-block; width: min(14rem, 30vw); height: .6rem; margin-right: .7rem; border-radius: .3rem;
  background: #eceff3; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--blue); }
.percent { display: inline-block; min-width: 4rem; text-align: right; }
.best { font-weight: 650; }
.classes .share { width: 20rem; }
.count { text-align: right; padding-right: 2rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); gap: 1rem; margin-top: 1rem; }
figure { margin: 0; background: #fff; border: 1px solid var(--rule); border-radius: .7rem; overflow: hidden;
  break-inside: avoid; }
.picture { height: 11rem; padding: .8rem; display: grid; place-items: center; border-bottom: 1px solid var(--rule); }
.picture img { width: 100%; height: 9.4rem; object-fit: contain; }
figcaption { padding: .6rem .8rem .7rem; font-size: .85rem; line-height: 1.35; }
figcaption ul, figcaption ol { list-style: none; margin: 0 0 .45rem; padding: 0; }
figcaption ul { padding-bottom: .45rem; border-bottom: 1px dashed var(--rule); font-weight: 600; }
figcaption li { display: flex; justify-content: space-between; gap: .6rem; overflow-wrap: anywhere; }
figcaption em { flex: none; font: inherit; font-weight: 400; color: var(--grey); font-variant-numeric: tabular-nums; }
.right { color: var(--green); }
small { font-size: .75rem; overflow-wrap: anywhere; }
.facts th { width: 9rem; color: var(--grey); }
.facts td { overflow-wrap: anywhere; }
code { display: block; color: var(--grey); font-size: .8rem; }
details { margin-top: .8rem; }
summary { cursor: pointer; color: var(--blue); }
@media (max-width: 40rem) { body { padding: 1.5rem 1rem; } .numbers tbody th, .classes tbody th { width: auto; }
  .bar { width: 18vw; } }
@media print { body { background: none; padding: 0; } }
"""
