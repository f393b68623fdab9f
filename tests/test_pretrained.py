"""Keywords of loading: those of existing scripts mean what they say, and all others are refused by name before work."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from siglip import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoProcessor,
    AutoTokenizer,
    Captioner,
    Classifier,
    Embedder,
    SiglipConfig,
    SiglipForImageClassification,
    SiglipModel,
    SiglipProcessor,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    pipeline,
)
from siglip.errors import CheckpointError, ConfigError, InputError, PreparationError, ShapeError, SiglipError

LOADERS: list[Callable[..., Any]] = [
    AutoConfig.from_pretrained,
    AutoImageProcessor.from_pretrained,
    AutoModel.from_pretrained,
    AutoModelForImageClassification.from_pretrained,
    AutoProcessor.from_pretrained,
    AutoTokenizer.from_pretrained,
    Embedder.from_pretrained,
    lambda source, **options: pipeline("image-feature-extraction", source, **options),
]


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load_in_8bit": True}, "has no keyword 'load_in_8bit'; it takes .*revision"),
        ({"revison": "main"}, "has no keyword 'revison'; did you mean 'revision'"),
        ({"trust_remote_code": True}, "trust_remote_code=True, but here it is always False"),
        ({"use_safetensors": False}, "use_safetensors=False, but here it is always True"),
    ],
)
def test_what_nobody_reads_is_refused_before_any_download(
    load: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load("nobody/has-this", **options)


@pytest.mark.parametrize("load", LOADERS)
def test_what_happens_anyway_may_be_said(load: Callable[..., Any]) -> None:
    load("nano", use_safetensors=True, trust_remote_code=False, low_cpu_mem_usage=True, use_fast=False)


@pytest.mark.parametrize(
    ("load", "options", "message"),
    [
        (AutoModel.from_pretrained, {"dtype": "float31"}, "dtype must be one of .*got 'float31'"),
        (AutoModel.from_pretrained, {"device_map": "gpu"}, "device 'gpu' does not exist"),
        (AutoModel.from_pretrained, {"num_labels": 2}, "SiglipModel has no classes"),
        (AutoModelForImageClassification.from_pretrained, {"num_labels": 0}, "num_labels .* at least 1, got 0"),
        (AutoModelForImageClassification.from_pretrained, {"id2label": {"a": "cat"}}, "number the classes .*got 'a'"),
        (Embedder.from_pretrained, {"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        (Embedder.from_pretrained, {"dtype": "float31"}, "dtype 'float31' is not one of"),
        (Classifier.from_pretrained, {"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        (Classifier.from_pretrained, {"dtype": "float31"}, "dtype 'float31' is not one of"),
        (Captioner.from_pretrained, {"batch_size": -1}, "batch_size must be a whole number of at least 1, got -1"),
    ],
)
def test_values_that_cannot_be_are_refused_before_any_download(
    load: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load("nobody/has-this", **options)


def test_a_map_of_devices_is_a_device_where_it_maps_everything_to_one() -> None:
    assert AutoModel.from_pretrained("nano", device_map={"": "cpu"}).device == torch.device("cpu")
    classify = pipeline("zero-shot-image-classification", "nano", device_map="cpu")
    assert classify.embedder.device == torch.device("cpu")
    with pytest.raises(InputError, match="device='cpu' and device_map='auto'; give one"):
        pipeline("zero-shot-image-classification", "nano", device="cpu", device_map="auto")


def test_misspelt_keywords_name_their_neighbour() -> None:
    with pytest.raises(InputError, match=r"SiglipModel.from_pretrained has no keyword 'image_sise'; .* 'image_size'"):
        AutoModel.from_pretrained("nano", image_sise=64)  # pyright: ignore[reportCallIssue]
    make: Any = pipeline
    with pytest.raises(InputError, match="pipeline has no keyword 'bach_size'; did you mean 'batch_size'"):
        make("image-feature-extraction", "nano", bach_size=2)
    with pytest.raises(InputError, match="pipeline has no keyword 'hypothesis_template'"):
        make("zero-shot-image-classification", "nano", hypothesis_template="{}")


def test_torch_dtype_is_dtype() -> None:
    assert AutoModel.from_pretrained("nano", torch_dtype="auto").dtype == torch.float16
    assert AutoModel.from_pretrained("nano", torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    assert Embedder.from_pretrained("nano", torch_dtype=torch.float32).dtype == torch.float32
    assert pipeline("image-feature-extraction", "nano", torch_dtype="float32").embedder.dtype == torch.float32
    load: Any
    for load in (
        AutoModel.from_pretrained,
        Embedder.from_pretrained,
        lambda name, **options: pipeline("image-feature-extraction", name, **options),
    ):
        for first, second in (("float16", "bfloat16"), ("float32", torch.bfloat16)):
            with pytest.raises(InputError, match="mean the same; give one"):
                load("nano", dtype=first, torch_dtype=second)
        load("nano", dtype="float32", torch_dtype=torch.float32)


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"id2label": {1: "dog", 0: "cat"}}, ["cat", "dog"]),
        ({"id2label": {"0": "cat", "1": "dog"}, "label2id": {"dog": 1, "cat": 0}, "num_labels": 2}, ["cat", "dog"]),
        ({"label2id": {"dog": "1", "cat": "0"}, "ignore_mismatched_sizes": True}, ["cat", "dog"]),
    ],
)
def test_classes_of_a_fresh_head_as_existing_scripts_tell_them(options: dict[str, Any], labels: list[str]) -> None:
    model = SiglipForImageClassification.from_pretrained("nano", **options, problem_type="regression")
    assert model.config.id2label == dict(enumerate(labels))
    assert model.classifier.out_features == len(labels)
    assert model.config.problem_type == "regression"


@pytest.mark.parametrize(
    "options",
    [{"num_labels": 3, "id2label": {0: "a"}}, {"id2label": {1: "a", 2: "b"}}, {"labels": ["a"], "label2id": {"b": 0}}],
)
def test_classes_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"different classes|numbered 0, 1, 2"):
        SiglipForImageClassification.from_pretrained("nano", **options)


def test_regression_learns_numbers_by_their_squared_distance(tiny_config: SiglipConfig) -> None:
    config = tiny_config.with_labels(["a", "b"], "regression")
    model = SiglipForImageClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([1.0, 3.0]))
    pixels = torch.zeros(2, 3, 30, 30)
    # a fresh head says its bias: distances 1, 3 and 0, -1
    loss = model(pixels, torch.tensor([[0.0, 0.0], [1.0, 4.0]])).loss
    assert loss is not None
    assert loss.item() == pytest.approx((1 + 9 + 0 + 1) / 4)
    with pytest.raises(ShapeError, match="regression needs one number for each score"):
        model(pixels, torch.tensor([0.0, 1.0]))


def test_a_configuration_is_saved_alone(tmp_path: Path, tiny_config: SiglipConfig) -> None:
    tiny_config.save_pretrained(tmp_path)
    assert SiglipConfig.from_pretrained(tmp_path) == tiny_config
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == tiny_config.model_type == "siglip"


def test_shards_are_as_large_as_existing_scripts_say(tmp_path: Path, tiny_model: SiglipModel) -> None:
    tiny_model.save_pretrained(tmp_path, max_shard_size="100KB")
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1
    for file in files:
        with safe_open(file, "pt") as stored:
            assert sum(4 * stored.get_tensor(name).numel() for name in stored.keys()) <= 100_000  # noqa: SIM118
    with pytest.raises(InputError, match="such as '5GB', got 'large'"):
        tiny_model.save_pretrained(tmp_path, max_shard_size="large")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_shard_sise": "5GB"}, "has no keyword 'max_shard_sise'; did you mean 'max_shard_size'"),
        ({"safe_serialization": False}, "safe_serialization=False, but it writes safetensors, into a folder"),
        ({"push_to_hub": True}, "push_to_hub=True, but it writes safetensors, into a folder"),
        ({"token": "x"}, "has no keyword 'token'; it takes max_shard_bytes, .*push_to_hub"),
    ],
)
def test_saving_refuses_what_it_does_not_do(
    tmp_path: Path, tiny_model: SiglipModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model.save_pretrained(tmp_path, **options)
    assert not [*tmp_path.iterdir()]
    tiny_model.save_pretrained(tmp_path, safe_serialization=True, push_to_hub=False)
    assert (tmp_path / "model.safetensors").is_file()


def test_what_scripts_ask_a_model_and_its_inputs(tiny_model: SiglipModel) -> None:
    assert tiny_model.num_parameters() == sum(weight.numel() for weight in tiny_model.parameters())
    tables = [weight.numel() for name, weight in tiny_model.named_parameters() if name.endswith("_embedding.weight")]
    convolution = tiny_model.vision_model.embeddings.patch_embedding.weight.numel()
    without = tiny_model.num_parameters() - sum(tables) + convolution
    assert tiny_model.num_parameters(exclude_embeddings=True) == without
    tiny_model.text_model.requires_grad_(False)
    assert tiny_model.num_parameters(only_trainable=True) < tiny_model.num_parameters()
    tiny_model.gradient_checkpointing_enable()
    assert tiny_model.text_model.encoder.gradient_checkpointing
    tiny_model.gradient_checkpointing_disable()
    assert not tiny_model.vision_model.encoder.gradient_checkpointing
    assert tiny_model.to(torch.bfloat16).dtype == torch.bfloat16
    processor = AutoProcessor.from_pretrained("nano")
    assert processor.image_processor.size == {"height": 48, "width": 48}
    inputs = processor(text="a cat", images=torch.zeros(3, 8, 8), return_tensors="pt").to("cpu", torch.float16)
    assert (inputs.pixel_values.dtype, inputs.input_ids.dtype) == (torch.float16, torch.int64)


def test_a_configuration_is_read_with_other_classes_and_given_to_a_model(
    tmp_path: Path, tiny_config: SiglipConfig
) -> None:
    whole = SiglipForImageClassification(tiny_config.with_labels(["a", "b"]))
    whole.save_pretrained(tmp_path)
    config = SiglipConfig.from_pretrained(tmp_path, num_labels=3, problem_type="multi_label_classification")
    assert (config.num_labels, config.problem_type) == (3, "multi_label_classification")
    model = SiglipForImageClassification.from_pretrained(tmp_path, config=config)
    assert model.classifier.weight.shape[0] == model.num_labels == 3
    same = SiglipConfig.from_pretrained(tmp_path)
    kept = SiglipForImageClassification.from_pretrained(tmp_path, config=same)
    assert torch.equal(kept.classifier.weight, whole.classifier.weight)
    dropout = replace(same.vision_config, attention_dropout=0.25)
    tower = SiglipVisionModel.from_pretrained(tmp_path, config=replace(dropout, vision_use_head=False))
    assert tower.config.attention_dropout == 0.25
    with pytest.raises(
        ConfigError, match="config must be a SiglipVisionConfig for SiglipVisionModel, got SiglipConfig"
    ):
        SiglipVisionModel.from_pretrained(tmp_path, config=same)
    with pytest.raises(InputError, match=r"SiglipVisionConfig\.from_pretrained has no keyword 'num_labels'"):
        SiglipVisionConfig.from_pretrained(tmp_path, num_labels=3)


def test_weights_alone_are_told_and_load_with_a_configuration(tmp_path: Path, tiny_config: SiglipConfig) -> None:
    towers = (
        SiglipModel(tiny_config),
        SiglipForImageClassification(tiny_config.with_labels(["a", "b", "c"])),
        SiglipVisionModel(tiny_config.vision_config),
        SiglipTextModel(tiny_config.text_config),
    )
    for number, model in enumerate(towers):
        folder = tmp_path / str(number)
        folder.mkdir()
        weights = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"holds weights, but no config.json.*config=model.config"):
            type(model).from_pretrained(folder)
        again: Any = type(model).from_pretrained(folder, config=model.config)
        assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
        assert again.config == model.config


def test_a_hint_of_a_configuration_names_what_can_be_done(tiny_config: SiglipConfig) -> None:
    with pytest.raises(
        FrozenInstanceError, match=r"from_pretrained num_labels=\.\.\., or make another: config\.with_labels"
    ):
        tiny_config.num_labels = 3  # pyright: ignore
    with pytest.raises(
        FrozenInstanceError, match=r"model\.config = dataclasses\.replace\(model\.config, id2label=\.\.\.\)"
    ):
        tiny_config.id2label = {0: "a"}  # pyright: ignore
    with pytest.raises(FrozenInstanceError, match="it has no dropout_rate"):
        tiny_config.dropout_rate = 0.1  # pyright: ignore


def test_options_that_would_change_the_input_are_refused_by_name() -> None:
    processor = SiglipProcessor.from_pretrained("nano")
    picture = np.zeros((4, 4, 3), np.uint8)
    for options, message in (
        ({"do_rescale": False}, "do_rescale=False, but here it is always True"),
        ({"do_resize": False}, "do_resize=False, but here it is always True"),
        ({"image_mean": [0.0, 0.0, 0.0]}, r"image_mean=\[0.0, 0.0, 0.0\], but here it is always \[0.5, 0.5, 0.5\]"),
        ({"do_center_crop": True}, "the image processor has no keyword 'do_center_crop'; it takes do_resize"),
        ({"size": {"shortest_edge": 64}}, "size must be a height and an equal width in pixels"),
        ({"size": {"height": 64, "width": 32}}, "size must be a height and an equal width in pixels"),
    ):
        with pytest.raises(SiglipError, match=message):
            processor.image_processor(picture, **options)
        with pytest.raises(SiglipError, match=message):
            processor(images=picture, **options)
    assert processor(images=picture, size={"height": 64, "width": 64}, return_tensors="pt").pixel_values.shape[-1] == 64
    assert processor.image_processor.settings.image_size == 48
    for options, message in (
        ({"add_special_tokens": False}, "add_special_tokens=False, but here it is always True"),
        ({"return_attention_mask": True}, "return_attention_mask=True, but here it is always False"),
        ({"do_resize": True}, "the processor, given texts alone, has no keyword 'do_resize'"),
    ):
        with pytest.raises(SiglipError, match=message):
            processor(text=["a"], **options)
    with pytest.raises(PreparationError, match="the vocabulary has no piece 'nothing of the kind'"):
        processor.tokenizer.convert_tokens_to_ids(["\u2581a", "nothing of the kind"])


def test_positions_are_not_given(tiny_model: SiglipModel) -> None:
    with pytest.raises(InputError, match="got position_ids"):
        tiny_model.text_model(torch.zeros(1, 5, dtype=torch.long), position_ids=torch.arange(5)[None])
