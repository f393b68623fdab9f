"""PaliGemma folders of every age are read, ours is read by transformers, and what does not fit is told."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from siglip import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor, SiglipModel
from siglip.checkpoints import convert
from siglip.errors import CheckpointError, ConfigError, TensorMismatch
from tests.captioners import captioner
from tests.checkpoints.test_load import check_peaks, peaks
from tests.conftest import ROOT
from tests.model.paligemmas import MODELS, middling

CLASS = PaliGemmaForConditionalGeneration
# what each of our two name stems is called on the hub, after transformers 4.52, and in a folder made anew by 5.x
LAYOUTS = {
    "hub": ("language_model.model.", "vision_tower.vision_model.", "", "language_model.lm_head.weight"),
    "4.52": ("model.language_model.", "model.vision_tower.vision_model.", "model.", "lm_head.weight"),
    "5.x": ("language_model.model.", "vision_tower.", "", None),
}


def same(first: Any, second: Any) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("second", [False, True])
def test_what_we_save_we_read_back_whole_and_in_shards(second: bool, tmp_path: Path) -> None:
    model = MODELS[second]
    for size in (5_000_000_000, 20_000):
        model.save_pretrained(tmp_path, max_shard_bytes=size)
        read = CLASS.from_pretrained(tmp_path)
        assert same(read, model) and read.config == model.config
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2


@pytest.mark.parametrize("second", [False, True])
def test_transformers_reads_what_we_save_and_we_what_it_saves_bit_for_bit(second: bool, tmp_path: Path) -> None:
    from transformers import PaliGemmaForConditionalGeneration as Peer

    model = MODELS[second]
    model.save_pretrained(tmp_path / "ours")
    peer, told = Peer.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    peer.save_pretrained(tmp_path / "theirs")
    read = CLASS.from_pretrained(tmp_path / "theirs")
    assert same(read, model) and read.config == model.config


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("second", [False, True])
def test_every_layout_that_is_met_in_the_wild_is_read(layout: str, second: bool, tmp_path: Path) -> None:
    model = MODELS[second]
    model.save_pretrained(tmp_path)
    text, vision, rest, head = LAYOUTS[layout]
    tensors = {}
    for name, tensor in model.state_dict().items():
        stem, _, tail = name.partition(".")
        tensors[{"language_model": text, "vision_tower": vision}.get(stem, f"{rest}{stem}.") + tail] = tensor.clone()
    if head is not None:
        tensors[head] = model.language_model.embed_tokens.weight.detach().clone()
    save_file(tensors, tmp_path / "model.safetensors")
    assert same(CLASS.from_pretrained(tmp_path), model)


def test_half_precision_is_read_as_stored_or_widened(tmp_path: Path) -> None:
    MODELS[True].save_pretrained(tmp_path)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors")
    stored = CLASS.from_pretrained(tmp_path, dtype="auto")
    wide = CLASS.from_pretrained(tmp_path)
    assert stored.language_model.norm.weight.dtype == torch.bfloat16
    assert same(stored.float(), wide)


def test_missing_and_unexpected_tensors_and_an_untied_head_are_errors(tmp_path: Path) -> None:
    MODELS[False].save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = "language_model.model.layers.1.mlp.up_proj.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != gone}, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch, match=r"1 missing: language_model.layers.1.mlp.up_proj.weight"):
        CLASS.from_pretrained(tmp_path)
    save_file({**weights, "language_model.model.extra": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch, match=r"1 unexpected: language_model.extra"):
        CLASS.from_pretrained(tmp_path)
    save_file({**weights, "lm_head.weight": torch.ones(60, 24)}, tmp_path / "model.safetensors")
    with pytest.raises(TensorMismatch, match=r"lm_head.weight differs from the table of tokens"):
        CLASS.from_pretrained(tmp_path)


def test_a_model_of_the_other_kind_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"captions and answers need a PaliGemma"):
        CLASS.from_pretrained("nano")
    MODELS[False].save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"model_type is 'paligemma'"):
        SiglipModel.from_pretrained(tmp_path)


def test_the_sparse_configurations_of_the_hub_are_completed() -> None:
    # as google/paligemma-3b-pt-224 and google/paligemma2-3b-pt-224 publish them
    vision = {
        "hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_vision_model", "num_attention_heads": 16,
        "num_hidden_layers": 27, "num_image_tokens": 256, "patch_size": 14, "projection_dim": 2048,
    }  # fmt: skip
    text = {
        "hidden_size": 2048, "intermediate_size": 16384, "model_type": "gemma", "num_attention_heads": 8,
        "num_hidden_layers": 18, "num_key_value_heads": 1, "vocab_size": 257216,
    }  # fmt: skip
    whole = {"model_type": "paligemma", "image_token_index": 257152, "text_config": text, "vision_config": vision}
    assert PaliGemmaConfig.from_dict(whole) == PaliGemmaConfig()
    second = {
        **text,
        "model_type": "gemma2",
        "hidden_size": 2304,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
    }
    found = PaliGemmaConfig.from_dict({**whole, "text_config": second}).text_config
    assert (found.attn_logit_softcapping, found.final_logit_softcapping, found.post_norms) == (50.0, 30.0, True)
    assert json.loads(json.dumps(PaliGemmaConfig().to_dict()))["text_config"]["model_type"] == "gemma"


def test_a_larger_picture_resizes_the_positions(tmp_path: Path) -> None:
    MODELS[False].save_pretrained(tmp_path)
    model = CLASS.from_pretrained(tmp_path, image_size=16)
    assert model.vision_tower.embeddings.position_embedding.weight.shape[0] == 16


@pytest.mark.parametrize("name", ["pali1", "pali2"])
def test_an_npz_is_converted_to_a_folder_bit_for_bit_in_its_dtype(name: str, tmp_path: Path) -> None:
    file = ROOT / "tests" / "golden" / "paligemma" / f"{name}.npz"
    folder = convert(file, tmp_path / "folder", "huggingface")
    direct, converted = (CLASS.from_pretrained(source, dtype="auto") for source in (file, folder))
    assert same(converted, direct) and converted.config == direct.config
    stored = torch.bfloat16 if name == "pali2" else torch.float32
    assert converted.language_model.norm.weight.dtype == stored
    with pytest.raises(CheckpointError, match=r"written as huggingface only"):
        convert(file, tmp_path / "other", "open_clip")


def test_a_folder_keeps_its_preparation_when_it_is_converted(tmp_path: Path) -> None:
    for part in captioner():
        part.save_pretrained(tmp_path / "first")
    folder = convert(tmp_path / "first", tmp_path / "second", "huggingface")
    before, after = (PaliGemmaProcessor.from_pretrained(path) for path in (tmp_path / "first", folder))
    assert after.image_processor.settings == before.image_processor.settings
    assert after.encode("a cat on the mat") == before.encode("a cat on the mat")


def as_npz(model: Any, path: Path) -> None:
    """The arrays that the authors' code would write: layers stacked."""
    from siglip.checkpoints.paligemma import _rules
    from siglip.checkpoints.tensors import StoredTensor, translate

    ours = {name: StoredTensor.of(tensor) for name, tensor in model.state_dict().items()}
    flat = translate([rule.back() for rule in _rules(model.config)], ours)
    arrays: dict[str, Any] = {}
    for name, tensor in flat.items():
        for stack in ("encoderblock", "layers"):
            before, found, after = name.partition(f"/{stack}_")
            if found:
                arrays.setdefault(f"{before}/{stack}/{after.partition('/')[2]}", []).append(tensor.read().numpy())
                break
        else:
            arrays[name] = tensor.read().numpy()
    np.savez(path, **{name: np.stack(value) if isinstance(value, list) else value for name, value in arrays.items()})


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_at_most_1_15_times_the_memory_of_the_weights(tmp_path: Path) -> None:
    small = MODELS[True]
    small.save_pretrained(tmp_path / "small")
    as_npz(small, tmp_path / "small.npz")
    config = small.config
    vision = replace(config.vision_config, hidden_size=256, num_hidden_layers=4, intermediate_size=1024)
    text = replace(
        config.text_config, vocab_size=8000, hidden_size=512, num_hidden_layers=7, intermediate_size=2048, head_dim=64
    )
    model = CLASS(replace(config, vision_config=vision, text_config=text, image_token_index=8000))
    made = tmp_path / "made"
    made.mkdir()
    model.save_pretrained(made / "single")
    model.save_pretrained(made / "sharded", max_shard_bytes=50_000_000)
    as_npz(model, made / "big_vision.npz")
    assert same(CLASS.from_pretrained(made / "big_vision.npz"), model)
    model.half().save_pretrained(made / "float16")
    check_peaks("PaliGemmaForConditionalGeneration", tmp_path / "small.npz", sorted(made.iterdir()))
    # of whole numbers the blocks that are made float on the way count too, whatever the size of the model
    for _, weights, peak in peaks(
        "PaliGemmaForConditionalGeneration", "int8", tmp_path / "small.npz", [made / "single"]
    ):
        assert weights < 40_000_000
        assert peak - weights < 100_000_000


@pytest.mark.parametrize("second", [False, True])
def test_int8_is_the_model_whose_weights_are_rounded_row_by_row(second: bool, tmp_path: Path) -> None:
    from siglip.model.int8 import quantised

    model = middling(second)
    model.save_pretrained(tmp_path)
    whole = CLASS.from_pretrained(tmp_path, dtype="int8")
    held = sum(tensor.nbytes for tensor in whole.state_dict().values())
    assert held < 0.27 * sum(tensor.nbytes for tensor in model.state_dict().values())
    generator = torch.Generator().manual_seed(1)
    ids = torch.cat([torch.full((2, 64), 4000), torch.randint(3, 4000, (2, 9), generator=generator)], dim=1)
    pictures = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    with torch.no_grad():
        exact = model(ids, pictures).logits
        found = whole(ids, pictures).logits
        for name, layer in model.named_modules():
            if (isinstance(layer, torch.nn.Linear) and "projector" not in name) or name.endswith("embed_tokens"):
                numbers, scale = quantised(layer.weight)
                assert (numbers * scale[:, None] - layer.weight).abs().max() <= 0.5001 * scale.max()
                layer.weight.copy_(numbers * scale[:, None])
        rounded = model(ids, pictures).logits
    assert torch.allclose(found, rounded, atol=1e-4, rtol=1e-4)
    assert (found - exact).std() < 0.04 * exact.std()
    assert (
        whole.generate(ids, pictures, max_new_tokens=5).tolist()
        == model.generate(ids, pictures, max_new_tokens=5).tolist()
    )
    with pytest.raises(ConfigError, match="loaded as int8 cannot be saved"):
        whole.save_pretrained(tmp_path / "again")
    with pytest.raises(ConfigError, match="for a PaliGemma also 'int8', got 'int8'"):
        SiglipModel.from_pretrained("nano", dtype="int8")


def test_a_row_of_zeros_stays_one_in_int8() -> None:
    from siglip.model.int8 import quantised

    numbers, scale = quantised(torch.tensor([[0.0, 0.0], [-2.54, 1.27]]))
    assert numbers.tolist() == [[0, 0], [-127, 64]]
    assert scale[1].item() == pytest.approx(0.02)
