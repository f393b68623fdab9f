"""SigLIP and SigLIP 2 in PyTorch: models, preparation, checkpoints, pipelines.

Names are resolved when first used, so `import siglip` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siglip.captioner import Captioner
    from siglip.checkpoints import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForZeroShotImageClassification,
        AutoProcessor,
        AutoTokenizer,
    )
    from siglip.classifier import Classifier
    from siglip.config import ImageSettings, SiglipConfig, SiglipTextConfig, SiglipVisionConfig, TextSettings
    from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
    from siglip.embedder import Embedder
    from siglip.embeddings import Embeddings
    from siglip.errors import Failure
    from siglip.model import (
        PaliGemmaForConditionalGeneration,
        SiglipForImageClassification,
        SiglipModel,
        SiglipTextModel,
        SiglipVisionModel,
    )
    from siglip.pipelines import pipeline
    from siglip.processing import PaliGemmaProcessor, SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
    from siglip.search import Hit, Library

__version__ = "0.1.0"

_HOME = {
    "AutoTokenizer": "siglip.checkpoints",
    "AutoModelForImageClassification": "siglip.checkpoints",
    "AutoModelForZeroShotImageClassification": "siglip.checkpoints",
    "AutoImageProcessor": "siglip.checkpoints",
    "AutoConfig": "siglip.checkpoints",
    "AutoModel": "siglip.checkpoints",
    "AutoProcessor": "siglip.checkpoints",
    "Captioner": "siglip.captioner",
    "Classifier": "siglip.classifier",
    "Embedder": "siglip.embedder",
    "Embeddings": "siglip.embeddings",
    "Failure": "siglip.errors",
    "GemmaConfig": "siglip.config_paligemma",
    "Hit": "siglip.search",
    "ImageSettings": "siglip.config",
    "Library": "siglip.search",
    "PaliGemmaConfig": "siglip.config_paligemma",
    "PaliGemmaForConditionalGeneration": "siglip.model",
    "PaliGemmaProcessor": "siglip.processing",
    "SiglipConfig": "siglip.config",
    "SiglipForImageClassification": "siglip.model",
    "SiglipImageProcessor": "siglip.processing",
    "SiglipModel": "siglip.model",
    "SiglipProcessor": "siglip.processing",
    "SiglipTextConfig": "siglip.config",
    "SiglipTextModel": "siglip.model",
    "SiglipTokenizer": "siglip.processing",
    "SiglipVisionConfig": "siglip.config",
    "SiglipVisionModel": "siglip.model",
    "TextSettings": "siglip.config",
    "pipeline": "siglip.pipelines",
}

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForImageClassification",
    "AutoModelForZeroShotImageClassification",
    "AutoProcessor",
    "AutoTokenizer",
    "Captioner",
    "Classifier",
    "Embedder",
    "Embeddings",
    "Failure",
    "GemmaConfig",
    "Hit",
    "ImageSettings",
    "Library",
    "PaliGemmaConfig",
    "PaliGemmaForConditionalGeneration",
    "PaliGemmaProcessor",
    "SiglipConfig",
    "SiglipForImageClassification",
    "SiglipImageProcessor",
    "SiglipModel",
    "SiglipProcessor",
    "SiglipTextConfig",
    "SiglipTextModel",
    "SiglipTokenizer",
    "SiglipVisionConfig",
    "SiglipVisionModel",
    "TextSettings",
    "pipeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'siglip' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
