"""The transformer both towers share: [batch, tokens, width] -> [batch, tokens, width].

Pre-layer-norm blocks with biases everywhere and no mask. Module names are those of the published checkpoints.
Initialisers are those of the paper's code (big_vision/models/vit.py); `torch.nn.init` differs from it in two places,
see `lecun_normal_` and MapHead.
"""

import math
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks as _EVERY_MODULES_HOOKS  # pyright: ignore[reportPrivateUsage]
from torch.utils.checkpoint import checkpoint

from siglip.config import SiglipTextConfig, SiglipVisionConfig

# standard deviation of a unit normal cut at two standard deviations
_CUT_NORMAL_STD = 0.87962566103423978

# numbers that go through the activation at a time, without gradients: 1 MB
_GELU_BLOCK = 1 << 18

# tokens up to which the square of attention is small beside what else a block keeps for its gradients
_MOST_WRITTEN_OUT = 256

EVERY_TOKEN = slice(None)

TowerConfig = SiglipTextConfig | SiglipVisionConfig


def lecun_normal_(weight: Tensor, fan_in: int, generator: torch.Generator | None) -> None:
    """Normal cut at two deviations, whose standard deviation after the cut is 1 / sqrt(fan_in), as in flax."""
    std = 1.0 / (math.sqrt(fan_in) * _CUT_NORMAL_STD)
    nn.init.trunc_normal_(weight, std=std, a=-2.0 * std, b=2.0 * std, generator=generator)


def global_state_kept(generator: torch.Generator | None) -> AbstractContextManager[None]:
    """Where layers are made: torch's own initialisers, which ours replace, draw from the state that all share."""
    return torch.random.fork_rng(devices=[], enabled=generator is not None)


class Attention(nn.Module):
    """Multi-head attention: the tokens of `x` look at all of `context`, which holds them too."""

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

    def forward(
        self, x: Float[Tensor, "batch queries width"], context: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries width"]:
        query = split_heads(self.q_proj(x), self.num_heads)
        key, value = (split_heads(layer(context), self.num_heads) for layer in (self.k_proj, self.v_proj))
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, dropout=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def attend(
    query: Float[Tensor, "batch heads queries head_dim"],
    key: Float[Tensor, "batch heads tokens head_dim"],
    value: Float[Tensor, "batch heads tokens head_dim"],
    mask: Bool[Tensor, "#batch #heads #queries tokens"] | None = None,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """softmax(scale * query key^T) value, where `mask` is true; `scale` is head_dim ** -0.5 unless given.

    On a CPU torch's fused one is slow backwards in bfloat16, so what learns there is written out, unless there are so
    many tokens that keeping their square would cost memory.
    """
    is_slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if not is_slow or dropout or key.shape[2] > _MOST_WRITTEN_OUT:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    logits = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    # sums of softmax are float32 in any dtype
    return logits.softmax(dim=-1) @ value


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
        hidden = self.fc1(x)
        return self.fc2(gelu_of(self.fc1, hidden, self.approximate))


def gelu_of(layer: nn.Module, hidden: Float[Tensor, "*batch width"], approximate: str) -> Float[Tensor, "*batch width"]:
    """GELU of what `layer` gave; where nobody else may look at it, in its place.

    By blocks that stay in the cache: a second wide tensor costs a page fault every 4 KB.
    """
    if _is_watched(layer, hidden):
        return F.gelu(hidden, approximate=approximate)
    for block in hidden.view(-1).split(_GELU_BLOCK):
        if approximate == "tanh":
            # PyTorch's vectorised tanh costs more than twice this: (1 + tanh(a)) / 2 is sigmoid(2 a)
            wide = block.to(torch.promote_types(block.dtype, torch.float32))
            slope = wide.new_tensor(math.sqrt(8.0 / math.pi))
            gate = torch.addcmul(slope, wide, wide, value=0.044715 * slope.item()).mul_(wide).sigmoid_()
            torch.mul(wide, gate, out=block)
        else:
            block.copy_(F.gelu(block))
    return hidden


def _is_watched(layer: nn.Module, output: Tensor) -> bool:
    """Whether somebody else may hold the `output` of `layer`, or it lies elsewhere than here."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    # for a backward pass or a graph
    if torch.is_grad_enabled() or tracing or output.device.type != "cpu":
        return True
    # a hook, or what was put in the place of `layer` (an adapter)
    return type(layer) is not nn.Linear or is_heard(layer)


def is_heard(module: nn.Module) -> bool:
    """Whether hooks, or functions put in the place of a `forward`, see what `module` or a part of it gives."""
    return bool(_EVERY_MODULES_HOOKS) or any(
        "forward" in state or state["_forward_hooks"] or state["_forward_pre_hooks"]
        for state in map(vars, module.modules())
    )


class PositionTable(nn.Embedding):
    """One row for each position; all of them are taken every time."""

    def forward(self) -> Float[Tensor, "positions width"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.weight


def gelu_form(hidden_act: str) -> str:
    """The name PyTorch has for the activation of a published configuration."""
    return "tanh" if hidden_act == "gelu_pytorch_tanh" else "none"


class EncoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); only for the `wanted` tokens, though these look at all."""

    def __init__(self, config: TowerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config, generator)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config, generator)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], wanted: slice = EVERY_TOKEN
    ) -> Float[Tensor, "batch wanted width"]:
        tokens = self.layer_norm1(x)
        x = x[:, wanted] + self.self_attn(tokens[:, wanted], tokens)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """A stack of layers. With `gradient_checkpointing` each layer is recomputed in the backward pass to save memory."""

    def __init__(self, config: TowerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config, generator) for _ in range(config.num_hidden_layers))
        self.gradient_checkpointing = False

    def forward(
        self, x: Float[Tensor, "batch tokens width"], output_hidden_states: bool = False, wanted: slice = EVERY_TOKEN
    ) -> tuple[Float[Tensor, "batch wanted width"], tuple[Float[Tensor, "batch _ width"], ...] | None]:
        """The last layer's output for the `wanted` tokens, and every layer's if asked for."""
        states = [x]
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            recompute = self.gradient_checkpointing and self.training
            rows = wanted if index == last else EVERY_TOKEN
            x = checkpoint(layer, x, rows, use_reentrant=False) if recompute else layer(x, rows)
            if output_hidden_states:
                states.append(x)
        return x, tuple(states) if output_hidden_states else None


class MapAttention(nn.Module):
    """One learned query looks at all tokens; query, key and value kernels are stacked in `in_proj_weight`.

    With one query no token needs a key or value of its own: <q, K x> is <K' q, x>, and a mean of V x is V times the
    mean of x. The bias of the keys moves all scores of a head alike, so softmax does not see it.
    """

    def __init__(self, config: SiglipVisionConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.scale = (width // self.num_heads) ** -0.5
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
        heads = (self.num_heads, -1)
        query_kernel, key_kernel, value_kernel = self.in_proj_weight.chunk(3)
        query_bias, _, value_bias = self.in_proj_bias.chunk(3)
        query = F.linear(probe, query_kernel, query_bias).view(heads)
        lookup = torch.einsum("hd,hdw->hw", query, key_kernel.unflatten(0, heads)).expand(x.shape[0], 1, -1, -1)
        tokens = x.unsqueeze(1)
        means = attend(lookup, tokens, tokens, scale=self.scale).squeeze(1)
        values = torch.einsum("bhw,hdw->bhd", means, value_kernel.unflatten(0, heads))
        return self.out_proj(values.flatten(1) + value_bias)


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
