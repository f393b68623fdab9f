"""ModelSpec -> the model a run trains and how it prepares its input; which parameters learn."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from siglip.config import ImageSettings, SiglipConfig, TextSettings
from siglip.errors import ConfigError
from siglip.model import SiglipForImageClassification, SiglipModel
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from siglip.training.config import ModelSpec, TrainConfig

Model = SiglipModel | SiglipForImageClassification

_VOCABULARIES = (".model", ".json")


def build(config: TrainConfig, *, labels: Sequence[str] = ()) -> tuple[Model, SiglipProcessor]:
    """The model in float32 with its processor; `labels` are a classifier's classes.

    Fresh weights come from `config.seed`. Raises ConfigError if vocabulary and model do not fit.
    """
    spec = config.model
    if spec.source is not None:
        model, processor = _from_checkpoint(spec, spec.source, config.task, labels)
    else:
        assert spec.config is not None
        model = _fresh(spec.config, config, labels)
        processor = fresh_processor(spec, spec.config)
    if spec.initial_bias is not None and isinstance(model, SiglipModel):
        nn.init.constant_(model.logit_bias, spec.initial_bias)
    pieces, rows = processor.tokenizer.vocab_size, model.config.text_config.vocab_size
    if pieces > rows:
        raise ConfigError(
            f"the vocabulary has {pieces} pieces, the text tower room for {rows}; "
            "set model.config.text_config.vocab_size to at least as many"
        )
    return model, processor


def fresh_processor(spec: ModelSpec, shape: SiglipConfig) -> SiglipProcessor:
    """The vocabulary of `spec.preparation`, with the sizes of the new model."""
    assert spec.preparation is not None
    path = Path(spec.preparation)
    image = ImageSettings(image_size=shape.vision_config.image_size)
    if path.is_file() and path.suffix in _VOCABULARIES:
        vocabulary, settings = path, SiglipTokenizer(path).settings
    else:
        source = SiglipProcessor.from_pretrained(spec.preparation)
        vocabulary, settings = source.tokenizer.vocab_file, source.tokenizer.settings
        image = dataclasses.replace(source.image_processor.settings, image_size=image.image_size)
    text = TextSettings(
        context_length=shape.text_config.max_position_embeddings,
        clean=spec.clean if spec.clean is not None else settings.clean,
    )
    return SiglipProcessor(SiglipImageProcessor(image), SiglipTokenizer(vocabulary, text))


def choose_trainable(model: Model, config: TrainConfig) -> None:
    """Set `requires_grad` as `config.trainable` says; t and b always learn."""
    model.requires_grad_(config.trainable == "all")
    for tower in (getattr(model, "vision_model", None), getattr(model, "text_model", None)):
        if tower is None:
            continue
        if config.trainable == "text":
            tower.requires_grad_(tower is getattr(model, "text_model", None))
        if config.trainable in ("head", "last-blocks") and tower.head is not None:
            tower.head.requires_grad_(True)
        if config.trainable == "last-blocks":
            for layer in tower.encoder.layers[-config.num_blocks :]:
                layer.requires_grad_(True)
            last_norm = tower.post_layernorm if hasattr(tower, "post_layernorm") else tower.final_layer_norm
            last_norm.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if name in ("logit_scale", "logit_bias") or name.startswith("classifier."):
            parameter.requires_grad_(True)


def _from_checkpoint(spec: ModelSpec, source: str, task: str, labels: Sequence[str]) -> tuple[Model, SiglipProcessor]:
    processor = SiglipProcessor.from_pretrained(source)
    if task == "classification":
        model: Model = SiglipForImageClassification.from_pretrained(
            source, image_size=spec.image_size, labels=list(labels)
        )
    else:
        model = SiglipModel.from_pretrained(source, image_size=spec.image_size)
    settings = dataclasses.replace(processor.image_processor.settings, image_size=model.config.vision_config.image_size)
    return model, SiglipProcessor(SiglipImageProcessor(settings), processor.tokenizer)


def _fresh(shape: SiglipConfig, config: TrainConfig, labels: Sequence[str]) -> Model:
    generator = torch.Generator().manual_seed(config.seed)
    if config.task == "classification":
        return SiglipForImageClassification(shape.with_labels(list(labels)), generator=generator)
    return SiglipModel(shape, generator=generator)
