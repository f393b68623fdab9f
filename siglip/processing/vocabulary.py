"""The vocabulary of a checkpoint, as SentencePiece or as `tokenizer.json`: texts <-> ids of their pieces."""

import itertools
import string
from pathlib import Path
from typing import Any

from siglip.config import Clean
from siglip.errors import CheckpointError

SPACE_MARK = "\u2581"
_PREFIX = "<unk>"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_GEMMA_PAD_EOS_BOS = (0, 1, 2)


def read_vocabulary(path: Path) -> "SentencePieceVocabulary | TokenizerJsonVocabulary":
    """The vocabulary in a file; raises CheckpointError if it is none."""
    try:
        data = path.read_bytes()
        return TokenizerJsonVocabulary(data) if data[:100].lstrip().startswith(b"{") else SentencePieceVocabulary(data)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a vocabulary that can be read ({error}); give the checkpoint's spiece.model (SigLIP) or "
            "Gemma's tokenizer.json (SigLIP 2)"
        ) from error


def clean_text(text: str, clean: Clean) -> str:
    """Clean a text in one of the four ways of TextSettings.

    "canonicalize-hf" is the published tokenizer class; "canonicalize-bv" is big_vision's zero-shot evaluation
    (evaluators/proj/image_text/prompt_engineering.py).
    """
    if clean == "none":
        return text
    if clean == "lower":
        return text.lower()
    # which comes first shows in the two small sigmas: what follows the letter chooses between them
    if clean == "canonicalize-hf":
        text = text.lower().translate(_NO_PUNCTUATION)
    else:
        text = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return " ".join(text.split())


class SentencePieceVocabulary:
    """A SentencePiece vocabulary."""

    file_name = "spiece.model"

    def __init__(self, data: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self._model: Any = SentencePieceProcessor(model_proto=data)
        self.size: int = self._model.get_piece_size()
        self.eos_id: int = self._model.eos_id()
        self.is_gemma = (self._model.pad_id(), self.eos_id, self._model.bos_id()) == _GEMMA_PAD_EOS_BOS
        if self.eos_id < 0:
            raise ValueError("it has no end-of-sentence piece")
        self.special_ids = {self.eos_id, self._model.unk_id()} | ({0} if self.is_gemma else set[int]())
        self.unread: list[str] = []
        self.unknown_ids = {self._model.unk_id(), self._model.piece_to_id(SPACE_MARK)}
        self._prefix_length = len(self._model.encode(_PREFIX))

    def encode(self, texts: list[str], clean: Clean) -> list[list[int]]:
        """Ids without EOS."""
        if clean != "canonicalize-hf":
            return [self._model.encode(clean_text(text, clean)) for text in texts]
        # The published class puts this prefix and a space mark before the text and drops the prefix's pieces. That
        # shifts the path scores, whose rounding decides between equal paths ("oo o" or "o oo"), so we do the same.
        marked = (_PREFIX + clean_text(SPACE_MARK + text.replace(SPACE_MARK, " "), clean) for text in texts)
        return [self._model.encode(text)[self._prefix_length :] for text in marked]

    def piece(self, index: int) -> str:
        """The piece of an id."""
        return self._model.id_to_piece(index)

    def index(self, piece: str) -> int | None:
        """The id of a piece."""
        index = self._model.piece_to_id(piece)
        return index if self._model.id_to_piece(index) == piece else None

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        """The text of ids, special tokens spelled out and set off by a space as in the published class."""
        if skip_special_tokens:
            ids = [index for index in ids if index not in self.special_ids]
        done = text = ""
        for special, run in itertools.groupby(ids, self.special_ids.__contains__):
            if special:
                done, text = f"{done} {text}{''.join(map(self._model.id_to_piece, run))}", ""
            else:
                text = self._model.decode(list(run))
        return (done + text).strip()


class TokenizerJsonVocabulary:
    """Gemma's vocabulary as a `tokenizer.json`."""

    file_name = "tokenizer.json"

    def __init__(self, data: bytes) -> None:
        from tokenizers import Tokenizer

        self._model: Any = Tokenizer.from_buffer(data)
        self._model.no_padding()
        self._model.no_truncation()
        self._model.encode_special_tokens = True
        self.size: int = self._model.get_vocab_size()
        ids = tuple(self._model.token_to_id(token) for token in ("<pad>", "<eos>", "<bos>"))
        if ids != _GEMMA_PAD_EOS_BOS:
            raise ValueError(f"Gemma has <pad>, <eos>, <bos> at 0, 1, 2, here they are at {ids}")
        self.is_gemma = True
        self.eos_id = 1
        marks = (self._model.token_to_id(piece) for piece in ("<unk>", SPACE_MARK))
        self.unknown_ids = {index for index in marks if index is not None}
        added = self._model.get_added_tokens_decoder().items()
        known = self._model.get_vocab_size(with_added_tokens=False)
        self.unread = [
            token.content
            for index, token in added
            if index >= known and (token.special or token.content != token.content.lower())
        ]
        self.special_ids = {index for index, token in self._model.get_added_tokens_decoder().items() if token.special}

    def __reduce__(self) -> tuple[type["TokenizerJsonVocabulary"], tuple[bytes]]:
        # Tokenizer pickles itself, but without encode_special_tokens
        return type(self), (self._model.to_str().encode(),)

    def encode(self, texts: list[str], clean: Clean) -> list[list[int]]:
        """Ids without EOS."""
        cleaned = [clean_text(text, clean) for text in texts]
        return [found.ids for found in self._model.encode_batch_fast(cleaned, add_special_tokens=False)]

    def piece(self, index: int) -> str:
        """The piece of an id."""
        return self._model.id_to_token(index)

    def index(self, piece: str) -> int | None:
        """The id of a piece."""
        return self._model.token_to_id(piece)

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        """The text of ids."""
        return self._model.decode(ids, skip_special_tokens=skip_special_tokens)
