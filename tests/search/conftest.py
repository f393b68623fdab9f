"""Small pictures of known looks, the built-in model counting what it embeds, and a library of them."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siglip.embedder import Embedder
from siglip.embeddings import Embeddings
from siglip.search import Library


class CountingEmbedder(Embedder):
    """Counts the pictures and texts asked for; the everyday words that every new library asks are embedded once."""

    pictures = 0
    texts = 0
    words: dict[tuple[str, ...], Embeddings] = {}  # noqa: RUF012

    def encode_pixels(self, pixels: Any) -> Any:
        self.pictures += len(pixels)
        return super().encode_pixels(pixels)

    def embed_texts(self, items: Any, **options: Any) -> Any:
        items = list(items)
        self.texts += len(items)
        if len(items) < 500:
            return super().embed_texts(items, **options)
        if tuple(items) not in self.words:
            self.words[tuple(items)] = super().embed_texts(items, **options)
        return self.words[tuple(items)]


def in_child(action: Callable[[], object]) -> int:
    """The exit code of a child that does it: 0, 1 if it raises, which it prints, or minus a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="session")
def _nano() -> CountingEmbedder:
    embedder = CountingEmbedder.from_pretrained("nano", device="cpu", dtype="float32", batch_size=8)
    assert embedder.fingerprint
    return embedder


@pytest.fixture
def embedder(_nano: CountingEmbedder) -> CountingEmbedder:
    _nano.pictures = _nano.texts = 0
    return _nano


def draw(file: Path, seed: int, **save: Any) -> Path:
    """A picture of coloured blocks, another one for each seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(blocks).resize((64, 48), Image.Resampling.NEAREST).save(file, **save)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures in three folders."""
    for seed in range(12):
        draw(tmp_path / "photos" / "abc"[seed % 3] / f"{seed:02}.png", seed)
    return tmp_path / "photos"


@pytest.fixture
def make(tmp_path: Path, embedder: CountingEmbedder) -> Callable[..., Library]:
    """Open the library of this test, again if asked again."""

    def make(name: str = "library") -> Library:
        return Library.open(tmp_path / name, model=embedder)

    return make
