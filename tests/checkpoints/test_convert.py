"""One layout into another: every bit stays, and so does the preparation."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from siglip import AutoProcessor, SiglipConfig, SiglipModel
from siglip.checkpoints import convert, fingerprint
from siglip.config import SiglipTextConfig, SiglipVisionConfig
from siglip.errors import CheckpointError, ConfigError, TensorMismatch

LAYOUTS = ("huggingface", "big_vision", "open_clip")


@st.composite
def configs(draw: st.DrawFn) -> SiglipConfig:
    def shape() -> dict[str, int]:
        heads = draw(st.integers(1, 3))
        return {
            "num_attention_heads": heads,
            "hidden_size": heads * draw(st.integers(1, 4)),
            "intermediate_size": draw(st.integers(1, 9)),
            "num_hidden_layers": draw(st.integers(1, 3)),
        }

    vision, text = shape(), shape()
    text_use_head = draw(st.booleans())
    patch_size = draw(st.integers(1, 5))
    return SiglipConfig(
        text_config=SiglipTextConfig(
            **(text if text_use_head else vision),
            vocab_size=draw(st.integers(1, 9)),
            max_position_embeddings=draw(st.integers(2, 5)),
            projection_size=vision["hidden_size"],
            text_use_head=text_use_head,
        ),
        vision_config=SiglipVisionConfig(
            **vision, patch_size=patch_size, image_size=patch_size + draw(st.integers(0, 11))
        ),
    )


def random_bits(config: SiglipConfig, dtype: torch.dtype, seed: int) -> SiglipModel:
    """A model whose numbers use every bit: subnormal ones, infinities and NaN included."""
    model = SiglipModel(config).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    integers = {2: torch.int16, 4: torch.int32}
    with torch.no_grad():
        for parameter in model.parameters():
            kind = integers[parameter.element_size()]
            limits = torch.iinfo(kind)
            bits = torch.randint(limits.min, limits.max, parameter.shape, generator=generator, dtype=torch.int64)
            parameter.copy_(bits.to(kind).view(parameter.dtype))
    return model


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs(), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), st.permutations(LAYOUTS))
def test_every_bit_comes_back_from_a_journey_through_the_layouts(
    tmp_path: Path, config: SiglipConfig, dtype: torch.dtype, layouts: list[Any]
) -> None:
    shutil.rmtree(tmp_path)
    model = random_bits(config, dtype, seed=len(layouts))
    model.save_pretrained(tmp_path / "first")
    folder = tmp_path / "first"
    for number, layout in enumerate([*layouts, "huggingface"]):
        folder = convert(folder, tmp_path / str(number), layout)
    assert (folder / "config.json").read_bytes() == (tmp_path / "first" / "config.json").read_bytes()
    first, last = load_file(tmp_path / "first" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert sorted(first) == sorted(last)
    for name, tensor in first.items():
        assert tensor.dtype == last[name].dtype and tensor.shape == last[name].shape
        assert torch.equal(tensor.view(torch.uint8), last[name].view(torch.uint8)), name


def test_the_built_in_model_keeps_its_numbers_and_preparation_in_every_layout(tmp_path: Path) -> None:
    expected = fingerprint(SiglipModel.from_pretrained("nano"), AutoProcessor.from_pretrained("nano"))
    source: Any = "nano"
    for layout in ("big_vision", "open_clip", "huggingface"):
        source = convert(source, tmp_path / layout, layout)  # type: ignore[arg-type]
        assert fingerprint(SiglipModel.from_pretrained(source), AutoProcessor.from_pretrained(source)) == expected


@pytest.mark.parametrize("to", [pytest.param("big_vision", id="big_vision"), pytest.param("open_clip", id="open_clip")])
def test_an_image_size_with_a_border_survives(folder: Path, tmp_path: Path, to: Any) -> None:
    """30 pixels in patches of 8 leave 6 unseen, of which the shapes of the tensors know nothing."""
    assert SiglipConfig.from_pretrained(convert(folder, tmp_path / "out", to)).vision_config.image_size == 30


def test_a_second_conversion_replaces_the_first_only_when_asked(folder: Path, tmp_path: Path) -> None:
    for layout in LAYOUTS:
        convert(folder, tmp_path / layout, layout)  # type: ignore[arg-type]
        names = sorted(file.name for file in (tmp_path / layout).iterdir())
        with pytest.raises(CheckpointError, match=f"{layout} already holds a model; give another folder, or replace"):
            convert("nano", tmp_path / layout, layout)
        assert SiglipConfig.from_pretrained(tmp_path / layout) == SiglipConfig.from_pretrained(folder)
        convert(folder, tmp_path / layout, layout, overwrite=True)  # type: ignore[arg-type]
        assert sorted(file.name for file in (tmp_path / layout).iterdir()) == names


def test_two_layouts_do_not_share_a_folder(folder: Path) -> None:
    before = sorted(file.name for file in folder.iterdir())
    with pytest.raises(CheckpointError, match="already holds a checkpoint in the layout huggingface"):
        convert(folder, folder, "open_clip")
    assert sorted(file.name for file in folder.iterdir()) == before


@pytest.mark.parametrize("name", ["out.npz", "out.safetensors"])
def test_the_destination_is_a_folder(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="must be a folder"):
        convert(folder, tmp_path / name, "big_vision")


def test_an_unknown_layout_lists_the_known(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'open_clip', 'huggingface', 'big_vision'"):
        convert(folder, tmp_path / "out", "onnx")


def test_a_checkpoint_with_a_tensor_too_few_is_not_converted(folder: Path, tmp_path: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["vision_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(TensorMismatch, match="16 missing"):
        convert(folder, tmp_path / "out", "big_vision")
    assert not (tmp_path / "out").exists()


def test_a_fingerprint_tells_weights_configuration_and_preparation_apart(folder: Path) -> None:
    model, processor = SiglipModel.from_pretrained(folder), AutoProcessor.from_pretrained("nano")
    seen = {fingerprint(model), fingerprint(model, processor)}
    processor.tokenizer.settings = type(processor.tokenizer.settings)(context_length=16, clean="lower")
    seen.add(fingerprint(model, processor))
    processor.image_processor.settings = type(processor.image_processor.settings)(image_size=65)
    seen.add(fingerprint(model, processor))
    seen.add(fingerprint(model.vision_model))
    seen.add(fingerprint(SiglipModel.from_pretrained(folder, dtype="float16")))
    with torch.no_grad():
        model.logit_bias += 1e-6
    seen.add(fingerprint(model))
    assert len(seen) == 7
    assert all(len(name) == 64 for name in seen)


def test_a_fingerprint_does_not_depend_on_the_dtype_that_holds_the_numbers() -> None:
    assert fingerprint(SiglipModel.from_pretrained("nano", dtype="auto")) == fingerprint(
        SiglipModel.from_pretrained("nano", dtype="float32")
    )
