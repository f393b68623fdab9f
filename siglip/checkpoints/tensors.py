"""Tensors still in their files, and rules that cut and stack those of one layout into those of another.

Rules are written once, from a foreign layout to ours, and run in both directions; nothing is read before it is used.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siglip.config import ImageSettings, SiglipConfig, TextSettings
from siglip.model import Kind

# start, stop, of: rows [start, stop) of a tensor whose first axis is cut into `of` equal parts
RowSlice = tuple[int, int, int]
ALL: RowSlice = (0, 1, 1)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor known by shape and dtype; `read` fetches it, mapped into memory where the file allows."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> "StoredTensor":
        """One that is in memory already."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the axes of a tensor stand in a foreign file: there and back."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]

    def back(self) -> "Layout":
        """The other direction."""
        return Layout(self.to_theirs, self.to_ours)


def _same(tensor: Tensor) -> Tensor:
    return tensor


SAME = Layout(_same, _same)
# position embeddings with a leading axis of one
BATCH_OF_ONE = Layout(lambda tensor: tensor[0], lambda tensor: tensor[None])
# numbers without an axis
SCALAR = Layout(lambda tensor: tensor.reshape(1), lambda tensor: tensor.reshape(()))


@dataclass(frozen=True, slots=True)
class Rule:
    """Some rows of `source`, laid out anew, are some rows of `target`."""

    source: str
    target: str
    source_rows: RowSlice = ALL
    target_rows: RowSlice = ALL
    layout: Layout = SAME

    def back(self) -> "Rule":
        """The other direction."""
        return Rule(self.target, self.source, self.target_rows, self.source_rows, self.layout.back())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder or file holds: tensors under the names of its own layout, and the rules from these to ours.

    Our names are those of the published Hugging Face checkpoints; where the file has them already, `rules` is None.
    `release` lets go of memory maps, so that pages read so far count no longer; reading goes on afterwards.
    """

    path: Path
    config: SiglipConfig
    tensors: Mapping[str, StoredTensor]
    rules: tuple[Rule, ...] | None = None
    release: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What is written, in whatever layout: tensors with our names, what they are, and how their input is prepared."""

    kind: Kind
    config: Any
    tensors: Mapping[str, StoredTensor]
    image: ImageSettings | None = None
    text: TextSettings | None = None
    max_shard_bytes: int = 5_000_000_000


def translate(rules: Iterable[Rule], tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Every target whose sources are all among `tensors`, still unread."""
    parts: dict[str, list[Rule]] = {}
    for rule in rules:
        parts.setdefault(rule.target, []).append(rule)
    return {
        target: _stacked(sorted(group, key=lambda rule: rule.target_rows), tensors)
        for target, group in parts.items()
        if all(rule.source in tensors for rule in group)
    }


def _stacked(rules: list[Rule], tensors: Mapping[str, StoredTensor]) -> StoredTensor:
    sources = [tensors[rule.source] for rule in rules]
    # one number repeated has any shape; tensors without memory would load an algebra library first
    outlines = _parts(rules, [torch.zeros(()).expand(source.shape) for source in sources])
    shape = outlines[0].shape
    if len(outlines) > 1:
        shape = (sum(map(len, outlines)), *shape[1:])
    return StoredTensor(tuple(shape), sources[0].dtype, functools.partial(_read, rules, sources))


def _read(rules: list[Rule], sources: list[StoredTensor]) -> Tensor:
    parts = _parts(rules, [source.read() for source in sources])
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _parts(rules: list[Rule], sources: list[Tensor]) -> list[Tensor]:
    parts: list[Tensor] = []
    for rule, source in zip(rules, sources, strict=True):
        cut = source
        if rule.source_rows != ALL:
            start, stop, of = rule.source_rows
            step = len(source) // of
            cut = source[start * step : stop * step]
        parts.append(rule.layout.to_ours(cut))
    return parts
