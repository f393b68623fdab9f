"""Pictures, prefixes and suffixes -> input_ids, masks and pixel_values of a PaliGemma; its tokens -> text and boxes.

A row is: image tokens, BOS, prefix, separator; for training then suffix and EOS. The separator is one token of its own,
so a prefix that ends in a line break keeps it. Rows are padded on the left, as those of transformers.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from siglip.errors import PreparationError, clip, warn
from siglip.fields import bounded, expect
from siglip.pretrained import PretrainedProcessing
from siglip.processing.image import ImageInput, SiglipImageProcessor
from siglip.processing.tokenizer import Ids, SiglipTokenizer
from siglip.types import ModelInputs

IGNORED = -100

# of Gemma's vocabulary; PaliGemma puts 1024 places and 128 shapes behind it, then the image token
_GEMMA_BOS, _GEMMA_LINE_BREAK, _GEMMA_SIZE = 2, 108, 256000
_PLACES, _SHAPES = 1024, 128
_MARK = re.compile(r"<(loc|seg)(\d+)>")
_BOX = re.compile(r"((?:<loc\d{4}>){4})((?:<seg\d{3}>)*) *([^;<]*)")


class PaliGemmaProcessor(PretrainedProcessing):
    """What a PaliGemma does to pictures and texts before it reads them, and to its tokens afterwards.

    With Gemma's vocabulary "<locNNNN>" and "<segNNN>" in a text are the tokens of that name; "<bos>", "<eos>" and
    "<image>" are read as plain text. Any other vocabulary gets three ids behind its own: BOS, separator, image token;
    so the table of its decoder needs `tokenizer.vocab_size + 2` rows. `num_patches` is image tokens a picture.
    """

    def __init__(self, image_processor: SiglipImageProcessor, tokenizer: SiglipTokenizer, num_patches: int) -> None:
        expect(image_processor, SiglipImageProcessor, "PaliGemmaProcessor.image_processor")
        expect(tokenizer, SiglipTokenizer, "PaliGemmaProcessor.tokenizer")
        expect(num_patches, int, "PaliGemmaProcessor.num_patches")
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.num_patches = num_patches
        bounded(self, "num_patches", at_least=1)
        size = tokenizer.vocab_size
        self.pad_token_id = 0
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token_id, self.separator_token_id, self.image_token_id = (
            (_GEMMA_BOS, _GEMMA_LINE_BREAK, _GEMMA_SIZE + _PLACES + _SHAPES)
            if tokenizer.is_gemma
            else (size, size + 1, size + 2)
        )

    def __call__(
        self,
        images: ImageInput | Sequence[ImageInput] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        suffix: str | Sequence[str] | None = None,
    ) -> ModelInputs:
        """`input_ids`, `attention_mask`, `pixel_values`; with a suffix also `token_type_ids` and `labels`.

        One text or several; as many pictures, or the same multiple of them for every text. An empty suffix trains to
        stop at once. Raises PreparationError for counts that do not fit, UnreadableImage for a broken picture.
        """
        prefixes = _listed(text, "text")
        suffixes = None if suffix is None else _listed(suffix, "suffix")
        if suffixes is not None and len(suffixes) != len(prefixes):
            raise PreparationError(
                f"each text needs one suffix, got {len(prefixes)} texts and {len(suffixes)} suffixes"
            )
        inputs = ModelInputs()
        pictures = 0
        if images is not None:
            inputs["pixel_values"] = self.image_processor.preprocess(images, return_tensors="pt")["pixel_values"]
            pictures = len(inputs["pixel_values"])
        if pictures % len(prefixes):
            raise PreparationError(
                f"every text needs the same number of pictures, got {len(prefixes)} texts and {pictures} pictures"
            )
        inputs |= self.join(prefixes, suffixes, pictures=pictures // len(prefixes))
        return inputs

    def join(
        self,
        prefixes: Sequence[str],
        suffixes: Sequence[str] | None = None,
        *,
        pictures: int = 1,
        most: int | None = None,
    ) -> ModelInputs:
        """The tokens alone, with places for so many pictures a text.

        With `most`, rows of more tokens lose the end of their suffix, EOS included, and a SiglipWarning says so. Raises
        PreparationError for a prompt that leaves no room for a suffix.
        """
        rows: list[tuple[list[int], list[int]]] = []
        for index, prefix in enumerate(prefixes):
            places = [self.image_token_id] * (self.num_patches * pictures)
            prompt = [*places, self.bos_token_id, *self.encode(prefix), self.separator_token_id]
            ending = [] if suffixes is None else [*self.encode(suffixes[index]), self.eos_token_id]
            if most is not None and len(prompt) + len(ending) > most:
                if len(prompt) >= most:
                    raise PreparationError(
                        f"the prompt {clip(prefix)!r} takes {len(prompt)} tokens with its picture, and all {most} that "
                        "the decoder reads leave no room for a suffix; shorten it"
                    )
                warn(f"texts that are longer, with their prompt, than the {most} tokens of the decoder lose their end")
                ending = ending[: most - len(prompt)]
            rows.append((prompt, ending))
        longest = max(len(prompt) + len(ending) for prompt, ending in rows)
        ids = np.full((len(rows), longest), self.pad_token_id, dtype=np.int64)
        mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
        for row, (prompt, ending) in enumerate(rows):
            start = longest - len(prompt) - len(ending)
            ids[row, start:] = [*prompt, *ending]
            mask[row, start:] = 1
            kinds[row, longest - len(ending) :] = 1
        inputs = ModelInputs(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        if suffixes is not None:
            inputs["token_type_ids"] = torch.from_numpy(kinds)
            inputs["labels"] = torch.from_numpy(np.where(kinds > 0, ids, IGNORED))
        return inputs

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone, without BOS, separator and EOS."""
        if not self.tokenizer.is_gemma:
            return self.tokenizer.pieces(text)
        ids: list[int] = []
        end = 0
        for mark in _MARK.finditer(text):
            kind, digits = mark.groups()
            if kind == "loc" and len(digits) == 4 and int(digits) < _PLACES:
                index = _GEMMA_SIZE + int(digits)
            elif kind == "seg" and len(digits) == 3 and int(digits) < _SHAPES:
                index = _GEMMA_SIZE + _PLACES + int(digits)
            else:
                continue
            ids += [*(self.tokenizer.pieces(text[end : mark.start()]) if mark.start() > end else []), index]
            end = mark.end()
        return ids + (self.tokenizer.pieces(text[end:]) if end < len(text) or not text else [])

    def decode(self, token_ids: Ids) -> str:
        """The text of ids up to the first EOS; BOS, separator, image tokens and padding before it are left out."""
        text, plain = "", list[int]()
        left_out = {self.bos_token_id, self.separator_token_id, self.image_token_id, self.pad_token_id}
        for index in map(int, token_ids):
            if index == self.eos_token_id:
                break
            place = index - _GEMMA_SIZE
            if self.tokenizer.is_gemma and 0 <= place < _PLACES + _SHAPES:
                mark = f"<loc{place:04d}>" if place < _PLACES else f"<seg{place - _PLACES:03d}>"
                text, plain = text + self._plain(plain) + mark, []
            elif index not in left_out and index < self.tokenizer.vocab_size:
                plain.append(index)
        return (text + self._plain(plain)).strip()

    def batch_decode(self, sequences: Sequence[Ids] | Int[Tensor, "batch tokens"]) -> list[str]:
        """`decode` for each row."""
        return [self.decode(row) for row in sequences]

    def _plain(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids) if ids else ""


class Box(NamedTuple):
    """A thing found: its name, its corners in pixels of the picture, and its <segNNN> tokens as they came, if any."""

    label: str
    left: float
    top: float
    right: float
    bottom: float
    segmentation: str = ""


def boxes(text: str, *, width: int, height: int) -> list[Box]:
    """The boxes in an answer to "detect ..." or "segment ...", in a picture of that size in pixels.

    A box is <y1><x1><y2><x2> in 1023rds of the picture, as the original code has them, then the label; boxes are
    separated by ";". What is no box is left out: a model that finds nothing writes nothing, or says so in words.
    """
    found: list[Box] = []
    for places, shapes, label in _BOX.findall(text):
        top, left, bottom, right = (int(digits) / (_PLACES - 1) for digits in re.findall(r"\d{4}", places))
        found.append(Box(label.strip(), left * width, top * height, right * width, bottom * height, shapes))
    return found


def _listed(text: object, what: str) -> list[str]:
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, Sequence) or not texts or not all(isinstance(item, str) for item in texts):
        raise PreparationError(f"{what} must be a string or a list of strings, got {text!r:.60}")
    return list(texts)
