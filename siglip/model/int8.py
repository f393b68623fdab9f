"""A model without memory -> the same with one byte a weight: whole numbers, and one float32 factor for each row.

Linear layers and the table of tokens only; norms, biases and positions stay as they are. Each product first makes the
weights float again, block by block, so that it costs memory for one block and no precision beyond that of the weights.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

# weights made float at a time: 4 MB, which stay near the processor
_BLOCK = 1 << 20
_LARGEST = 127.0


class Int8Linear(nn.Module):
    """What nn.Linear computes, from rows of whole numbers times a factor a row; for use, not for training."""

    def __init__(self, rows: int, width: int, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(rows, width, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(rows))
        self.bias = None if bias is None else nn.Parameter(torch.empty_like(bias))
        self.weight: Tensor
        self.scale: Tensor

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch rows"]:
        flat = x.reshape(-1, x.shape[-1])
        rows = max(1, _BLOCK // x.shape[-1])
        found = x.new_empty(len(flat), len(self.weight))
        for part, weight in zip(found.split(rows, dim=1), self.weight.split(rows), strict=True):
            part.copy_(F.linear(flat, weight.to(x.dtype)))
        found = found.mul_(self.scale.to(x.dtype)).unflatten(0, x.shape[:-1])
        return found if self.bias is None else found.add_(self.bias.to(x.dtype))


class Int8Table(Int8Linear):
    """The table of tokens: rows by their number, and as output head."""

    def forward(self, x: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        return self.weight[x].float() * self.scale[x][..., None]

    def scores(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch rows"]:
        """The product of `hidden` with every row."""
        return super().forward(hidden)


def make_int8(model: nn.Module, kept: nn.Module) -> None:
    """Put these layers in the place of every linear layer and table of `model`, but for those in `kept`."""
    spared = set(kept.modules())
    for parent in list(model.modules()):
        if parent in spared:
            continue
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer not in spared:
                setattr(parent, name, Int8Linear(layer.out_features, layer.in_features, layer.bias))
            elif name == "embed_tokens" and isinstance(layer, nn.Embedding):
                setattr(parent, name, Int8Table(layer.num_embeddings, layer.embedding_dim, None))


def quantised(weight: Float[Tensor, "rows width"]) -> tuple[Int[Tensor, "rows width"], Float32[Tensor, " rows"]]:
    """Whole numbers in [-127, 127], and the factor that gives back each row's largest weight."""
    whole = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(len(weight), device=weight.device)
    rows = max(1, _BLOCK // weight.shape[1])
    for start in range(0, len(weight), rows):
        block = weight[start : start + rows].float()
        # a row of zeros stays one
        factor = (block.abs().amax(dim=1) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        scale[start : start + rows] = factor
        whole[start : start + rows] = (block / factor[:, None]).round_().to(torch.int8)
    return whole, scale
