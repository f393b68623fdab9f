"""Find the pictures of a library that look most like one picture.

The picture need not be in the library; if it is, it is left out. Filters are
those of `siglip search`. The probability is the model's own for a text and a
picture and says little here: go by the score, the cosine.

for example:
  siglip similar samples/cat.jpg --top 5
  siglip similar samples/teapot.png --where "width >= 200" --paths
  siglip similar samples/penguin.png --html alike.html
"""

import argparse

from siglip.cli import hits, inputs


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip similar FILE [--where FILTER] [--library DIR] [...]"
    parser.add_argument("file", metavar="FILE", help="a picture file or an http(s) address")
    hits.add_hit_arguments(parser)
    inputs.add_model_arguments(parser, named=True)


def run(arguments: argparse.Namespace) -> int:
    with hits.open_library(arguments) as library:
        found = library.similar(
            arguments.file, where=arguments.where, top=arguments.top, min_probability=arguments.min_probability
        )
        return hits.show(
            arguments, library, found, {"like": arguments.file, "where": arguments.where, "model": library.space.model}
        )
