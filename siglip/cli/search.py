"""Find pictures of a library by words, by other pictures, or by both.

Terms are joined by + and -, each between spaces, each with a weight if you
like: "2:golden retriever + ./photo.jpg - 0.5:fence". What starts with ./ ../
/ ~ or http:// is a picture; "double quotes" make anything words. Of negatives
alone the best hits are the pictures least like them.

A filter compares path, name, size, modified, taken, width, height, format,
camera, latitude, longitude or seconds with values:
  taken >= 2024-01 and (width > 1000 or camera like '%Canon%')
  path like '%holiday%' and not format in ('GIF', 'BMP')

The confidence is the share of things absent from the library whose nearest
picture is farther than this one; of several texts that are added the lowest
counts. From 0.97 a hit is a find. Without one the exit code is 1, and a
terminal, --html and --sheet show the nearest instead. Weak models are seldom
sure: --all takes all hits. The probability is the model's own.

for example:
  siglip search "a beagle" --all
  siglip search "a cup of coffee - 0.5:teapot" --all --json
  siglip search --like samples/cat.jpg --where "format = 'JPEG'" --paths
  siglip search "a rocket" --all --top 6 --html found.html --explain
"""

import argparse
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from siglip.cli import hits, inputs
from siglip.search.query import parse_query

if TYPE_CHECKING:
    from siglip.search import Hit, Library


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "siglip search QUERY [--like FILE] [--where FILTER] [--library DIR] [...]"
    parser.add_argument("query", nargs="*", type=inputs.text, metavar="QUERY", help="what to look for, see above")
    parser.add_argument("--like", nargs="+", default=[], metavar="FILE", help="pictures to add to the query")
    parser.add_argument("--not-like", nargs="+", default=[], metavar="FILE", help="pictures to subtract from it")
    hits.add_hit_arguments(parser)
    parser.add_argument(
        "--explain", action="store_true", help="show over the pictures where they fit; see `siglip explain`"
    )
    parser.add_argument("--page", type=inputs.positive, default=1, metavar="N", help="the next --top hits, and so on")
    parser.add_argument(
        "--sort", choices=["score", "date"], default="score", help="date: those of this page, newest first"
    )
    inputs.add_model_arguments(parser, named=True)


def run(arguments: argparse.Namespace) -> int:
    query = " ".join(arguments.query)
    terms = parse_query(query, like=arguments.like, not_like=arguments.not_like)
    text = terms[0].text if len(terms) == 1 and terms[0].weight > 0 else None
    if arguments.explain and text is None:
        raise inputs.UsageError("--explain shows where one text is seen; leave the other terms out")
    if arguments.explain and not (arguments.html or arguments.sheet or hits.draws_strip(arguments)):
        raise inputs.UsageError("--explain draws over pictures; add --html FILE or --sheet FILE.png")
    with hits.open_library(arguments) as library:
        found = library.search(
            query,
            like=arguments.like,
            not_like=arguments.not_like,
            where=arguments.where,
            top=arguments.top,
            page=arguments.page,
            sort=arguments.sort,
            min_probability=arguments.min_probability,
        )
        head = {"query": query, "like": arguments.like, "not_like": arguments.not_like, "where": arguments.where}
        picture = _heated(library, text) if arguments.explain and text is not None else None
        return hits.show(arguments, library, found, {**head, "model": library.space.model}, picture=picture)


def _heated(library: "Library", text: str) -> "Callable[[Hit], bytes | None]":
    """What draws a hit's thumbnail with the heat of a text over it."""
    from PIL import Image

    from siglip.search.explain import heat_maps, heat_over

    def picture(hit: "Hit") -> bytes | None:
        thumb = library.thumbnail(hit.digest, hit.image.frame)
        if thumb is None:
            return None
        with Image.open(io.BytesIO(thumb), formats=["WEBP"]) as opened:
            small = opened.convert("RGB")
        buffer = io.BytesIO()
        heat_over(small, heat_maps(library.embedder(), small, [text])[0]).save(buffer, "WEBP", quality=75)
        return buffer.getvalue()

    return picture
