"""A decoder's linear layers -> the same with a learned change of low rank; and back to a plain model.

Source: Hu et al. 2021, arXiv 2106.09685, eq. 3. The layers are those of attention and MLP, all seven of a block.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from siglip.model.decoder import GemmaDecoder
from siglip.model.layers import lecun_normal_
from siglip.training.config import LoraSpec


class LowRankLinear(nn.Linear):
    """W x + alpha / rank * B A x, where W is locked and that of `layer`, and A and B learn.

    B starts at zero, so that nothing is changed before the first step. A starts as our kernels do, normal with a
    deviation of 1 / sqrt(in); the authors' code draws it from a uniform distribution of a deviation of 1 / sqrt(3 in).
    """

    def __init__(self, layer: nn.Linear, spec: LoraSpec, generator: torch.Generator) -> None:
        # no memory for weights that are replaced at once
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight.requires_grad_(False), layer.bias
        self.lora_A = nn.Parameter(layer.weight.new_empty(spec.rank, layer.in_features))
        self.lora_B = nn.Parameter(layer.weight.new_zeros(layer.out_features, spec.rank))
        lecun_normal_(self.lora_A, layer.in_features, generator)
        self.scale = spec.scale

    def forward(self, input: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch rows"]:
        return super().forward(input) + F.linear(F.linear(input, self.lora_A), self.lora_B) * self.scale


def add_low_rank(decoder: GemmaDecoder, spec: LoraSpec, seed: int) -> None:
    """Put a LowRankLinear in the place of every linear layer; A is drawn from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for parent in list(decoder.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                setattr(parent, name, LowRankLinear(layer, spec, generator))


def merged(weights: Mapping[str, Tensor], spec: LoraSpec) -> dict[str, Tensor]:
    """Each W + alpha / rank * B A under the name of W, without A and B; whatever else there is stays as it is."""
    plain = {name: weight for name, weight in weights.items() if not name.endswith((".lora_A", ".lora_B"))}
    for name, low in weights.items():
        if name.endswith(".lora_A"):
            layer = name.removesuffix("lora_A")
            plain[f"{layer}weight"] = plain[f"{layer}weight"] + spec.scale * (weights[f"{layer}lora_B"] @ low)
    return plain


def plain_model(model: nn.Module, weights: Mapping[str, Tensor], spec: LoraSpec) -> nn.Module:
    """A model of the class and configuration of `model` that holds these weights, merged; in evaluation mode."""
    made: Any = model
    with torch.device("meta"):
        copy: nn.Module = type(made)(made.config)
    copy.load_state_dict(merged(weights, spec), assign=True)
    return copy.eval()
