"""A small pair of towers, its embedder, and the slow way to a vector."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from siglip.config import ImageSettings, SiglipConfig, SiglipTextConfig, SiglipVisionConfig, TextSettings
from siglip.embedder import Embedder
from siglip.model import SiglipModel
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from tests.conftest import ROOT

WIDTH = 48


@pytest.fixture(scope="module")
def processor() -> SiglipProcessor:
    vocabulary = ROOT / "siglip" / "assets" / "nano" / "spiece.model"
    return SiglipProcessor(
        SiglipImageProcessor(ImageSettings(image_size=24)), SiglipTokenizer(vocabulary, TextSettings(context_length=16))
    )


@pytest.fixture(scope="module")
def model(processor: SiglipProcessor) -> SiglipModel:
    text = SiglipTextConfig(
        vocab_size=processor.tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=16, projection_size=WIDTH,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, image_size=24, patch_size=8
    )
    config = SiglipConfig.from_text_vision_configs(text, vision)
    return SiglipModel(config, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def embedder(model: SiglipModel, processor: SiglipProcessor) -> Embedder:
    return Embedder(model, processor, device="cpu", dtype="float32", batch_size=4)


def picture(seed: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def alone(embedder: Embedder, image: object) -> np.ndarray:
    """The slow way: one picture through the public processor and the given model."""
    pixel_values = embedder.processor(images=image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return F.normalize(embedder.model.get_image_features(pixel_values), dim=-1)[0].numpy()
