"""named parameters and an OptimizerSpec -> an optimizer over groups that differ in learning rate and weight decay.

Weight decay is torch's: each update takes lr * weight_decay * parameter away. The paper's code does not multiply its
decay by the learning rate, so its 1e-4 at learning rate 1e-3 is 0.1 here. Only kernels decay: neither biases and
norms, nor embeddings, position embeddings, the probe, t and b.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from siglip.training.config import OptimizerSpec

Tower = Literal["image", "text", "logit", "head"]

# parameters that are lookups or single vectors although they have two axes or more
_NO_KERNEL = ("position_embedding.weight", "token_embedding.weight", "embed_tokens.weight", "probe")


def tower_of(name: str) -> Tower:
    """Which part of the model a parameter belongs to: a tower, the temperature and bias, or a classifier head.

    A decoder counts as text tower, the projector before it as head.
    """
    if name.startswith(("vision_model.", "vision_tower.")):
        return "image"
    if name.startswith(("text_model.", "language_model.")):
        return "text"
    return "logit" if name in ("logit_scale", "logit_bias") else "head"


def is_kernel(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: matrices and convolutions only."""
    return parameter.ndim >= 2 and not name.endswith(_NO_KERNEL)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], config: OptimizerSpec) -> list[dict[str, Any]]:
    """Trainable parameters by tower and decay; each group carries its `name`, `lr`, `base_lr` and `weight_decay`."""
    multiplier = {"image": config.image_lr_multiplier, "text": config.text_lr_multiplier}
    decay = {"image": config.image_weight_decay, "text": config.text_weight_decay}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        tower = tower_of(name)
        lr = config.lr * multiplier.get(tower, config.logit_lr_multiplier if tower == "logit" else 1.0)
        own_decay = decay.get(tower)
        weight_decay = config.weight_decay if own_decay is None else own_decay
        kind = "kernels" if is_kernel(name, parameter) else "rest"
        group = groups.setdefault(
            f"{tower} {kind}",
            {
                "name": f"{tower} {kind}",
                "params": [],
                "lr": lr,
                "base_lr": lr,
                "weight_decay": weight_decay if kind == "kernels" else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(named: Iterable[tuple[str, nn.Parameter]], config: OptimizerSpec) -> torch.optim.Optimizer:
    """The optimizer of the recipe: "adamw", "adafactor" or "lion"."""
    groups = parameter_groups(named, config)
    if config.name == "adamw":
        # fused: one pass over each tensor, on the CPU too
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)
    if config.name == "adafactor":
        return Adafactor(groups, lr=config.lr, beta1=config.beta1, beta2_cap=config.beta2)
    return Lion(groups, lr=config.lr, betas=(config.beta1, config.beta2))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's own learning rate by the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


class Lion(torch.optim.Optimizer):
    """Sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675, Program 1)."""

    def __init__(self, params: Iterable[Any], *, lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                direction = torch.lerp(parameter.grad, momentum, beta1).sign_()
                momentum.lerp_(parameter.grad, 1.0 - beta2)
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
        return loss


class Adafactor(torch.optim.Optimizer):
    """Adafactor with momentum in bfloat16 and a capped second-moment decay, as in the ScalingViT and SigLIP papers.

    Second moments of matrices are kept as a row and a column (Shazeer and Stern 2018, Algorithm 4); the decay at
    update i (from 0) is min(beta2_cap, 1 - (i + 1)^-0.8). No update clipping and no relative step size. Source of the
    variant: scale_by_adafactor in big_vision/optax.py, whose cap of 0.999 the SigLIP paper lowers to 0.95.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, beta1: float = 0.9, beta2_cap: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2_cap": beta2_cap, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    _start_adafactor(state, parameter)
                state["step"] += 1
                decay = (1.0 - state["step"] ** -0.8).clamp_(max=group["beta2_cap"])
                update = _normalised(parameter.grad.float(), state, decay)
                momentum = update.lerp(state["momentum"].float(), group["beta1"])
                state["momentum"].copy_(momentum)
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(momentum, alpha=-group["lr"])
        return loss


def _factored_axes(shape: torch.Size) -> tuple[int, int] | None:
    """The two longest axes, the longest last, if both are long enough to be worth it."""
    if len(shape) < 2:
        return None
    axes = sorted(range(len(shape)), key=lambda axis: shape[axis])
    return (axes[-2], axes[-1]) if shape[axes[-2]] >= 32 else None


def _start_adafactor(state: dict[str, Any], parameter: Tensor) -> None:
    state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    state["momentum"] = torch.zeros_like(parameter, dtype=torch.bfloat16)
    axes = _factored_axes(parameter.shape)
    full = torch.zeros_like(parameter, dtype=torch.float32)
    if axes is None:
        state["second"] = full
    else:
        state["rows"], state["columns"] = full.mean(dim=axes[1]), full.mean(dim=axes[0])


def _normalised(gradient: Tensor, state: dict[str, Any], decay: Tensor) -> Tensor:
    """The gradient over the root of its running second moment, which is updated."""
    square = gradient.square() + 1e-30
    axes = _factored_axes(gradient.shape)
    if axes is None:
        state["second"].lerp_(square, 1.0 - decay)
        return gradient * state["second"].rsqrt()
    shorter, longer = axes
    state["rows"].lerp_(square.mean(dim=longer), 1.0 - decay)
    state["columns"].lerp_(square.mean(dim=shorter), 1.0 - decay)
    row_axis = shorter - (longer < shorter)
    rows = state["rows"] / state["rows"].mean(dim=row_axis, keepdim=True)
    return gradient * rows.rsqrt().unsqueeze(longer) * state["columns"].rsqrt().unsqueeze(shorter)


def count_parameters(groups: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Parameters in each group, by its name."""
    return {group["name"]: sum(math.prod(parameter.shape) for parameter in group["params"]) for group in groups}
