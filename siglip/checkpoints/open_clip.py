"""The layout of open_clip with a timm image tower: `open_clip_config.json` and a safetensors file or a state dict.

Its configuration names a timm model instead of saying how that is built. We write the name that open_clip knows for
the published shapes, and always our own configuration too, under the key "siglip", which open_clip does not read.
open_clip runs some of these models with the erf form of GELU; they were trained with the tanh form, which we keep.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siglip.checkpoints.huggingface import (
    SafetensorsFile,
    read_json,
    weight_files,
    write_json,
    write_safetensors,
)
from siglip.checkpoints.tensors import BATCH_OF_ONE, SCALAR, Checkpoint, Content, Rule, StoredTensor, translate
from siglip.config import ImageSettings, SiglipConfig, SiglipTextConfig, SiglipVisionConfig, TextSettings
from siglip.errors import CheckpointError, SiglipError, clip
from siglip.fields import as_mapping
from siglip.releases import RELEASES, Release

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
STATE_DICT = "open_clip_pytorch_model.bin"

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_TIMM_NAME = re.compile(r"vit_([a-z0-9]+)_patch(\d+)_siglip_\d+")
# how open_clip names the cleaning of text
_CLEAN = {"lower": "lower", "canonicalize-hf": "canonicalize", "canonicalize-bv": "canonicalize"}


def holds(path: Path) -> bool:
    """Whether a folder, or the folder of a weights file, is of this layout."""
    if path.is_dir():
        return (path / CONFIG).is_file() and not weight_files(path)
    of_hugging_face = path.name in weight_files(path.parent)
    return path.suffix in _SUFFIXES and (path.parent / CONFIG).is_file() and not of_hugging_face


def read(path: Path) -> Checkpoint:
    """The checkpoint of a folder, or of one weights file with `open_clip_config.json` beside it."""
    config = read_config(path)
    rules = tuple(_rules(config))
    files = [path / name for name in (WEIGHTS, STATE_DICT) if (path / name).is_file()] if path.is_dir() else [path]
    if not files:
        raise CheckpointError(
            f"{path} has {CONFIG} but no weights, expected {WEIGHTS} or {STATE_DICT}; get one of them"
        )
    file = files[0]
    if file.suffix == ".safetensors":
        stored = SafetensorsFile(file)
        return Checkpoint(file, config, stored.tensors(), rules, stored.release)
    return Checkpoint(file, config, _state_dict(file), rules)


def read_config(path: Path) -> SiglipConfig:
    """The configuration that we wrote, or else the one that open_clip's names stand for."""
    file, values = _read_values(path)
    if "siglip" in values:
        return SiglipConfig.from_dict(as_mapping(values["siglip"], f"{file}: siglip"))
    model = values.get("model_cfg", values)
    try:
        return SiglipConfig.from_text_vision_configs(
            _text_config(model["text_cfg"], model["embed_dim"]), _vision_config(model["vision_cfg"])
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} does not describe a SigLIP of open_clip ({type(error).__name__}: {error}); expected a model "
            "with a timm "
            "image tower such as vit_base_patch16_siglip_224"
        ) from error


def read_image_settings(path: Path) -> ImageSettings:
    """How open_clip prepares pictures for this model."""
    file, values = _read_values(path)
    try:
        settings = dict(values.get("preprocess_cfg") or {})
        if settings.get("resize_mode", "squash") != "squash":
            raise CheckpointError(
                f"{file}: resize_mode is {clip(repr(settings['resize_mode']))}, but SigLIP squashes pictures "
                f"to the square; "
                "correct the file if this really is a SigLIP"
            )
        return ImageSettings(
            image_size=read_config(path).vision_config.image_size,
            resample=settings.get("interpolation", "bicubic"),
            image_mean=tuple(settings.get("mean", (0.5, 0.5, 0.5))),
            image_std=tuple(settings.get("std", (0.5, 0.5, 0.5))),
        )
    except SiglipError:
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: preprocess_cfg is broken ({error}); get the file again") from error


def write(folder: Path, content: Content) -> None:
    """Write a whole model; raises CheckpointError for an image tower that pools without its head."""
    config, image = content.config, content.image or ImageSettings()
    if not config.vision_config.vision_use_head:
        raise CheckpointError(
            "this model's image tower has no attention-pooling head, which the open_clip layout needs; "
            "write it as huggingface or big_vision"
        )
    values = {
        "model_cfg": _model_values(config, content.text),
        "preprocess_cfg": {
            "mean": image.image_mean,
            "std": image.image_std,
            "interpolation": image.resample,
            "resize_mode": "squash",
        },
        "siglip": config.to_dict(),
    }
    write_json(folder / CONFIG, values)
    write_safetensors(folder / WEIGHTS, translate((rule.back() for rule in _rules(config)), content.tensors))


def _read_values(path: Path) -> tuple[Path, dict[str, Any]]:
    file = (path if path.is_dir() else path.parent) / CONFIG
    return file, read_json(file)


def _state_dict(file: Path) -> dict[str, StoredTensor]:
    try:
        # tensors and plain containers only; mapping works for the archives that torch has written since version 1.6
        values = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    # a damaged file can raise nearly anything in there
    except Exception as error:
        raise CheckpointError(
            f"{file} cannot be read as a state dict of tensors ({error}); get the file again, or as safetensors"
        ) from error
    # open_clip's trainer nests the weights and its distributed wrapper prefixes them
    nested = values.get("state_dict", values) if isinstance(values, dict) else None
    if not isinstance(nested, dict):
        raise CheckpointError(f"{file} holds a {type(values).__name__}, expected a state dict of tensors")
    return {
        str(name).removeprefix("module."): StoredTensor.of(value)
        for name, value in nested.items()
        if isinstance(value, Tensor)
    }


# configuration


def _text_config(values: Mapping[str, Any], dim: int) -> SiglipTextConfig:
    text_use_head = values.get("proj_type", "linear") != "none"
    if values["pool_type"] != "last" or not values["no_causal_mask"] or (text_use_head and not values["proj_bias"]):
        raise KeyError("the text tower is masked, or pooled or projected in another way")
    width = values["width"]
    return SiglipTextConfig(
        vocab_size=values["vocab_size"],
        hidden_size=width,
        intermediate_size=int(width * values.get("mlp_ratio", 4.0)),
        num_hidden_layers=values["layers"],
        num_attention_heads=values["heads"],
        max_position_embeddings=values["context_length"],
        layer_norm_eps=values["norm_kwargs"]["eps"],
        projection_size=dim if text_use_head else None,
        text_use_head=text_use_head,
    )


def _vision_config(values: Mapping[str, Any]) -> SiglipVisionConfig:
    found = _TIMM_NAME.fullmatch(values["timm_model_name"])
    sizes = {_timm_size(release): release for release in RELEASES if not release.naflex}
    if found is None or found[1] not in sizes or values["timm_pool"] != "map" or values["timm_proj"] != "none":
        raise KeyError(f"unknown image tower {clip(repr(values['timm_model_name']))}")
    vision = sizes[found[1]].config.vision_config
    return replace(vision, patch_size=int(found[2]), image_size=values["image_size"])


def _timm_size(release: Release) -> str:
    return release.size.replace("-", "")


def _model_values(config: SiglipConfig, settings: TextSettings | None) -> dict[str, Any]:
    text, vision = config.text_config, config.vision_config
    ratio = text.intermediate_size / text.hidden_size
    if int(text.hidden_size * ratio) != text.intermediate_size:
        # open_clip cuts the product to a whole number
        ratio = (text.intermediate_size + 0.5) / text.hidden_size
    values = {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        # open_clip then takes the tokenizer from the same folder
        "hf_tokenizer_name": ".",
        "tokenizer_kwargs": {"clean": _CLEAN[settings.clean]} if settings and settings.clean in _CLEAN else {},
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        "mlp_ratio": ratio,
        "no_causal_mask": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": text.layer_norm_eps},
        "act_kwargs": {"approximate": "tanh" if text.hidden_act == "gelu_pytorch_tanh" else "none"},
    }
    return {
        "embed_dim": vision.hidden_size,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": vision.image_size,
            "timm_model_name": _timm_name(vision),
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": values | ({"proj_bias": True} if text.text_use_head else {"proj_type": "none"}),
    }


def _timm_name(vision: SiglipVisionConfig) -> str:
    size = f"width{vision.hidden_size}depth{vision.num_hidden_layers}"
    for release in RELEASES:
        if not release.naflex:
            known = release.config.vision_config
            if replace(vision, patch_size=known.patch_size, image_size=known.image_size) == known:
                size = _timm_size(release)
    return f"vit_{size}_patch{vision.patch_size}_siglip_{vision.image_size}"


# tensors


def _rules(config: SiglipConfig) -> Iterator[Rule]:
    trunk, tower = "visual.trunk.", "vision_model."
    yield Rule("logit_scale", "logit_scale", layout=SCALAR)
    yield Rule("logit_bias", "logit_bias", layout=SCALAR)
    yield from _both(f"{trunk}patch_embed.proj", f"{tower}embeddings.patch_embedding")
    yield Rule(f"{trunk}pos_embed", f"{tower}embeddings.position_embedding.weight", layout=BATCH_OF_ONE)
    for layer in range(config.vision_config.num_hidden_layers):
        yield from _image_block(f"{trunk}blocks.{layer}.", f"{tower}encoder.layers.{layer}.")
    yield from _both(f"{trunk}norm", f"{tower}post_layernorm")
    yield from _map_head(f"{trunk}attn_pool.", f"{tower}head.")
    yield Rule("text.token_embedding.weight", "text_model.embeddings.token_embedding.weight")
    yield Rule("text.positional_embedding", "text_model.embeddings.position_embedding.weight")
    for layer in range(config.text_config.num_hidden_layers):
        yield from _text_block(f"text.transformer.resblocks.{layer}.", f"text_model.encoder.layers.{layer}.")
    yield from _both("text.ln_final", "text_model.final_layer_norm")
    if config.text_config.text_use_head:
        yield from _both("text.text_projection", "text_model.head")


def _both(theirs: str, ours: str) -> Iterator[Rule]:
    for kind in ("weight", "bias"):
        yield Rule(f"{theirs}.{kind}", f"{ours}.{kind}")


def _image_block(theirs: str, ours: str) -> Iterator[Rule]:
    yield from _both(f"{theirs}norm1", f"{ours}layer_norm1")
    yield from _both(f"{theirs}norm2", f"{ours}layer_norm2")
    for kind in ("weight", "bias"):
        yield from _query_key_value(f"{theirs}attn.qkv.{kind}", ours, kind)
    yield from _both(f"{theirs}attn.proj", f"{ours}self_attn.out_proj")
    yield from _both(f"{theirs}mlp.fc1", f"{ours}mlp.fc1")
    yield from _both(f"{theirs}mlp.fc2", f"{ours}mlp.fc2")


def _text_block(theirs: str, ours: str) -> Iterator[Rule]:
    yield from _both(f"{theirs}ln_1", f"{ours}layer_norm1")
    yield from _both(f"{theirs}ln_2", f"{ours}layer_norm2")
    for kind in ("weight", "bias"):
        yield from _query_key_value(f"{theirs}attn.in_proj_{kind}", ours, kind)
    yield from _both(f"{theirs}attn.out_proj", f"{ours}self_attn.out_proj")
    yield from _both(f"{theirs}mlp.c_fc", f"{ours}mlp.fc1")
    yield from _both(f"{theirs}mlp.c_proj", f"{ours}mlp.fc2")


def _query_key_value(theirs: str, ours: str, kind: str) -> Iterator[Rule]:
    for part, letter in enumerate("qkv"):
        yield Rule(theirs, f"{ours}self_attn.{letter}_proj.{kind}", source_rows=(part, part + 1, 3))


def _map_head(theirs: str, ours: str) -> Iterator[Rule]:
    yield Rule(f"{theirs}latent", f"{ours}probe")
    for kind in ("weight", "bias"):
        yield Rule(f"{theirs}q.{kind}", f"{ours}attention.in_proj_{kind}", target_rows=(0, 1, 3))
        yield Rule(f"{theirs}kv.{kind}", f"{ours}attention.in_proj_{kind}", target_rows=(1, 3, 3))
    yield from _both(f"{theirs}proj", f"{ours}attention.out_proj")
    yield from _both(f"{theirs}norm", f"{ours}layernorm")
    yield from _both(f"{theirs}mlp.fc1", f"{ours}mlp.fc1")
    yield from _both(f"{theirs}mlp.fc2", f"{ours}mlp.fc2")
