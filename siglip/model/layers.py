"""The transformer both towers share: [batch, tokens, width] -> [batch, tokens, width].

Pre-layer-norm blocks with biases everywhere and no mask. Module names are those of the published checkpoints.
Initialisers are those of the paper's code (big_vision/models/vit.py); `torch.nn.init` differs from it in two places,
see `lecun_normal_` and MapHead.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from siglip.config import SiglipTextConfig, SiglipVisionConfig

# standard deviation of a unit normal cut at two standard deviations
_CUT_NORMAL_STD = 0.87962566103423978

TowerConfig = SiglipTextConfig | SiglipVisionConfig


def lecun_normal_(weight: Tensor, fan_in: int, generator: torch.Generator | None) -> None:
    """Normal cut at two deviations, whose standard deviation after the cut is 1 / sqrt(fan_in), as in flax."""
    std = 1.0 / (math.sqrt(fan_in) * _CUT_NORMAL_STD)
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std, generator=generator)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, config: TowerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        query, key, value = (split_heads(layer(x), self.num_heads) for layer in (self.q_proj, self.k_proj, self.v_proj))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def split_heads(x: Float[Tensor, "batch tokens width"], num_heads: int) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Cut the width into heads, as scaled_dot_product_attention wants them."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with a GELU between: the tanh form, as trained; erf where the configuration says "gelu"."""

    def __init__(self, config: TowerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.approximate = gelu_form(config.hidden_act)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.normal_(layer.bias, std=1e-6, generator=generator)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


def gelu_form(hidden_act: str) -> str:
    """The name PyTorch has for the activation of a published configuration."""
    return "tanh" if hidden_act == "gelu_pytorch_tanh" else "none"


class EncoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: TowerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config, generator)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config, generator)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """A stack of layers. With `gradient_checkpointing` each layer is recomputed in the backward pass to save memory."""

    def __init__(self, config: TowerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config, generator) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False

    def forward(
        self, x: Float[Tensor, "batch tokens width"], output_hidden_states: bool = False
    ) -> tuple[Float[Tensor, "batch tokens width"], tuple[Float[Tensor, "batch tokens width"], ...] | None]:
        states = [x]
        for layer in self.layers:
            recompute = self.gradient_checkpointing and self.training
            x = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
            if output_hidden_states:
                states.append(x)
        return x, tuple(states) if output_hidden_states else None


class MapAttention(nn.Module):
    """One learned query looks at all tokens; query, key and value kernels are stacked in `in_proj_weight`."""

    def __init__(self, config: SiglipVisionConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        # each kernel for itself: taking the stack as one 3D x D matrix would make the bound sqrt(2) too small
        for kernel in (*self.in_proj_weight.data.chunk(3), self.out_proj.weight):
            nn.init.xavier_uniform_(kernel, generator=generator)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, probe: Float[Tensor, "1 1 width"], x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch width"]:
        width = x.shape[-1]
        query = F.linear(probe, self.in_proj_weight[:width], self.in_proj_bias[:width])
        key, value = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        query = split_heads(query, self.num_heads).expand(x.shape[0], -1, -1, -1)
        mixed = F.scaled_dot_product_attention(
            query, split_heads(key, self.num_heads), split_heads(value, self.num_heads)
        )
        return self.out_proj(mixed.flatten(1))


class MapHead(nn.Module):
    """Multi-head attention pooling: y = attention(probe, tokens), then y + mlp(norm(y)). No residual around attention.

    Source: MAPHead in big_vision/models/vit.py.
    """

    def __init__(self, config: SiglipVisionConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.probe = nn.Parameter(torch.empty(1, 1, width))
        self.attention = MapAttention(config, generator)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = Mlp(config, generator)
        # Xavier over the last two axes (1, width); torch would count a fan of width on both sides
        bound = math.sqrt(6.0 / (1 + width))
        nn.init.uniform_(self.probe, -bound, bound, generator=generator)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch width"]:
        pooled = self.attention(self.probe, x)
        return pooled + self.mlp(self.layernorm(pooled))
