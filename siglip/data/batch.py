"""Visits -> Batch: read, draw a caption, decode, augment, tokenise. This is what worker processes do."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from siglip.data.augment import Augment, Pixels
from siglip.data.order import Visit
from siglip.data.source import Sample, Source, plain
from siglip.errors import BrokenSample, DataError, Failure, UnreadableImage
from siglip.fields import bounded, checked
from siglip.processing import AnyProcessor, PaliGemmaProcessor

_SUBSTITUTES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Pairs as tensors; row i of everything is one sample.

    `pixels` are bytes, a quarter of the float values to move about: `image_processor.normalize(pixels)` makes
    `pixel_values` of them on any device. None where no pictures were asked for. `indices` number the samples in their
    source; `captions` are the texts of `input_ids`. For a PaliGemma these are empty: its rows are joined of `prefixes`
    ("" where a sample has none) and `captions` where they are used. Equal `image_ids` mean equal concepts, equal
    `text_ids` equal main captions; `labels` are classes; in all three -1 means unknown, as in the losses. `broken`
    could not be read on the way to this batch.
    """

    names: tuple[str, ...]
    indices: Int64[Tensor, "batch"]
    pixels: UInt8[Tensor, "batch size size 3"] | None
    input_ids: Int64[Tensor, "batch context"]
    image_ids: Int64[Tensor, "batch"]
    text_ids: Int64[Tensor, "batch"]
    labels: Int64[Tensor, "batch"]
    captions: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    broken: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device; from pinned memory without waiting for the copy."""
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in self._tensors().items()})

    def pin_memory(self) -> "Batch":
        """The same in page-locked memory; DataLoader calls it."""
        return replace(self, **{name: value.pin_memory() for name, value in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderSettings:
    """How batches are made.

    `batch_size`: pairs in a batch over all processes together. `workers`: processes that make batches for each training
    process; 0: it makes them itself. `images=False` reads no pictures, for embeddings that are cached. `reduced`: JPEG
    files much larger than the square are decoded at 1/2 to 1/8 of their size. `max_broken`: the share of samples, from
    0 to 1, that may be broken before the run stops.
    """

    batch_size: int = 256
    seed: int = 0
    augment: Augment = field(default_factory=Augment)
    workers: int = 2
    images: bool = True
    reduced: bool = True
    max_broken: float = 0.01

    def __post_init__(self) -> None:
        bounded(self, "batch_size", at_least=1)
        bounded(self, "workers", "seed", at_least=0)
        bounded(self, "max_broken", at_least=0, at_most=1)


class BatchMaker:
    """visits -> Batch, a pure function of source, processor and settings.

    In `training` one of the captions is drawn, the picture augmented, and a broken sample is replaced by the next good
    one of the source, so that a batch keeps its size. Else the main caption is taken, and broken samples are left out.
    """

    def __init__(self, source: Source, processor: AnyProcessor, settings: LoaderSettings, *, training: bool) -> None:
        self._source, self._processor, self._settings, self._training = source, processor, settings, training

    def batch(self, visits: Sequence[Visit]) -> Batch:
        """Row i is visit i, but for broken ones that are left out. Raises DataError if too many are broken in a row."""
        size = self._processor.image_processor.settings.image_size
        pixels = np.empty((len(visits), size, size, 3), np.uint8) if self._settings.images else None
        samples: list[Sample] = []
        captions: list[str] = []
        indices: list[int] = []
        broken: list[Failure] = []
        for visit in visits:
            found = self._first_good(visit, broken)
            if found is None:
                continue
            index, sample, caption, picture = found
            if pixels is not None and picture is not None:
                pixels[len(samples)] = picture
            samples.append(sample)
            captions.append(caption)
            indices.append(index)
        return Batch(
            names=tuple(sample.name for sample in samples),
            indices=torch.tensor(indices, dtype=torch.int64),
            pixels=None if pixels is None else torch.from_numpy(pixels[: len(samples)]),
            input_ids=self._tokens(captions),
            image_ids=_ids([f"concept {sample.concept}" if sample.concept else "" for sample in samples]),
            text_ids=_ids([plain(sample.captions[0]) for sample in samples]),
            labels=torch.tensor([sample.label for sample in samples], dtype=torch.int64),
            captions=tuple(captions),
            prefixes=tuple(str(sample.facts.get("prefix") or "") for sample in samples),
            broken=tuple(broken),
        )

    def _first_good(self, visit: Visit, broken: list[Failure]) -> tuple[int, Sample, str, Pixels | None] | None:
        for step in range(_SUBSTITUTES if self._training else 1):
            index = (visit.sample + step) % len(self._source)
            try:
                return index, *self._visited(visit.epoch, index)
            except BrokenSample as error:
                broken.append(Failure(error.name, error.reason))
        if not self._training:
            return None
        raise DataError(
            f"{_SUBSTITUTES} samples in a row are broken, the last is {broken[-1].name}: {broken[-1].reason}; "
            "`siglip data stats` lists them all"
        )

    def _visited(self, epoch: int, index: int) -> tuple[Sample, str, Pixels | None]:
        sample = self._source.sample(index, image=self._settings.images)
        random = Random(f"{self._settings.seed} {epoch} {index}")
        # drawn first, so that it is the same with and without pictures
        caption = sample.captions[int(random.random() * len(sample.captions)) if self._training else 0]
        if sample.image is None:
            return sample, caption, None
        augment = self._settings.augment if self._training else Augment()
        try:
            processor = self._processor.image_processor
            return sample, caption, augment.pixels(sample.image, processor, random, reduced=self._settings.reduced)
        except UnreadableImage as error:
            raise BrokenSample(sample.name, error.reason) from error

    def _tokens(self, captions: list[str]) -> Int64[Tensor, "batch context"]:
        tokenizer = self._processor.tokenizer
        if isinstance(self._processor, PaliGemmaProcessor):
            return torch.empty((len(captions), 0), dtype=torch.int64)
        if not captions:
            return torch.empty((0, tokenizer.settings.context_length), dtype=torch.int64)
        return tokenizer(captions, return_tensors="pt").input_ids


def _ids(texts: Sequence[str]) -> Int64[Tensor, "batch"]:
    """Equal texts, equal numbers from 0 to 2^63 - 1; -1 for the empty text."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    numbers = [int.from_bytes(digest, "little") >> 1 for digest in digests]
    return torch.tensor(
        [number if text else -1 for number, text in zip(numbers, texts, strict=True)], dtype=torch.int64
    )
