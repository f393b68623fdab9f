"""Texts -> input_ids i64[batch, ctx]: clean, split into the pieces of the vocabulary, end with EOS, cut or pad.

The published SigLIP checkpoints come with a SentencePiece file (`spiece.model`), the SigLIP 2 ones with Gemma's
`tokenizer.json`. The file decides the rest; nothing here depends on a model's name or on the other texts of a batch.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from siglip.config import TextSettings
from siglip.errors import PreparationError, clip, warn
from siglip.fields import expect
from siglip.files import replacing
from siglip.keywords import TokenizerOptions, agreed
from siglip.pretrained import PretrainedProcessing
from siglip.processing.vocabulary import read_vocabulary
from siglip.types import ModelInputs

if TYPE_CHECKING:
    Texts = str | Sequence[str]
else:
    # bad input gets our message, also where annotations are checked at run time
    Texts = object

Ids = Sequence[int] | Int[np.ndarray, "tokens"] | Int[Tensor, "tokens"]

_HAPPENS: dict[str, list[Any]] = {
    "add_special_tokens": [True],
    "return_attention_mask": [False, None],
    "return_token_type_ids": [False, None],
    "padding_side": ["right", None],
    "verbose": [True, False],
}


class SiglipTokenizer(PretrainedProcessing):
    """The tokenizer of one checkpoint: every text becomes exactly `settings.context_length` ids.

    No BOS; EOS ends every text and is kept last when a text is cut; padding goes on the right. A vocabulary with
    <pad>, <eos>, <bos> at 0, 1, 2 is Gemma's: padded with 0, lower-cased. Any other is a SigLIP one: padded with EOS,
    cleaned as "canonicalize-hf". The context is 64 tokens. `settings` replaces cleaning and context length, both.

    Ids equal those of the published classes with `padding="max_length", truncation=True`, but for one thing: there,
    "</s>" or "<eos>" written in a text ends it; here special tokens are never read from text (the published classes
    do the same when told `split_special_tokens=True`). Lower-casing is Unicode's, as there; big_vision
    (pp/ops_text.py) lowers A to Z only. Safe to share between threads and to pickle.

    Raises CheckpointError for a file that holds no such vocabulary.
    """

    padding_side: ClassVar[str] = "right"
    model_input_names: ClassVar[list[str]] = ["input_ids"]

    def __init__(self, vocab_file: str | Path, settings: TextSettings | None = None) -> None:
        self.vocab_file = Path(vocab_file)
        self._vocabulary = read_vocabulary(self.vocab_file)
        clean = "lower" if self._vocabulary.is_gemma else "canonicalize-hf"
        self.settings = settings if settings is not None else TextSettings(clean=clean)
        expect(self.settings, TextSettings, "SiglipTokenizer.settings")
        self.vocab_size: int = self._vocabulary.size
        self.eos_token_id: int = self._vocabulary.eos_id
        # added to the published vocabulary, and never met in a text as we read it
        self.unread_tokens: list[str] = self._vocabulary.unread
        self.pad_token_id: int = 0 if self._vocabulary.is_gemma else self.eos_token_id

    def __call__(
        self,
        text: Texts,
        *,
        padding: str | bool | None = None,
        truncation: str | bool | None = None,
        max_length: int | None = None,
        return_tensors: str | None = None,
        **options: Unpack[TokenizerOptions],
    ) -> ModelInputs:
        """`input_ids` of one text or of several: lists, or i64[batch, ctx] with `return_tensors` "pt" or "np".

        The other options are those of existing scripts. They may say what happens anyway (`padding="max_length"`,
        `truncation=True`, `max_length` of the checkpoint) and nothing else. Raises PreparationError for another
        value, for input that is not text, and for a text that is too long with `truncation=False`, InputError for
        another keyword.
        """
        agreed(options, _HAPPENS, "the tokenizer")
        self._check_options(padding, truncation, max_length)
        if return_tensors not in (None, "pt", "np"):
            raise PreparationError(
                f"return_tensors must be 'pt', 'np' or None (lists), got {clip(repr(return_tensors))}"
            )
        pieces = self._encode(_check_texts(text))
        room = self.settings.context_length - 1
        if truncation is False:
            for index, ids in enumerate(pieces):
                if len(ids) > room:
                    raise PreparationError(
                        f"text {index} has {len(ids) + 1} tokens with its EOS, this checkpoint reads {room + 1}, and "
                        "truncation=False forbids cutting; shorten the text, or drop truncation=False"
                    )
        rows = [[*ids[:room], self.eos_token_id, *[self.pad_token_id] * (room - len(ids))] for ids in pieces]
        if return_tensors is None:
            return ModelInputs(input_ids=rows[0] if isinstance(text, str) else rows)
        array = np.array(rows, dtype=np.int64)
        return ModelInputs(input_ids=array if return_tensors == "np" else torch.from_numpy(array))

    def count(self, text: str) -> int:
        """Tokens of a text before it is cut or padded, EOS included."""
        return len(self._encode(_check_texts([text]))[0]) + 1

    def pieces(self, text: str) -> list[int]:
        """Ids of a text alone: cleaned, without EOS, neither cut nor padded."""
        return self._encode(_check_texts([text]))[0]

    @property
    def model_max_length(self) -> int:
        """Tokens of every text, EOS and padding included."""
        return self.settings.context_length

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def eos_token(self) -> str:
        """The piece that ends every text."""
        return self._vocabulary.piece(self.eos_token_id)

    @property
    def pad_token(self) -> str:
        """The piece that fills up every text."""
        return self._vocabulary.piece(self.pad_token_id)

    def encode(self, text: str) -> list[int]:
        """Ids of one text with its EOS, neither cut nor padded; the model reads what calling the tokenizer gives."""
        return [*self.pieces(text), self.eos_token_id]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a piece, or of each; raises PreparationError for one that is not in the vocabulary."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        index = self.piece_to_id(tokens)
        if index is None:
            raise PreparationError(
                f"the vocabulary has no piece {clip(repr(tokens))}; pieces are what tokenize(text) gives, with "
                "\u2581 for a blank"
            )
        return index

    def get_vocab(self) -> dict[str, int]:
        """Every piece with its id."""
        return {self._vocabulary.piece(index): index for index in range(self.vocab_size)}

    def convert_ids_to_tokens(self, ids: Ids) -> list[str]:
        """The piece of each id, as it stands in the vocabulary."""
        return [self._vocabulary.piece(int(index)) for index in ids]

    def piece_to_id(self, piece: str) -> int | None:
        """The id of a piece as the vocabulary spells it, None if it has no such piece."""
        return self._vocabulary.index(piece)

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, without EOS."""
        return self.convert_ids_to_tokens(self.pieces(text))

    @property
    def is_gemma(self) -> bool:
        """Whether the vocabulary is Gemma's."""
        return self._vocabulary.is_gemma

    def warn_of_loss(self, given: Sequence[Any]) -> set[str]:
        """One SiglipWarning with a count for each kind of text of which the model sees less than was written.

        Returns these texts.
        """
        texts: list[str] = [
            text
            for text in dict.fromkeys(given)
            if isinstance(text, str) and not any("\ud800" <= char <= "\udfff" for char in text)
        ]
        length, unknown = self.settings.context_length, self._vocabulary.unknown_ids
        kinds: dict[str, list[str]] = {}
        for text, ids in zip(texts, self._encode(texts) if texts else [], strict=True):
            if len(ids) >= length:
                kinds.setdefault(f"longer than the {length} tokens this model reads, and cut", []).append(text)
            elif not ids or not text.strip():
                kinds.setdefault("empty, or hold only what is left out before the model reads them", []).append(text)
            elif unknown.issuperset(ids):
                kinds.setdefault("made only of characters that this model does not know", []).append(text)
        for kind, found in kinds.items():
            warn(f"{len(found)} of {len(texts)} texts are {kind}, the first is {clip(repr(found[0]))}")
        return {text for found in kinds.values() for text in found}

    def decode(self, token_ids: Ids, skip_special_tokens: bool = False) -> str:
        """The text of ids; what cleaning or cutting took away does not come back."""
        ids = [int(index) for index in token_ids]
        return self._vocabulary.decode(ids, skip_special_tokens)

    def batch_decode(
        self,
        sequences: Sequence[Ids] | Int[np.ndarray, "batch tokens"] | Int[Tensor, "batch tokens"],
        skip_special_tokens: bool = False,
    ) -> list[str]:
        """`decode` for each row."""
        return [self.decode(row, skip_special_tokens) for row in sequences]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Ids of one or two texts with EOS behind each that does not have it; neither cut nor padded."""
        texts = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        eos = self.eos_token_id
        return [index for ids in texts for index in (ids if ids[-1:] == [eos] else [*ids, eos])]

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for a special token, 0 for text: of finished ids, or of what will be made of one or two texts' ids."""
        if not already_has_special_tokens:
            ending = [] if token_ids_1 is None else [0] * len(token_ids_1) + [1]
            return [0] * len(token_ids_0) + [1] + ending
        if token_ids_1 is not None:
            raise PreparationError("ids that already have their special tokens are one list; drop token_ids_1")
        return [int(int(index) in self._vocabulary.special_ids) for index in token_ids_0]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Zeros, one for each token of one or two texts and their EOS: SigLIP has no token types."""
        texts = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        return [0] * sum(len(ids) + 1 for ids in texts)

    def save_vocabulary(self, folder: str | Path, filename_prefix: str | None = None) -> tuple[str]:
        """Copy the vocabulary into `folder` under its published name, after `filename_prefix` and a hyphen."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        target = Path(folder) / f"{prefix}{self._vocabulary.file_name}"
        if target.resolve() != self.vocab_file.resolve():
            with replacing(target) as temporary:
                shutil.copyfile(self.vocab_file, temporary)
        return (str(target),)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self._vocabulary.encode(texts, self.settings.clean)

    def _check_options(self, padding: object, truncation: object, max_length: object) -> None:
        length = self.settings.context_length
        if padding not in (None, "max_length"):
            raise PreparationError(
                f"padding={clip(repr(padding))} would change the embedding: this checkpoint reads exactly "
                f"{length} tokens, "
                "padding included; pass padding='max_length' or nothing"
            )
        if truncation not in (None, True, False, "longest_first"):
            raise PreparationError(f"truncation must be True, False or None, got {clip(repr(truncation))}")
        if max_length not in (None, length):
            raise PreparationError(
                f"max_length={clip(repr(max_length))}, but this checkpoint reads exactly {length} tokens; "
                f"pass max_length={length} or nothing"
            )


def _check_texts(text: object) -> list[str]:
    if isinstance(text, str):
        return _check_texts([text])
    if not isinstance(text, Sequence) or isinstance(text, bytes | bytearray):
        raise PreparationError(f"text must be a string or a list of strings, got {type(text).__name__}: {text!r:.60}")
    if not text:
        raise PreparationError("text is an empty list; give at least one string (an empty string is a text)")
    for index, item in enumerate(text):
        if not isinstance(item, str):
            raise PreparationError(f"text {index} must be a string, got {type(item).__name__}: {item!r:.60}")
    texts: list[str] = list(text)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        index = next(index for index, item in enumerate(texts) if any("\ud800" <= char <= "\udfff" for char in item))
        raise PreparationError(
            f"text {index} holds a lone surrogate, which is not a character and has no tokens; replace it, for example "
            "with text.encode(errors='replace').decode()"
        ) from error
    return texts
