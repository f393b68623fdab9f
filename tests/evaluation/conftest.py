"""An embedder of the smallest towers, and pictures made by hand: unit vectors with captions and labels."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from siglip.config import ImageSettings, SiglipConfig, SiglipTextConfig, SiglipVisionConfig, TextSettings
from siglip.embedder import Embedder
from siglip.evaluation import Pictures
from siglip.model import SiglipModel
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return tiny_embedder()


def tiny_embedder() -> Embedder:
    tokenizer = SiglipTokenizer(ROOT / "siglip" / "assets" / "nano" / "spiece.model", TextSettings(context_length=8))
    processor = SiglipProcessor(SiglipImageProcessor(ImageSettings(image_size=16)), tokenizer)
    text = SiglipTextConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=24, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=8,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    config = SiglipConfig.from_text_vision_configs(text, vision)
    model = SiglipModel(config, generator=torch.Generator().manual_seed(0))
    return Embedder(model, processor, device="cpu", dtype="float32", batch_size=4)


def hand_made(
    vectors: np.ndarray, *, captions: Sequence[Sequence[str]] | None = None, labels: Sequence[int] | None = None
) -> Pictures:
    """Row i is a picture "picture i", number 10 * i in its source."""
    vectors = np.asarray(vectors, np.float32)
    count = len(vectors)
    return Pictures(
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        indices=10 * np.arange(count, dtype=np.int64),
        names=tuple(f"picture {number}" for number in range(count)),
        captions=tuple(map(tuple, captions or [["caption"]] * count)),
        labels=np.array([-1] * count if labels is None else labels, np.int64),
    )
