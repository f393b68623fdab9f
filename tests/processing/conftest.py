"""Vocabularies of both kinds, made small, and the published classes that read them."""

import functools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoTokenizer
from transformers import SiglipTokenizer as PublishedTokenizer

import siglip
from siglip.config import Clean, TextSettings
from siglip.processing.tokenizer import SiglipTokenizer

NANO = Path(siglip.__file__).parent / "assets" / "nano"
CORPUS = [
    "a photo of a cat and two small dogs on the grass",
    "the quick brown fox jumps over the lazy dog, again and again!",
    "une photo d'un chat; ein Foto von einem Hund (2024)",
    "red, green, blue, black & white: 1234567890 #colours",
] * 20


@functools.cache
def with_context(vocab_file: Path, context_length: int, clean: Clean = "canonicalize-hf") -> SiglipTokenizer:
    return SiglipTokenizer(vocab_file, TextSettings(context_length=context_length, clean=clean))


def published_ids(published: Any, texts: list[str], context_length: int, **options: Any) -> list[list[int]]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This sequence already has")
        return published(texts, padding="max_length", truncation=True, max_length=context_length, **options)[
            "input_ids"
        ]


def train_sentencepiece(folder: Path, **options: Any) -> Path:
    with (folder / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS), model_writer=file, hard_vocab_limit=False, minloglevel=2,
            **{"vocab_size": 500, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, **options},
        )  # fmt: skip
    return folder / "spiece.model"


def build_gemma(folder: Path, template: str = "$A <eos>") -> Tokenizer:
    """A small `tokenizer.json` laid out as Gemma's: special tokens, bytes, pieces, and two tokens that are added."""
    trained = Tokenizer(BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "\u2581")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(model["vocab"], key=model["vocab"].get)]
    gemma = Tokenizer(
        BPE(
            {piece: index for index, piece in enumerate(pieces)},
            [tuple(pair) for pair in model["merges"]],
            unk_token="<unk>", fuse_unk=True, byte_fallback=True,
        )
    )  # fmt: skip
    gemma.normalizer = normalizers.Replace(" ", "\u2581")
    gemma.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    gemma.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    gemma.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    gemma.add_tokens([AddedToken(token, normalized=False) for token in ("\n\n", "<table>")])
    gemma.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<eos>", 1), ("<bos>", 2)]
    )  # fmt: skip
    gemma.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "unk", "pad", "mask")}
    config = {"tokenizer_class": "GemmaTokenizer", "padding_side": "right", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return gemma


@pytest.fixture(scope="module")
def nano() -> SiglipTokenizer:
    return SiglipTokenizer(NANO / "spiece.model")


@pytest.fixture(scope="module")
def published() -> Any:
    return PublishedTokenizer.from_pretrained(NANO)


@pytest.fixture(scope="module")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma")
    build_gemma(folder)
    return folder


@pytest.fixture(scope="module")
def published_gemma(gemma_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(gemma_folder)


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path) -> SiglipTokenizer:
    return SiglipTokenizer(gemma_folder / "tokenizer.json")
