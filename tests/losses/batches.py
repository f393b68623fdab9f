"""Random batches, and the gradients of a loss, for the tests of this folder."""

import importlib.util
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Batch = dict[str, Tensor]

LEARNABLE = ("image_embeds", "text_embeds", "logit_scale", "logit_bias")


def random_batch(rows: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> Batch:
    """Unit rows, and a scale and a bias under which positives and negatives both matter."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = F.normalize(torch.randn(2, rows, width, generator=generator, dtype=dtype), dim=-1)
    scale, bias = torch.randn(2, 1, generator=generator, dtype=dtype)
    return {"image_embeds": images, "text_embeds": texts, "logit_scale": scale + 1.5, "logit_bias": bias - 1.0}


def random_ids(rows: int, seed: int) -> Batch:
    """Few different ids, so that many are equal, and some unknown (negative)."""
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randint(-2, max(2, rows // 2), (2, rows), generator=generator)
    return {"image_ids": images, "text_ids": texts}


def value_and_gradients(
    loss: Callable[..., Tensor], batch: Batch, *, frozen: Collection[str] = (), **options: Any
) -> dict[str, Tensor]:
    """The loss of `batch` and its derivatives by all that learns and is not `frozen`."""
    leaves = {name: tensor.detach().clone() for name, tensor in batch.items()}
    learning = [name for name in LEARNABLE if name in leaves and name not in frozen]
    for name in learning:
        leaves[name].requires_grad_()
    value = loss(**leaves, **options)
    gradients = torch.autograd.grad(value, [leaves[name] for name in learning])
    return {"loss": value.detach(), **dict(zip(learning, gradients, strict=True))}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Same names, dtypes and shapes, and numbers within `tolerance`, absolute for small and relative for large."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name] - value).abs()
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        assert (difference <= tolerance * (1.0 + value.abs())).all(), f"{name} differs by {difference.max().item():.3g}"


def open_clip_losses() -> ModuleType:
    """The peer's losses, from their file alone: importing its package takes seconds and wants torchvision."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location("open_clip_losses", Path(package.origin).with_name("loss.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
