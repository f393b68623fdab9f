"""Tensors in, tensors out: the towers, the two of them together, the classifier, and the captioner."""

from siglip.model.classifier import SiglipForImageClassification
from siglip.model.paligemma import PaliGemmaForConditionalGeneration
from siglip.model.text import SiglipTextModel
from siglip.model.two_towers import SiglipModel
from siglip.model.vision import SiglipVisionModel, resize_position_embedding

__all__ = [
    "PaliGemmaForConditionalGeneration",
    "SiglipForImageClassification",
    "SiglipModel",
    "SiglipTextModel",
    "SiglipVisionModel",
    "resize_position_embedding",
]
