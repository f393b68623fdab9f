"""Models and processors -> files, and one layout -> another; a crash at any moment leaves the previous state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from siglip.checkpoints import huggingface, paligemma, preparation
from siglip.checkpoints.hub import resolve
from siglip.checkpoints.load import (
    LAYOUTS,
    build_empty,
    image_settings,
    is_classifier,
    load_processing,
    open_checkpoint,
)
from siglip.checkpoints.match import find_tensors
from siglip.checkpoints.tensors import Content, StoredTensor
from siglip.errors import CheckpointError, ConfigError, TensorMismatch, clip
from siglip.files import replacing_together, settle
from siglip.keywords import HubOptions
from siglip.model import PaliGemmaForConditionalGeneration, SiglipForImageClassification, SiglipModel, kind_of
from siglip.pretrained import PretrainedModel, PretrainedProcessing, StrPath
from siglip.processing import PaliGemmaProcessor, SiglipImageProcessor, SiglipProcessor, SiglipTokenizer

_MAX_SHARD_BYTES = 5_000_000_000


def save_model(
    model: PretrainedModel,
    folder: StrPath,
    *,
    max_shard_bytes: int = _MAX_SHARD_BYTES,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `config.json` and safetensors, read by our class and by transformers' class of the same name.

    `state_dict` holds the tensors where they are not those of the model; raises TensorMismatch if some are not there.
    """
    made: Any = model
    wanted = made.state_dict()
    if any(tensor.dtype == torch.int8 for tensor in wanted.values()):
        raise ConfigError(
            "a model loaded as int8 cannot be saved, since rounding has lost digits; load it with another dtype first"
        )
    given = wanted if state_dict is None else state_dict
    if set(given) != set(wanted):
        raise TensorMismatch(
            f"state_dict must name the model's tensors; these differ: {sorted(set(given) ^ set(wanted))[:3]}"
        )
    tensors = {name: StoredTensor.of(tensor) for name, tensor in given.items()}
    target = Path(folder)
    settle(target)
    kind = kind_of(made)
    config = kind.whole_config(made.config)
    content = Content(kind=kind, config=config, tensors=tensors, max_shard_bytes=max_shard_bytes)
    with replacing_together(target, obsolete=huggingface.weight_files(target)) as staging:
        (paligemma if kind.writes_text else huggingface).write(staging, content)


def save_processing(processing: PretrainedProcessing, folder: StrPath) -> None:
    """Write the files of a tokenizer, an image processor or both, read by our classes and by transformers'."""
    # a nested image processor from elsewhere would go before the one we write
    obsolete = () if isinstance(processing, SiglipTokenizer) else (preparation.NESTED,)
    with replacing_together(folder, obsolete=obsolete) as staging:
        both = isinstance(processing, SiglipProcessor | PaliGemmaProcessor)
        if both or isinstance(processing, SiglipImageProcessor):
            images = processing.image_processor if both else processing
            preparation.write_image_settings(staging, images.settings)
        if isinstance(processing, PaliGemmaProcessor):
            preparation.mark_paligemma(staging, processing.num_patches)
        if both or isinstance(processing, SiglipTokenizer):
            tokenizer = processing.tokenizer if both else processing
            preparation.write_tokenizer(staging, tokenizer)


def convert(
    source: StrPath, destination: StrPath, to: str, *, overwrite: bool = False, **hub: Unpack[HubOptions]
) -> Path:
    """Write the checkpoint of a whole model into the folder `destination` in another layout; returns the folder.

    `to` is "huggingface", "big_vision" or "open_clip"; for a PaliGemma or a classifier the first only.
    Numbers stay bit for bit what they are, in the dtype they have. The files of the preparation are written beside
    the weights; a source without vocabulary gives a destination without. Raises CheckpointError if `destination` holds
    a checkpoint of another layout, or one at all without `overwrite`, or if the layout cannot hold this model.
    """
    if to not in LAYOUTS:
        raise ConfigError(
            f"there is no layout {clip(repr(to))} to convert to; expected {', '.join(map(repr, LAYOUTS))}"
        )
    target = Path(destination)
    settle(target)
    _check_destination(target, to, overwrite)
    path = resolve(source, **hub)
    if paligemma.holds(path):
        return _convert_paligemma(path, target, to)
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    model_class = SiglipForImageClassification if is_classifier(checkpoint) else SiglipModel
    if model_class is not SiglipModel and to != "huggingface":
        raise CheckpointError(f"the layout {to} cannot hold a classifier; write it as huggingface")
    kind = kind_of(model_class)
    tensors = find_tensors(build_empty(model_class, kind.own_config(config)), checkpoint)
    images = image_settings(path, config)
    folder = path if path.is_dir() else path.parent
    texts = None
    if any((folder / name).is_file() for name in preparation.VOCABULARIES):
        texts = preparation.read_tokenizer(folder, config.text_config.max_position_embeddings)
    obsolete = huggingface.weight_files(target) if to == "huggingface" else ()
    with replacing_together(target, obsolete=obsolete) as staging:
        text = texts.settings if texts else None
        content = Content(kind=kind, config=config, tensors=tensors, image=images, text=text)
        LAYOUTS[to].write(staging, content)
        preparation.write_image_settings(staging, images)
        if texts is not None:
            preparation.write_tokenizer(staging, texts)
    return target


def _convert_paligemma(path: Path, target: Path, to: str) -> Path:
    if to != "huggingface":
        raise CheckpointError(f"{path} is a PaliGemma, which is written as huggingface only, not as {to}")
    checkpoint = paligemma.read(path)
    kind = kind_of(PaliGemmaForConditionalGeneration)
    tensors = find_tensors(build_empty(kind.model, checkpoint.config), checkpoint.stored)
    folder = path if path.is_dir() else path.parent
    with_words = any((folder / name).is_file() for name in preparation.VOCABULARIES)
    with replacing_together(target, obsolete=huggingface.weight_files(target)) as staging:
        paligemma.write(staging, Content(kind=kind, config=checkpoint.config, tensors=tensors))
        if with_words:
            processor = load_processing(PaliGemmaProcessor, path)
            preparation.write_image_settings(staging, processor.image_processor.settings)
            preparation.mark_paligemma(staging, processor.num_patches)
            preparation.write_tokenizer(staging, processor.tokenizer)
    return target


def _check_destination(folder: Path, to: str, overwrite: bool) -> None:
    if folder.is_file() or folder.suffix in (".npz", ".safetensors", ".bin"):
        raise CheckpointError(f"{folder} must be a folder, since several files are written; give a folder's name")
    for name, layout in LAYOUTS.items():
        if name != to and folder.is_dir() and layout.holds(folder):
            raise CheckpointError(
                f"{folder} already holds a checkpoint in the layout {name}, and two in one folder would be mistaken "
                "for each other; give another folder"
            )
    if folder.is_dir() and LAYOUTS[to].holds(folder) and not overwrite:
        raise CheckpointError(
            f"{folder} already holds a model; give another folder, or replace it with --overwrite (overwrite=True)"
        )
