"""Checkpoints of the JAX original give its numbers; golden/big_vision.py made them with its own code."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from siglip import SiglipConfig, SiglipModel, SiglipTextModel, SiglipVisionModel
from siglip.checkpoints import convert
from siglip.config import SiglipTextConfig, SiglipVisionConfig
from siglip.errors import CheckpointError, NotYetSupported, TensorMismatch
from siglip.releases import RELEASES
from tests.golden import big_vision

GOLDEN = json.loads(Path(big_vision.__file__).with_suffix(".json").read_text())
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return big_vision.draw(GOLDEN["model"]["shapes"])


def stacked(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The layout of `scan=True`: blocks of a tower in one array, of the shapes the original gives them."""
    result = {}
    for name, shape in GOLDEN["scan_stacked"]["shapes"].items():
        if "/encoderblock/" in name:
            layers = [weights[name.replace("/encoderblock/", f"/encoderblock_{layer}/")] for layer in range(shape[0])]
            result[name] = np.stack(layers)
        else:
            result[name] = weights[name]
        assert list(result[name].shape) == shape
    return result


def assert_golden(model: SiglipModel, golden: dict[str, Any]) -> None:
    pictures, ids = big_vision.inputs()
    pixel_values = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    with torch.no_grad():
        output = model(torch.from_numpy(ids), pixel_values)
        patch_tokens = model.vision_model(pixel_values).last_hidden_state[:, -1]
        text_tokens = model.text_model(torch.from_numpy(ids)).last_hidden_state[:, 0]
    for got, name in (
        (output.image_embeds, "image_embeds"),
        (output.text_embeds, "text_embeds"),
        (output.logits_per_image, "logits"),
        (patch_tokens, "patch_tokens"),
        (text_tokens, "text_tokens"),
    ):
        torch.testing.assert_close(got, torch.tensor(golden[name]), **CLOSE)


def test_the_config_follows_from_the_shapes(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", **weights)
    assert SiglipConfig.from_pretrained(tmp_path / "model.npz") == SiglipConfig(
        text_config=SiglipTextConfig(
            vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
            max_position_embeddings=16, projection_size=48,
        ),
        vision_config=SiglipVisionConfig(
            hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, image_size=24,
            patch_size=8,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "params/"])
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_form_of_the_file_gives_the_numbers_of_the_original(
    weights: dict[str, np.ndarray], tmp_path: Path, prefix: str, scan: bool, compressed: bool
) -> None:
    arrays = {prefix + name: array for name, array in (stacked(weights) if scan else weights).items()}
    if prefix:
        # what a training run keeps beside its weights
        arrays["opt/0/count"] = np.array(3)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "model.npz", **arrays)
    # the picture has 30 pixels, of which the shapes know only the 24 that fill patches
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 30, "width": 30}}')
    assert_golden(SiglipModel.from_pretrained(tmp_path), GOLDEN["model"])


def test_a_model_without_text_head_gives_the_numbers_of_the_original(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", **big_vision.draw(GOLDEN["without_text_head"]["shapes"]))
    model = SiglipModel.from_pretrained(tmp_path, image_size=30)
    assert model.text_model.head is None
    assert_golden(model, GOLDEN["without_text_head"])


def test_positions_that_an_early_text_tower_learned_twice_are_added(
    weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    second = np.full_like(weights["txt/pos_embedding"], 0.25)
    split = {**weights, "txt/pos_embedding": weights["txt/pos_embedding"] - second}
    np.savez(tmp_path / "model.npz", **split, **{"txt/Encoder_0/pos_embedding": second})
    assert_golden(SiglipModel.from_pretrained(tmp_path, image_size=30), GOLDEN["model"])


def test_arrays_in_fortran_order_load(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", **{name: np.asfortranarray(array) for name, array in weights.items()})
    assert_golden(SiglipModel.from_pretrained(tmp_path, image_size=30), GOLDEN["model"])


def test_what_we_write_has_the_names_shapes_and_values_of_the_original(
    weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "model.npz", **weights)
    SiglipModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "huggingface")
    written = np.load(convert(tmp_path / "huggingface", tmp_path / "big_vision", "big_vision") / "model.npz")
    assert sorted(written) == sorted(f"params/{name}" for name in weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(written[f"params/{name}"], array)


def test_towers_load_from_the_file_of_the_whole_model(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", **weights)
    whole = SiglipModel.from_pretrained(tmp_path)
    for tower, kind in ((whole.text_model, SiglipTextModel), (whole.vision_model, SiglipVisionModel)):
        alone = kind.from_pretrained(tmp_path / "model.npz")
        assert all(torch.equal(alone.state_dict()[name], tensor) for name, tensor in tower.state_dict().items())


def test_bfloat16_is_read_from_two_raw_bytes(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    halves = {name: torch.from_numpy(array).bfloat16() for name, array in weights.items()}
    np.savez(
        tmp_path / "model.npz", **{name: half.view(torch.int16).numpy().view("V2") for name, half in halves.items()}
    )
    model = SiglipModel.from_pretrained(tmp_path, dtype="auto")
    assert model.vision_model.head.probe.dtype == torch.bfloat16
    assert torch.equal(model.vision_model.head.probe, halves["img/MAPHead_0/probe"])


@pytest.mark.parametrize(
    "release", [release for release in RELEASES if release.image_size == 384], ids=lambda r: r.name
)
def test_a_published_file_name_tells_the_pixels_that_fill_no_patch(release: Any, tmp_path: Path) -> None:
    grid = release.config.vision_config.grid_size
    shapes = dict(GOLDEN["model"]["shapes"])
    patch = release.patch_size
    shapes |= {"img/embedding/kernel": [patch, patch, 3, 48], "img/pos_embedding": [1, grid**2, 48]}
    file = tmp_path / f"{Path(release.big_vision).name}.npz"
    np.savez(file, **big_vision.draw(shapes))
    assert SiglipConfig.from_pretrained(file).vision_config.image_size == 384


def test_missing_unexpected_and_misshapen_arrays_are_listed_under_their_own_names(
    weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    del weights["img/MAPHead_0/LayerNorm_0/bias"]
    weights["img/head/kernel"] = np.zeros((48, 10), np.float32)
    weights["txt/Encoder_0/encoderblock_1/LayerNorm_0/bias"] = np.zeros(5, np.float32)
    np.savez(tmp_path / "model.npz", **weights)
    with pytest.raises(TensorMismatch) as caught:
        SiglipModel.from_pretrained(tmp_path)
    assert "1 missing: img/MAPHead_0/LayerNorm_0/bias" in str(caught.value)
    assert "1 unexpected: img/head/kernel" in str(caught.value)
    assert "txt/Encoder_0/encoderblock_1/LayerNorm_0/bias is [5] instead of [32]" in str(caught.value)


class Dangerous:
    """Unpickling it would be seen."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was opened",)


def test_nothing_is_ever_unpickled(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    weights["t"] = np.array([Dangerous()], dtype=object)
    np.savez(tmp_path / "model.npz", **weights)
    with pytest.raises(CheckpointError, match=r"t\.npy holds object numbers"):
        SiglipModel.from_pretrained(tmp_path)


def test_naflex_files_are_not_yet_supported(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    weights["img/embedding/kernel"] = np.zeros((192, 48), np.float32)
    weights["img/pos_embedding"] = np.zeros((16, 16, 48), np.float32)
    np.savez(tmp_path / "model.npz", **weights)
    with pytest.raises(NotYetSupported, match="NaFlex"):
        SiglipModel.from_pretrained(tmp_path)


def test_a_file_with_one_tower_or_none_says_what_is_expected(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", **{name: array for name, array in weights.items() if name.startswith("img/")})
    with pytest.raises(CheckpointError, match=r"txt/Embed_0/embedding is missing.*both towers"):
        SiglipModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "no archive"])
def test_a_broken_file_is_an_error_that_names_it(weights: dict[str, np.ndarray], tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.npz"
    np.savez(file, **weights)
    data = file.read_bytes()
    file.write_bytes({"cut": data[:-100], "empty": b"", "no archive": b"\x93NUMPY" * 100}[damage])
    with pytest.raises(CheckpointError, match=r"model\.npz cannot be read as \.npz"):
        SiglipModel.from_pretrained(file)


def test_of_several_files_one_must_be_named(weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **weights)
    np.savez(tmp_path / "b.npz", **weights)
    with pytest.raises(CheckpointError, match=r"2 \.npz files \(a\.npz, b\.npz\)"):
        SiglipModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"layer_norm_eps": 1e-5}])
def test_a_model_that_the_original_code_cannot_run_is_not_written(
    tiny_config: SiglipConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    SiglipModel(replace(tiny_config, text_config=replace(tiny_config.text_config, **change))).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="big_vision runs"):
        convert(tmp_path, tmp_path / "out", "big_vision")
    assert not list((tmp_path / "out").iterdir())
