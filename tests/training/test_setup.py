"""What a recipe says of the model is the model that trains, and what learns is what it says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from siglip.config import SiglipTextConfig
from siglip.errors import ConfigError
from siglip.model import SiglipForImageClassification, SiglipModel
from siglip.processing import SiglipProcessor
from siglip.training import DataSpec, ModelSpec, TrainConfig
from siglip.training.tasks import build
from tests.conftest import ROOT
from tests.training.conftest import small_run, small_towers

DATA = DataSpec(train="not opened")


def learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def fresh(**changes: Any) -> nn.Module:
    return build(replace(small_run(Path("not opened")), **changes))[0]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Small towers with weights of another seed."""
    model, processor = build(replace(small_run(Path("not opened")), seed=9))
    model.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_everything_learns_by_default() -> None:
    model = fresh()
    assert learning(model) == {name for name, _ in model.named_parameters()}


def test_with_text_only_the_image_tower_is_locked() -> None:
    model = fresh(trainable="text")
    names = {name for name, _ in model.named_parameters()}
    assert learning(model) == {name for name in names if not name.startswith("vision_model.")}


def test_with_heads_only_pooling_projection_t_and_b_learn() -> None:
    names = learning(fresh(trainable="head"))
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in names if "." in name} == {
        "vision_model.head",
        "text_model.head",
    }
    assert {"logit_scale", "logit_bias", "vision_model.head.probe", "text_model.head.weight"} <= names


def test_with_last_blocks_so_many_layers_and_what_follows_them_learn() -> None:
    names = learning(fresh(trainable="last-blocks", num_blocks=1))
    assert "vision_model.encoder.layers.1.mlp.fc1.weight" in names
    assert not [name for name in names if name.startswith("vision_model.encoder.layers.0.")]
    assert {"vision_model.post_layernorm.weight", "text_model.final_layer_norm.bias", "logit_bias"} <= names
    assert not [name for name in names if ".embeddings." in name]


def test_a_classifiers_layer_learns_with_its_tower_locked(checkpoint: Path) -> None:
    spec = ModelSpec(source=str(checkpoint))
    config = TrainConfig(model=spec, data=DATA, task="classification", trainable="head")
    model, _ = build(config, labels=["cat", "dog", "pig"])
    assert isinstance(model, SiglipForImageClassification)
    assert learning(model) == {"classifier.weight", "classifier.bias"}
    assert model.config.label2id == {"cat": 0, "dog": 1, "pig": 2}


def test_fresh_weights_come_from_the_seed_and_b_from_the_recipe() -> None:
    one, same, other = fresh(), fresh(), fresh(seed=1)
    assert torch.equal(one.vision_model.head.probe, same.vision_model.head.probe)
    assert not torch.equal(one.vision_model.head.probe, other.vision_model.head.probe)
    assert isinstance(one, SiglipModel)
    assert one.logit_bias.item() == -2.0


def test_a_checkpoint_is_continued_at_another_resolution(checkpoint: Path) -> None:
    model, processor = build(TrainConfig(model=ModelSpec(source=str(checkpoint), image_size=16), data=DATA))
    before = SiglipModel.from_pretrained(checkpoint)
    assert model.config.vision_config.num_patches == 16
    assert processor.image_processor.settings.image_size == 16
    positions, old = (m.vision_model.embeddings.position_embedding.weight.detach() for m in (model, before))
    # corners stay where they are
    assert torch.equal(positions[[0, 3, 12, 15]], old)
    assert torch.equal(model.vision_model.head.probe, before.vision_model.head.probe)


def test_a_fresh_text_tower_joins_the_image_tower_of_a_checkpoint(checkpoint: Path) -> None:
    towers = replace(small_towers(), text_config=replace(small_towers().text_config, num_hidden_layers=3))
    spec = ModelSpec(config=towers, preparation=str(checkpoint), image_tower=str(checkpoint))
    model, _ = build(TrainConfig(model=spec, data=DATA))
    before = SiglipModel.from_pretrained(checkpoint)
    for name, value in before.vision_model.state_dict().items():
        assert torch.equal(model.vision_model.state_dict()[name], value), name
    assert isinstance(model, SiglipModel)
    assert not torch.equal(model.text_model.head.weight, before.text_model.head.weight)


def test_an_image_tower_of_another_shape_is_refused(checkpoint: Path) -> None:
    towers = replace(small_towers(), vision_config=replace(small_towers().vision_config, num_hidden_layers=1))
    spec = ModelSpec(config=towers, preparation="nano", image_tower=str(checkpoint))
    with pytest.raises(ConfigError, match=r"must be that of model\.image_tower"):
        build(TrainConfig(model=spec, data=DATA))


def test_a_fresh_model_prepares_input_as_told(checkpoint: Path) -> None:
    vocabulary = ROOT / "siglip" / "assets" / "nano" / "spiece.model"
    spec = ModelSpec(config=small_towers(), preparation=str(vocabulary), clean="lower")
    _, processor = build(TrainConfig(model=spec, data=DATA))
    assert processor.tokenizer.settings.clean == "lower"
    assert processor.tokenizer.settings.context_length == 4
    assert processor.image_processor.settings.image_size == 8
    text = ["Red, Green!"]
    theirs = SiglipProcessor.from_pretrained(checkpoint)(text=text, return_tensors="pt").input_ids
    assert theirs.shape == (1, 4)


def test_a_vocabulary_larger_than_the_text_tower_is_refused() -> None:
    text = SiglipTextConfig(
        vocab_size=100, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    spec = ModelSpec(config=replace(small_towers(), text_config=text), preparation="nano")
    with pytest.raises(ConfigError, match="8000 pieces, the text tower room for 100"):
        build(TrainConfig(model=spec, data=DATA))
