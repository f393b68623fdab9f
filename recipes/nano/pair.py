"""One picture with its English captions; names -> captions; pairs -> the tar file in which a source is staged."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drawing import encoded, is_blank
from PIL import Image

from siglip.files import replacing


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """`id` is the name within the source; the first caption is the main one; `picture` None: it could not be drawn.

    Pairs of one `concept` show the same thing (an emoji as U+hexcode, a class of photos as set:class).
    """

    id: str
    picture: Image.Image | None
    captions: tuple[str, ...]
    licence: str
    style: str
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


def shuffling_key(text: str) -> str:
    """Sorting by it gives the same haphazard order on every machine."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def stage(pairs: Iterable[Pair], source: str, path: Path) -> tuple[int, int]:
    """Write source_00000.png (or .jpg), .txt and .json, and so on. Returns how many, and how many were blank."""
    written = blank = 0
    with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
        for pair in pairs:
            captions = distinct(pair.captions)
            if pair.picture is None or is_blank(pair.picture) or not captions:
                blank += 1
                continue
            suffix, content = encoded(pair.picture, photo=pair.style.startswith("photo"))
            facts = {"captions": captions, "source": source, "licence": pair.licence, "style": pair.style}
            facts |= {"id": pair.id, "concept": pair.concept, "author": pair.author}
            known = {name: value for name, value in facts.items() if value}
            members = {suffix: content, "txt": captions[0].encode(), "json": compact(known)}
            write_sample(tar, f"{source}_{written:05d}", members)
            written += 1
    return written, blank


def compact(facts: dict[str, Any]) -> bytes:
    """JSON without spaces."""
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def write_sample(tar: tarfile.TarFile, key: str, members: dict[str, bytes]) -> None:
    """Add key.suffix for every member."""
    for suffix, content in members.items():
        header = tarfile.TarInfo(f"{key}.{suffix}")
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))


def distinct(captions: Iterable[str]) -> list[str]:
    """Trimmed, without empty ones and those that differ only in case, in order."""
    first: dict[str, str] = {}
    for caption in captions:
        trimmed = caption.strip(" ,.;")
        if trimmed:
            first.setdefault(trimmed.lower(), trimmed)
    return list(first.values())
