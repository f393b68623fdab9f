"""What is in a source: counts, sizes, caption lengths, duplicates, broken samples, and a sheet of pictures."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from PIL import Image

from siglip.contact_sheet import contact_sheet
from siglip.data.order import epoch_order
from siglip.data.pack import encoded
from siglip.data.source import Source, plain
from siglip.data.workers import in_workers
from siglip.errors import BrokenSample, DataError, Failure, UnreadableImage
from siglip.files import in_megabytes
from siglip.processing import SiglipTokenizer, image_format, read_image

_CHUNK = 32
_EXAMPLES = 5
_HASH_SIDE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """How a number is spread over the samples."""

    smallest: float
    median: float
    mean: float
    percentile_95: float
    largest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """Samples that are not the only one of their kind, in how many groups, and the names of some of the largest."""

    samples: int
    groups: int
    largest: list[list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """All that `data_stats` found; lengths of captions in tokens, EOS included, before they are cut."""

    samples: int
    broken: tuple[Failure, ...]
    classes: Mapping[str, int]
    concepts: int
    formats: Mapping[str, int]
    image_bytes: int
    longer_side_px: Spread
    longer_sides_up_to_px: Mapping[int, int]
    captions_per_sample: Spread
    caption_tokens: Spread
    captions_cut: float
    equal_captions: Repeats
    equal_images: Repeats
    similar_images: Repeats

    def summary(self) -> str:
        """The main facts in one sentence."""
        parts = [
            f"{self.samples} samples, {in_megabytes(self.image_bytes)} of pictures, half of them up to "
            f"{self.longer_side_px.median:.0f} px"
        ]
        if self.captions_per_sample.largest:
            cut = f", {100 * self.captions_cut:.2g} % are cut" if self.captions_cut else ", none is cut"
            parts.append(f"captions of {self.caption_tokens.mean:.0f} tokens on average{cut}")
        distinct = self.samples - self.equal_captions.samples + self.equal_captions.groups
        if self.captions_per_sample.largest and 2 * distinct <= self.samples:
            parts.append(
                f'only {distinct} different captions: to train pairs, data.positives="equal" keeps equal ones from '
                "counting as wrong"
            )
        if self.classes:
            parts.append(f"{len(self.classes)} classes")
        if self.broken:
            parts.append(f"{len(self.broken)} broken")
        if self.equal_images.samples:
            parts.append(f"{self.equal_images.samples} pictures are there more than once")
        return "; ".join(parts)


class _Facts(NamedTuple):
    name: str
    label: int
    concept: str | None
    format: str
    image_bytes: int
    longer_side: int
    tokens: list[int]
    caption: str
    image_hash: bytes
    similar_hash: bytes


def data_stats(
    source: Source,
    tokenizer: SiglipTokenizer,
    *,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Stats:
    """Read and decode every sample once. `progress` is called with the number of samples just done.

    Equal images have equal bytes; similar ones have an equal difference hash (is each of 16 x 16 points lighter than
    its right neighbour), which small changes of size, colour and compression do not alter. Raises DataError if no
    sample at all is good.
    """
    chunks = (range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK))
    good: list[_Facts] = []
    broken: list[Failure] = []
    for chunk in in_workers(_Reader(source, tokenizer), chunks, workers):
        good += [facts for facts in chunk if isinstance(facts, _Facts)]
        broken += [item for item in chunk if isinstance(item, Failure)]
        if progress is not None:
            progress(len(chunk))
    if not good:
        first = f", the first is {broken[0].name}: {broken[0].reason}" if broken else ""
        raise DataError(f"none of the {len(source)} samples can be used{first}")
    sides = [facts.longer_side for facts in good]
    tokens = [count for facts in good for count in facts.tokens]
    labels = Counter(facts.label for facts in good)
    return Stats(
        samples=len(good),
        broken=tuple(broken),
        classes={name: labels[label] for label, name in enumerate(source.label_names)},
        concepts=len({facts.concept for facts in good} - {None}),
        formats=dict(Counter(facts.format for facts in good).most_common()),
        image_bytes=sum(facts.image_bytes for facts in good),
        longer_side_px=_spread(sides),
        longer_sides_up_to_px=dict(sorted(Counter(1 << (side - 1).bit_length() for side in sides).items())),
        captions_per_sample=_spread([len(facts.tokens) for facts in good]),
        caption_tokens=_spread(tokens),
        captions_cut=sum(count > tokenizer.settings.context_length for count in tokens) / len(tokens),
        equal_captions=_repeats([(facts.name, plain(facts.caption)) for facts in good]),
        equal_images=_repeats([(facts.name, facts.image_hash) for facts in good]),
        similar_images=_repeats([(facts.name, facts.similar_hash) for facts in good]),
    )


def data_sheet(source: Source, *, count: int = 48, seed: int = 0) -> Image.Image:
    """A contact sheet of `count` samples drawn with `seed`, captions and file names beneath, without broken ones."""
    pictures: list[tuple[Image.Image, Sequence[str]]] = []
    for index in epoch_order([len(source)], seed=seed, epoch=0):
        if len(pictures) == count:
            break
        try:
            sample = source.sample(int(index))
            pictures.append((read_image(encoded(sample)), [*sample.captions, PurePath(sample.name).name]))
        except (BrokenSample, UnreadableImage):
            continue
    return contact_sheet(pictures, cell_px=128)


class _Reader:
    """Indices -> what is counted of each sample."""

    def __init__(self, source: Source, tokenizer: SiglipTokenizer) -> None:
        self._source, self._tokenizer = source, tokenizer

    def __call__(self, indices: range) -> list[_Facts | Failure]:
        return [self._facts(index) for index in indices]

    def _facts(self, index: int) -> _Facts | Failure:
        try:
            sample = self._source.sample(index)
        except BrokenSample as error:
            return Failure(error.name, error.reason)
        try:
            content = encoded(sample)
            picture = read_image(content)
        except UnreadableImage as error:
            return Failure(sample.name, error.reason)
        return _Facts(
            name=sample.name,
            label=sample.label,
            concept=sample.concept,
            format=image_format(content)[0],
            image_bytes=len(content),
            longer_side=max(picture.size),
            tokens=[self._tokenizer.count(caption) for caption in sample.captions],
            caption=sample.captions[0],
            image_hash=hashlib.blake2b(content, digest_size=16).digest(),
            similar_hash=difference_hash(picture),
        )


def difference_hash(picture: Image.Image) -> bytes:
    """256 bits: is each of 16 x 16 grey points lighter than its right neighbour."""
    grey = np.asarray(picture.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BILINEAR))
    return np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes()


def _spread(values: Sequence[int]) -> Spread:
    array = np.asarray(values)
    return Spread(
        smallest=float(array.min()),
        median=float(np.median(array)),
        mean=round(float(array.mean()), 2),
        percentile_95=float(np.percentile(array, 95)),
        largest=float(array.max()),
    )


def _repeats(named: Sequence[tuple[str, str | bytes]]) -> Repeats:
    counts = Counter(value for _, value in named)
    repeated = [(value, count) for value, count in counts.most_common() if count > 1]
    largest: dict[str | bytes, list[str]] = {value: [] for value, _ in repeated[:_EXAMPLES]}
    for name, value in named:
        if value in largest and len(largest[value]) < _EXAMPLES:
            largest[value].append(name)
    return Repeats(samples=sum(count for _, count in repeated), groups=len(repeated), largest=list(largest.values()))
