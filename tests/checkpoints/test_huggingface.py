"""Models that transformers saved give its numbers here, and models that we save give ours there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from siglip import SiglipForImageClassification, SiglipModel, SiglipTextModel, SiglipVisionModel
from siglip.config import SiglipConfig, SiglipTextConfig
from siglip.errors import CheckpointError, NotYetSupported, TensorMismatch
from siglip.releases import find_release
from tests.peers import perturb, transformers_config

CLOSE = {"rtol": 0.0, "atol": 1e-5}


def inputs(config: SiglipConfig, batch: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    text, size = config.text_config, config.vision_config.image_size
    ids = torch.randint(0, text.vocab_size, (batch, text.max_position_embeddings), generator=generator)
    return ids, torch.randn(batch, 3, size, size, generator=generator)


def assert_same_numbers(ours: SiglipModel, theirs: Any, config: SiglipConfig) -> None:
    ids, pixels = inputs(config)
    with torch.no_grad():
        expected = theirs(input_ids=ids, pixel_values=pixels, return_loss=True)
        got = ours(ids, pixels, return_loss=True)
        for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds", "loss"):
            torch.testing.assert_close(got[name], expected[name], **CLOSE)
        features = theirs.get_text_features(ids).pooler_output, theirs.get_image_features(pixels).pooler_output
        torch.testing.assert_close(ours.get_text_features(ids), features[0], **CLOSE)
        torch.testing.assert_close(ours.get_image_features(pixels), features[1], **CLOSE)
    assert_same_tower(ours.text_model, theirs.text_model, ids)
    assert_same_tower(ours.vision_model, theirs.vision_model, pixels)


def assert_same_tower(ours: Any, theirs: Any, given: Tensor) -> None:
    with torch.no_grad():
        got, expected = ours(given, output_hidden_states=True), theirs(given, output_hidden_states=True)
    torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(got.pooler_output, expected.pooler_output, **CLOSE)
    assert len(got.hidden_states) == len(expected.hidden_states)
    for mine, peers in zip(got.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine, peers, **CLOSE)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("max_shard_size", ["5GB", "60KB"])
def test_a_model_saved_by_transformers_gives_its_numbers(
    config: SiglipConfig, tmp_path: Path, max_shard_size: str
) -> None:
    peer = perturb(transformers.SiglipModel(transformers_config(config)))
    peer.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_size == "60KB")
    ours = SiglipModel.from_pretrained(tmp_path)
    assert ours.config == replace(
        config, text_config=replace(config.text_config, projection_size=config.text_config.embedding_size)
    )
    assert_same_numbers(ours, peer, config)


@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 60_000])
def test_a_model_saved_by_us_gives_the_same_numbers_in_transformers(
    model: SiglipModel, tmp_path: Path, max_shard_bytes: int
) -> None:
    model.save_pretrained(tmp_path, max_shard_bytes=max_shard_bytes)
    assert (tmp_path / "model.safetensors.index.json").exists() == (max_shard_bytes == 60_000)
    assert_same_numbers(model, transformers.SiglipModel.from_pretrained(tmp_path).eval(), model.config)
    again = SiglipModel.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_base_16_at_224_pixels_gives_the_logits_of_transformers_at_full_size(tmp_path: Path) -> None:
    config = find_release("google/siglip-base-patch16-224").config
    theirs = transformers_config(config)
    with torch.device("meta"):
        peer = transformers.SiglipModel(theirs)
    # drawn evenly, since drawing 203 million numbers as for training takes longer than the test
    peer = peer.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            parameter.uniform_(-0.05, 0.05, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter += 1.0
    for tower in (peer.text_model, peer.vision_model):
        positions = tower.embeddings.position_ids
        positions.copy_(torch.arange(positions.shape[-1]).expand_as(positions))
    peer.save_pretrained(tmp_path)
    ids, pixels = inputs(config, batch=1)
    with torch.no_grad():
        expected = peer(input_ids=ids, pixel_values=pixels)
        got = SiglipModel.from_pretrained(tmp_path)(ids, pixels)
    torch.testing.assert_close(got.logits_per_image, expected.logits_per_image, **CLOSE)


@pytest.mark.parametrize("source", ["whole model", "tower"])
def test_towers_load_from_a_whole_model_and_from_their_own_folder(
    config: SiglipConfig, tmp_path: Path, source: str
) -> None:
    peer = perturb(transformers.SiglipModel(transformers_config(config)))
    ids, pixels = inputs(config)
    for ours, theirs, given in (
        (SiglipTextModel, peer.text_model, ids),
        (SiglipVisionModel, peer.vision_model, pixels),
    ):
        folder = tmp_path / ours.__name__
        (peer if source == "whole model" else theirs).save_pretrained(folder)
        assert_same_tower(ours.from_pretrained(folder), theirs, given)


def test_a_tower_saved_by_transformers_4_with_prefixed_names_loads(config: SiglipConfig, tmp_path: Path) -> None:
    peer = perturb(transformers.SiglipModel(transformers_config(config))).text_model
    peer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({f"text_model.{name}": tensor for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    assert_same_tower(SiglipTextModel.from_pretrained(tmp_path), peer, inputs(config)[0])


def test_towers_saved_by_us_load_in_transformers(model: SiglipModel, tmp_path: Path) -> None:
    ids, pixels = inputs(model.config)
    model.text_model.save_pretrained(tmp_path / "text")
    model.vision_model.save_pretrained(tmp_path / "vision")
    assert_same_tower(model.text_model, transformers.SiglipTextModel.from_pretrained(tmp_path / "text").eval(), ids)
    peer = transformers.SiglipVisionModel.from_pretrained(tmp_path / "vision").eval()
    assert_same_tower(model.vision_model, peer, pixels)


def test_a_classifier_saved_by_transformers_gives_its_scores_and_losses(config: SiglipConfig, tmp_path: Path) -> None:
    values = transformers_config(config)
    values.id2label, values.label2id = {0: "a", 1: "b", 2: "c"}, {"a": 0, "b": 1, "c": 2}
    peer = perturb(transformers.SiglipForImageClassification(values))
    peer.save_pretrained(tmp_path)
    ours = SiglipForImageClassification.from_pretrained(tmp_path)
    assert ours.config.id2label == {0: "a", 1: "b", 2: "c"}
    pixels = inputs(config)[1]
    for labels in (torch.tensor([2, 0, 1, 1]), torch.eye(4, 3)):
        # the peer remembers the kind of problem of its first labels
        peer.config.problem_type = None
        with torch.no_grad():
            expected, got = peer(pixels, labels=labels), ours(pixels, labels)
        torch.testing.assert_close(got.logits, expected.logits, **CLOSE)
        torch.testing.assert_close(got.loss, expected.loss, **CLOSE)


def test_a_classifier_saved_by_us_gives_the_same_scores_in_transformers(model: SiglipModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    ours = SiglipForImageClassification.from_pretrained(tmp_path / "model", labels=["x", "y", "z", "w", "v"])
    perturb(ours).save_pretrained(tmp_path / "classifier")
    peer = transformers.SiglipForImageClassification.from_pretrained(tmp_path / "classifier").eval()
    assert peer.config.id2label == {0: "x", 1: "y", 2: "z", 3: "w", 4: "v"}
    pixels = inputs(model.config)[1]
    with torch.no_grad():
        torch.testing.assert_close(peer(pixels).logits, ours(pixels).logits, **CLOSE)


def test_a_classifier_of_a_whole_model_starts_with_a_zero_head_for_the_given_labels(folder: Path) -> None:
    ours = SiglipForImageClassification.from_pretrained(folder, labels=["cat", "dog", "owl"])
    assert ours.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    assert ours.classifier.weight.shape == (3, 48)
    assert not ours.classifier.weight.any() and not ours.classifier.bias.any()
    whole = SiglipModel.from_pretrained(folder)
    assert torch.equal(ours.vision_model.post_layernorm.weight, whole.vision_model.post_layernorm.weight)
    assert SiglipForImageClassification.from_pretrained(folder).config.num_labels == 2


def test_other_labels_replace_the_head_of_a_stored_classifier(folder: Path, tmp_path: Path) -> None:
    stored = perturb(SiglipForImageClassification.from_pretrained(folder, labels=["cat", "dog"]))
    stored.save_pretrained(tmp_path / "classifier")
    kept = SiglipForImageClassification.from_pretrained(tmp_path / "classifier")
    same = SiglipForImageClassification.from_pretrained(tmp_path / "classifier", labels=["cat", "dog"])
    fresh = SiglipForImageClassification.from_pretrained(tmp_path / "classifier", labels=["cat", "bird"])
    assert torch.equal(kept.classifier.weight, stored.classifier.weight)
    assert torch.equal(same.classifier.weight, stored.classifier.weight)
    assert not fresh.classifier.weight.any()


@pytest.fixture
def headless(tiny_config: SiglipConfig) -> SiglipModel:
    text = replace(tiny_config.text_config, hidden_size=48, projection_size=None, text_use_head=False)
    config = SiglipConfig(text_config=text, vision_config=tiny_config.vision_config)
    return perturb(SiglipModel(config, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("max_shard_bytes", [5_000_000_000, 60_000])
def test_a_model_without_text_head_gives_its_numbers_in_transformers_and_comes_back_without(
    headless: SiglipModel, tmp_path: Path, max_shard_bytes: int
) -> None:
    headless.save_pretrained(tmp_path, max_shard_bytes=max_shard_bytes)
    assert_same_numbers(headless, transformers.SiglipModel.from_pretrained(tmp_path).eval(), headless.config)
    again = SiglipModel.from_pretrained(tmp_path)
    assert again.text_model.head is None
    assert sorted(again.state_dict()) == sorted(headless.state_dict())
    headless.text_model.save_pretrained(tmp_path / "text")
    ids = inputs(headless.config)[0]
    peer = transformers.SiglipTextModel.from_pretrained(tmp_path / "text").eval()
    assert_same_tower(SiglipTextModel.from_pretrained(tmp_path / "text"), peer, ids)


def test_a_text_head_that_the_configuration_denies_is_an_error_unless_it_changes_nothing(
    headless: SiglipModel, tmp_path: Path
) -> None:
    headless.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["text_model.head.bias"][0] = 0.5
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="text_use_head"):
        SiglipModel.from_pretrained(tmp_path)


def test_temperature_and_bias_load_with_and_without_an_axis(folder: Path, tiny_model: SiglipModel) -> None:
    weights = load_file(folder / "model.safetensors")
    for name in ("logit_scale", "logit_bias"):
        weights[name] = weights[name].reshape(())
    save_file(weights, folder / "model.safetensors")
    ours = SiglipModel.from_pretrained(folder)
    assert torch.equal(ours.logit_scale, tiny_model.logit_scale) and torch.equal(ours.logit_bias, tiny_model.logit_bias)


def test_position_ids_of_old_files_are_ignored(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(9)[None]
    save_file(weights, folder / "model.safetensors")
    assert SiglipModel.from_pretrained(folder).config.text_config.vocab_size == 100


def test_one_error_lists_all_missing_unexpected_and_wrongly_shaped_tensors(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["logit_bias"], weights["vision_model.head.probe"]
    weights["text_model.extra"] = torch.zeros(2)
    weights["text_model.head.bias"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(TensorMismatch) as caught:
        SiglipModel.from_pretrained(folder)
    message = str(caught.value)
    assert "2 missing: logit_bias, vision_model.head.probe" in message
    assert "1 unexpected: text_model.extra" in message
    assert "1 wrongly shaped: text_model.head.bias is [7] instead of [48]" in message


def test_the_error_counts_what_it_does_not_list(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("vision_model.encoder")}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(TensorMismatch, match=r"32 missing: .* and 12 more"):
        SiglipModel.from_pretrained(folder)


def test_a_tower_does_not_mind_what_is_wrong_with_the_other(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_model.extra"] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors")
    assert SiglipVisionModel.from_pretrained(folder).config.image_size == 30
    with pytest.raises(TensorMismatch, match=r"text_model\.extra"):
        SiglipTextModel.from_pretrained(folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret.safetensors", "weights.bin", 3])
def test_an_index_may_only_point_to_safetensors_in_its_folder(model: SiglipModel, tmp_path: Path, name: Any) -> None:
    model.save_pretrained(tmp_path, max_shard_bytes=60_000)
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["logit_bias"] = name
    index.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"expected a \.safetensors file in the same folder"):
        SiglipModel.from_pretrained(tmp_path)


def test_a_missing_shard_is_named(model: SiglipModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_bytes=60_000)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=shard.name):
        SiglipModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "no safetensors"])
def test_a_broken_weights_file_is_an_error_that_names_it(folder: Path, damage: str) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes({"cut": data[:-100], "empty": b"", "no safetensors": b"PK" * 1000}[damage])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        SiglipModel.from_pretrained(folder)


def test_quantised_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_model.head.weight"] = weights["text_model.head.weight"].to(torch.int8)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"I8 numbers.*not quantised"):
        SiglipModel.from_pretrained(folder)


def test_naflex_folders_are_not_yet_supported(folder: Path) -> None:
    change_json(folder / "config.json", model_type="siglip2")
    with pytest.raises(NotYetSupported, match="NaFlex"):
        SiglipModel.from_pretrained(folder)


def test_a_folder_without_weights_says_what_it_misses(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors or"):
        SiglipModel.from_pretrained(folder)


def test_a_safetensors_file_loads_with_the_config_beside_it(folder: Path, tiny_model: SiglipModel) -> None:
    ours = SiglipModel.from_pretrained(folder / "model.safetensors")
    assert torch.equal(ours.logit_scale, tiny_model.logit_scale)


def test_a_save_that_fails_leaves_the_previous_model(folder: Path, tiny_model: SiglipModel) -> None:
    with torch.device("meta"):
        unsaveable = SiglipModel(SiglipConfig(text_config=SiglipTextConfig(num_hidden_layers=1)))
    with pytest.raises(NotImplementedError):
        unsaveable.save_pretrained(folder)
    again = SiglipModel.from_pretrained(folder)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in tiny_model.state_dict().items())
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_again_leaves_no_files_of_the_previous_save(tiny_model: SiglipModel, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path, max_shard_bytes=60_000)
    sharded = sorted(file.name for file in tmp_path.iterdir())
    assert len(sharded) > 3
    tiny_model.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    tiny_model.save_pretrained(tmp_path, max_shard_bytes=60_000)
    assert sorted(file.name for file in tmp_path.iterdir()) == sharded


def test_a_model_can_be_saved_into_the_folder_it_is_mapped_from(folder: Path, tiny_model: SiglipModel) -> None:
    ours = SiglipModel.from_pretrained(folder)
    with torch.no_grad():
        ours.logit_bias.fill_(-3.0)
    ours.save_pretrained(folder)
    again = SiglipModel.from_pretrained(folder)
    assert again.logit_bias.item() == -3.0
    assert torch.equal(again.vision_model.head.probe, tiny_model.vision_model.head.probe)


def test_a_configuration_that_does_not_say_which_model_it_is_of_is_refused(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    del values["model_type"]
    (folder / "config.json").write_text(json.dumps(values))
    for kind in (SiglipModel, SiglipConfig):
        with pytest.raises(CheckpointError, match=r'config\.json has no "model_type", .*expected "siglip"'):
            kind.from_pretrained(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match='has no "model_type"'):
        SiglipConfig.from_pretrained(folder)
