"""A library -> groups of files that hold the same picture: the same bytes, or bytes that look the same.

Pictures whose vectors are close are candidates, which costs one product of all rows with all. Whether two candidates
look the same is then seen in their thumbnails, since vectors of different pictures of one thing can be close too.
"""

import io
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Float32

from siglip.errors import InputError
from siglip.search.library import Library
from siglip.search.schema import Image
from siglip.search.searching import Hit

# how close vectors must be for a second look
CLOSE = 0.9
# rows of the product that are in memory at a time
_BLOCK_ROWS = 1024
# thumbnails are compared as squares of so many pixels, after their mean brightness and contrast are made equal
_LOOK_PX = 16
# mean difference of two looks, of pixels with deviation 1, below which they are one picture: half the size and JPEG at
# quality 30 stayed below 0.08 on the samples, and no two of 500 photographs came nearer than 0.23
_SAME = 0.2
# and of the 8 of 256 pixels that differ most: emoji with other faces differ there alone. Of 266 drawings and
# photographs made poorer or half as large nine in ten stayed below 0.46; of the pairs in 18 groups of drawings alike
# but for a sign, all but one pair had more than 0.5
_SAME_SPOT, _SPOT_PX = 0.5, 8

_Look = Float32[np.ndarray, "pixels pixels 3"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A file that holds a picture; sizes in pixels and bytes."""

    path: str
    digest: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Files with one picture, the best to keep first: most pixels, then most bytes, then the shortest path."""

    exact: bool
    copies: tuple[Copy, ...]


def find_duplicates(library: Library, *, least_cosine: float = CLOSE, exact: bool = False) -> list[Duplicates]:
    """Groups of at least two files, those with the largest files first; nothing is deleted.

    With `exact` only equal bytes count. `least_cosine` is how close vectors must be for a second look. Raises
    InputError for a cosine outside of (0, 1], LibraryError while nothing was indexed.
    """
    if not 0.0 < least_cosine <= 1.0:
        raise InputError(f"least_cosine must be above 0 and at most 1, got {least_cosine}")
    ids = library.image_ids()
    rows = np.flatnonzero(ids >= 0)
    images, _ = library.catalogue.images(ids[rows].tolist())
    # the first frame stands for a film
    first = [row for row in rows.tolist() if (image := images.get(int(ids[row]))) and image.frame == 0]
    digests = [images[int(ids[row])].digest for row in first]
    parents = list(range(len(first)))
    if not exact:
        looks: dict[int, _Look] = {}
        for one, other in _close(library.vectors.array, np.array(first, np.int64), least_cosine):
            for index in (one, other):
                if index not in looks:
                    looks[index] = _look(library.thumbnail(digests[index]))
            if _same(looks[one], looks[other]):
                parents[_top(parents, one)] = _top(parents, other)
    copies = _copies(library, digests, {images[int(ids[row])].digest: images[int(ids[row])] for row in first})
    groups: defaultdict[int, list[Copy]] = defaultdict(list)
    for index, digest in enumerate(digests):
        groups[_top(parents, index)] += copies.get(digest, [])
    found = [
        Duplicates(
            exact=len({copy.digest for copy in group}) == 1,
            copies=tuple(sorted(group, key=lambda c: (-c.width * c.height, -c.bytes, len(c.path), c.path))),
        )
        for group in groups.values()
        if len(group) > 1
    ]
    return sorted(found, key=lambda group: (-group.copies[0].bytes, group.copies[0].path))


def fold_alike(library: Library, hits: Sequence[Hit]) -> list[Hit]:
    """Hits without those that look the same as a better one, whose files become its `alike`; ranks stay."""
    vectors = library.searcher.vectors_of(hits)
    hits = [hit for hit in hits if hit.image.id in vectors]
    looks: dict[int, _Look] = {}
    kept: dict[int, list[str]] = {}
    for index, hit in enumerate(hits):
        for better in kept:
            if float(vectors[hits[better].image.id] @ vectors[hit.image.id]) < CLOSE:
                continue
            for one in (better, index):
                if one not in looks:
                    looks[one] = _look(library.thumbnail(hits[one].digest, hits[one].image.frame))
            if _same(looks[better], looks[index]):
                kept[better] += hit.paths
                break
        else:
            kept[index] = []
    return [replace(hits[index], alike=tuple(paths)) for index, paths in kept.items()]


def _close(array: np.ndarray, rows: np.ndarray, least: float) -> Iterator[tuple[int, int]]:
    """Pairs of positions in `rows` whose vectors are at least so close, each once."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = np.asarray(array[rows[start : start + _BLOCK_ROWS]], np.float32)
        for begin in range(start, len(rows), _BLOCK_ROWS):
            others = np.asarray(array[rows[begin : begin + _BLOCK_ROWS]], np.float32)
            for one, other in np.argwhere(block @ others.T >= least).tolist():
                if start + one < begin + other:
                    yield start + one, begin + other


def _look(thumbnail: bytes | None) -> _Look:
    """A thumbnail as a small square, None where there is none."""
    if thumbnail is None:
        return None
    with PIL.Image.open(io.BytesIO(thumbnail), formats=["WEBP"]) as picture:
        small = picture.convert("RGB").resize((_LOOK_PX, _LOOK_PX), PIL.Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)
    return (pixels - pixels.mean()) / max(1.0, float(pixels.std()))


def _same(one: _Look, other: _Look) -> bool:
    if one is None or other is None:
        return False
    apart = np.sort(np.abs(one - other).mean(axis=2).ravel())
    return float(apart.mean()) < _SAME and float(apart[-_SPOT_PX:].mean()) < _SAME_SPOT


def _top(parents: list[int], index: int) -> int:
    """The representative of a group, with shorter ways for the next who asks."""
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _copies(library: Library, digests: list[str], images: dict[str, Image]) -> dict[str, list[Copy]]:
    paths, _ = library.catalogue.paths(digests)
    found: dict[str, list[Copy]] = {}
    for digest, places in paths.items():
        for place in map(os.fsdecode, places):
            size = 0  # of what is gone by now, or may not be looked at
            with suppress(OSError):
                size = Path(place).stat().st_size
            image = images[digest]
            found.setdefault(digest, []).append(
                Copy(path=place, digest=digest, width=image.width or 0, height=image.height or 0, bytes=size)
            )
    return found
