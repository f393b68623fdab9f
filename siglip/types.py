"""Result types of the models, and what a processor hands to them. Shapes are in the annotations."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.export import register_dataclass


@dataclass(slots=True)
class _Output:
    """Attribute access as in the field's scripts; also `output["name"]`, and `output[i]` over what is not None."""

    def __getitem__(self, key: str | int) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def to_tuple(self) -> tuple[Any, ...]:
        """All values that are not None, in the order of declaration."""
        values = (getattr(self, spec.name) for spec in fields(self))
        return tuple(value for value in values if value is not None)


@dataclass(slots=True)
class TowerOutput(_Output):
    """One tower: every token after the last layer norm, and the pooled vector (not normalised)."""

    last_hidden_state: Float[Tensor, "batch tokens width"]
    pooler_output: Float[Tensor, "batch dim"] | None
    hidden_states: tuple[Float[Tensor, "batch tokens width"], ...] | None = None


@dataclass(slots=True)
class SiglipOutput(_Output):
    """Both towers: logits are float32, rows of `logits_per_image` are images; embeddings have unit length."""

    loss: Float[Tensor, ""] | None
    logits_per_image: Float[Tensor, "images texts"]
    logits_per_text: Float[Tensor, "texts images"]
    text_embeds: Float[Tensor, "texts dim"]
    image_embeds: Float[Tensor, "images dim"]


@dataclass(slots=True)
class ImageClassifierOutput(_Output):
    """Class scores before softmax (one label a picture) or sigmoid (several)."""

    loss: Float[Tensor, ""] | None
    logits: Float[Tensor, "batch classes"]
    hidden_states: tuple[Float[Tensor, "batch tokens width"], ...] | None = None


@dataclass(slots=True)
class PaliGemmaOutput(_Output):
    """Scores of each next token, float32; the pictures as the decoder reads them; states from the embeddings on."""

    loss: Float[Tensor, ""] | None
    logits: Float[Tensor, "batch tokens vocabulary"]
    hidden_states: tuple[Float[Tensor, "batch tokens width"], ...] | None = None
    image_hidden_states: Float[Tensor, "pictures patches width"] | None = None


for _kind in (TowerOutput, SiglipOutput, ImageClassifierOutput, PaliGemmaOutput):
    # torch.export and torch.func look inside of what a model returns
    register_dataclass(_kind)


class ModelInputs(dict[str, Any]):
    """What a processor returns: a dictionary for `model(**inputs)`, with attribute access and `.to(...)`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name!r} here, only {', '.join(map(repr, self))}") from None

    def to(
        self,
        target: torch.device | torch.dtype | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | int | None = None,
        non_blocking: bool = False,
    ) -> "ModelInputs":
        """Move all tensors to a device, cast the floating-point ones to a dtype, or both."""
        if isinstance(target, torch.dtype):
            dtype, target = target, None
        place = device if target is None else target
        for name, value in self.items():
            if isinstance(value, Tensor):
                kind = dtype if value.is_floating_point() else None
                self[name] = value.to(place, kind, non_blocking=non_blocking)
        return self
