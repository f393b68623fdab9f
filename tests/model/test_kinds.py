"""One row says what a model is: the table knows every public class, and a new row is all that files need."""

from pathlib import Path

import pytest
import torch
from torch import nn

import siglip
from siglip import (
    GemmaConfig,
    PaliGemmaConfig,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipModel,
    SiglipTextModel,
    SiglipVisionModel,
)
from siglip.checkpoints import fingerprint, load_model, save_model
from siglip.errors import ConfigError
from siglip.model import KINDS, Kind, kind_of, kinds
from siglip.pretrained import PretrainedModel


def test_every_public_model_class_has_one_row() -> None:
    public = {value for name in siglip.__all__ if isinstance(value := getattr(siglip, name), type)}
    models = {value for value in public if issubclass(value, nn.Module)}
    assert models == {kind.model for kind in KINDS}
    assert len(KINDS) == len(models)


def test_rows_say_what_the_classes_are_made_of(tiny_config: SiglipConfig) -> None:
    for kind in KINDS:
        if kind.writes_text:
            assert (kind.towers, kind.alone, kind.has_classes) == (("vision",), False, False)
            continue
        with torch.device("meta"):
            model = kind.model(kind.own_config(tiny_config))
        parts = {name.partition("_model.")[0] for name, _ in model.named_children() if name.endswith("_model")}
        if kind.alone:
            assert (parts, model.config) == (set(), getattr(tiny_config, f"{kind.towers[0]}_config"))
        else:
            assert {part.removesuffix("_model") for part in parts} == set(kind.towers)
        assert hasattr(model, "classifier") == kind.has_classes
        assert kind_of(model) is kind_of(kind.model) is kind


def test_subclasses_are_of_their_parents_kind_and_others_of_none() -> None:
    class Mine(SiglipTextModel):
        pass

    assert kind_of(Mine).model is SiglipTextModel
    with pytest.raises(ConfigError, match="Linear is not a model class of this package; expected SiglipModel, "):
        kind_of(nn.Linear(1, 1))


def test_prefixes_are_those_of_the_published_names(tiny_model: SiglipModel) -> None:
    names = set(tiny_model.state_dict())
    for model in (tiny_model.text_model, tiny_model.vision_model):
        assert {kind_of(model).prefix + name for name in model.state_dict()} < names
    classifier = kind_of(SiglipForImageClassification)
    known = {name for name in names if classifier.knows(name)}
    with torch.device("meta"):
        own = set(SiglipForImageClassification(tiny_model.config).state_dict())
    assert known == own - {"classifier.weight", "classifier.bias"}


def test_a_new_kind_is_saved_loaded_and_told_apart_by_its_row_alone(
    monkeypatch: pytest.MonkeyPatch, tiny_model: SiglipModel, tmp_path: Path
) -> None:
    class Aesthetics(nn.Module, PretrainedModel):
        """An image tower and a number for how pleasing the picture is."""

        def __init__(self, config: SiglipConfig) -> None:
            super().__init__()
            self.config = config
            self.vision_model = SiglipVisionModel(config.vision_config)
            self.score = nn.Linear(config.vision_config.hidden_size, 1)

    monkeypatch.setattr(kinds, "KINDS", (*KINDS, Kind(model=Aesthetics, towers=("vision",))))
    model = Aesthetics(tiny_model.config)
    save_model(model, tmp_path)
    again = load_model(Aesthetics, tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert fingerprint(again) == fingerprint(model) != fingerprint(tiny_model)
    assert '"Aesthetics"' in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_making_a_model_with_a_generator_leaves_the_global_random_state_alone(
    kind: Kind, tiny_config: SiglipConfig
) -> None:
    small = GemmaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, head_dim=2)
    writer = PaliGemmaConfig(vision_config=tiny_config.vision_config, text_config=small)
    before = torch.get_rng_state()
    kind.model(writer if kind.writes_text else kind.own_config(tiny_config), generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), before)
