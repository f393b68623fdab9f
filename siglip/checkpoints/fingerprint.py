"""A model and its preparation -> one short name for the numbers they give."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from siglip.config import SiglipTextConfig, SiglipVisionConfig
from siglip.model import SiglipForImageClassification, SiglipModel
from siglip.pretrained import PretrainedModel
from siglip.processing import SiglipProcessor


def fingerprint(model: PretrainedModel, processor: SiglipProcessor | None = None) -> str:
    """Hexadecimal SHA-256 over weights, configuration and preparation.

    Equal for equal numbers, whatever layout and dtype they are stored in; a model rounded to half precision is another
    one. With a `processor` the settings of pictures and texts and the bytes of the vocabulary count too.
    """
    module: Any = model
    digest = hashlib.sha256(_text([type(model).__name__, _config(module)]))
    for name, tensor in sorted(module.state_dict().items()):
        wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        digest.update(_text([name, list(tensor.shape), str(wide)]))
        digest.update(tensor.detach().to("cpu", wide).contiguous().numpy())
    if processor is not None:
        texts = asdict(processor.tokenizer.settings)
        del texts["templates"]  # which texts are encoded, not how
        digest.update(_text([asdict(processor.image_processor.settings), texts]))
        digest.update(processor.tokenizer.vocab_file.read_bytes())
    return digest.hexdigest()


def _config(model: nn.Module) -> list[Any]:
    """What of the configuration has a say in the numbers."""
    config: Any = model.config
    if isinstance(model, SiglipModel):
        return [_tower(config.text_config), _tower(config.vision_config)]
    if isinstance(model, SiglipForImageClassification):
        return [_tower(config.vision_config), list(config.id2label.values())]
    return [_tower(config)]


def _tower(config: SiglipTextConfig | SiglipVisionConfig) -> dict[str, Any]:
    values = asdict(config)
    del values["attention_dropout"]
    if isinstance(config, SiglipTextConfig):
        values["projection_size"] = config.embedding_size
    return values


def _text(values: object) -> bytes:
    return json.dumps(values, sort_keys=True).encode()
