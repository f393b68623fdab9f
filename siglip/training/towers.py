"""A batch -> unit embeddings of both towers, in one process or many, with a locked image tower's vectors looked up."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from siglip.distributed import world_size
from siglip.model import SiglipModel
from siglip.processing import SiglipImageProcessor
from siglip.training.config import TrainConfig


class Rows(NamedTuple):
    """Some rows of a batch: bytes of pictures, or the unit vectors of a locked image tower, and token ids."""

    images: UInt8[Tensor, "batch size size 3"] | Float[Tensor, "batch dim"]
    input_ids: Int[Tensor, "batch context"]

    def split(self, rows: int) -> "list[Rows]":
        """Parts of at most `rows` rows."""
        return [Rows(*parts) for parts in zip(self.images.split(rows), self.input_ids.split(rows), strict=True)]


class Towers(nn.Module):
    """The part of SiglipModel that is heavy: what is wrapped for many devices. t and b stay outside."""

    def __init__(self, model: SiglipModel, images: SiglipImageProcessor, precision: str) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.text_model = model.text_model
        # not assigned as a module: its parameters t and b are averaged by hand
        self._features: Callable[[Tensor], Tensor] = model.get_image_features
        self._normalize = images.normalize
        self._half = precision == "bfloat16"

    def forward(self, rows: Rows) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Unit vectors of pictures and texts, float32 whatever the towers run in."""
        with torch.autocast(rows.input_ids.device.type, torch.bfloat16, enabled=self._half):
            images = self._features(self._normalize(rows.images)) if rows.images.ndim == 4 else rows.images
            texts = self.text_model(rows.input_ids).pooler_output
        return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)


def spread(module: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """The module on `device`, over all processes: replicated (DDP), or sharded layer by layer (FSDP2)."""
    module.to(device)
    if config.compile:
        module.compile()
    if config.sharding == "fsdp":
        mesh = init_device_mesh(device.type, (world_size(),))
        for layer in _layers(module):
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module
    if world_size() > 1 and any(parameter.requires_grad for parameter in module.parameters()):
        return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)
    return module


def hold_back(module: nn.Module) -> AbstractContextManager[object]:
    """Gradients inside the block stay on this process."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for name, part in module.named_modules():
        if name.rpartition(".")[0].endswith("encoder.layers"):
            yield part
