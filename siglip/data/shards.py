"""WebDataset tar shards -> samples, in any order.

Members are grouped by their name up to the first dot: key.jpg (or another picture), key.txt (the main caption),
key.json ("captions", or "prefix" and "suffix"; "concept", "label", and any other facts), key.cls (a class number). What
stands beside them with a second dot, such as key.mask.png, is passed over; samples whose names have dots are told apart
(see `index_tar`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from siglip.data.order import Order, epoch_order
from siglip.data.source import Sample, as_prompt, digest, text_of, usable_captions
from siglip.data.store import PARTS, ShardStore
from siglip.data.tables import class_captions
from siglip.errors import BrokenSample, DataError, clip

# what `pack` writes beside the shards: counts, so that remote shards need not be fetched to be counted, and class names
MANIFEST = "shards.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Where a shard is, and how many samples it has if a manifest says so."""

    url: str
    samples: int | None = None


class ShardSource:
    """The samples of many shards, numbered through; each is one read at a known place.

    `window` None: shuffled over all samples. A number: over about so many shards at a time, for shards that are fetched
    when they are needed (see `epoch_order`). Shards whose number of samples is not known are fetched and indexed now.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        store: ShardStore,
        *,
        window: int | None = None,
        label_names: Sequence[str] = (),
        templates: Sequence[str] = (),
    ) -> None:
        self._shards, self._store, self._window = shards, store, window
        self.label_names, self._templates = tuple(label_names), templates
        self._indices: dict[int, np.ndarray] = {}
        self._sizes = [
            shard.samples if shard.samples is not None else len(self._index(number))
            for number, shard in enumerate(shards)
        ]
        self._ends = np.cumsum(self._sizes)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sample(self, index: int, *, image: bool = True) -> Sample:
        """One sample. Raises BrokenSample, and DataError or DownloadError for a shard that cannot be read."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        url = self._shards[shard].url
        key, spans = self._index(shard)[index - self._ends[shard] + self._sizes[shard]].tolist()
        name = f"{stem(url)}/{key.decode('utf-8', 'replace')}"
        present = {part: (start, size) for part, (start, size) in zip(PARTS, spans.tolist(), strict=True) if start >= 0}
        if not image:
            present.pop("image", None)
        parts = dict(zip(present, self._store.read(url, list(present.values())), strict=True))
        if image and "image" not in parts:
            raise BrokenSample(name, "it has no picture: no member that ends in .jpg, .png or the like")
        facts = _facts(parts.get("json", b"{}"), name)
        label = _label(parts.get("cls", b""), facts, name)
        concept = facts.get("concept")
        captions = self._captions(_text(parts.get("txt", b""), name), facts, label)
        facts, answers = as_prompt(facts, any(captions))
        return Sample(
            name=name,
            image=parts.get("image"),
            captions=usable_captions(name, captions if answers is None else answers, facts),
            label=label,
            concept=concept if isinstance(concept, str) else None,
            facts=facts,
        )

    def order(self, seed: int, epoch: int) -> Order:
        """Shuffled over all samples, or in a window of shards that moves on."""
        return epoch_order(self._sizes, seed=seed, epoch=epoch, window=self._window)

    def fingerprint(self) -> str:
        """Over names and counts and, where no manifest counts, the names, places and sizes of all members."""
        parts = [f"{stem(shard.url)} {size}" for shard, size in zip(self._shards, self._sizes, strict=True)]
        known = [number for number, shard in enumerate(self._shards) if shard.samples is None]
        return digest(parts + [self._index(number).tobytes().hex() for number in known])

    def prepare(self, indices: Sequence[int]) -> None:
        """Fetch the shards of these samples if they are not here yet; Loader calls it ahead of time."""
        for shard in np.unique(np.searchsorted(self._ends, indices, side="right")):
            self._store.local(self._shards[shard].url)

    def _index(self, shard: int) -> np.ndarray:
        if shard not in self._indices:
            url, known = self._shards[shard].url, self._shards[shard].samples
            index = self._store.index(url)
            if known is not None and known != len(index):
                raise DataError(f"{url} holds {len(index)} samples, {MANIFEST} says {known}; correct it or remove it")
            self._indices[shard] = index
        return self._indices[shard]

    def _captions(self, text: str, facts: dict[str, Any], label: int) -> list[Any]:
        lists = (facts[key] for key in ("captions", "suffix") if isinstance(facts.get(key), list))
        captions = [text, facts.get("caption"), facts.get("suffix"), *chain.from_iterable(lists)]
        if any(captions) or not 0 <= label < len(self.label_names):
            return captions
        return class_captions(self.label_names[label], self._templates)


def stem(url: str) -> str:
    """Name of a shard without folders and suffixes: s3://bucket/train-000001.tar.gz -> train-000001."""
    return url.rpartition("/")[2].removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")


def _text(data: bytes, name: str) -> str:
    try:
        return text_of(data)
    except ValueError as error:
        raise BrokenSample(name, f"its .txt {error}") from error


def _facts(text: bytes, name: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise BrokenSample(name, f"its .json cannot be read: {error}") from error
    if not isinstance(facts, dict):
        raise BrokenSample(name, "its .json is not an object with captions and other facts by name")
    return facts


def _label(text: bytes, facts: dict[str, Any], name: str) -> int:
    label = facts.get("label", -1)
    try:
        return int(text) if text else label if isinstance(label, int) else -1
    except ValueError as error:
        raise BrokenSample(name, f"its .cls is {clip(repr(text[:20]))}, expected a whole number") from error
