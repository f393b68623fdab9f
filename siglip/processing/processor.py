"""Texts and pictures -> ModelInputs for `model(**inputs)`: the tokenizer and the image processor joined."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Int
from torch import Tensor

from siglip.errors import PreparationError
from siglip.fields import expect
from siglip.keywords import TokenizerOptions, agreed
from siglip.pretrained import PretrainedProcessing
from siglip.processing.image import ImageInput, SiglipImageProcessor
from siglip.processing.tokenizer import Ids, SiglipTokenizer, Texts
from siglip.types import ModelInputs


class SiglipProcessor(PretrainedProcessing):
    """What a checkpoint does to texts and pictures before its towers see them."""

    model_input_names: ClassVar[list[str]] = ["pixel_values", "input_ids"]

    def __init__(self, image_processor: SiglipImageProcessor, tokenizer: SiglipTokenizer) -> None:
        expect(image_processor, SiglipImageProcessor, "SiglipProcessor.image_processor")
        expect(tokenizer, SiglipTokenizer, "SiglipProcessor.tokenizer")
        self.image_processor = image_processor
        self.tokenizer = tokenizer

    @property
    def templates(self) -> tuple[str, ...]:
        """The sentences this checkpoint wants labels in, each with "{}" for the label; several are averaged."""
        return self.tokenizer.settings.templates

    def __call__(
        self,
        text: Texts | None = None,
        images: ImageInput | Sequence[ImageInput] | None = None,
        *,
        padding: str | bool | None = None,
        truncation: str | bool | None = None,
        max_length: int | None = None,
        return_tensors: Literal["pt", "np"] | None = None,
        **options: Any,
    ) -> ModelInputs:
        """`input_ids` of one or more texts, `pixel_values` of one or more pictures, or both; options as there.

        Further options go to the tokenizer or to the image processor, whichever has them.
        Raises PreparationError if neither is given, if `text` holds something else (the two swapped), or for an
        option that would change the result; UnreadableImage for a picture that cannot be read.
        """
        if text is None and images is None:
            raise PreparationError("neither text nor images given; pass at least one of text=... and images=...")
        of_text: Any = {name: value for name, value in options.items() if name in TokenizerOptions.__annotations__}
        of_images: Any = {name: value for name, value in options.items() if name not in of_text}
        if images is None and of_images:
            agreed(of_images, dict.fromkeys(TokenizerOptions.__annotations__, ()), "the processor, given texts alone,")
        inputs = ModelInputs()
        if text is not None:
            first = text[0] if isinstance(text, list | tuple) and text else text
            if not isinstance(first, str | list | tuple):
                raise PreparationError(
                    f"text must be strings, got {type(first).__name__}; texts come first and pictures second: "
                    "processor(text=..., images=...)"
                )
            inputs |= self.tokenizer(
                text,
                padding=padding,
                truncation=truncation,
                max_length=max_length,
                return_tensors=return_tensors,
                **of_text,
            )
        if images is not None:
            inputs |= self.image_processor.preprocess(images, return_tensors=return_tensors, **of_images)
        return inputs

    def decode(self, token_ids: Ids, skip_special_tokens: bool = False) -> str:
        """The tokenizer's `decode`."""
        return self.tokenizer.decode(token_ids, skip_special_tokens)

    def batch_decode(
        self,
        sequences: Sequence[Ids] | Int[np.ndarray, "batch tokens"] | Int[Tensor, "batch tokens"],
        skip_special_tokens: bool = False,
    ) -> list[str]:
        """The tokenizer's `batch_decode`."""
        return self.tokenizer.batch_decode(sequences, skip_special_tokens)
