"""A run's configuration is checked when made, changed by text, and read back equal."""

import re

import pytest

from siglip.config import SiglipConfig
from siglip.data import Augment, Columns
from siglip.errors import ConfigError
from siglip.training.config import DataSpec, ModelSpec, OptimizerSpec, TrainConfig
from tests.conftest import ROOT


def base() -> TrainConfig:
    return TrainConfig(model=ModelSpec(source="nano"), data=DataSpec(train="data"))


def test_a_configuration_survives_its_own_json(tiny_config: SiglipConfig) -> None:
    config = TrainConfig(
        model=ModelSpec(config=tiny_config, preparation="nano", initial_bias=-5.5),
        data=DataSpec(train="a", held_out="b", augment=Augment(crop_area=0.5, flip=0.5)),
        optimizer=OptimizerSpec(name="lion", clip_norm=None),
    )
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"steps": 5}', "TrainConfig needs a value for model and for data"),
        ('{"model": {"source": "nano"}, "data": {}}', "DataSpec needs a value for train"),
        ("[5]", "must be one JSON object, got \\[5\\]"),
        ("steps: 5", "is not JSON .*it begins with 'steps: 5'"),
    ],
)
def test_json_that_is_no_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_json(text)


def test_values_are_set_by_their_path() -> None:
    config = base().with_overrides(
        {
            "optimizer.lr": "3e-4",
            "optimizer.name": "lion",
            "optimizer.clip_norm": "none",
            "data.augment.flip": "0.5",
            "data.held_out": "other/place",
            "data.columns.image": "URL",
            "data.columns.caption": "1",
            "steps": "20",
            "compile": "true",
            "ema": "0.99",
        }
    )
    assert config.optimizer == OptimizerSpec(lr=3e-4, name="lion", clip_norm=None)
    assert config.data == DataSpec(
        train="data", held_out="other/place", columns=Columns(image="URL", caption="1"), augment=Augment(flip=0.5)
    )
    assert (config.steps, config.compile, config.ema) == (20, True, 0.99)


def test_a_fresh_models_shape_can_be_set_too(tiny_config: SiglipConfig) -> None:
    config = TrainConfig(model=ModelSpec(config=tiny_config, preparation="nano"), data=DataSpec(train="x"))
    changed = config.with_overrides({"model.config.vision_config.num_hidden_layers": "1"})
    assert changed.model.config is not None
    assert changed.model.config.vision_config.num_hidden_layers == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimizer.lrr", "1", "did you mean 'lr'"),
        ("optimiser.lr", "1", "no key 'optimiser.lr'; did you mean 'optimizer.lr'"),
        ("lr", "1", "no key 'lr'; did you mean 'optimizer.lr'"),
        ("flip", "1", "did you mean 'data.augment.flip'"),
        ("steps", "many", "steps must be a whole number, got 'many'"),
        ("steps", "1.5", "steps must be a whole number"),
        ("steps.more", "1", "has no parts"),
        ("optimizer.name", "sgd", "optimizer.name"),
        ("data.augment.flip", "2", "from 0 to 1"),
        ("steps", "0", "at least 1"),
        ("optimizer.warmup_steps", "5000", "less than steps"),
    ],
)
def test_a_wrong_assignment_is_refused(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        base().with_overrides({key: value})


def test_a_model_comes_from_one_place() -> None:
    with pytest.raises(ConfigError, match="either source"):
        ModelSpec()
    with pytest.raises(ConfigError, match=r"model\.preparation"):
        ModelSpec(config=SiglipConfig())


def test_values_of_another_type_are_refused_when_a_configuration_is_made() -> None:
    refused: list[tuple[type, dict[str, object], str]] = [
        (TrainConfig, {"batch_size": 2.5}, "TrainConfig.batch_size must be a whole number, got 2.5"),
        (TrainConfig, {"compile": "no"}, "TrainConfig.compile must be true or false, got 'no'"),
        (TrainConfig, {"steps": "1000"}, "TrainConfig.steps must be a whole number, got '1000'"),
        (TrainConfig, {"steps": True}, "TrainConfig.steps must be a whole number, got True"),
        (TrainConfig, {"optimiser": OptimizerSpec()}, "TrainConfig has no key 'optimiser'; did you mean 'optimizer'"),
        (OptimizerSpec, {"lr": float("nan")}, "OptimizerSpec.lr must be a finite number, got nan"),
        (OptimizerSpec, {"clip_norm": "1"}, "OptimizerSpec.clip_norm must be a finite number or none, got '1'"),
        (OptimizerSpec, {"name": "sgd"}, "OptimizerSpec.name must be 'adamw', 'adafactor' or 'lion', got 'sgd'"),
        (DataSpec, {"train": 3}, "DataSpec.train must be a text, got 3"),
        (Augment, {"flip": True}, "Augment.flip must be a finite number, got True"),
        (Columns, {"image": 1}, "Columns.image must be a text or none, got 1"),
        (ModelSpec, {"source": "nano", "classifier_start": "random"}, "classifier_start must be 'zeros' or 'probe'"),
    ]
    needed: dict[type, dict[str, object]] = {TrainConfig: {"model": base().model, "data": base().data}}
    for kind, values, message in refused:
        with pytest.raises(ConfigError, match=message):
            kind(**needed.get(kind, {}), **values)
    assert OptimizerSpec(lr=1).lr == 1


def test_the_docs_list_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", (ROOT / "docs" / "training.md").read_text(), re.MULTILINE)
    documented = {key: default.strip("`") for key, default in rows}
    assert len(rows) == len(documented)
    expected = {key: "none" if value is None else str(value).lower() for key, value in base().flat().items()}
    # what has no default, and what holds a whole configuration of its own
    expected |= {"data.train": "needed", "model.source": "none"}
    assert documented == expected
