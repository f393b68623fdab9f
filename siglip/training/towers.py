"""A batch -> unit embeddings of both towers, in one process or many, with a locked image tower's vectors looked up."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from siglip.distributed import world_size
from siglip.errors import ConfigError
from siglip.model import SiglipModel
from siglip.processing import SiglipImageProcessor
from siglip.training.config import TrainConfig


class Pairs(NamedTuple):
    """Some rows of a batch: bytes of pictures, or the unit vectors of a locked image tower, and token ids."""

    images: UInt8[Tensor, "batch size size 3"] | Float[Tensor, "batch dim"]
    input_ids: Int[Tensor, "batch context"]

    def split(self, rows: int) -> "list[Pairs]":
        """Parts of at most `rows` rows."""
        return [Pairs(*parts) for parts in zip(self.images.split(rows), self.input_ids.split(rows), strict=True)]


class Towers(nn.Module):
    """The part of SiglipModel that is heavy: what is wrapped for many devices. t and b stay outside."""

    def __init__(self, model: SiglipModel, images: SiglipImageProcessor, precision: str) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.text_model = model.text_model
        # not the model as a part of this one: its t and b are averaged by hand
        self._image_features, self._text_features = model.get_image_features, model.get_text_features
        self._normalize = images.normalize
        self._half = precision == "bfloat16"
        self._locked = not any(parameter.requires_grad for parameter in model.vision_model.parameters())

    def forward(self, rows: Pairs) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Unit vectors of pictures and texts, float32 whatever the towers run in."""
        with torch.autocast(rows.input_ids.device.type, torch.bfloat16, enabled=self._half):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self._locked):
                is_vectors = rows.images.ndim == 2
                images = rows.images if is_vectors else self._image_features(self._normalize(rows.images))
            texts = self._text_features(rows.input_ids)
        return F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)

    def train(self, mode: bool = True) -> "Towers":
        """As every module; a locked image tower stays as it is used, without dropout."""
        super().train(mode)
        if self._locked:
            self.vision_model.eval()
        return self


def spread(module: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    """The module on `device`, over all processes: replicated (DDP), or sharded layer by layer (FSDP2).

    Raises ConfigError where the configuration cannot be spread over these processes.
    """
    module.to(device)
    if config.compile:
        module.compile()
    if config.sharding == "fsdp":
        return _sharded(module, config, device)
    if world_size() > 1 and any(parameter.requires_grad for parameter in module.parameters()):
        return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)
    return module


def hold_back(module: nn.Module) -> AbstractContextManager[object]:
    """Gradients inside the block stay on this process; sharded ones have no room for that and are exchanged."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def _sharded(module: nn.Module, config: TrainConfig, device: torch.device) -> nn.Module:
    if not dist.is_initialized():
        raise ConfigError(
            "sharding='fsdp' needs processes started by torchrun; start them so, or set sharding=replicate"
        )
    if config.batch_size % world_size():
        # every process must go through its layers equally often, since they meet at each
        raise ConfigError(
            f"sharding='fsdp' needs equal shares, got batch_size={config.batch_size} for {world_size()} processes"
        )
    mesh = init_device_mesh(device.type, (world_size(),))
    for name, part in module.named_modules():
        if name.rpartition(".")[0].endswith(("encoder.layers", "language_model.layers")):
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module
