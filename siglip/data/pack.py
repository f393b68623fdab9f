"""Any source -> WebDataset shards: each appears whole or not at all, and the list of them when all are done."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from PIL import Image

from siglip.data.shards import MANIFEST
from siglip.data.source import Sample, Source
from siglip.data.workers import BrokenLedger, in_workers
from siglip.errors import BrokenSample, DataError, Failure, UnreadableImage
from siglip.files import replacing, write_text
from siglip.processing import image_format, read_image

# suffix -> content
Members = dict[str, bytes]

_CHUNK = 32
_JPEG_QUALITY = 92
_SUFFIX_OF = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What `pack` wrote, and what it left out."""

    shards: int
    samples: int
    size_bytes: int
    broken: tuple[Failure, ...]


def pack(
    source: Source,
    destination: str | Path,
    *,
    shard_size: int = 5000,
    max_px: int | None = None,
    workers: int = 2,
    max_broken: float = 0.01,
    progress: Callable[[int], None] | None = None,
) -> Packed:
    """Write `destination`/shard-000000.tar and so on, `shard_size` samples each, in the order of the source.

    A sample becomes 00000042.jpg (or what its picture is), .txt (the main caption), .json (all captions, the name it
    had, concept and other facts) and, where the data have classes, .cls (-1: unknown). Pictures keep their bytes, but
    HEIC, which few readers of shards know, becomes JPEG; with `max_px`, those whose longer side has more pixels are
    resized, JPEG and HEIC to JPEG and all others to PNG. All pictures are named with the suffix of the first, since
    other readers want the same members in every sample; what each is says its beginning. Broken samples are left out.
    `progress` is called with the number of samples just done.

    Raises DataError if there are shards already, or if more than `max_broken` (a share from 0 to 1) are broken. Stopped
    at any moment it leaves whole shards without the list of them; remove these and pack again.
    """
    folder = Path(destination)
    if shard_size < 1 or (max_px is not None and max_px < 1):
        raise DataError(f"shard_size and max_px must be 1 or more, got {shard_size} and {max_px}")
    if present := sorted(folder.glob("*.tar*")):
        raise DataError(f"{folder} already holds {present[0].name}; choose another folder, or remove the shards in it")
    ledger = BrokenLedger(None, max_broken, len(source))
    chunks = (range(start, min(start + _CHUNK, len(source))) for start in range(0, len(source), _CHUNK))
    made = in_workers(_Packer(source, max_px), chunks, workers)
    samples = _good(made, ledger, progress or (lambda _: None))
    shards: list[dict[str, str | int]] = []
    count = 0
    for first in samples:
        path = folder / f"shard-{len(shards):06d}.tar"
        written = _write(path, chain([first], islice(samples, shard_size - 1)), count)
        count += written
        shards.append({"name": path.name, "samples": written, "bytes": path.stat().st_size})
    manifest = {"shards": shards, "label_names": list(source.label_names)}
    write_text(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
    size_bytes = sum(int(shard["bytes"]) for shard in shards)
    return Packed(shards=len(shards), samples=count, size_bytes=size_bytes, broken=ledger.broken)


def shrunk(content: bytes, max_px: int | None) -> tuple[str, bytes]:
    """Suffix and bytes of a picture whose longer side has at most `max_px` pixels. Raises UnreadableImage."""
    picture = read_image(content, at_least_px=max_px)
    kind, size = image_format(content)
    is_small = max_px is None or max(size) <= max_px
    if is_small and kind != "HEIF":
        return _SUFFIX_OF.get(kind, kind.lower()), content
    if max_px is not None:
        picture.thumbnail((max_px, max_px), Image.Resampling.BICUBIC)
    output = io.BytesIO()
    if kind in ("JPEG", "MPO", "HEIF"):
        picture.save(output, "JPEG", quality=_JPEG_QUALITY)
        return "jpg", output.getvalue()
    picture.save(output, "PNG")
    return "png", output.getvalue()


class _Packer:
    """Indices -> for each sample its members, or what is wrong with it."""

    def __init__(self, source: Source, max_px: int | None) -> None:
        self._source, self._max_px = source, max_px

    def __call__(self, indices: range) -> list[Members | Failure]:
        return [self._members(index) for index in indices]

    def _members(self, index: int) -> Members | Failure:
        try:
            sample = self._source.sample(index)
        except BrokenSample as error:
            return Failure(error.name, error.reason)
        try:
            suffix, content = shrunk(encoded(sample), self._max_px)
        except UnreadableImage as error:
            return Failure(sample.name, error.reason)
        # the name a sample had first is its name for ever
        facts = {"name": sample.name, **sample.facts, "captions": sample.captions}
        if sample.concept is not None:
            facts["concept"] = sample.concept
        members = {
            suffix: content,
            "txt": sample.captions[0].encode(),
            "json": json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
        }
        return (
            {**members, "cls": str(sample.label).encode()} if self._source.label_names or sample.label >= 0 else members
        )


def encoded(sample: Sample) -> bytes:
    """The picture as the bytes of a file: its own, or those of a PNG made of it. Raises UnreadableImage."""
    image = sample.image
    assert image is not None, "the sample was asked for with its picture"
    if isinstance(image, bytes):
        return image
    output = io.BytesIO()
    read_image(image).save(output, "PNG")
    return output.getvalue()


def _good(
    chunks: Iterable[list[Members | Failure]], ledger: BrokenLedger, progress: Callable[[int], None]
) -> Iterator[Members]:
    """What is not broken, with the first picture's suffix for every picture, which is the first member of each sample.

    The `datasets` library takes AVIF for pictures only under another name.
    """
    suffix = None
    for chunk in chunks:
        ledger.add(len(chunk), [item for item in chunk if isinstance(item, Failure)])
        for members in chunk:
            if not isinstance(members, Failure):
                (own, content), *others = members.items()
                suffix = suffix or ("jpg" if own == "avif" else own)
                yield {suffix: content, **dict(others)}
        progress(len(chunk))


def _write(path: Path, samples: Iterable[Members], first_key: int) -> int:
    count = 0
    with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
        for count, members in enumerate(samples, 1):
            for suffix, content in members.items():
                header = tarfile.TarInfo(f"{first_key + count - 1:08d}.{suffix}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return count
