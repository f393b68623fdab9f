"""The towers compute what the peer computes from the same weights, and start as the paper's code starts."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.errors import PreparationError, ShapeError
from siglip.model import SiglipForImageClassification, SiglipModel, SiglipVisionModel, resize_position_embedding

CLOSE = {"rtol": 0.0, "atol": 1e-5}


def peer_of(config: SiglipConfig, kind: type = transformers.SiglipModel) -> nn.Module:
    torch.manual_seed(1)
    values = config.to_dict()
    # the peer's defaults for these are left over from another model and lie outside a small vocabulary
    values["text_config"] |= {"bos_token_id": None, "eos_token_id": None}
    return kind(transformers.SiglipConfig(**values)).eval()


def inputs(config: SiglipConfig, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    text, size = config.text_config, config.vision_config.image_size
    ids = torch.randint(0, text.vocab_size, (batch, text.max_position_embeddings), generator=generator)
    return ids, torch.randn(batch, 3, size, size, generator=generator)


@pytest.mark.parametrize("hidden_act", ["gelu_pytorch_tanh", "gelu"])
def test_logits_loss_and_embeddings_equal_the_peers(tiny_config: SiglipConfig, hidden_act: str) -> None:
    config = SiglipConfig.from_text_vision_configs(
        replace(tiny_config.text_config, hidden_act=hidden_act),
        replace(tiny_config.vision_config, hidden_act=hidden_act),
    )
    peer, ours = peer_of(config), SiglipModel(config).eval()
    ours.load_state_dict(peer.state_dict())
    ids, pixels = inputs(config, 5)
    with torch.no_grad():
        expected = peer(input_ids=ids, pixel_values=pixels, return_loss=True)
        got = ours(ids, pixels, return_loss=True)
    for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds", "loss"):
        torch.testing.assert_close(got[name], expected[name], **CLOSE)


def test_every_hidden_state_equals_the_peers(tiny_config: SiglipConfig) -> None:
    peer, ours = peer_of(tiny_config), SiglipModel(tiny_config).eval()
    ours.load_state_dict(peer.state_dict())
    ids, pixels = inputs(tiny_config, 3)
    with torch.no_grad():
        for theirs, mine, given in (
            (peer.text_model, ours.text_model, ids),
            (peer.vision_model, ours.vision_model, pixels),
        ):
            expected, got = theirs(given, output_hidden_states=True), mine(given, output_hidden_states=True)
            torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, **CLOSE)
            torch.testing.assert_close(got.pooler_output, expected.pooler_output, **CLOSE)
            assert len(got.hidden_states) == len(expected.hidden_states)
            for one, other in zip(got.hidden_states, expected.hidden_states, strict=True):
                torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("size", [(30, 30), (48, 64), (16, 8)])
def test_other_picture_sizes_equal_the_peers(tiny_config: SiglipConfig, size: tuple[int, int]) -> None:
    peer, ours = peer_of(tiny_config), SiglipModel(tiny_config).eval()
    ours.load_state_dict(peer.state_dict())
    pixels = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = peer.vision_model(pixels, interpolate_pos_encoding=True).pooler_output
        got = ours.get_image_features(pixels, interpolate_pos_encoding=True)
    torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize(("classes", "multi_label"), [(3, False), (4, True)])
def test_classification_logits_and_loss_equal_the_peers(
    tiny_config: SiglipConfig, classes: int, multi_label: bool
) -> None:
    problem = "multi_label_classification" if multi_label else "single_label_classification"
    config = tiny_config.with_labels([f"class {index}" for index in range(classes)], problem)
    peer, ours = peer_of(config, transformers.SiglipForImageClassification), SiglipForImageClassification(config).eval()
    kept = {name: value for name, value in peer.state_dict().items() if ".head." not in name}
    ours.load_state_dict(kept)
    pixels = inputs(config, 4)[1]
    labels = torch.randint(0, 2, (4, classes)).float() if multi_label else torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        expected, got = peer(pixels, labels=labels), ours(pixels, labels)
    torch.testing.assert_close(got.logits, expected.logits, **CLOSE)
    torch.testing.assert_close(got.loss, expected.loss, **CLOSE)


def test_every_parameter_of_the_classifier_gets_a_gradient(tiny_config: SiglipConfig) -> None:
    model = SiglipForImageClassification(tiny_config)
    nn.init.normal_(model.classifier.weight)
    model(torch.randn(2, 3, 30, 30), torch.tensor([0, 1])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_fresh_model_starts_with_temperature_10_and_bias_minus_10(tiny_model: SiglipModel) -> None:
    assert tiny_model.logit_scale.exp().item() == pytest.approx(10.0)
    assert tiny_model.logit_bias.item() == -10.0


def test_initial_weights_have_the_spread_of_the_papers_code() -> None:
    config = SiglipConfig.from_text_vision_configs(
        SiglipTextConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4,
            vocab_size=4000),
        SiglipVisionConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4),
    )  # fmt: skip
    model = SiglipModel(config, generator=torch.Generator().manual_seed(0))
    weights = dict(model.named_parameters())

    def bound(name: str) -> float:
        return weights[name].abs().max().item()

    layer = "vision_model.encoder.layers.0."
    square, mlp, probe = math.sqrt(6 / 512), math.sqrt(6 / 768), math.sqrt(6 / 257)
    for name, expected in (
        (f"{layer}self_attn.q_proj.weight", square),
        (f"{layer}self_attn.out_proj.weight", square),
        ("vision_model.head.attention.in_proj_weight", square),
        ("vision_model.head.attention.out_proj.weight", square),
        (f"{layer}mlp.fc1.weight", mlp),
        ("vision_model.head.probe", probe),
    ):
        assert 0.95 * expected < bound(name) <= expected * (1 + 1e-6), name
    for name, expected in (
        ("text_model.embeddings.token_embedding.weight", 1 / 16),
        ("text_model.embeddings.position_embedding.weight", 1 / 16),
        ("vision_model.embeddings.position_embedding.weight", 1 / 16),
        ("text_model.head.weight", 1 / 16),
        ("vision_model.embeddings.patch_embedding.weight", 1 / math.sqrt(768)),
        (f"{layer}mlp.fc1.bias", 1e-6),
    ):
        assert weights[name].std().item() == pytest.approx(expected, rel=0.05), name
    # a cut normal: nothing beyond two deviations of the normal before the cut
    assert bound("text_model.head.weight") <= 2 / 16 / 0.8796 * 1.0001
    for name, parameter in weights.items():
        if name.endswith("bias") and ".fc" not in name and name != "logit_bias":
            assert parameter.eq(0).all(), name


def test_an_attention_mask_is_refused_with_the_reason(tiny_model: SiglipModel) -> None:
    ids, pixels = inputs(tiny_model.config, 1)
    with pytest.raises(PreparationError, match="reads its padding"):
        tiny_model.text_model(ids, torch.ones_like(ids))
    with pytest.raises(PreparationError, match="attention_mask"):
        tiny_model(ids, pixels, attention_mask=torch.ones_like(ids))


def test_texts_and_pictures_of_another_size_are_refused(tiny_model: SiglipModel) -> None:
    with pytest.raises(ShapeError, match="exactly 16 tokens, got 5"):
        tiny_model.get_text_features(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ShapeError, match="30 x 30 pixels, got 31 x 30"):
        tiny_model.get_image_features(torch.zeros(1, 3, 31, 30))


def test_a_loss_of_unequal_batches_is_refused(tiny_model: SiglipModel) -> None:
    ids, pixels = inputs(tiny_model.config, 3)
    assert tiny_model(ids[:2], pixels).logits_per_image.shape == (3, 2)
    with pytest.raises(ShapeError, match="3 pictures and 2 texts"):
        tiny_model(ids[:2], pixels, return_loss=True)


def test_half_precision_towers_keep_a_float32_temperature_and_float32_logits(tiny_model: SiglipModel) -> None:
    ids, pixels = inputs(tiny_model.config, 2)
    nn.init.constant_(tiny_model.logit_scale, 4.7215)
    tiny_model.to(torch.bfloat16)
    assert tiny_model.text_model.head.weight.dtype == torch.bfloat16
    assert tiny_model.logit_scale.dtype == torch.float32
    assert tiny_model.logit_scale.item() == pytest.approx(4.7215, abs=1e-6)
    output = tiny_model(ids, pixels)
    assert output.logits_per_image.dtype == output.image_embeds.dtype == torch.float32
    torch.testing.assert_close(output.image_embeds.norm(dim=-1), torch.ones(2))


def test_gradient_checkpointing_changes_no_gradient(tiny_model: SiglipModel) -> None:
    ids, pixels = inputs(tiny_model.config, 3)
    gradients = []
    for recompute in (False, True):
        tiny_model.train().zero_grad()
        tiny_model.vision_model.encoder.gradient_checkpointing = recompute
        tiny_model.text_model.encoder.gradient_checkpointing = recompute
        tiny_model(ids, pixels, return_loss=True).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in tiny_model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_corner_bilinear_resizing_keeps_corners_and_fills_midpoints() -> None:
    grid = torch.tensor([[0.0], [2.0], [4.0], [6.0]])
    resized = resize_position_embedding(grid, (3, 3), method="corner-bilinear")
    assert resized.flatten().tolist() == [0, 1, 2, 2, 3, 4, 4, 5, 6]


def test_resizing_to_the_same_grid_is_the_identity_and_no_square_is_refused() -> None:
    weight = torch.randn(9, 4)
    assert resize_position_embedding(weight, (3, 3), method="bicubic") is weight
    with pytest.raises(ShapeError, match="do not form a square grid"):
        resize_position_embedding(torch.randn(8, 4), (3, 3), method="bicubic")


def test_a_tower_without_head_pools_nothing() -> None:
    config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        vision_use_head=False,
    )  # fmt: skip
    output = SiglipVisionModel(config)(torch.randn(1, 3, 16, 16))
    assert output.pooler_output is None
    assert output.last_hidden_state.shape == (1, 4, 16)


def test_the_vision_pooling_is_attention_then_residual_mlp_as_written_in_the_reference(tiny_model: SiglipModel) -> None:
    """Slow reference: torch's own multi-head attention with the same kernels."""
    head = tiny_model.vision_model.head
    x = torch.randn(2, 9, 48)
    reference = nn.MultiheadAttention(48, 4, batch_first=True)
    reference.load_state_dict(head.attention.state_dict())
    pooled = reference(head.probe.expand(2, 1, -1), x, x)[0]
    hidden = F.gelu(F.linear(head.layernorm(pooled), head.mlp.fc1.weight, head.mlp.fc1.bias), approximate="tanh")
    expected = pooled + F.linear(hidden, head.mlp.fc2.weight, head.mlp.fc2.bias)
    torch.testing.assert_close(head(x), expected[:, 0], **CLOSE)


def test_outputs_open_by_name_and_by_position(tiny_model: SiglipModel) -> None:
    output = tiny_model(*inputs(tiny_model.config, 2))
    assert output.loss is None
    assert output[0] is output["logits_per_image"] is output.logits_per_image
    assert len(output.to_tuple()) == 6  # the outputs of the two towers are the last, as in transformers


def test_patch_dropout_keeps_some_patches_of_each_picture_while_training(tiny_model: SiglipModel) -> None:
    """Every kept token is one of those without dropout, none twice, other ones for the next picture."""
    embeddings = tiny_model.vision_model.embeddings
    size = embeddings.image_size
    pictures = torch.randn(1, 3, size, size).expand(8, -1, -1, -1)
    whole = embeddings(pictures, False)
    embeddings.patch_dropout = 0.25
    assert torch.equal(embeddings.eval()(pictures, False), whole)
    some = embeddings.train()(pictures, False)
    assert some.shape == (8, round(0.75 * whole.shape[1]), whole.shape[2])
    places = [[(whole[0] == token).all(dim=1).nonzero().item() for token in tokens] for tokens in some]
    assert all(len(set(row)) == len(row) for row in places)
    assert len({frozenset(row) for row in places}) > 1
    embeddings.patch_dropout = 0.999
    assert embeddings(pictures, False).shape[1] == 1
