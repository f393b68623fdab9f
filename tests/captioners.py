"""A captioner of toy size with the vocabulary and the picture size of the built-in model."""

import torch

from siglip import PaliGemmaForConditionalGeneration, PaliGemmaProcessor, SiglipImageProcessor, SiglipTokenizer
from siglip.config import ImageSettings, SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from tests.conftest import ROOT


def captioner() -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=48, patch_size=8,
        vision_use_head=False,
    )  # fmt: skip
    text = GemmaConfig(
        vocab_size=8002, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=128,
    )  # fmt: skip
    config = PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=8002)
    generator = torch.Generator().manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config, generator=generator).eval()
    for name, parameter in model.named_parameters():
        # far enough from the start that pictures differ in what is written about them
        parameter.data += (0.5 if "language_model" in name else 0.1) * torch.randn(parameter.shape, generator=generator)
    tokenizer = SiglipTokenizer(ROOT / "siglip" / "assets" / "nano" / "spiece.model")
    return model, PaliGemmaProcessor(SiglipImageProcessor(ImageSettings(image_size=48)), tokenizer, 36)
