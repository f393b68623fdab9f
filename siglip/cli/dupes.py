"""Find files of a library that hold the same picture; nothing is deleted.

Files with the same bytes are exact copies. Pictures whose vectors are close
and whose thumbnails look the same are alike: smaller, recompressed, or in
another format. Of each group the one to keep comes first: that of the most
pixels, then of the most bytes, then of the shortest path. --paths and -0
print all others, so that you can look at them and decide.

for example:
  siglip dupes
  siglip dupes --exact --paths > copies.txt
  siglip dupes --json
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from siglip.cli import hits, output

if TYPE_CHECKING:
    from siglip.search import Library
    from siglip.search.duplicates import Copy, Duplicates


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip dupes [--exact] [--library DIR] [--html FILE] [...]"
    hits.add_library_argument(parser)
    parser.add_argument("--exact", action="store_true", help="only files with the same bytes")
    hits.add_output_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    with hits.open_library(arguments) as library:
        from siglip.search.duplicates import find_duplicates

        groups = find_duplicates(library, exact=arguments.exact)
        hits.tell_notes(library)
        if arguments.paths or arguments.null:
            for copy in (copy for group in groups for copy in group.copies[1:]):
                sys.stdout.write(copy.path + ("\0" if arguments.null else "\n"))
        else:
            copies = [copy for group in groups for copy in group.copies]
            columns = [
                output.Column("group", [len(groups)], right=True),
                output.Column("kind", ["exact"]),
                output.Column("pixels", [f"{copy.width} x {copy.height}" for copy in copies]),
                output.Column("bytes", [copy.bytes for copy in copies], right=True),
                output.Column("path", [hits.shown_path(copy.path) for copy in copies]),
            ]
            report = output.Report(output.form_of(arguments), columns, key="groups", head={"exact": arguments.exact})
            for number, group in enumerate(groups, start=1):
                best = group.copies[0]
                rows = [
                    [number, _kind(copy, best), f"{copy.width} x {copy.height}", copy.bytes, hits.shown_path(copy.path)]
                    for copy in group.copies
                ]
                report.add(asdict(group), rows)
            report.close()
        if groups and arguments.html:
            _page(library, groups, arguments.html)
        extra = sum(len(group.copies) - 1 for group in groups)
        size = sum(copy.bytes for group in groups for copy in group.copies[1:])
    if not groups:
        output.say("no two files hold the same picture")
        return 0
    output.say(f"copies in {len(groups)} groups; but for the best of each, {extra} files with {size / 1e6:.3g} MB")
    return 0


def _page(library: "Library", groups: "list[Duplicates]", file: Path) -> None:
    from siglip.search.page import Cell, write_page

    sections = [
        (
            f"Group {number}",
            [
                Cell(
                    path=copy.path,
                    thumb=library.thumbnail(copy.digest),
                    lines=[_kind(copy, group.copies[0]), f"{copy.width} x {copy.height}, {copy.bytes / 1000:.1f} kB"],
                )
                for copy in group.copies
            ],
        )
        for number, group in enumerate(groups, start=1)
    ]
    count = sum(len(group.copies) for group in groups)
    below = f"{count} files in {len(groups)} groups, the one to keep first; nothing was deleted"
    write_page(file, title="Copies", below=below, sections=sections)
    output.say(f"{file} shows {count} files")


def _kind(copy: "Copy", best: "Copy") -> str:
    return "keep" if copy is best else "exact" if copy.digest == best.digest else "alike"
