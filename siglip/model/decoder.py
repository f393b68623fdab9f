"""A Gemma 1 or Gemma 2 decoder: embeddings f32[b, t, w], positions and a mask -> the same shape, through tokens seen.

Module names are those of the published checkpoints. Numbers follow the original code (big_vision/models/ppp/gemma.py):
norms and soft caps in float32, queries scaled after the rotation, no sliding window.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from siglip.config_paligemma import GemmaConfig
from siglip.model.layers import attend, gelu_of, is_heard, lecun_normal_

# of the table: larger values start far from the uniform guess, since table and output head are one
_TABLE_STD = 0.02


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of all tokens so far, allocated once; `filled` counts the tokens.

    Takes 2 x layers x batch x key/value heads x length x head_dim numbers of the decoder's dtype: 18 KB a token and
    row for PaliGemma 3B in bfloat16, 104 KB for PaliGemma 2 3B.
    """

    numbers: Float[Tensor, "two layers batch kv length head"]
    filled: int = 0

    @classmethod
    def empty(cls, config: GemmaConfig, *, batch: int, length: int, like: Tensor) -> "KeyValueCache":
        """Room for `length` tokens a row, with the dtype and device of `like`."""
        heads = config.num_key_value_heads
        return cls(like.new_empty(2, config.num_hidden_layers, batch, heads, length, config.head_dim))

    def store(
        self, layer: int, key: Float[Tensor, "batch kv tokens head"], value: Float[Tensor, "batch kv tokens head"]
    ) -> tuple[Float[Tensor, "batch kv all head"], Float[Tensor, "batch kv all head"]]:
        """Put the keys and values of new tokens behind those there, and return all of the layer."""
        end = self.filled + key.shape[2]
        for part, new in enumerate((key, value)):
            self.numbers[part, layer, :, :, self.filled : end] = new
        return self.numbers[0, layer, :, :, :end], self.numbers[1, layer, :, :, :end]

    def rows(self, index: Int[Tensor, " rows"]) -> "KeyValueCache":
        """A cache whose row i is row `index[i]` of this one."""
        return KeyValueCache(self.numbers.index_select(2, index), self.filled)


class RmsNorm(nn.Module):
    """x / root mean square of x, times (1 + weight); in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return F.rms_norm(x.float(), self.weight.shape, 1.0 + self.weight.float(), self.eps).type_as(x)


class GemmaAttention(nn.Module):
    """Attention whose query heads share key and value heads in groups, with rotary positions."""

    def __init__(self, config: GemmaConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width, head = config.hidden_size, config.head_dim
        self.head_dim = head
        self.scale = config.query_scale
        self.cap = config.attn_logit_softcapping
        self.groups = config.num_attention_heads // config.num_key_value_heads
        self.q_proj = nn.Linear(width, config.num_attention_heads * head, bias=False)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * head, bias=False)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * head, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * head, width, bias=False)
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            lecun_normal_(layer.weight, layer.in_features, generator)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        turn: tuple[Float[Tensor, "batch 1 tokens half"], Float[Tensor, "batch 1 tokens half"]],
        mask: Bool[Tensor, "batch 1 tokens all"] | None,
        memory: tuple[KeyValueCache, int] | None,
        wanted: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch some width"]:
        asking, query_turn = x, turn
        if wanted is not None:
            asking = _at(x, wanted)
            query_turn = tuple(_at(part[:, 0], wanted)[:, None] for part in turn)
            mask = None if mask is None else _at(mask[:, 0], wanted)[:, None]
        query, key, value = (
            layer(tokens).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer, tokens in ((self.q_proj, asking), (self.k_proj, x), (self.v_proj, x))
        )
        query, key = _rotate(query, *query_turn), _rotate(key, *turn)
        if memory is not None:
            cache, layer = memory
            key, value = cache.store(layer, key, value)
        return self.o_proj(self._mix(query, key, value, mask).transpose(1, 2).flatten(2))

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        tokens = query.shape[2]
        # the query heads that share a key head become further queries of it, so no key is copied
        query = query.unflatten(1, (-1, self.groups)).flatten(2, 3)
        if mask is not None:
            mask = mask.repeat(1, 1, self.groups, 1) if tokens > 1 else mask
        if self.cap is None:
            mixed = attend(query, key, value, mask, scale=self.scale)
        else:
            logits = (query.float() * self.scale) @ key.float().transpose(-1, -2)
            logits = self.cap * torch.tanh(logits / self.cap)
            if mask is not None:
                logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
            mixed = logits.softmax(dim=-1).type_as(value) @ value
        return mixed.unflatten(2, (self.groups, tokens)).flatten(1, 2)


def _at(x: Tensor, places: Tensor) -> Tensor:
    """Of each row the token at its place."""
    return x[torch.arange(len(x), device=x.device), places][:, None]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).type_as(x)


class GemmaMlp(nn.Module):
    """down(gelu(gate(x)) * up(x)), with the tanh form of the GELU."""

    def __init__(self, config: GemmaConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        for layer in (self.gate_proj, self.up_proj, self.down_proj):
            lecun_normal_(layer.weight, layer.in_features, generator)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        gate = self.gate_proj(x)
        # of a single token, what the one kernel does is less than what starting several costs
        large = gate.shape[-2] > 1
        gate = gelu_of(self.gate_proj, gate, "tanh") if large else F.gelu(gate, approximate="tanh")
        return self.down_proj(gate * self.up_proj(x))


class GemmaLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); Gemma 2 normalises what is added, too.

    `post_attention_layernorm` is the norm before the MLP in Gemma 1 and the one behind attention in Gemma 2: the
    published names.
    """

    def __init__(self, config: GemmaConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RmsNorm(width, eps)
        self.self_attn = GemmaAttention(config, generator)
        self.post_attention_layernorm = RmsNorm(width, eps)
        self.mlp = GemmaMlp(config, generator)
        self.post_norms = config.post_norms
        self.dropout = config.dropout
        if config.post_norms:
            self.pre_feedforward_layernorm = RmsNorm(width, eps)
            self.post_feedforward_layernorm = RmsNorm(width, eps)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        turn: tuple[Float[Tensor, "batch 1 tokens half"], Float[Tensor, "batch 1 tokens half"]],
        mask: Bool[Tensor, "batch 1 tokens all"] | None,
        memory: tuple[KeyValueCache, int] | None = None,
        wanted: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch some width"]:
        added = self.self_attn(self.input_layernorm(x), turn, mask, memory, wanted)
        x = x if wanted is None else _at(x, wanted)
        if not self.post_norms:
            x = x + self._drop(added)
            return x + self._drop(self.mlp(self.post_attention_layernorm(x)))
        x = x + self._drop(self.post_attention_layernorm(added))
        return x + self.post_feedforward_layernorm(self._drop(self.mlp(self.pre_feedforward_layernorm(x))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class TokenTable(nn.Embedding):
    """One row for each token, and as output head."""

    def scores(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """The product of `hidden` with every row."""
        return F.linear(hidden, self.weight)


class GemmaDecoder(nn.Module):
    """The layers, the table of tokens before them, and the same table as output head behind them.

    With `gradient_checkpointing` each layer is recomputed in the backward pass to save memory.
    """

    def __init__(self, config: GemmaConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = TokenTable(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=_TABLE_STD, generator=generator)
        self.layers = nn.ModuleList(GemmaLayer(config, generator) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False

    def embed(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Rows of the table times sqrt(width), a factor rounded to the table's dtype as in the original code."""
        rows = self.embed_tokens(input_ids)
        return rows * rows.new_tensor(math.sqrt(self.config.hidden_size))

    def forward(
        self,
        embeds: Float[Tensor, "batch tokens width"],
        positions: Int[Tensor, "batch tokens"],
        mask: Bool[Tensor, "batch 1 tokens all"] | None,
        *,
        cache: KeyValueCache | None = None,
        output_hidden_states: bool = False,
        wanted: Int[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch some width"], tuple[Float[Tensor, "batch tokens width"], ...] | None]:
        """What the head reads, and every layer's input if asked for; a cache takes the tokens and counts them.

        Token q may see token k where `mask` is true (None: everywhere), k counting from the first one in the cache.
        With `wanted` only the token at that place of each row comes out, and the last layer works for it alone, unless
        hooks look at the layers.
        """
        half = self.config.head_dim // 2
        steps = torch.arange(half, device=positions.device, dtype=torch.float32) / half
        angles = positions[:, None, :, None].float() * self.config.rope_theta**-steps
        turn = angles.cos(), angles.sin()
        x, states = embeds, [embeds]
        late = wanted is not None and is_heard(self)
        for index, layer in enumerate(self.layers):
            memory = None if cache is None else (cache, index)
            if self.gradient_checkpointing and self.training:
                x = checkpoint(layer, x, turn, mask, use_reentrant=False)
            else:
                x = layer(x, turn, mask, memory, wanted if index + 1 == len(self.layers) and not late else None)
            states.append(x)
        if cache is not None:
            cache.filled += embeds.shape[1]
        x = self.norm(x)
        if late and wanted is not None:
            x = _at(x, wanted)
        # as transformers does: the last state is the one behind the last norm
        return x, (*states[:-1], x) if output_hidden_states else None

    def logits(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """Scores of every next token, float32, soft-capped where the configuration says so."""
        logits = self.embed_tokens.scores(hidden).float()
        cap = self.config.final_logit_softcapping
        return logits if cap is None else cap * torch.tanh(logits / cap)
