"""open_clip computes the same from what we write, and we from what it writes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from siglip import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipVisionModel
from siglip.checkpoints import convert, open_clip
from siglip.checkpoints.tensors import Content
from siglip.errors import CheckpointError, TensorMismatch
from siglip.model import kind_of
from siglip.releases import RELEASES, Release, find_release
from tests.checkpoints.test_huggingface import change_json, inputs
from tests.peers import import_open_clip, open_clip_model, perturb

CLOSE = {"rtol": 0.0, "atol": 1e-5}
FIXED = [release for release in RELEASES if not release.naflex]


@pytest.fixture
def converted(model: SiglipModel, tmp_path: Path) -> Path:
    """A model in the layout of open_clip, written by us."""
    model.save_pretrained(tmp_path / "huggingface")
    return convert(tmp_path / "huggingface", tmp_path / "open_clip", "open_clip")


def published(release: Release) -> dict[str, Any]:
    """The configuration that open_clip ships for a published checkpoint."""
    return import_open_clip().get_model_config(release.open_clip)


def mlp_width(values: dict[str, Any]) -> int:
    return int(values["width"] * values.get("mlp_ratio", 4.0))


def assert_same_numbers(ours: SiglipModel, theirs: Any) -> None:
    ids, pixels = inputs(ours.config)
    with torch.no_grad():
        image_embeds, text_embeds, scale, bias = theirs(pixels, ids)
        got = ours(ids, pixels)
    torch.testing.assert_close(got.image_embeds, image_embeds, **CLOSE)
    torch.testing.assert_close(got.text_embeds, text_embeds, **CLOSE)
    torch.testing.assert_close(got.logits_per_image, scale * image_embeds @ text_embeds.T + bias, **CLOSE)


@pytest.mark.parametrize("hidden_act", ["gelu_pytorch_tanh", "gelu"])
def test_what_we_write_gives_the_same_numbers_in_open_clip(
    config: SiglipConfig, tmp_path: Path, hidden_act: Any
) -> None:
    config = SiglipConfig(
        text_config=replace(config.text_config, hidden_act=hidden_act),
        vision_config=replace(config.vision_config, hidden_act=hidden_act),
    )
    model = perturb(SiglipModel(config))
    model.save_pretrained(tmp_path / "huggingface")
    folder = convert(tmp_path / "huggingface", tmp_path / "open_clip", "open_clip")
    assert_same_numbers(model, open_clip_model(folder, config.vision_config))
    assert_same_numbers(SiglipModel.from_pretrained(folder), open_clip_model(folder, config.vision_config))


def test_a_model_without_text_head_gives_the_same_numbers_in_open_clip(
    tiny_config: SiglipConfig, tmp_path: Path
) -> None:
    text = replace(tiny_config.text_config, hidden_size=48, projection_size=None, text_use_head=False)
    model = perturb(SiglipModel(replace(tiny_config, text_config=text)))
    model.save_pretrained(tmp_path / "huggingface")
    folder = convert(tmp_path / "huggingface", tmp_path / "open_clip", "open_clip")
    assert SiglipModel.from_pretrained(folder).text_model.head is None
    assert_same_numbers(model, open_clip_model(folder, tiny_config.vision_config))


def test_a_published_shape_saved_by_open_clip_gives_its_numbers(tmp_path: Path) -> None:
    library = import_open_clip()
    values = published(find_release("google/siglip2-base-patch32-256"))
    values["text_cfg"] |= {"layers": 1, "vocab_size": 50, "width": 64, "heads": 2}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": values}))
    with torch.device("meta"):
        theirs = library.CustomTextCLIP(**{key: value for key, value in values.items() if key != "custom_text"})
    theirs = theirs.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(-0.05, 0.05, generator=generator)
    state = theirs.state_dict()
    save_file(state, tmp_path / "open_clip_model.safetensors")
    ours = SiglipModel.from_pretrained(tmp_path)
    assert ours.config.vision_config == find_release("google/siglip2-base-patch32-256").config.vision_config
    assert_same_numbers(ours, theirs)
    # what its trainer leaves: nested, and prefixed by the wrapper for several processes
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": prefixed}, tmp_path / "epoch_3.pt")
    again = SiglipModel.from_pretrained(tmp_path / "epoch_3.pt").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("release", FIXED, ids=lambda release: release.name)
def test_the_configurations_that_open_clip_ships_are_those_of_the_releases(release: Release, tmp_path: Path) -> None:
    values = published(release)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": values}))
    expected = release.config
    if release.open_clip.endswith("-378"):
        # the same weights: of 384 pixels those that fill patches
        expected = replace(expected, vision_config=replace(expected.vision_config, image_size=378))
    assert SiglipConfig.from_pretrained(tmp_path) == expected


@pytest.mark.parametrize("release", FIXED, ids=lambda release: release.name)
def test_the_names_we_write_for_published_shapes_are_those_of_open_clip(release: Release, tmp_path: Path) -> None:
    config = release.config
    content = Content(kind=kind_of(SiglipModel), config=config, tensors={}, image=SiglipImageProcessor().settings)
    open_clip.write(tmp_path, content)
    values = json.loads((tmp_path / "open_clip_config.json").read_text())["model_cfg"]
    expected = published(release)
    if release.open_clip.endswith("-378"):
        expected["vision_cfg"] |= {"timm_model_name": "vit_so400m_patch14_siglip_384", "image_size": 384}
    assert values["vision_cfg"] == expected["vision_cfg"]
    for key, value in expected["text_cfg"].items():
        if key not in ("hf_tokenizer_name", "tokenizer_kwargs", "mlp_ratio", "act_kwargs"):
            assert values["text_cfg"][key] == value, key
    assert mlp_width(values["text_cfg"]) == mlp_width(expected["text_cfg"])


def test_a_state_dict_loads_like_safetensors(model: SiglipModel, converted: Path) -> None:
    weights = load_file(converted / "open_clip_model.safetensors")
    (converted / "open_clip_model.safetensors").unlink()
    for old_format in (False, True):
        torch.save(weights, converted / "open_clip_pytorch_model.bin", _use_new_zipfile_serialization=not old_format)
        again = SiglipModel.from_pretrained(converted)
        assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


class Dangerous:
    """Unpickling it would be seen."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was opened",)


def test_a_state_dict_with_anything_but_tensors_is_refused_unopened(converted: Path) -> None:
    (converted / "open_clip_model.safetensors").unlink()
    torch.save({"logit_bias": Dangerous()}, converted / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as a state dict"):
        SiglipModel.from_pretrained(converted)


def test_a_weights_file_loads_with_the_config_beside_it(model: SiglipModel, converted: Path) -> None:
    again = SiglipModel.from_pretrained(converted / "open_clip_model.safetensors")
    assert torch.equal(again.logit_scale, model.logit_scale)


def test_a_tower_loads_from_the_whole_model(model: SiglipModel, converted: Path) -> None:
    tower = SiglipVisionModel.from_pretrained(converted)
    expected = model.vision_model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tower.state_dict().items())


def test_what_is_wrong_is_listed_under_the_names_of_open_clip(converted: Path) -> None:
    weights = load_file(converted / "open_clip_model.safetensors")
    del weights["visual.trunk.blocks.0.attn.qkv.bias"]
    weights["visual.head.proj.weight"] = torch.zeros(2, 2)
    save_file(weights, converted / "open_clip_model.safetensors")
    with pytest.raises(TensorMismatch) as caught:
        SiglipModel.from_pretrained(converted)
    assert "1 missing: visual.trunk.blocks.0.attn.qkv.bias" in str(caught.value)
    assert "1 unexpected: visual.head.proj.weight" in str(caught.value)


def test_a_model_loaded_from_fused_kernels_can_be_saved(model: SiglipModel, converted: Path, tmp_path: Path) -> None:
    SiglipModel.from_pretrained(converted).save_pretrained(tmp_path / "again")
    again = SiglipModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_pictures_are_prepared_as_open_clip_says(tmp_path: Path) -> None:
    preparation = {
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    values = {"model_cfg": published(find_release("google/siglip2-base-patch16-384")), "preprocess_cfg": preparation}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(values))
    settings = SiglipImageProcessor.from_pretrained(tmp_path).settings
    assert (settings.image_size, settings.resample) == (384, "bilinear")
    assert (settings.image_mean, settings.image_std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    change_json(tmp_path / "open_clip_config.json", preprocess_cfg={"resize_mode": "shortest"})
    with pytest.raises(CheckpointError, match="resize_mode is 'shortest'"):
        SiglipImageProcessor.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-CLIPA", "EVA01-g-14", "coca_ViT-B-32"])
def test_other_models_of_open_clip_are_refused(tmp_path: Path, name: str) -> None:
    values = import_open_clip().get_model_config(name)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": values}))
    with pytest.raises(CheckpointError, match="does not describe a SigLIP of open_clip"):
        SiglipConfig.from_pretrained(tmp_path)


def test_a_folder_without_weights_says_what_it_misses(converted: Path) -> None:
    (converted / "open_clip_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected open_clip_model\.safetensors or open_clip_pytorch_model\.bin"):
        SiglipModel.from_pretrained(converted)


def test_an_image_tower_without_pooling_head_is_not_written(tiny_config: SiglipConfig, tmp_path: Path) -> None:
    config = replace(tiny_config, vision_config=replace(tiny_config.vision_config, vision_use_head=False))
    SiglipModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no attention-pooling head"):
        convert(tmp_path, tmp_path / "out", "open_clip")
