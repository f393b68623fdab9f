"""Pairs -> the tar file a source is staged in; those -> shards to train with, held-out ones, who made what."""

import io
import json
import shutil
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from drawing import drawn, encoded
from pair import Pair, distinct
from PIL import Image
from sources import Source
from tqdm import tqdm
from wordnet import WordNet, varied

from siglip.files import replacing, write_text

_SHARD_SIZE = 2000
# two pictures count as one drawing if their gradients differ in at most so many of 512 places, and the mean
# difference of their colours is less than so many levels of 255; a picture with few gradients is like many others
_NEAR_BITS, _NEAR_LEVELS, _LEAST_BITS = 14, 18, 6
_GRADIENT_LEVELS = 6


@dataclass(frozen=True, slots=True)
class Staged:
    """A sample of a staged source: its key, and the bytes of its members by suffix (png or jpg, txt, json)."""

    key: str
    members: dict[str, bytes]

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.members["json"])

    @property
    def picture(self) -> bytes:
        return next(content for suffix, content in self.members.items() if suffix in ("png", "jpg"))


Groups = dict[str, list[Staged]]


def stage(pairs: Iterable[Pair], name: str, source: Source, path: Path) -> tuple[int, int]:
    """Write name_00000.png (or .jpg), .txt and .json, and so on. Returns how many, and how many were blank."""
    written = blank = 0
    with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
        for pair in pairs:
            captions, picture = distinct(pair.captions), drawn(pair.drawing, crop=source.crop)
            if picture is None or not captions:
                blank += 1
                continue
            style = pair.style or source.style
            suffix, content = encoded(picture, photo=style.startswith("photo"))
            facts = {"captions": captions, "source": name, "licence": pair.licence or source.licence, "style": style}
            facts |= {"id": pair.id, "concept": pair.concept, "author": pair.author}
            known = {key: value for key, value in facts.items() if value}
            _write_sample(
                tar, f"{name}_{written:05d}", {suffix: content, "txt": captions[0].encode(), "json": _compact(known)}
            )
            written += 1
    return written, blank


def read_staged(path: Path) -> list[Staged]:
    """All samples of one source."""
    members: dict[str, dict[str, bytes]] = defaultdict(dict)
    with tarfile.open(path) as tar:
        for header in tar:
            key, _, suffix = header.name.partition(".")
            content = tar.extractfile(header)
            assert content is not None, f"{path} holds {header.name}, which is no file; remove {path} and build again"
            members[key][suffix] = content.read()
    return [Staged(key, parts) for key, parts in members.items()]


def without_equal_pictures(samples: Sequence[Staged]) -> list[Staged]:
    """Of samples with the same picture only one stays: that with the shortest caption, the first of these.

    Emoji sets draw one flag for a state and for its far islands; the state has the shorter name.
    """
    best: dict[bytes, Staged] = {}
    for sample in samples:
        rival = best.setdefault(sample.picture, sample)
        if len(sample.members["txt"]) < len(rival.members["txt"]):
            best[sample.picture] = sample
    return list(best.values())


def split(sources: Mapping[str, Sequence[Staged]], held_out: Iterable[str], kept_out: set[tuple[str, str]]) -> Groups:
    """`train`, every held-out source by its name, and `clip-art`: the pictures whose (source, id) is in `kept_out`.

    Of equal pictures one stays; pictures of `train` that look like a held-out one are left out.
    """
    groups: Groups = defaultdict(list)
    for source, samples in sources.items():
        for sample in samples:
            if source in held_out:
                groups[source].append(sample)
            else:
                groups["clip-art" if (source, sample.facts["id"]) in kept_out else "train"].append(sample)
    groups = {name: without_equal_pictures(samples) for name, samples in groups.items()}
    held = [sample for name, samples in groups.items() if name != "train" for sample in samples]
    train = groups.get("train", [])
    doubled = look_alike(train, held)
    return {**groups, "train": [sample for sample, double in zip(train, doubled, strict=True) if not double]}


def for_training(samples: Sequence[Staged], wordnet: WordNet, visits: Mapping[str, int]) -> list[Staged]:
    """Each with more captions, and as often as its source is to be visited."""
    made: list[Staged] = []
    for sample in samples:
        facts = sample.facts
        captions = varied(facts["captions"], facts["style"], wordnet)
        members = {**sample.members, "json": _compact({**facts, "captions": captions})}
        keys = (f"{sample.key}_{number}" if number else sample.key for number in range(visits[facts["source"]]))
        made += [Staged(key, members) for key in keys]
    return made


def look_alike(pictures: Sequence[Staged], others: Sequence[Staged]) -> np.ndarray:
    """For each of `pictures`: is it nearly one of the `others`?"""
    found = np.zeros(len(pictures), bool)
    if not pictures or not others:
        return found
    bits, colours = _looks(pictures)
    other_bits, other_colours = _looks(others)
    marked = other_bits.sum(axis=1) >= _LEAST_BITS
    other_bits, other_colours = other_bits[marked], other_colours[marked]
    counts = other_bits.sum(axis=1)
    for index in range(0, len(pictures), 1000):
        rows = bits[index : index + 1000]
        apart = rows.sum(axis=1)[:, None] + counts - 2 * rows @ other_bits.T
        for row, other in np.argwhere(apart <= _NEAR_BITS):
            distance = np.abs(colours[index + row] - other_colours[other]).mean()
            found[index + row] |= distance < _NEAR_LEVELS
    return found


def _looks(samples: Sequence[Staged]) -> tuple[np.ndarray, np.ndarray]:
    """[n, 512], 1 where brightness rises to the right or downwards, and [n, 48], the colours of 4 x 4 places."""
    bits, colours = np.empty((len(samples), 512), np.float32), np.empty((len(samples), 48), np.float32)
    for row, sample in enumerate(tqdm(samples, desc="comparing pictures", unit="", disable=None)):
        picture = Image.open(io.BytesIO(sample.picture)).convert("RGB")
        side = max(picture.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        grey = square.convert("L")
        across = np.asarray(grey.resize((17, 16), Image.Resampling.BILINEAR), np.int16)
        down = np.asarray(grey.resize((16, 17), Image.Resampling.BILINEAR), np.int16)
        rises = np.diff(across, axis=1).ravel(), np.diff(down, axis=0).ravel()
        bits[row] = np.concatenate(rises) > _GRADIENT_LEVELS
        colours[row] = np.asarray(square.resize((4, 4), Image.Resampling.BILINEAR)).ravel()
    return bits, colours


def write_shards(groups: Mapping[str, Sequence[Staged]], destination: Path) -> None:
    """destination/train/train-000000.tar and so on in haphazard order, and destination/held-out/SOURCE-000000.tar."""
    train = sorted(groups["train"], key=lambda sample: sample.key)
    Random(0).shuffle(train)
    shards = {
        f"train-{index // _SHARD_SIZE:06d}.tar": train[index : index + _SHARD_SIZE]
        for index in range(0, len(train), _SHARD_SIZE)
    }
    _replace_folder(destination / "train", shards)
    held_out = {f"{name}-000000.tar": samples for name, samples in groups.items() if name != "train"}
    _replace_folder(destination / "held-out", held_out)


def _replace_folder(folder: Path, shards: Mapping[str, Sequence[Staged]]) -> None:
    # whole or not at all: shards of two builds side by side could hold one picture twice, or a held-out one
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, samples in shards.items():
        with replacing(temporary / name) as path, tarfile.open(path, "w") as tar:
            for sample in samples:
                _write_sample(tar, sample.key, sample.members)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _compact(facts: dict[str, Any]) -> bytes:
    """JSON without spaces."""
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def _write_sample(tar: tarfile.TarFile, key: str, members: dict[str, bytes]) -> None:
    for suffix, content in members.items():
        header = tarfile.TarInfo(f"{key}.{suffix}")
        header.size = len(content)
        tar.addfile(header, io.BytesIO(content))


def counts(groups: Mapping[str, Sequence[Staged]]) -> dict[str, Counter[str]]:
    """For each group, pairs of each source."""
    return {name: Counter(sample.facts["source"] for sample in samples) for name, samples in groups.items()}


def write_attribution(groups: Mapping[str, Sequence[Staged]], origins: Mapping[str, str], path: Path) -> None:
    """One section for each source: where it is from, its licences with counts, and the authors the files name."""
    licences: dict[str, Counter[str]] = defaultdict(Counter)
    authors: dict[str, set[str]] = defaultdict(set)
    for samples in groups.values():
        for facts in (sample.facts for sample in samples):
            licences[facts["source"]][facts["licence"]] += 1
            authors[facts["source"]] |= {facts["author"]} if "author" in facts else set()
    lines = ["# Where the pictures and captions are from", ""]
    for source, found in sorted(licences.items()):
        lines += [f"## {source}", "", f"{found.total()} pairs, from {origins[source]}.", ""]
        lines += [f"- {licence}: {count}" for licence, count in found.most_common()]
        lines += ["", f"Authors: {', '.join(sorted(authors[source]))}."] if authors[source] else []
        lines += [""]
    write_text(path, "\n".join(lines))
