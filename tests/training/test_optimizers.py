"""Optimizers take the steps their papers write down, and decay touches kernels only."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from siglip.errors import ConfigError
from siglip.model import SiglipModel
from siglip.training.config import OptimizerSpec
from siglip.training.optimizers import Adafactor, Lion, make_optimizer, parameter_groups, set_learning_rate
from siglip.training.schedule import learning_rate_factor


def test_only_kernels_decay(tiny_model: SiglipModel) -> None:
    groups = parameter_groups(tiny_model.named_parameters(), OptimizerSpec(weight_decay=0.1))
    names = {id(parameter): name for name, parameter in tiny_model.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    rest = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert decayed | rest == set(names.values())
    assert "vision_model.head.attention.in_proj_weight" in decayed
    assert "vision_model.embeddings.patch_embedding.weight" in decayed
    assert "text_model.head.weight" in decayed
    for name in (
        "vision_model.head.probe",
        "vision_model.embeddings.position_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_model.embeddings.position_embedding.weight",
        "logit_scale",
        "logit_bias",
    ):
        assert name in rest
    assert not [name for name in decayed if name.endswith("bias") or "norm" in name]


def test_towers_have_their_own_learning_rate_and_decay(tiny_model: SiglipModel) -> None:
    config = OptimizerSpec(lr=1.0, image_lr_multiplier=0.1, image_weight_decay=0.0, logit_lr_multiplier=10.0)
    groups = {group["name"]: group for group in parameter_groups(tiny_model.named_parameters(), config)}
    assert groups["image kernels"]["lr"] == pytest.approx(0.1)
    assert groups["image kernels"]["weight_decay"] == 0.0
    assert groups["text kernels"]["weight_decay"] == 0.1
    assert groups["logit rest"]["lr"] == pytest.approx(10.0)
    optimizer = make_optimizer(tiny_model.named_parameters(), config)
    set_learning_rate(optimizer, 0.5)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups}["image rest"] == pytest.approx(0.05)


def test_frozen_parameters_are_in_no_group(tiny_model: SiglipModel) -> None:
    tiny_model.vision_model.requires_grad_(False)
    names = {group["name"] for group in parameter_groups(tiny_model.named_parameters(), OptimizerSpec())}
    assert names == {"text kernels", "text rest", "logit rest"}


def test_adamw_takes_lr_times_decay_away_as_the_mapping_says(tiny_model: SiglipModel) -> None:
    """A zero gradient leaves only the decay: w * (1 - lr * wd)."""
    weight = tiny_model.text_model.head.weight
    before = weight.detach().clone()
    optimizer = make_optimizer(tiny_model.named_parameters(), OptimizerSpec(lr=1e-3, weight_decay=0.1))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 1e-4))


def test_lion_moves_by_the_sign_and_remembers() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0]))
    optimizer = Lion([{"params": [weight], "weight_decay": 0.5}], lr=0.1, betas=(0.9, 0.99))
    weight.grad = torch.tensor([2.0, -4.0])
    optimizer.step()
    # 1 * (1 - 0.1 * 0.5) -/+ 0.1; momentum 0.01 * gradient
    torch.testing.assert_close(weight.detach(), torch.tensor([0.85, 1.05]))
    weight.grad = torch.tensor([-0.001, 0.0])
    optimizer.step()
    # 0.9 * 0.02 - 0.1 * 0.001 > 0, so the first still goes down; 0.9 * -0.04 < 0, so the second goes up
    torch.testing.assert_close(weight.detach(), torch.tensor([0.85 * 0.95 - 0.1, 1.05 * 0.95 + 0.1]))


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.5, 0.9), (0.95, 0.98)])
def test_lion_equals_its_program_in_plain_loops(betas: tuple[float, float]) -> None:
    """Chen et al. 2023, Program 1, number by number: the step looks through beta1, the memory through beta2."""
    beta1, beta2 = betas
    gradients = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = Lion([{"params": [weight], "weight_decay": 0.5}], lr=0.1, betas=betas)
    expected, momentum = [1.0] * 5, [0.0] * 5
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
        for i, g in enumerate(gradient.tolist()):
            step = math.copysign(1.0, beta1 * momentum[i] + (1 - beta1) * g)
            expected[i] -= 0.1 * (step + 0.5 * expected[i])
            momentum[i] = beta2 * momentum[i] + (1 - beta2) * g
    torch.testing.assert_close(weight.detach(), torch.tensor(expected, dtype=torch.float64))


def slow_adafactor(gradients: list[Tensor], lr: float) -> Tensor:
    """Loops over single numbers; the recipe of the paper's code written out."""
    rows, columns = len(gradients[0]), len(gradients[0][0])
    weight = [[0.0] * columns for _ in range(rows)]
    momentum = torch.zeros(rows, columns, dtype=torch.bfloat16)
    row_mean, column_mean = [0.0] * rows, [0.0] * columns
    for index, gradient in enumerate(gradients):
        decay = min(0.95, 1 - (index + 1) ** -0.8)
        g = gradient.tolist()
        for i in range(rows):
            row_mean[i] = (
                decay * row_mean[i] + (1 - decay) * sum(g[i][j] ** 2 + 1e-30 for j in range(columns)) / columns
            )
        for j in range(columns):
            column_mean[j] = (
                decay * column_mean[j] + (1 - decay) * sum(g[i][j] ** 2 + 1e-30 for i in range(rows)) / rows
            )
        overall = sum(row_mean) / rows
        for i in range(rows):
            for j in range(columns):
                update = g[i][j] / math.sqrt(row_mean[i] / overall * column_mean[j])
                new = 0.9 * momentum[i, j].item() + 0.1 * update
                weight[i][j] -= lr * new
                momentum[i, j] = new
    return torch.tensor(weight)


@pytest.mark.parametrize("shape", [(32, 40), (40, 32)])
def test_adafactor_equals_its_recipe_in_plain_loops(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for _ in range(4)]
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = Adafactor([weight], lr=0.01)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), slow_adafactor(gradients, 0.01), rtol=2e-3, atol=2e-5)


def test_adafactor_of_a_vector_keeps_the_second_moment_of_each_number() -> None:
    gradients = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(torch.zeros(5))
    optimizer = Adafactor([weight], lr=0.01)
    expected, second, momentum = [0.0] * 5, [0.0] * 5, torch.zeros(5, dtype=torch.bfloat16)
    for index, gradient in enumerate(gradients):
        weight.grad = gradient.clone()
        optimizer.step()
        decay = min(0.95, 1 - (index + 1) ** -0.8)
        for i, g in enumerate(gradient.tolist()):
            second[i] = decay * second[i] + (1 - decay) * (g**2 + 1e-30)
            new = 0.9 * momentum[i].item() + 0.1 * g / math.sqrt(second[i])
            expected[i] -= 0.01 * new
            momentum[i] = new
    torch.testing.assert_close(weight.detach(), torch.tensor(expected), rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adafactor", Adafactor), ("lion", Lion)])
def test_the_recipe_names_the_optimizer(name: Any, kind: type, tiny_model: SiglipModel) -> None:
    optimizer = make_optimizer(tiny_model.named_parameters(), OptimizerSpec(name=name, lr=0.5, beta1=0.8, beta2=0.7))
    assert type(optimizer) is kind
    betas = ("beta1", "beta2_cap") if kind is Adafactor else ("betas",)
    for group in optimizer.param_groups:
        assert [group[key] for key in betas] == ([0.8, 0.7] if kind is Adafactor else [(0.8, 0.7)])


def test_adafactor_keeps_short_axes_whole_and_long_ones_factored() -> None:
    small, large, conv = (
        nn.Parameter(torch.ones(31, 50)),
        nn.Parameter(torch.ones(64, 50)),
        nn.Parameter(torch.ones(48, 3, 8, 8)),
    )
    optimizer = Adafactor([small, large, conv], lr=0.01)
    for parameter in (small, large, conv):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.state[small]["second"].shape == (31, 50)
    assert {optimizer.state[large][name].numel() for name in ("rows", "columns")} == {64, 50}
    assert optimizer.state[conv]["second"].shape == conv.shape


def test_the_learning_rate_warms_up_linearly_and_falls_as_a_cosine() -> None:
    factors = [learning_rate_factor(step, steps=12, warmup_steps=4) for step in range(13)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0)
    assert learning_rate_factor(6, steps=8, warmup_steps=4, decay="linear") == pytest.approx(0.5)
    assert learning_rate_factor(8, steps=8, warmup_steps=4, decay="constant") == 1.0
    with pytest.raises(ConfigError, match="12 of 12"):
        learning_rate_factor(0, steps=12, warmup_steps=12)
