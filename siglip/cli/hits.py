"""Hits of a library -> stdout in one of the forms, a sheet of pictures, or copies in a folder."""

import argparse
import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siglip.cli import inputs, output, sheet
from siglip.errors import Failure

if TYPE_CHECKING:
    from siglip.search import Hit, Library


# how many are shown where none is sure
_NEAREST = 5


def add_library_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--library",
        type=Path,
        metavar="DIR",
        help="the folder that holds the library (default: SIGLIP_LIBRARY, else a folder among your user data)",
    )


def add_hit_arguments(parser: argparse.ArgumentParser) -> None:
    """Which hits, and what comes out."""
    add_library_argument(parser)
    parser.add_argument("--where", metavar="FILTER", help="only pictures for which this holds; see above")
    parser.add_argument("--top", type=inputs.positive, default=20, metavar="N", help="how many at most (default: 20)")
    parser.add_argument(
        "--all", action="store_true", help="show hits that are not sure too, and each of those that look alike"
    )
    parser.add_argument(
        "--min-probability",
        type=inputs.share,
        default=0.0,
        metavar="P",
        help="leave out what the model holds less likely",
    )
    add_output_arguments(parser)
    parser.add_argument("--sheet", type=sheet.png, metavar="FILE.png", help="also draw the pictures found")
    places = parser.add_mutually_exclusive_group()
    places.add_argument("--copy-to", type=Path, metavar="DIR", help="also copy the files there, best first by name")
    places.add_argument("--link-to", type=Path, metavar="DIR", help="also make links there")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """The forms of what goes to stdout."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_const", const="json", dest="form", help="print one JSON document")
    group.add_argument("--jsonl", action="store_const", const="jsonl", dest="form", help="print one JSON object a line")
    group.add_argument("--paths", action="store_true", help="print the paths alone, one a line")
    group.add_argument("-0", "--null", action="store_true", help="print the paths alone, each ended by NUL")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with the pictures inside")


def open_library(arguments: argparse.Namespace, model: str | None = None) -> "Library":
    """The library of `--library`; `model` None leaves it with its own."""
    from siglip.search import Library

    if model is not None:
        inputs.check_model_name(model)
    return Library.open(
        arguments.library,
        model=model,
        device=getattr(arguments, "device", "auto"),
        dtype=getattr(arguments, "dtype", "auto"),
        batch_size=getattr(arguments, "batch_size", 32),
    )


def show(
    arguments: argparse.Namespace,
    library: "Library",
    hits: "Sequence[Hit]",
    head: dict[str, Any],
    *,
    picture: "Callable[[Hit], bytes | None] | None" = None,
) -> int:
    """Print hits and do what else was asked for; the exit code is 1 where there are none, as of grep.

    Where none is sure, people see the nearest on the terminal, a page or a sheet; programs and folders get finds alone.
    `picture` gives the WebP file that stands for a hit, by default its thumbnail.
    """
    tell_notes(library)
    picture = picture or (lambda hit: library.thumbnail(hit.digest, hit.image.frame))
    finds, seen = hits, hits
    if not arguments.all:
        from siglip.search.duplicates import fold_alike

        finds = fold_alike(library, [hit for hit in hits if hit.sure])
        seen = finds or fold_alike(library, hits)[:_NEAREST]
        _tell_unsure(hits, seen)
    if arguments.paths or arguments.null:
        for hit in finds:
            sys.stdout.write(hit.path + ("\0" if arguments.null else "\n"))
        sys.stdout.flush()
    else:
        form = output.form_of(arguments)
        if seen and draws_strip(arguments):
            _strip(seen, picture)
        _print(form, seen if form == "table" else finds, head)
    failed: list[Failure] = []
    if seen and arguments.sheet:
        _draw(seen, picture, arguments.sheet)
    if seen and arguments.html:
        _page(seen, picture, arguments.html, head, sure=bool(finds))
    if finds and (arguments.copy_to or arguments.link_to):
        failed = _collect(finds, arguments.copy_to or arguments.link_to, link=arguments.link_to is not None)
    if not hits:
        page = getattr(arguments, "page", 1)
        output.say("nothing matches" if page == 1 else f"there are no hits on page {page}")
    return output.report_failures(failed, len(finds)) if finds else 1


def _tell_unsure(hits: "Sequence[Hit]", seen: "Sequence[Hit]") -> None:
    """What is left out because it is not sure; where nothing is sure, how sure the nearest is."""
    from siglip.search.null import SURE

    unsure = sum(not hit.sure for hit in hits)
    if 0 < unsure < len(hits):
        output.say(f"{unsure} hits that are not sure are left out; --all shows them")
    elif unsure:
        best = max(seen, key=lambda hit: hit.score)
        output.say(
            f"nothing matches surely; the nearest is {shown_path(best.path)}, with a confidence of "
            f"{best.confidence:.3f} where {SURE} counts as a find; --all takes such hits too"
        )


def tell_notes(library: "Library") -> None:
    """What was worked around goes to stderr."""
    for note in library.notes:
        output.say(note)


def record_of(hit: "Hit") -> dict[str, Any]:
    """A hit as JSON tells it: what is not known of the picture is left out."""
    image = {name: value for name, value in asdict(hit.image).items() if value is not None}
    del image["digest"]
    return {
        "rank": hit.rank,
        "path": hit.path,
        "probability": hit.probability,
        "score": hit.score,
        "confidence": hit.confidence,
        "sure": hit.sure,
        "paths": list(hit.paths),
        "alike": list(hit.alike),
        "digest": hit.digest,
        "image": image,
    }


def _print(form: output.Form, hits: "Sequence[Hit]", head: dict[str, Any]) -> None:
    columns = [
        output.Column("rank", [hit.rank for hit in hits], right=True),
        output.Column("confidence", width=10),
        output.Column("probability", width=11),
        output.Column("score", width=6),
        output.Column("taken", [(hit.image.taken or "")[:10] for hit in hits]),
        output.Column("path", [_place(hit, form) for hit in hits]),
        output.Column("alike", [_folded(hit) for hit in hits]),
    ]
    report = output.Report(form, columns, key="hits", head=head)
    for hit in hits:
        row = ["" if hit.confidence is None else hit.confidence, hit.probability, hit.score]
        report.add(record_of(hit), [[hit.rank, *row, (hit.image.taken or "")[:10], _place(hit, form), _folded(hit)]])
    report.close()


def _place(hit: "Hit", form: output.Form) -> str:
    """The path, and for people the moment of a film."""
    moment = _moment(hit) if form == "table" else ""
    return f"{shown_path(hit.path)} {moment}" if moment else shown_path(hit.path)


def _moment(hit: "Hit") -> str:
    if hit.image.seconds is None:
        return ""
    minutes, seconds = divmod(int(hit.image.seconds), 60)
    return f"at {minutes}:{seconds:02}"


def _folded(hit: "Hit") -> str:
    return f"+{len(hit.alike)} alike" if hit.alike else ""


def shown_path(path: str) -> str:
    """The path, shorter where it lies below the current folder."""
    return path.removeprefix(str(Path.cwd()) + os.sep)


def draws_strip(arguments: argparse.Namespace) -> bool:
    """Whether hits are shown as pictures in the terminal too."""
    from siglip.cli import strip

    return output.form_of(arguments) == "table" and not (arguments.paths or arguments.null) and strip.wanted()


def _strip(hits: "Sequence[Hit]", picture: "Callable[[Hit], bytes | None]") -> None:
    """The best hits as pictures."""
    from PIL import Image

    from siglip.cli import strip

    thumbs = [thumb for hit in hits[: strip.room()] if (thumb := picture(hit)) is not None]
    pictures = [Image.open(io.BytesIO(thumb), formats=["WEBP"]) for thumb in thumbs]
    if len(pictures) == len(hits[: strip.room()]):  # else the numbers would be those of others
        sys.stdout.write(strip.strip(pictures, strip.kind_of_terminal()))


def _page(
    hits: "Sequence[Hit]", picture: "Callable[[Hit], bytes | None]", file: Path, head: dict[str, Any], *, sure: bool
) -> None:
    from siglip.search.page import Cell, write_page

    cells: list[Cell] = []
    for hit in hits:
        lines = [] if hit.confidence is None else [f"confidence {output.shown(hit.confidence)}"]
        lines.append(f"score {output.shown(hit.score)}, probability {output.shown(hit.probability)}")
        facts = [f"{hit.image.width} x {hit.image.height}"] if hit.image.width else []
        facts += [_moment(hit), (hit.image.taken or "")[:10], _folded(hit)]
        lines.append(", ".join(filter(None, facts)))
        cells.append(Cell(path=hit.path, thumb=picture(hit), lines=lines))
    asked = [str(head.get("query") or "")]
    asked += [Path(str(path)).name for path in (head["like"] if isinstance(head["like"], list) else [head["like"]])]
    title = ", ".join(filter(None, asked)) or "pictures found"
    what = f"{len(hits)} pictures, found" if sure else f"Nothing matches surely: the {len(hits)} nearest pictures, seen"
    below = f"{what} with {head['model']}" + (f", where {head['where']}" if head["where"] else "")
    write_page(file, title=title, below=below, sections=[("", cells)])
    output.say(f"{file} shows {len(hits)} pictures")


def _draw(hits: "Sequence[Hit]", picture: "Callable[[Hit], bytes | None]", file: Path) -> None:
    from PIL import Image

    from siglip.contact_sheet import contact_sheet

    cells: list[tuple[Image.Image, list[str]]] = []
    for hit in hits:
        thumb = picture(hit)
        if thumb is not None:
            caption = [Path(hit.path).name, f"{output.shown(hit.probability)}"]
            cells.append((Image.open(io.BytesIO(thumb), formats=["WEBP"]), caption))
    if cells:
        sheet.save(contact_sheet(cells), file)
    output.say(f"{file} shows {len(cells)} of {len(hits)} pictures" if cells else "there is no picture to draw")


def _collect(hits: "Sequence[Hit]", folder: Path, *, link: bool) -> list[Failure]:
    """Copies or links named by rank, so that a listing has the order of the hits; nothing is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[Failure] = []
    for hit in hits:
        target = folder / f"{hit.rank:04} {Path(hit.path).name}"
        try:
            if target.exists() or target.is_symlink():
                raise FileExistsError(17, f"{target} is there already; choose an empty folder")
            if link:
                target.symlink_to(hit.path)
            else:
                shutil.copy2(hit.path, target)
        except OSError as error:
            failed.append(Failure(hit.path, error.strerror or str(error)))
    output.say(f"{folder} holds {len(hits) - len(failed)} {'links' if link else 'copies'}")
    return failed
