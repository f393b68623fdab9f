"""Files -> models, configurations, processors.

A model is built without memory, then takes the tensors of the file as they are mapped there: loading costs the pages
that are used. Where numbers must change (another dtype or device) that is done tensor by tensor.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, Unpack

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from siglip.checkpoints import big_vision, huggingface, open_clip, paligemma, preparation
from siglip.checkpoints.hub import CONFIG_FILES, MODEL_FILES, PREPARATION_FILES, resolve
from siglip.checkpoints.match import CLASSIFIER, find_tensors
from siglip.checkpoints.tensors import Checkpoint, StoredTensor
from siglip.config import ImageSettings, ProblemType, SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.config_paligemma import PaliGemmaConfig
from siglip.devices import find_device
from siglip.errors import CheckpointError, ConfigError, clip
from siglip.keywords import HubOptions
from siglip.model import kind_of, resize_position_embedding
from siglip.model.int8 import make_int8, quantised
from siglip.pretrained import StrPath
from siglip.processing import PaliGemmaProcessor, SiglipImageProcessor, SiglipTokenizer

_Kind = TypeVar("_Kind")

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_FLOAT32 = ("logit_scale", "logit_bias")
# layout -> the module that reads and writes it; where a folder could be several, the first is meant
LAYOUTS = {"open_clip": open_clip, "huggingface": huggingface, "big_vision": big_vision}
# converted tensors leave pages of the file behind, which are let go of each time so many bytes have been converted
_RELEASE_BYTES = 4 * 2**20


def load_config(kind: type[_Kind], source: StrPath, **hub: Unpack[HubOptions]) -> _Kind:
    """The configuration of a checkpoint in any of the three layouts; see SiglipConfig.from_pretrained."""
    path = resolve(source, files=CONFIG_FILES, **hub)
    if issubclass(kind, PaliGemmaConfig):
        made: Any = paligemma.read_config(path if _layouts(path) else resolve(source, files=MODEL_FILES, **hub))
        return made
    if not _layouts(path):
        # the configuration of an .npz file is in its shapes
        path = resolve(source, files=MODEL_FILES, **hub)
    whole: SiglipConfig = layout_of(path).read_config(path)
    found: Any = next((own for own in (whole, whole.text_config, whole.vision_config) if isinstance(own, kind)), None)
    if found is None:
        raise ConfigError(
            f"{kind.__name__} is not the configuration of a checkpoint; expected SiglipConfig, that of a "
            "tower, or PaliGemmaConfig"
        )
    return found


def writes(source: StrPath, **hub: Unpack[HubOptions]) -> bool:
    """Whether a checkpoint is a PaliGemma, which writes, and not a model that compares; raises as `resolve`."""
    return paligemma.holds(resolve(source, files=MODEL_FILES, **hub))


def classifies(source: StrPath, **hub: Unpack[HubOptions]) -> bool:
    """Whether a checkpoint is a trained classifier, which reads no texts; raises as `resolve`."""
    path = resolve(source, files=MODEL_FILES, **hub)
    return not paligemma.holds(path) and is_classifier(open_checkpoint(path))


def is_classifier(checkpoint: Checkpoint) -> bool:
    """Whether it has classes and no text tower."""
    return CLASSIFIER[0] in checkpoint.tensors and not any(
        name.startswith("text_model.") for name in checkpoint.tensors
    )


def load_model(
    kind: type[_Kind],
    source: StrPath,
    *,
    dtype: torch.dtype | str = "float32",
    device: torch.device | str | int | None = None,
    image_size: int | None = None,
    labels: Sequence[str] | None = None,
    problem_type: ProblemType | None = None,
    config: Any = None,
    **hub: Unpack[HubOptions],
) -> _Kind:
    """A model in evaluation mode from a checkpoint in any of the three layouts; see SiglipModel.from_pretrained.

    Towers and classifiers load from checkpoints of the whole model too. A classifier keeps the stored head unless
    other `labels` are given; without either it gets a fresh one for two classes. Temperature and bias stay float32.
    `config`, of the model's kind, takes the place of the stored one.
    """
    # whatever can be known to be wrong is, before a download
    device = find_device(device)
    if str(dtype).removeprefix("torch.") not in ("auto", "int8"):
        dtype = _dtype(dtype, {})
    row = kind_of(kind)
    if (labels is not None or problem_type is not None) and not row.has_classes:
        raise ConfigError(
            f"labels and problem_type are for SiglipForImageClassification; {kind.__name__} has no classes, "
            "so leave them out"
        )
    path = resolve(source, files=MODEL_FILES, **hub)
    if row.writes_text and config is not None:
        raise ConfigError(f"{kind.__name__} always takes its configuration from the checkpoint; leave config out")
    if row.writes_text:
        return _load_paligemma(kind, path, dtype=dtype, device=device, image_size=image_size)
    checkpoint = open_checkpoint(path, config)
    if "text" in row.towers and is_classifier(checkpoint):
        raise CheckpointError(_no_texts(source, checkpoint))
    stored = list(checkpoint.config.id2label.values()) if CLASSIFIER[0] in checkpoint.tensors else None
    config = checkpoint.config if config is None else _told_config(kind, config, checkpoint.config)
    if config.id2label != checkpoint.config.id2label:
        labels = labels or list(config.id2label.values())
    fresh_head = row.has_classes and (stored is None or (labels is not None and list(labels) != stored))
    if problem_type is not None:
        config = replace(config, problem_type=problem_type)
    if labels is not None:
        config = config.with_labels(list(labels), config.problem_type)
    if image_size is not None:
        if "vision" not in row.towers:
            raise ConfigError(
                f"image_size={image_size} does not apply to {kind.__name__}, which takes no pictures; leave it out"
            )
        config = replace(config, vision_config=replace(config.vision_config, image_size=image_size))
    model = build_empty(kind, row.own_config(config))
    tensors = find_tensors(model, checkpoint, fresh_head=fresh_head)
    state = _read(model, tensors, checkpoint, dtype=_dtype(dtype, tensors), device=device)
    model.load_state_dict(state, assign=True)
    return model.eval()


def _no_texts(source: StrPath, checkpoint: Checkpoint) -> str:
    return (
        f"{source} is a classifier of {checkpoint.config.num_labels} classes and reads no texts; use it with `siglip "
        "classify` without labels, `siglip embed` or `siglip evaluate --task classification`, in Python as Classifier "
        "or SiglipForImageClassification"
    )


def _told_config(kind: type, config: Any, stored: SiglipConfig) -> SiglipConfig:
    """The `config` that the caller gives, for both towers; raises ConfigError if it is of another kind of model."""
    expected: Any = type(kind_of(kind).own_config(stored))
    if not isinstance(config, expected):
        raise ConfigError(f"config must be a {expected.__name__} for {kind.__name__}, got {clip(repr(config))}")
    towers = {SiglipTextConfig: "text_config", SiglipVisionConfig: "vision_config"}
    return replace(stored, **{towers[expected]: config}) if expected in towers else config


def _load_paligemma(
    kind: type[_Kind],
    path: Path,
    *,
    dtype: torch.dtype | str,
    device: torch.device,
    image_size: int | None,
) -> _Kind:
    checkpoint = paligemma.read(path)
    config = checkpoint.config
    if image_size is not None:
        config = replace(config, vision_config=replace(config.vision_config, image_size=image_size))
    model = build_empty(kind, config)
    tensors = find_tensors(model, checkpoint.stored)
    if str(dtype).removeprefix("torch.") == "int8":
        dtype = "float32"
        make_int8(model, kept=model.multi_modal_projector)
    state = _read(model, tensors, checkpoint.stored, dtype=_dtype(dtype, tensors), device=device)
    model.load_state_dict(state, assign=True)
    return model.eval()


def load_processing(kind: type[_Kind], source: StrPath, **hub: Unpack[HubOptions]) -> _Kind:
    """A tokenizer, an image processor or both; see SiglipProcessor.from_pretrained.

    Where the folder also holds a model, its context length and image size go before what the other files say.
    """
    path = resolve(source, files=PREPARATION_FILES, **hub)
    folder = path if path.is_dir() else path.parent
    if issubclass(kind, PaliGemmaProcessor):
        # the number of patches is in config.json, and of a bare .npz in its shapes
        return _load_paligemma_processor(kind, path, folder)
    layouts = _layouts(path)
    config: SiglipConfig | None = layouts[0].read_config(path) if layouts else None
    context_length = config.text_config.max_position_embeddings if config else None
    made: Any = kind
    if issubclass(kind, SiglipTokenizer):
        made = preparation.read_tokenizer(folder, context_length)
    elif issubclass(kind, SiglipImageProcessor):
        made = kind(image_settings(path, config))
    else:
        image_processor = SiglipImageProcessor(image_settings(path, config))
        made = made(image_processor, preparation.read_tokenizer(folder, context_length))
    return made


def _load_paligemma_processor(kind: type[_Kind], path: Path, folder: Path) -> _Kind:
    vision = paligemma.read_config(path).vision_config
    # what the authors evaluate with, where no file says otherwise
    images = preparation.read_image_settings(folder) or ImageSettings(resample="bilinear")
    tokenizer = preparation.read_tokenizer(folder, None, may_have_more=True)
    if tokenizer.is_gemma:
        tokenizer.settings = replace(tokenizer.settings, clean="none")
    made: Any = kind
    image_processor = SiglipImageProcessor(replace(images, image_size=vision.image_size))
    return made(image_processor, tokenizer, vision.num_patches)


def build_empty(kind: type, config: object) -> Any:
    """A model whose tensors have a shape and a dtype but no memory."""
    with torch.device("meta"), _NothingDrawn():
        return kind(config)


class _NothingDrawn(TorchFunctionMode):
    """Leaves out the drawing of initial values, which without memory loads an algebra library first: seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def layout_of(path: Path) -> ModuleType:
    """The module that reads a folder or file; raises CheckpointError if none does."""
    layouts = _layouts(path)
    if not layouts and path.is_dir() and huggingface.weight_files(path):
        raise CheckpointError(
            f"{path} holds weights, but no {huggingface.CONFIG} to say which model they belong to; save it with "
            "model.save_pretrained(folder), or give from_pretrained(folder, config=model.config)"
        )
    if not layouts:
        raise CheckpointError(
            f"{path} does not contain a checkpoint; expected a folder with {huggingface.CONFIG} and "
            f"{huggingface.SINGLE}, one "
            f"with {open_clip.CONFIG} and {open_clip.WEIGHTS}, or an .npz file of big_vision"
        )
    return layouts[0]


def open_checkpoint(path: Path, config: Any = None) -> Checkpoint:
    """What a folder or file holds, unread; with a `config`, the folder may hold weights alone."""
    if config is not None and not _layouts(path) and huggingface.weight_files(path):
        return huggingface.read(path, config)
    return layout_of(path).read(path)


def image_settings(path: Path, config: SiglipConfig | None) -> ImageSettings:
    """How the checkpoint at `path` prepares pictures, at the image size of its model if there is one.

    Where no file says it, as for a bare `.npz`, it is done as for the published checkpoints with that vocabulary.
    """
    folder = path if path.is_dir() else path.parent
    settings = preparation.read_image_settings(folder)
    if config is None:
        if settings is None:
            raise CheckpointError(
                f"{folder} has no {preparation.IMAGE}; copy it there from the checkpoint, or save its processor there"
            )
        return settings
    if settings is None and open_clip.holds(path):
        settings = open_clip.read_image_settings(path)
    if settings is None:
        settings = ImageSettings(resample="bilinear" if config.text_config.vocab_size == 256000 else "bicubic")
    return replace(settings, image_size=config.vision_config.image_size)


def _layouts(path: Path) -> list[ModuleType]:
    return [layout for layout in LAYOUTS.values() if layout.holds(path)]


def _read(
    model: nn.Module,
    tensors: dict[str, StoredTensor],
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    converted_bytes = 0
    rounded = any(parameter.dtype == torch.int8 for parameter in model.state_dict().values())
    for name, parameter in model.state_dict().items():
        if name in state:
            continue
        target = torch.float32 if name in _FLOAT32 else dtype
        if name not in tensors:
            # the fresh head of a classifier starts at zero
            state[name] = torch.zeros(parameter.shape, dtype=target, device=device)
            continue
        stored = tensors[name].read()
        if parameter.dtype == torch.int8:
            whole, scale = quantised(stored)
            state[name], state[name.removesuffix("weight") + "scale"] = whole.to(device), scale.to(device)
            checkpoint.release()
            continue
        tensor = stored
        if stored.ndim == 2 and stored.shape != parameter.shape:
            # of all shapes that differ only that of the position embeddings comes so far
            side = math.isqrt(parameter.shape[0])
            tensor = resize_position_embedding(stored.float(), (side, side), method="corner-bilinear")
        state[name] = tensor.reshape(parameter.shape).to(device, target).contiguous()
        if rounded and state[name].data_ptr() == stored.data_ptr():
            # what is kept of a file keeps the pages of the large tensors that were read beside it
            state[name] = state[name].clone()
        converted_bytes += stored.nbytes if state[name].data_ptr() != stored.data_ptr() else 0
        if converted_bytes >= _RELEASE_BYTES:
            converted_bytes = 0
            checkpoint.release()
    if rounded:
        checkpoint.release()
    return state


def _dtype(dtype: torch.dtype | str, tensors: dict[str, StoredTensor]) -> torch.dtype:
    if dtype == "auto":
        return max(tensors.values(), key=lambda tensor: math.prod(tensor.shape)).dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(
            f"dtype must be one of {', '.join(_DTYPES)} or 'auto' (as stored), for a PaliGemma also 'int8', "
            f"got {clip(repr(dtype))}"
        )
    return _DTYPES[name]
