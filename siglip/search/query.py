"""What is asked for: "2:golden retriever + ./photo.jpg - 0.5:fence" -> weighted terms -> one unit vector."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from siglip.errors import InputError, clip

# signs stand between spaces: a t-shirt, C++ and black+white are words
_SIGN = re.compile(r"(?:^|(?<=\s))([+-])\s+")
_QUOTED = re.compile(r'"([^"]*)"')
_WEIGHT = re.compile(r"(\d+\.?\d*|\.\d+):\s*(?=\S)")
_PICTURE = re.compile(r"(\.{0,2}[/\\]|~|[A-Za-z]:[/\\]|https?://)", re.IGNORECASE)
_MOST_TERMS = 100


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query: a text, or a picture by its path or URL; `weight` below 0 is what the picture is not."""

    weight: float
    text: str | None = None
    picture: str | None = None


def parse_query(text: str, *, like: Sequence[str | Path] = (), not_like: Sequence[str | Path] = ()) -> list[Term]:
    """Terms between ` + ` and ` - `, each with an optional weight `2:`; raises InputError.

    What starts with ./ ../ / ~ or http:// or https:// is a picture. In double quotes everything is text: "12:30".
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"query {clip(repr(text))} is not UTF-8 text") from None
    if text.count('"') % 2:
        raise InputError(
            f"query {clip(repr(text))} has a quotation mark without its partner; close it, or leave it out"
        )
    terms = [Term(1.0, picture=str(path)) for path in like] + [Term(-1.0, picture=str(path)) for path in not_like]
    # quoted parts step aside while signs are looked for; \0 is in no argument of a command line
    quoted = _QUOTED.findall(text)
    pieces = _SIGN.split(_QUOTED.sub("\0", text.replace("\0", " ")))
    held = iter(quoted)
    if pieces[0].strip():
        terms.append(_term(pieces[0], 1.0, held, text))
    for sign, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        terms.append(_term(piece, 1.0 if sign == "+" else -1.0, held, text))
    if not terms:
        raise InputError('the query is empty; say what to look for, such as "dog on a beach - frisbee"')
    if len(terms) > _MOST_TERMS:
        raise InputError(f"the query has {len(terms)} terms, the limit is {_MOST_TERMS}; leave some out")
    return terms


def _term(piece: str, sign: float, held: Iterator[str], query: str) -> Term:
    piece = piece.strip()
    weight = _WEIGHT.match(piece)
    factor = float(weight.group(1)) if weight else 1.0
    rest = piece[weight.end() :] if weight else piece
    if not rest:
        raise InputError(
            f"query {clip(repr(query))} has a + or - with nothing after it; put it in quotes if it is a word"
        )
    if factor == 0 or not math.isfinite(factor):
        raise InputError(
            f"query {clip(repr(query))} has the weight {factor:g}; weights are above 0, a - before the term negates it"
        )
    if _PICTURE.match(rest) and "\0" not in rest:
        return Term(sign * factor, picture=rest)
    words = " ".join("".join(next(held) if part == "\0" else part for part in re.split("(\0)", rest)).split())
    if not words:
        raise InputError(f"query {clip(repr(query))} has an empty term; say what to look for")
    return Term(sign * factor, text=words)


def combined(terms: Sequence[Term], vectors: Float32[np.ndarray, "terms dim"]) -> Float32[np.ndarray, " dim"]:
    """The weighted sum of the terms' vectors, of length 1; raises InputError where they cancel out.

    Of negatives alone it is the direction away from them: the best hits are the pictures least like what was named.
    """
    weights = np.array([term.weight for term in terms])
    weights /= np.abs(weights).max()  # only their ratios count, and float32 holds neither 1e-320 nor 1e300
    total = weights.astype(np.float32) @ vectors
    length = float(np.linalg.norm(total))
    if length < 1e-4 * np.abs(weights).sum():
        raise InputError("the terms of this query cancel out; leave one of them out")
    return total / np.float32(length)
