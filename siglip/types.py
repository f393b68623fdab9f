"""Result types of the models, and what a processor hands to them. Shapes are in the annotations."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.export import register_dataclass

from siglip.errors import InputError


@dataclass(slots=True)
class _Output:
    """Attributes; also a dictionary of those that are not None, and a tuple of them: `output["name"]`, `output[:2]`."""

    def keys(self) -> list[str]:
        """Names of what is not None, in the order of declaration."""
        return [spec.name for spec in fields(self) if getattr(self, spec.name) is not None]

    def items(self) -> list[tuple[str, Any]]:
        """Names and values of what is not None."""
        return [(name, getattr(self, name)) for name in self.keys()]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values of `items`, those that are outputs themselves as tuples too."""
        return tuple(value.to_tuple() if isinstance(value, _Output) else value for _, value in self.items())

    def __getitem__(self, key: str | int | slice) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()


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
    text_model_output: TowerOutput | None = None
    vision_model_output: TowerOutput | None = None


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
    # torch.export and torch.func look inside of what a model returns, and saved programs name it
    register_dataclass(_kind, serialized_type_name=f"siglip.{_kind.__name__}")


def for_scripts(forward: Callable[..., _Output]) -> Callable[..., Any]:
    """A `forward` with three more keywords of existing scripts: `return_dict=False` gives a tuple of what is not None.

    `output_attentions=True` is refused with an InputError, since the kernels that attention runs on keep no weights,
    and `position_ids` too: positions are those of the tokens.
    """

    @functools.wraps(forward)
    def asked(
        *inputs: Any,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        position_ids: object = None,
        **options: Any,
    ) -> Any:
        if position_ids is not None:
            raise InputError("got position_ids, but a token's position is its place in input_ids; leave them out")
        if output_attentions:
            raise InputError(
                "output_attentions=True, but attention here is PyTorch's scaled dot product, which keeps no weights; "
                "leave it out. Where in a picture a text is seen is drawn by `siglip explain`"
            )
        output = forward(*inputs, **options)
        return output.to_tuple() if return_dict is False else output

    return asked


class Features(Tensor):
    """What `get_image_features` and `get_text_features` return: vectors, which give plain tensors in all that is done.

    Scripts for transformers 5 ask the result for `.pooler_output`, those for version 4 take it as it is.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @property
    def pooler_output(self) -> Tensor:
        """The vectors themselves."""
        return self.as_subclass(Tensor)

    def __repr__(self) -> str:  # pyright: ignore
        return repr(self.pooler_output)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.pooler_output.__reduce_ex__(protocol)


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
