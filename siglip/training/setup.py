"""ModelSpec -> what tasks build their models of: a checkpoint's model, a processor, and which parameters learn."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from torch import nn

from siglip.config import ImageSettings, SiglipConfig
from siglip.config_paligemma import PaliGemmaConfig
from siglip.errors import ConfigError
from siglip.model import SiglipForImageClassification, SiglipModel, SiglipTextModel, SiglipVisionModel
from siglip.model.decoder import GemmaDecoder
from siglip.processing import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from siglip.training.config import ModelSpec, TrainConfig

Model = TypeVar("Model", SiglipModel, SiglipForImageClassification)

_VOCABULARIES = (".model", ".json")


def from_checkpoint(
    kind: type[Model], spec: ModelSpec, labels: Sequence[str] | None = None
) -> tuple[Model, SiglipProcessor]:
    """The model of `spec.source` at the image size asked for, with its processor; `labels` name a fresh head's."""
    assert spec.source is not None
    processor = SiglipProcessor.from_pretrained(spec.source)
    model = kind.from_pretrained(
        spec.source, image_size=spec.image_size, labels=None if labels is None else list(labels)
    )
    settings = dataclasses.replace(processor.image_processor.settings, image_size=model.config.vision_config.image_size)
    return model, SiglipProcessor(SiglipImageProcessor(settings), processor.tokenizer)


def fresh_processor(spec: ModelSpec, shape: SiglipConfig | PaliGemmaConfig) -> SiglipProcessor:
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


def take_image_tower(fresh: SiglipVisionModel, spec: ModelSpec) -> None:
    """Give a fresh tower the weights of `spec.image_tower`, if that names one; without its head where it has none.

    Raises ConfigError if the two are not of one shape.
    """
    if spec.image_tower is None:
        return
    wanted = fresh.config
    tower = SiglipVisionModel.from_pretrained(spec.image_tower, image_size=wanted.image_size)
    headless = dataclasses.replace(tower.config, vision_use_head=False)
    if wanted not in (tower.config, headless):
        raise ConfigError(f"model.config.vision_config must be that of model.image_tower, {tower.config}, got {wanted}")
    weights = tower.state_dict().items()
    fresh.load_state_dict(
        {name: value for name, value in weights if wanted.vision_use_head or not name.startswith("head.")}
    )


def check_vocabulary(processor: SiglipProcessor, config: SiglipConfig) -> None:
    """Raise ConfigError if the vocabulary has more pieces than the text tower has rows."""
    pieces, rows = processor.tokenizer.vocab_size, config.text_config.vocab_size
    if pieces > rows:
        raise ConfigError(
            f"the vocabulary has {pieces} pieces, the text tower room for {rows}; "
            "set model.config.text_config.vocab_size to at least as many"
        )


def choose_trainable(
    model: nn.Module, towers: Sequence[SiglipVisionModel | SiglipTextModel | GemmaDecoder], config: TrainConfig
) -> None:
    """Set `requires_grad` as `config.trainable` says; what is in none of the towers learns, but beside a decoder."""
    model.requires_grad_(config.trainable not in ("decoder", "lora"))
    for tower in towers:
        is_image = isinstance(tower, SiglipVisionModel)
        tower.requires_grad_(config.trainable == "all" or (config.trainable in ("text", "decoder") and not is_image))
        head = None if isinstance(tower, GemmaDecoder) else tower.head
        if config.trainable in ("head", "last-blocks") and head is not None:
            head.requires_grad_(True)
        if config.trainable == "last-blocks":
            if isinstance(tower, GemmaDecoder):
                layers, last_norm = tower.layers, tower.norm
            else:
                layers = tower.encoder.layers
                last_norm = tower.post_layernorm if isinstance(tower, SiglipVisionModel) else tower.final_layer_norm
            for part in (*layers[-config.num_blocks :], last_norm):
                part.requires_grad_(True)
