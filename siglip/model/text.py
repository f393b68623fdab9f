"""input_ids i64[b, ctx] -> token features f32[b, ctx, w] and one pooled vector f32[b, d] a text."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from siglip.config import SiglipTextConfig
from siglip.errors import PreparationError, ShapeError
from siglip.model.layers import EVERY_TOKEN, Encoder, PositionTable, global_state_kept, is_heard, lecun_normal_
from siglip.pretrained import PretrainedModel
from siglip.types import TowerOutput, for_scripts


class TextEmbeddings(nn.Module):
    """Look up each token and add its position."""

    def __init__(self, config: SiglipTextConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = PositionTable(config.max_position_embeddings, config.hidden_size)
        for table in (self.token_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=1.0 / math.sqrt(config.hidden_size), generator=generator)

    def forward(self, input_ids: Int[Tensor, "batch ctx"]) -> Float[Tensor, "batch ctx width"]:
        context_length = self.position_embedding.num_embeddings
        if input_ids.shape[-1] != context_length:
            raise ShapeError(
                f"this text tower reads exactly {context_length} tokens, got {input_ids.shape[-1]}: the embedding is "
                "taken at the last, padded position; prepare texts with the checkpoint's processor"
            )
        return self.token_embedding(input_ids) + self.position_embedding()


class SiglipTextModel(PretrainedModel, nn.Module):
    """Text tower: all tokens see each other and the padding; the last position is pooled and projected."""

    def __init__(self, config: SiglipTextConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        with global_state_kept(generator):
            self.embeddings = TextEmbeddings(config, generator)
            self.encoder = Encoder(config, generator)
            self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.head = nn.Linear(config.hidden_size, config.embedding_size) if config.text_use_head else None
        if self.head is not None:
            lecun_normal_(self.head.weight, config.hidden_size, generator)
            nn.init.zeros_(self.head.bias)

    @for_scripts
    def forward(
        self,
        input_ids: Int[Tensor, "batch ctx"],
        attention_mask: object = None,
        *,
        output_hidden_states: bool | None = False,
        last_token_only: bool = False,
    ) -> TowerOutput:
        """Token features and pooled vector. `input_ids` must be context length wide, as the tokenizer makes them.

        With `last_token_only` the last layer works for the pooled token alone and the features are of that one token:
        the same vector for 7 % less work in twelve layers. Hidden states and hooks need all tokens and overrule it.
        Raises ShapeError for another width, PreparationError for an attention mask.
        """
        forbid_attention_mask(attention_mask)
        needs_all = not last_token_only or output_hidden_states or is_heard(self)
        wanted = EVERY_TOKEN if needs_all else slice(-1, None)
        x, states = self.encoder(self.embeddings(input_ids), bool(output_hidden_states), wanted)
        x = self.final_layer_norm(x)
        pooled = x[:, -1]
        return TowerOutput(x, self.head(pooled) if self.head is not None else pooled, states)

    def get_input_embeddings(self) -> nn.Module:
        """What turns the input into vectors, as adapters ask for it."""
        return self.embeddings.token_embedding

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.final_layer_norm.weight.device


def forbid_attention_mask(attention_mask: object) -> None:
    """Raise PreparationError for anything but None: hiding the padding would move every feature."""
    if attention_mask is not None:
        raise PreparationError(
            "got an attention_mask, but SigLIP's text tower was trained without one and reads its padding; "
            "drop it and pass only the input_ids of the checkpoint's processor"
        )
