"""The other implementations that tests compare with: transformers, and open_clip with its timm image towers."""

import enum
import importlib.util
import json
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import nn

from siglip.config import SiglipConfig, SiglipVisionConfig

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def transformers_config(config: SiglipConfig) -> transformers.SiglipConfig:
    """The same towers."""
    values = config.to_dict()
    values["text_config"] |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    return transformers.SiglipConfig(text_config=values["text_config"], vision_config=values["vision_config"])


def perturb(model: nn.Module, seed: int = 0) -> Any:
    """Move every parameter of a fresh model away from its initial value: zeros and ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


class _Interpolation(enum.Enum):
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class _Torchvision(ModuleType):
    """Stands for a part of torchvision: whatever is imported from it is an empty class, since none of it is run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Interpolation if name == "InterpolationMode" else type(name, (nn.Module,), {})


_PARTS = (
    "", ".datasets", ".models", ".models.feature_extraction", ".ops", ".ops.misc", ".transforms",
    ".transforms.functional", ".utils",
)  # fmt: skip


def import_open_clip() -> Any:
    """The library. It imports torchvision for picture files and augmentation, of which the towers use nothing.

    If torchvision is absent, empty modules stand in for it while open_clip is imported. If it is there, its two
    compiled operators may not fit this torch; they are then declared, without code, so that it can be imported.
    """
    if "open_clip" in sys.modules:
        return sys.modules["open_clip"]
    if importlib.util.find_spec("torchvision") is None:
        stand_ins = {f"torchvision{part}": _Torchvision(f"torchvision{part}") for part in _PARTS}
        sys.modules |= stand_ins
        for name, module in stand_ins.items():
            module.__path__ = []
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(stand_ins[parent], child, module)
    else:
        stand_ins = {}
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        import open_clip
    finally:
        for name in stand_ins:
            del sys.modules[name]
    logging.getLogger().setLevel(logging.ERROR)
    return open_clip


def open_clip_model(folder: Path, vision: SiglipVisionConfig) -> Any:
    """open_clip's model of a folder, with its weights; a timm tower of that name and shape is registered if unknown."""
    open_clip = import_open_clip()
    import timm

    values = json.loads((folder / "open_clip_config.json").read_text())
    name = values["model_cfg"]["vision_cfg"]["timm_model_name"]
    _SHAPES[name] = vision
    if not timm.is_model(name):
        _register(timm, name)
    return open_clip.create_model(f"local-dir:{folder}").eval()


# timm knows a tower by its name alone
_SHAPES: dict[str, SiglipVisionConfig] = {}


def _register(timm: Any, name: str) -> None:
    def build(**_: Any) -> nn.Module:
        vision = _SHAPES[name]
        return timm.models.VisionTransformer(
            img_size=vision.image_size,
            patch_size=vision.patch_size,
            embed_dim=vision.hidden_size,
            depth=vision.num_hidden_layers,
            num_heads=vision.num_attention_heads,
            mlp_ratio=vision.intermediate_size / vision.hidden_size,
            num_classes=0,
            global_pool="map",
            class_token=False,
            act_layer="gelu_tanh" if vision.hidden_act == "gelu_pytorch_tanh" else "gelu",
        )

    build.__name__ = name
    timm.models.register_model(build)
