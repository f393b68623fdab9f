"""Every value that cannot be, in every configuration there is, is one ConfigError that names it, however it comes."""

import dataclasses
import inspect
import json
import math
import re
import typing
from typing import Any, Literal

import pytest

from siglip import SiglipImageProcessor, SiglipProcessor, SiglipTokenizer
from siglip.checkpoints import resolve
from siglip.config import ImageSettings, SiglipConfig, SiglipTextConfig, SiglipVisionConfig, TextSettings
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.data import Augment, Columns
from siglip.data.batch import LoaderSettings
from siglip.errors import ConfigError, clip
from siglip.fields import annotations, options
from siglip.processing import PaliGemmaProcessor
from siglip.server.engine import Limits
from siglip.training.config import DataSpec, LoraSpec, ModelSpec, OptimizerSpec, TrainConfig

NEEDED: dict[type, dict[str, Any]] = {
    ModelSpec: {"source": "nano"},
    DataSpec: {"train": "pictures"},
    TrainConfig: {"model": ModelSpec(source="nano"), "data": DataSpec(train="pictures")},
}
KINDS: list[Any] = [
    *(SiglipTextConfig, SiglipVisionConfig, SiglipConfig, GemmaConfig, PaliGemmaConfig, ImageSettings, TextSettings),
    *(ModelSpec, DataSpec, OptimizerSpec, LoraSpec, TrainConfig, Augment, Columns, LoaderSettings, Limits),
]
FIELDS = [(kind, name) for kind in KINDS for name in annotations(kind)]
# numbers that may be 0, and the one that may be anything
MAY_BE_ZERO = {
    *("attention_dropout", "dropout", "pad_token_id", "eos_token_id", "image_token_index", "workers", "max_broken"),
    *("beta1", "beta2", "weight_decay", "image_weight_decay", "text_weight_decay", "warmup_steps", "seed"),
    *("image_lr_multiplier", "text_lr_multiplier", "logit_lr_multiplier", "label_smoothing", "initial_bias"),
    *("flip", "recolour", "randaugment", "strength", "patch_dropout"),
}


def as_users_have_it(method: Any) -> Any:
    """A method without the checks of the tests, which look at types before our code does."""
    return inspect.unwrap(getattr(method, "__func__", method))


def made(kind: Any, *parts: Any) -> Any:
    fresh = kind.__new__(kind)
    as_users_have_it(kind.__init__)(fresh, *parts)
    return fresh


def wrong(kind: Any, name: str) -> list[Any]:
    """Values of another type, and numbers out of bounds."""
    members = options(annotations(kind)[name])
    values: list[Any] = [object, b"3", [b"3"], {"no such": object}]
    if int in members:
        values += [2.5, 1.0, True, "3", math.nan, math.inf, -1, 2**63]
    if float in members:
        values += [True, "3", math.nan, -math.inf, *([] if name == "initial_bias" else [-1, -0.5])]
    if {int, float} & {*members} and name not in MAY_BE_ZERO:
        values.append(0)
    if bool in members:
        values += [0, 1.0, "true", math.nan]
    if str in members or any(typing.get_origin(member) is Literal for member in members):
        values += [3, True, math.nan]
    if any(dataclasses.is_dataclass(member) for member in members):
        values += [3, "nano", True]
    if type(None) not in members:
        values.append(None)
    return values


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_a_wrong_value_is_refused_with_its_name(kind: Any, name: str) -> None:
    for value in wrong(kind, name):
        with pytest.raises(ConfigError) as caught:
            kind(**{**NEEDED.get(kind, {}), name: value})
        said = str(caught.value)
        assert said.startswith(f"{kind.__name__}.{name} must be "), said
        assert f", got {clip(repr(value))}" in said and len(said) < 400


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_unknown_key_and_a_value_without_a_name_are_refused(kind: Any) -> None:
    name = next(iter(annotations(kind)))
    with pytest.raises(ConfigError, match=f"{kind.__name__} has no key '{name}x'; did you mean '{name}'"):
        kind(**NEEDED.get(kind, {}), **{f"{name}x": 3})
    with pytest.raises(ConfigError, match=rf"{kind.__name__} takes every value by name, as {kind.__name__}\({name}="):
        kind(3)


READ: list[Any] = [SiglipTextConfig, SiglipVisionConfig, SiglipConfig, GemmaConfig, PaliGemmaConfig]


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [3, "nano", [1], True, None], ids=repr)
def test_what_is_no_dictionary_is_no_configuration(kind: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be a dictionary, got "):
        as_users_have_it(kind.from_dict)(kind, value)


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.__name__)
def test_wrong_values_of_a_file_are_refused(kind: Any) -> None:
    base = {"model_type": "paligemma"} if kind is PaliGemmaConfig else {}
    for name in annotations(kind):
        for value in wrong(kind, name):
            # null, and a dictionary of keys that nobody knows, are what published files hold
            if value is None or isinstance(value, dict):
                continue
            with pytest.raises(ConfigError, match=name):
                kind.from_dict({**base, name: value})
    for value in (3, True, ["siglip"], {"siglip": 1}, "clip"):
        with pytest.raises(ConfigError, match=r"model_type is .*, expected"):
            kind.from_dict({"model_type": value})


def test_labels_have_numbers() -> None:
    with pytest.raises(ConfigError, match=r"config\.json: id2label must have whole numbers as keys, got \['a'\]"):
        SiglipConfig.from_dict({"id2label": {"a": "cat"}})
    run = TrainConfig(model=ModelSpec(config=SiglipConfig(), preparation="nano"), data=DataSpec(train="pictures"))
    values = json.loads(run.to_json())
    values["model"]["config"]["id2label"] = {"a": "cat"}
    with pytest.raises(ConfigError, match=r"config\.model\.config\.id2label must have whole numbers as keys"):
        TrainConfig.from_json(json.dumps(values))
    for labels in ("cat", None, 3):
        with pytest.raises(ConfigError, match="labels must be a list of class names, got "):
            as_users_have_it(SiglipConfig.with_labels)(SiglipConfig(), labels)


def test_wrong_values_of_a_saved_run_are_refused() -> None:
    run = TrainConfig(**NEEDED[TrainConfig])
    values = json.loads(run.to_json())
    for name in annotations(TrainConfig):
        for value in (value for value in wrong(TrainConfig, name) if isinstance(value, int | float | str | None)):
            with pytest.raises(ConfigError, match=f"TrainConfig.{name} must be "):
                TrainConfig.from_json(json.dumps({**values, name: value}))
    with pytest.raises(ConfigError, match="no key 'stepz'; did you mean 'steps'"):
        TrainConfig.from_json(json.dumps({**values, "stepz": 3}))


@pytest.mark.parametrize("text", ["nan", "1e999", "-1", "2.5", "'3'", "x", "[1]", "{}", ""])
def test_a_wrong_value_on_the_command_line_is_refused(text: str) -> None:
    run = TrainConfig(**NEEDED[TrainConfig])
    whole = [f"optimizer.{name}" for name in ("warmup_steps",)]
    whole += ["steps", "batch_size", "micro_batch_size", "num_blocks", "seed", "data.workers", "lora.rank", "keep"]
    for path in whole:
        with pytest.raises(ConfigError, match=rf"{path.split('.')[-1]} must be .*, got "):
            run.with_overrides({path: text})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (SiglipTextConfig, {"hidden_size": 100, "num_attention_heads": 12}, r"\(100\) must be a multiple of"),
        (
            SiglipVisionConfig,
            {"image_size": 8, "patch_size": 16},
            r"\(16\) must be at most image_size \(8\)",
        ),
        (
            GemmaConfig,
            {"num_attention_heads": 8, "num_key_value_heads": 3},
            r"\(8\) must be a multiple of",
        ),
        (GemmaConfig, {"head_dim": 33}, r"head_dim \(33\) even"),
        (
            PaliGemmaConfig,
            {"text_config": GemmaConfig(vocab_size=9), "eos_token_id": 9},
            "and below 9, got 9",
        ),
        (
            PaliGemmaConfig,
            {"image_token_index": 1},
            r"must differ from pad_token_id \(0\)",
        ),
        (
            TrainConfig,
            {"num_blocks": 2},
            "num_blocks=2 has no effect with trainable='all'; set",
        ),
        (
            TrainConfig,
            {"lora": LoraSpec(rank=4)},
            "lora.rank=4 has no effect with trainable='all'",
        ),
        (TrainConfig, {"label_smoothing": 0.1}, "label_smoothing=0.1 has no effect with task='contrastive'"),
        (
            TrainConfig,
            {"patch_dropout": 0.5, "task": "classification"},
            "patch_dropout=0.5 has no effect with task='classification'",
        ),
        (TrainConfig, {"patch_dropout": 0.5, "trainable": "text"}, "patch_dropout has no effect with trainable='text'"),
        (TrainConfig, {"patch_dropout": 1.0}, "patch_dropout must be at least 0 and below 1, got 1.0"),
        (
            TrainConfig,
            {"data": DataSpec(train="pictures", prefix="say")},
            "data.prefix='say' has no effect with task='contrastive'; set task='generation', or leave it out",
        ),
        (
            TrainConfig,
            {"task": "classification", "data": DataSpec(train="pictures", positives="equal")},
            "data.positives='equal' has no effect with task='classification'",
        ),
        (
            TrainConfig,
            {"model": ModelSpec(source="nano", classifier_start="probe")},
            "model.classifier_start='probe' has no effect with task='contrastive'",
        ),
        (
            TrainConfig,
            {"task": "generation", "model": ModelSpec(source="nano", initial_bias=-1.0)},
            "model.initial_bias=-1.0 has no effect with task='generation'",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**{**NEEDED.get(kind, {}), **values})


def test_a_dictionary_in_place_of_a_configuration_is_told_how_to_be_read() -> None:
    with pytest.raises(ConfigError, match=r"must be a SiglipTextConfig, got .*; SiglipTextConfig\.from_dict"):
        SiglipConfig(text_config={"hidden_size": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"must be a ModelSpec, got .*; give ModelSpec\(\*\*values\)"):
        TrainConfig(model={"source": "nano"}, data=DataSpec(train="x"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="TrainConfig needs a value for model and for data"):
        TrainConfig()  # pyright: ignore[reportCallIssue]


def test_processors_are_made_of_their_parts_and_of_nothing_else() -> None:
    vocabulary = resolve("nano") / "spiece.model"
    images, texts = SiglipImageProcessor(), SiglipTokenizer(vocabulary)
    settings = {"image_size": 3}
    makers: list[tuple[Any, str]] = [
        (
            lambda: made(SiglipImageProcessor, settings),
            "SiglipImageProcessor.settings must be an ImageSettings, got {",
        ),
        (
            lambda: made(SiglipTokenizer, vocabulary, settings),
            "SiglipTokenizer.settings must be a TextSettings, got {",
        ),
        (
            lambda: made(SiglipProcessor, texts, images),
            "SiglipProcessor.image_processor must be a Siglip",
        ),
        (lambda: made(SiglipProcessor, images, images), "SiglipProcessor.tokenizer must be a SiglipTokenizer"),
        (lambda: made(PaliGemmaProcessor, texts, texts, 4), "PaliGemmaProcessor.image_processor must be a Siglip"),
        (lambda: made(PaliGemmaProcessor, images, images, 4), "PaliGemmaProcessor.tokenizer must be a SiglipTokenizer"),
    ]
    for make, message in makers:
        with pytest.raises(ConfigError, match=re.escape(message)):
            make()
    counts: list[Any] = [0, -1, 2.5, "4", True, None]
    for count in counts:
        with pytest.raises(ConfigError, match=rf"num_patches must be .*, got {count!r}"):
            made(PaliGemmaProcessor, images, texts, count)
