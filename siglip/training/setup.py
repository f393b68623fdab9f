"""ModelSpec -> the model a run trains and how it prepares its input; which parameters learn."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from siglip.config import ImageSettings, SiglipConfig
from siglip.errors import ConfigError, DataError
from siglip.model import SiglipForImageClassification, SiglipModel, SiglipVisionModel
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from siglip.training.config import ModelSpec, TrainConfig

Model = SiglipModel | SiglipForImageClassification

_VOCABULARIES = (".model", ".json")


def build(config: TrainConfig, *, labels: Sequence[str] = ()) -> tuple[Model, SiglipProcessor]:
    """The model in float32 with its processor; `labels` are a classifier's classes. `requires_grad` says what learns.

    Fresh weights come from `config.seed`. Raises ConfigError if vocabulary and model do not fit, DataError for a
    classifier without classes.
    """
    if config.task == "classification" and not labels:
        raise DataError(
            f"{config.data.train} has no classes to learn; give a folder with one folder of pictures for each class, "
            "or shards with class numbers and a classnames.txt"
        )
    spec = config.model
    if spec.source is not None:
        model, processor = _from_checkpoint(spec, spec.source, config.task, labels)
    else:
        assert spec.config is not None
        model = _fresh(spec.config, config, labels)
        processor = _fresh_processor(spec, spec.config)
    if spec.initial_bias is not None and isinstance(model, SiglipModel):
        nn.init.constant_(model.logit_bias, spec.initial_bias)
    pieces, rows = processor.tokenizer.vocab_size, model.config.text_config.vocab_size
    if pieces > rows:
        raise ConfigError(
            f"the vocabulary has {pieces} pieces, the text tower room for {rows}; "
            "set model.config.text_config.vocab_size to at least as many"
        )
    _choose_trainable(model, config)
    return model, processor


def _choose_trainable(model: Model, config: TrainConfig) -> None:
    """Set `requires_grad` as `config.trainable` says; t, b and a classifier's layer always learn."""
    model.requires_grad_(config.trainable == "all")
    for tower in (model.vision_model, *([model.text_model] if isinstance(model, SiglipModel) else [])):
        if config.trainable == "text":
            tower.requires_grad_(not isinstance(tower, SiglipVisionModel))
        if config.trainable in ("head", "last-blocks") and tower.head is not None:
            tower.head.requires_grad_(True)
        if config.trainable == "last-blocks":
            for layer in tower.encoder.layers[-config.num_blocks :]:
                layer.requires_grad_(True)
            norm = tower.post_layernorm if isinstance(tower, SiglipVisionModel) else tower.final_layer_norm
            norm.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if name in ("logit_scale", "logit_bias") or name.startswith("classifier."):
            parameter.requires_grad_(True)


def _from_checkpoint(spec: ModelSpec, source: str, task: str, labels: Sequence[str]) -> tuple[Model, SiglipProcessor]:
    processor = SiglipProcessor.from_pretrained(source)
    kind = SiglipForImageClassification if task == "classification" else SiglipModel
    named = list(labels) if task == "classification" else None
    model = kind.from_pretrained(source, image_size=spec.image_size, labels=named)
    settings = dataclasses.replace(processor.image_processor.settings, image_size=model.config.vision_config.image_size)
    return model, SiglipProcessor(SiglipImageProcessor(settings), processor.tokenizer)


def _fresh(shape: SiglipConfig, config: TrainConfig, labels: Sequence[str]) -> Model:
    generator = torch.Generator().manual_seed(config.seed)
    if config.task == "classification":
        return SiglipForImageClassification(shape.with_labels(list(labels)), generator=generator)
    model = SiglipModel(shape, generator=generator)
    if config.model.image_tower is not None:
        size = shape.vision_config.image_size
        tower = SiglipVisionModel.from_pretrained(config.model.image_tower, image_size=size)
        if tower.config != shape.vision_config:
            raise ConfigError(
                f"model.config.vision_config must be that of model.image_tower, {tower.config}, "
                f"got {shape.vision_config}"
            )
        model.vision_model = tower
    return model


def _fresh_processor(spec: ModelSpec, shape: SiglipConfig) -> SiglipProcessor:
    """The vocabulary of `spec.preparation`, with the sizes of the new model."""
    assert spec.preparation is not None
    path = Path(spec.preparation)
    image = ImageSettings()
    if path.is_file() and path.suffix in _VOCABULARIES:
        vocabulary, settings = path, SiglipTokenizer(path).settings
    else:
        source = SiglipProcessor.from_pretrained(spec.preparation)
        vocabulary, settings = source.tokenizer.vocab_file, source.tokenizer.settings
        image = source.image_processor.settings
    text = dataclasses.replace(
        settings,
        context_length=shape.text_config.max_position_embeddings,
        clean=spec.clean if spec.clean is not None else settings.clean,
    )
    image = dataclasses.replace(image, image_size=shape.vision_config.image_size)
    return SiglipProcessor(SiglipImageProcessor(image), SiglipTokenizer(vocabulary, text))
