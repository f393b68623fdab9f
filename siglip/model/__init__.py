"""Tensors in, tensors out: the towers, the two of them together, the classifier, and the captioner."""

from siglip.model.classifier import SiglipForImageClassification
from siglip.model.kinds import KINDS, Kind, kind_of
from siglip.model.paligemma import PaliGemmaForConditionalGeneration
from siglip.model.text import SiglipTextModel
from siglip.model.two_towers import SiglipModel
from siglip.model.vision import SiglipVisionModel, resize_position_embedding

__all__ = [
    "KINDS",
    "Kind",
    "PaliGemmaForConditionalGeneration",
    "SiglipForImageClassification",
    "SiglipModel",
    "SiglipTextModel",
    "SiglipVisionModel",
    "kind_of",
    "resize_position_embedding",
]
