"""What a PaliGemma is: an image tower, one projector, a Gemma 1 or Gemma 2 decoder of any size. No torch here.

dict or keyword arguments -> frozen configuration -> dict (the `config.json` of a checkpoint folder)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from siglip.config import SiglipVisionConfig, reject_misspelt
from siglip.errors import ConfigError, clip
from siglip.fields import as_mapping, bounded, checked, part
from siglip.pretrained import PretrainedConfig, settled

# what transformers assumes where a published text_config is silent
_GEMMA_1: dict[str, Any] = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
}
_GEMMA_2: dict[str, Any] = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "post_norms": True,
}
_GENERATIONS = {"gemma": _GEMMA_1, "gemma2": _GEMMA_2}
_TANH_GELU = ("gelu_pytorch_tanh", None)


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class GemmaConfig:
    """Decoder; the defaults are those of PaliGemma 3B (Gemma 2B).

    Queries are scaled by `query_pre_attn_scalar` ** -0.5 (None: the head's width). The soft caps squash logits into
    (-cap, cap), of attention and of the output (None: no cap). `post_norms` normalise also what a block adds: with
    them it is Gemma 2. `dropout` is for training. There is no sliding window, as in the original code of PaliGemma.
    """

    vocab_size: int = 257216
    hidden_size: int = 2048
    intermediate_size: int = 16384
    num_hidden_layers: int = 18
    num_attention_heads: int = 8
    num_key_value_heads: int = 1
    head_dim: int = 256
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    query_pre_attn_scalar: int | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    post_norms: bool = False
    dropout: float = 0.0
    max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        bounded(self, *_GEMMA_1, "max_position_embeddings", "query_pre_attn_scalar", at_least=1)
        bounded(self, "rms_norm_eps", "rope_theta", "attn_logit_softcapping", "final_logit_softcapping", above=0)
        bounded(self, "dropout", at_least=0, below=1)
        if self.num_attention_heads % self.num_key_value_heads or self.head_dim % 2:
            raise ConfigError(
                f"GemmaConfig.num_attention_heads ({self.num_attention_heads}) must be a multiple of "
                f"num_key_value_heads ({self.num_key_value_heads}), and head_dim ({self.head_dim}) even"
            )

    @property
    def query_scale(self) -> float:
        """What queries are multiplied with."""
        return (self.query_pre_attn_scalar or self.head_dim) ** -0.5

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GemmaConfig":
        """Read the `text_config` of a published folder; raises ConfigError for another decoder."""
        generation = as_mapping(values, "text_config").get("model_type", "gemma")
        if generation not in [*_GENERATIONS]:
            raise ConfigError(f"text_config: model_type is {clip(repr(generation))}, expected 'gemma' or 'gemma2'")
        activation = values.get("hidden_activation", values.get("hidden_act"))
        # "gelu" in old Gemma files means the tanh form, as the weights were trained
        if activation not in (*_TANH_GELU, "gelu"):
            raise ConfigError(f"text_config: activation is {clip(repr(activation))}, expected 'gelu_pytorch_tanh'")
        given = {**part(values, "rope_parameters", "text_config"), **values}
        known = [spec.name for spec in fields(cls)]
        reject_misspelt(values, [*known, "hidden_act", "hidden_activation"], "text_config")
        chosen: dict[str, Any] = {key: value for key, value in given.items() if key in known}
        return cls(**{**_GENERATIONS[generation], **chosen})

    def to_dict(self) -> dict[str, Any]:
        """A `text_config` read back by `from_dict` and by transformers."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        values |= {
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
            "use_bidirectional_attention": False,
        }
        values["rope_parameters"] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if not self.post_norms:
            return {"model_type": "gemma", **values}
        window = {
            "sliding_window": self.max_position_embeddings,
            "layer_types": ["full_attention"] * self.num_hidden_layers,
        }
        values["query_pre_attn_scalar"] = self.query_pre_attn_scalar or self.head_dim
        return {"model_type": "gemma2", **values, **window}


def _headless() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        patch_size=14,
        vision_use_head=False,
    )


@settled
@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class PaliGemmaConfig(PretrainedConfig):
    """Image tower, decoder, and the ids of tokens that have a meaning; the defaults are PaliGemma 3B at 224 pixels.

    `image_token_index` marks the places of patch tokens in `input_ids`; it needs no row in the table of the decoder.
    """

    vision_config: SiglipVisionConfig = field(default_factory=_headless)
    text_config: GemmaConfig = field(default_factory=GemmaConfig)
    image_token_index: int = 257152
    pad_token_id: int = 0
    eos_token_id: int = 1

    def __post_init__(self) -> None:
        bounded(self, "pad_token_id", "eos_token_id", at_least=0, below=self.text_config.vocab_size)
        bounded(self, "image_token_index", at_least=0)
        if self.image_token_index in (self.pad_token_id, self.eos_token_id):
            raise ConfigError(
                f"PaliGemmaConfig.image_token_index must differ from pad_token_id ({self.pad_token_id}) and "
                f"eos_token_id ({self.eos_token_id}), got {self.image_token_index}"
            )
        if self.vision_config.vision_use_head:
            object.__setattr__(self, "vision_config", replace(self.vision_config, vision_use_head=False))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PaliGemmaConfig":
        """Read a `config.json` of the published layout; raises ConfigError for that of another model."""
        if as_mapping(values, "config.json").get("model_type") != "paligemma":
            raise ConfigError(
                f"config.json: model_type is {clip(repr(values.get('model_type')))}, expected 'paligemma': "
                f"this folder holds a "
                "model that writes no text; captions and answers need a PaliGemma, such as the built-in 'nano-caption'"
            )
        reject_misspelt(values, [spec.name for spec in fields(cls)], "config.json")
        vision_names = [spec.name for spec in fields(SiglipVisionConfig)]
        given = part(values, "vision_config", "config.json")
        vision: dict[str, Any] = {key: value for key, value in given.items() if key in vision_names}
        reject_misspelt(given, vision_names, "vision_config")
        vision["vision_use_head"] = False
        ids = {
            name: values[name]
            for name in ("image_token_index", "pad_token_id", "eos_token_id")
            if values.get(name) is not None
        }
        return cls(
            vision_config=SiglipVisionConfig(**vision),
            text_config=GemmaConfig.from_dict(part(values, "text_config", "config.json")),
            **ids,
        )

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of the published layout, read back by `from_dict` and by transformers."""
        vision = {spec.name: getattr(self.vision_config, spec.name) for spec in fields(self.vision_config)}
        width = self.text_config.hidden_size
        ids = {"pad_token_id": self.pad_token_id, "eos_token_id": self.eos_token_id, "bos_token_id": 2}
        return {
            "model_type": "paligemma",
            "image_token_index": self.image_token_index,
            **ids,
            "projection_dim": width,
            "hidden_size": width,
            "tie_word_embeddings": True,
            "text_config": {**self.text_config.to_dict(), **ids, "num_image_tokens": self.vision_config.num_patches},
            "vision_config": {
                "model_type": "siglip_vision_model",
                **vision,
                "projection_dim": width,
                "num_image_tokens": self.vision_config.num_patches,
            },
        }
