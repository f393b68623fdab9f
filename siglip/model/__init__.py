"""Tensors in, tensors out: the towers, the two of them together, and the classifier."""

from siglip.model.classifier import SiglipForImageClassification
from siglip.model.text import SiglipTextModel
from siglip.model.two_towers import SiglipModel
from siglip.model.vision import SiglipVisionModel, resize_position_embedding

__all__ = [
    "SiglipForImageClassification",
    "SiglipModel",
    "SiglipTextModel",
    "SiglipVisionModel",
    "resize_position_embedding",
]
