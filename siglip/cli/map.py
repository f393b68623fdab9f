"""Draw the pictures of a library on a plane, like beside like, as a page.

The page holds all it shows: zoom with the wheel or + and -, move by dragging
or with the arrow keys, click a picture to open its file. Groups are named by
the one of a thousand things that fits them better than the other pictures; a
weak model gives weak names. Of more than 4,000 pictures a random part is
drawn.

for example:
  siglip map map.html
  siglip map map.html --json
  siglip map animals.html --library library
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from siglip.cli import hits, inputs, output


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip map FILE.html [--library DIR] [...]"
    parser.add_argument("file", type=Path, metavar="FILE.html", help="the page to write")
    hits.add_library_argument(parser)
    output.add_form_arguments(parser)
    inputs.add_model_arguments(parser, named=True)


def run(arguments: argparse.Namespace) -> int:
    with hits.open_library(arguments) as library:
        from siglip.search.map import write_map

        drawn = write_map(library, arguments.file)
        hits.tell_notes(library)
    if drawn.pictures < drawn.of:
        output.say(f"{drawn.pictures} of {drawn.of} pictures are drawn, chosen at random")
    output.print_record(output.form_of(arguments), {"file": str(arguments.file), **asdict(drawn)})
    return 0
