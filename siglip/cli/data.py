"""Look at training data, or pack it into shards.

SRC is a folder of shards or one shard, a table (.csv, .tsv, .jsonl,
.parquet), a folder of pictures with captions beside them (a.jpg and a.txt), a
folder with one folder of pictures for each class, or a remote folder of
shards (s3://, gs://, https://).

`stats` decodes every sample once and shows counts, sizes, caption lengths in
tokens, duplicates and broken samples. `pack` writes shards that train fast
from any disk, and leaves broken samples out.

for example:
  siglip data stats photos --sheet sheet.png
  siglip data stats "shards/train-{000000..000021}.tar" --json
  siglip data pack photos shards --shard-size 5000 --max-px 512
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip.cli import inputs, output, sheet
from siglip.pictures import cores
from siglip.releases import check_model_name

if TYPE_CHECKING:
    from siglip.data import Source
    from siglip.data.stats import Spread, Stats
    from siglip.errors import Failure

_MOST_CLASSES = 12

# argument -> the action that has it
BELONGS: Mapping[str, Sequence[str]] = {
    "destination": ["pack"],
    "shard_size": ["pack"],
    "max_px": ["pack"],
    "max_broken": ["pack"],
    "sheet": ["stats"],
    "model": ["stats"],
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip data stats SRC [options]\n       siglip data pack SRC DST [options]"
    parser.add_argument("action", choices=["stats", "pack"], help="what to do")
    parser.add_argument("source", metavar="SRC", help="the samples")
    parser.add_argument("destination", metavar="DST", nargs="?", type=Path, help="pack: a folder without shards")
    inputs.add_column_argument(parser)
    pack = parser.add_argument_group("pack")
    pack.add_argument("--shard-size", type=inputs.positive, metavar="N", help="samples in a shard (default: 5000)")
    pack.add_argument("--max-px", type=inputs.positive, metavar="P", help="resize pictures with a longer side")
    pack.add_argument("--max-broken", type=inputs.share, metavar="S", help="share that may be broken (default: 0.01)")
    stats = parser.add_argument_group("stats")
    stats.add_argument("--sheet", type=sheet.png, metavar="FILE.png", help="also draw 48 samples with their captions")
    stats.add_argument("--model", help="whose tokens to count, see `siglip models` (default: nano)")
    parser.add_argument(
        "--workers",
        type=_workers,
        default=min(8, cores()),
        metavar="N",
        help="processes that decode; 0: only this one (default: one a core, 8 at most)",
    )
    output.add_form_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    for name, (action,) in BELONGS.items():
        if getattr(arguments, name) is not None and arguments.action != action:
            word = "a destination" if name == "destination" else "--" + name.replace("_", "-")
            raise inputs.UsageError(f"{word} is for `siglip data {action}`, not for {arguments.action}")
    if arguments.action == "pack" and arguments.destination is None:
        raise inputs.UsageError("pack needs a destination: siglip data pack SRC DST")
    from siglip.data import open_source

    source = open_source(arguments.source, columns=inputs.columns(arguments))
    return _stats(arguments, source) if arguments.action == "stats" else _pack(arguments, source)


def _stats(arguments: argparse.Namespace, source: "Source") -> int:
    from siglip.data.stats import data_sheet, data_stats
    from siglip.processing import SiglipTokenizer

    model = arguments.model or "nano"
    check_model_name(model)
    tokenizer = SiglipTokenizer.from_pretrained(model)
    with output.progress(len(source), "sample") as done:
        stats = data_stats(source, tokenizer, workers=arguments.workers, progress=done)
    if arguments.model and not stats.captions_per_sample.largest:
        output.say("--model says whose tokens the captions are, and there are no captions here")
    if arguments.sheet is not None:
        sheet.save(data_sheet(source), arguments.sheet)
    if output.form_of(arguments) == "table":
        output.print_facts(_screen(arguments.source, stats), summary=stats.summary())
        return output.report_failures(stats.broken, len(source))
    record = {"summary": stats.summary(), "source": arguments.source, "fingerprint": source.fingerprint()}
    record |= asdict(stats)
    return _finish(arguments, record, stats.broken, len(source))


def _screen(source: str, stats: "Stats") -> list[tuple[str, str]]:
    """What is in a source, on a screen; names and numbers that are left out are in the other forms."""
    side, words, each = stats.longer_side_px, stats.caption_tokens, stats.captions_per_sample
    rows = [
        ("source", source),
        ("samples", f"{stats.samples}, {len(stats.broken) or 'none'} broken"),
        ("formats", ", ".join(f"{name} {count}" for name, count in stats.formats.items())),
        ("longer side", f"{_range(side)} px"),
    ]
    if each.largest:
        rows += [("captions", f"{_range(each)} a sample"), ("tokens", f"{_range(words)} a caption")]
    if stats.classes:
        listed = [f"{name} {count}" for name, count in list(stats.classes.items())[:_MOST_CLASSES]]
        more = [f"and {len(stats.classes) - len(listed)} more"] if len(stats.classes) > len(listed) else []
        rows.append((f"{len(stats.classes)} classes", ", ".join([*listed, *more])))
    repeats = [("equal pictures", stats.equal_images), ("similar ones", stats.similar_images)]
    if not stats.classes:
        repeats.insert(0, ("equal captions", stats.equal_captions))
    for name, found in repeats:
        example = f", such as {', '.join(found.largest[0][:3])}" if found.samples else ""
        rows.append((name, f"{found.samples} samples in {found.groups} groups{example}" if found.samples else "none"))
    return [*rows, ("", "--json prints all numbers")]


def _range(spread: "Spread") -> str:
    if spread.smallest == spread.largest:
        return f"{spread.smallest:.0f}"
    return (
        f"{spread.smallest:.0f} to {spread.largest:.0f}, half up to {spread.median:.0f}, "
        f"95 % up to {spread.percentile_95:.0f}"
    )


def _pack(arguments: argparse.Namespace, source: "Source") -> int:
    from siglip.data.pack import pack

    with output.progress(len(source), "sample") as done:
        packed = pack(
            source,
            arguments.destination,
            shard_size=arguments.shard_size or 5000,
            max_px=arguments.max_px,
            workers=arguments.workers,
            max_broken=0.01 if arguments.max_broken is None else arguments.max_broken,
            progress=done,
        )
    record = {"source": arguments.source, "destination": str(arguments.destination), **asdict(packed)}
    return _finish(arguments, record, packed.broken, len(source))


def _finish(arguments: argparse.Namespace, record: dict[str, Any], broken: "Sequence[Failure]", total: int) -> int:
    form = output.form_of(arguments)
    listed = [item.record() for item in broken] if form in ("json", "jsonl") else len(broken)
    output.print_record(form, {**record, "broken": listed})
    return output.report_failures(broken, total)


def _workers(word: str) -> int:
    return 0 if word == "0" else inputs.positive(word)
