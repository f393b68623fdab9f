"""Micro batches give the gradients of the whole batch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from siglip.config import SiglipConfig
from siglip.losses import sigmoid_loss
from siglip.model import SiglipModel
from siglip.training.accumulate import accumulate


def setup(config: SiglipConfig, dropout: float) -> SiglipModel:
    config = SiglipConfig.from_text_vision_configs(
        replace(config.text_config, attention_dropout=dropout), replace(config.vision_config, attention_dropout=dropout)
    )
    return SiglipModel(config, generator=torch.Generator().manual_seed(0)).double().train()


def run(model: SiglipModel, sizes: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 100, (8, 16), generator=generator).split(sizes)
    pixels = torch.randn(8, 3, 30, 30, dtype=torch.float64, generator=generator).split(sizes)

    def embed(micro_batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        ids, pixels = micro_batch
        return F.normalize(model.get_image_features(pixels), dim=-1), F.normalize(model.get_text_features(ids), dim=-1)

    def loss(images: Tensor, texts: Tensor) -> Tensor:
        return sigmoid_loss(images, texts, logit_scale=model.logit_scale, logit_bias=model.logit_bias)

    model.zero_grad()
    value = accumulate(embed, loss, list(zip(ids, pixels, strict=True)))
    return value, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("sizes", [[4, 4], [2, 2, 2, 2], [5, 3], [1] * 8])
def test_micro_batches_give_the_loss_and_gradients_of_one_batch(tiny_config: SiglipConfig, sizes: list[int]) -> None:
    model = setup(tiny_config, dropout=0.0)
    whole, expected = run(model, [8])
    value, got = run(model, sizes)
    torch.testing.assert_close(value, whole)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-9, atol=1e-13, msg=name)


def test_dropout_is_replayed_in_the_second_pass(tiny_config: SiglipConfig) -> None:
    """Numerical derivative of the loss with the dropout of the first pass held fixed by its seed."""
    model = setup(tiny_config, dropout=0.3)

    def loss_at(shift: float) -> float:
        with torch.no_grad():
            model.text_model.head.weight[0, 0] += shift
        torch.manual_seed(3)
        value = run(model, [4, 4])[0].item()
        with torch.no_grad():
            model.text_model.head.weight[0, 0] -= shift
        return value

    torch.manual_seed(3)
    gradient = run(model, [4, 4])[1]["text_model.head.weight"][0, 0].item()
    assert gradient == pytest.approx((loss_at(1e-5) - loss_at(-1e-5)) / 2e-5, rel=1e-5)


def test_a_locked_tower_gets_no_gradient_and_the_other_the_same(tiny_config: SiglipConfig) -> None:
    model = setup(tiny_config, dropout=0.0)
    _, expected = run(model, [8])
    model.vision_model.requires_grad_(False)
    model.zero_grad()
    _, got = run(model, [4, 4])
    assert {name for name in expected if not name.startswith("vision_model.")} == set(got)
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-13, msg=name)
