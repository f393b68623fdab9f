"""Names and tags -> the English captions of one picture."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """`id` is the name within the source; the first caption is the main one; `drawing` as drawing.drawn takes it.

    Pairs of one `concept` show the same thing (an emoji as U+hexcode, a class of photos as set:class). `licence` and
    `style` are given where they are not those of the whole source.
    """

    id: str
    drawing: str | Path | Image.Image
    captions: tuple[str, ...]
    licence: str | None = None
    style: str | None = None
    concept: str | None = None
    author: str | None = None


def words(name: str) -> str:
    """`arrow-up_left` -> `arrow up left`."""
    return " ".join(re.sub(r"[-_]+", " ", name).split())


def with_tags(name: str, tags: Iterable[str], most: int) -> str:
    """`name, tag, tag` with at most so many tags; those that add no word are passed over."""
    parts, known = [name], set(re.findall(r"\w+", name.lower()))
    for tag in tags:
        new = set(re.findall(r"\w+", tag.lower()))
        variants = (new, {word + "s" for word in new}, {word.rstrip("s") for word in new})
        if len(parts) <= most and new and not any(variant <= known for variant in variants):
            parts.append(tag)
            known |= new
    return ", ".join(parts)


def distinct(captions: Iterable[str]) -> list[str]:
    """Trimmed, without empty ones and those that differ only in case, in order."""
    first: dict[str, str] = {}
    for caption in captions:
        trimmed = caption.strip(" ,.;")
        if trimmed:
            first.setdefault(trimmed.lower(), trimmed)
    return list(first.values())


def shuffling_key(text: str) -> str:
    """Sorting by it gives the same haphazard order on every machine."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
