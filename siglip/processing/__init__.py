"""Bytes and text in, tensors out; each checkpoint brings its own settings. No weights here."""

from siglip.processing.decode import (
    DecodedPicture,
    ImageInput,
    decode_picture,
    image_format,
    image_name,
    read_image,
)
from siglip.processing.image import SiglipImageProcessor
from siglip.processing.paligemma import Box, PaliGemmaProcessor, boxes
from siglip.processing.processor import SiglipProcessor
from siglip.processing.tokenizer import SiglipTokenizer

AnyProcessor = SiglipProcessor | PaliGemmaProcessor

__all__ = [
    "AnyProcessor",
    "Box",
    "DecodedPicture",
    "ImageInput",
    "PaliGemmaProcessor",
    "SiglipImageProcessor",
    "SiglipProcessor",
    "SiglipTokenizer",
    "boxes",
    "decode_picture",
    "image_format",
    "image_name",
    "read_image",
]
