"""What a model is, how its pictures and texts are prepared, and every published variant. No torch here.

dict or keyword arguments -> frozen configuration -> dict (the `config.json` of a checkpoint folder)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, TypeVar

from siglip.errors import ConfigError, NotYetSupported, clip, did_you_mean
from siglip.fields import as_mapping, bounded, by_number, checked, part
from siglip.pretrained import PretrainedConfig, settled

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Resample = Literal["bicubic", "bilinear"]
# keys of published files that look like one of ours
_FOREIGN = (
    *("num_labels", "projection_dim", "attention_bias", "hidden_activation", "_vocab_size"),
    *("bos_token_id", "sep_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
)
Clean = Literal["none", "lower", "canonicalize-hf", "canonicalize-bv"]


def _check_tower(config: "SiglipTextConfig | SiglipVisionConfig", *sizes: str) -> None:
    name = type(config).__name__
    counts = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", *sizes)
    bounded(config, *counts, at_least=1)
    bounded(config, "layer_norm_eps", above=0)
    bounded(config, "attention_dropout", at_least=0, below=1)
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"{name}.hidden_size ({config.hidden_size}) must be a multiple of "
            f"num_attention_heads ({config.num_attention_heads})"
        )
    if config.hidden_act not in ("gelu_pytorch_tanh", "gelu"):
        raise ConfigError(
            f"{name}.hidden_act must be 'gelu_pytorch_tanh' or 'gelu', got {clip(repr(config.hidden_act))}"
        )


@settled
@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class SiglipTextConfig(PretrainedConfig):
    """Text tower; the defaults are base/16-224 of SigLIP.

    `max_position_embeddings` is the context length in tokens. `projection_size` is the width of the shared space
    (None: hidden_size). `text_use_head=False` drops the projection, as in so400m-patch16-256-i18n.
    """

    model_type: ClassVar[str] = "siglip_text_model"

    vocab_size: int = 32000
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    max_position_embeddings: int = 64
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    projection_size: int | None = None
    text_use_head: bool = True

    def __post_init__(self) -> None:
        _check_tower(self, "vocab_size", "max_position_embeddings", "projection_size")
        if not self.text_use_head and self.embedding_size != self.hidden_size:
            raise ConfigError(
                f"without a head the text embedding is hidden_size={self.hidden_size} wide, "
                f"but projection_size={self.projection_size}; set text_use_head=True or drop projection_size"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SiglipTextConfig":
        """Read the `text_config` of a published `config.json`."""
        return _from_dict(cls, values, "text_config")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, and transformers."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        return {"model_type": self.model_type, **values, "projection_size": self.embedding_size}

    @property
    def embedding_size(self) -> int:
        """Width of the text embedding."""
        return self.projection_size if self.projection_size is not None else self.hidden_size


@settled
@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class SiglipVisionConfig(PretrainedConfig):
    """Image tower; the defaults are base/16-224 of SigLIP. `image_size` and `patch_size` are in pixels."""

    model_type: ClassVar[str] = "siglip_vision_model"

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    attention_dropout: float = 0.0
    vision_use_head: bool = True

    def __post_init__(self) -> None:
        _check_tower(self, "image_size", "patch_size", "num_channels")
        if self.patch_size > self.image_size:
            raise ConfigError(
                f"SiglipVisionConfig.patch_size ({self.patch_size}) must be at most image_size ({self.image_size})"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SiglipVisionConfig":
        """Read the `vision_config` of a published `config.json`."""
        return _from_dict(cls, values, "vision_config")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads, and transformers."""
        return {"model_type": self.model_type, **{spec.name: getattr(self, spec.name) for spec in fields(self)}}

    @property
    def grid_size(self) -> int:
        """Patches along one side; pixels right and below the last whole patch are not seen (384 / 14 -> 27)."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patch tokens of one picture."""
        return self.grid_size**2


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSettings:
    """How a checkpoint wants its pixels: squash to the square, scale to [0, 1], subtract `mean`, divide by `std`.

    `image_size` is in pixels; the filter is PIL's, with antialiasing.
    """

    image_size: int = 224
    resample: Resample = "bicubic"
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        bounded(self, "image_size", at_least=1)
        if min(self.image_std) <= 0:
            raise ConfigError(f"ImageSettings.image_std must be three numbers above 0, got {self.image_std}")


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class TextSettings:
    """How a checkpoint wants its text: `clean` first, then pieces, then cut or pad to `context_length` tokens.

    `clean`: "none"; "lower" (SigLIP 2, and the training of SigLIP); "canonicalize-hf" (lower, punctuation dropped,
    spaces collapsed: what users of the published SigLIP checkpoints run); "canonicalize-bv" (the same with `_`
    read as a space: the paper's zero-shot evaluation). `templates` are the sentences that a label is put into, in place
    of "{}", unless the caller names others; they have no say in how a text is encoded.
    """

    context_length: int = 64
    clean: Clean = "canonicalize-hf"
    templates: tuple[str, ...] = ("This is a photo of {}.",)

    def __post_init__(self) -> None:
        bounded(self, "context_length", at_least=2)
        if not self.templates or not all("{}" in template for template in self.templates):
            raise ConfigError(
                "TextSettings.templates must be at least one text, each with {} where the label goes, "
                f"got {list(self.templates)}"
            )


def _default_labels() -> dict[int, str]:
    return {0: "LABEL_0", 1: "LABEL_1"}


@settled
@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class SiglipConfig(PretrainedConfig):
    """Both towers, and the labels of a classifier. Nested dictionaries are read by `from_dict`.

    `id2label` and `problem_type` are read by SiglipForImageClassification only.
    """

    model_type: ClassVar[str] = "siglip"

    text_config: SiglipTextConfig = field(default_factory=SiglipTextConfig)
    vision_config: SiglipVisionConfig = field(default_factory=SiglipVisionConfig)
    id2label: Mapping[int, str] = field(default_factory=_default_labels)
    problem_type: ProblemType | None = None

    def __post_init__(self) -> None:
        if sorted(self.id2label) != list(range(len(self.id2label))) or not self.id2label:
            raise ConfigError(f"id2label must number its labels 0, 1, 2, ..., got the keys {sorted(self.id2label)}")

    @classmethod
    def from_text_vision_configs(
        cls, text_config: SiglipTextConfig, vision_config: SiglipVisionConfig
    ) -> "SiglipConfig":
        """Join two tower configurations; raises ConfigError if their embeddings differ in width."""
        config = cls(text_config=text_config, vision_config=vision_config)
        config.check_towers_meet()
        return config

    def check_towers_meet(self) -> None:
        """Raise ConfigError unless both towers end in vectors of one width, as SiglipModel needs."""
        text, vision = self.text_config.embedding_size, self.vision_config.hidden_size
        if text != vision:
            raise ConfigError(
                f"the towers do not fit together: text embeddings are {text} wide, image embeddings {vision}; "
                f"set SiglipTextConfig.projection_size={vision}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SiglipConfig":
        """Read a `config.json` of the published layout; raises NotYetSupported or ConfigError."""
        if as_mapping(values, "config.json").get("model_type") == "paligemma":
            raise ConfigError(
                "config.json: model_type is 'paligemma', a model that writes and cannot compare pictures "
                "with texts; load it as PaliGemmaForConditionalGeneration, or give a SigLIP model"
            )
        of_towers = [spec.name for kind in (SiglipTextConfig, SiglipVisionConfig) for spec in fields(kind)]
        reject_misspelt(values, [*(spec.name for spec in fields(cls)), *of_towers], "config.json")
        if misplaced := next((name for name in of_towers if name in values), None):
            raise ConfigError(f"config.json: {misplaced} belongs to a tower; give it in text_config or vision_config")
        towers = {
            "text_config": SiglipTextConfig.from_dict(part(values, "text_config", "config.json")),
            "vision_config": SiglipVisionConfig.from_dict(part(values, "vision_config", "config.json")),
        }
        labels = by_number(part(values, "id2label", "config.json"), "config.json: id2label")
        return _from_dict(cls, {**values, **towers, "id2label": labels or _default_labels()}, "config.json")

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of the published layout, read back by `from_dict` and by transformers."""
        return {
            "model_type": self.model_type,
            "text_config": self.text_config.to_dict(),
            "vision_config": self.vision_config.to_dict(),
            "id2label": {str(index): label for index, label in self.id2label.items()},
            "label2id": self.label2id,
            "problem_type": self.problem_type,
        }

    @property
    def num_labels(self) -> int:
        """Classes of the classifier."""
        return len(self.id2label)

    @property
    def label2id(self) -> dict[str, int]:
        """Class name -> index."""
        return {label: index for index, label in self.id2label.items()}

    def with_labels(self, labels: list[str], problem_type: ProblemType | None = None) -> "SiglipConfig":
        """The same towers with other classes; raises ConfigError."""
        given: Any = labels
        if not isinstance(given, list | tuple):
            raise ConfigError(f"labels must be a list of class names, got {clip(repr(given))}")
        return replace(self, id2label=dict(enumerate(labels)), problem_type=problem_type)


def reject_misspelt(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise ConfigError for a key that is nearly a known one; other keys of published files say nothing to us."""
    for key in values:
        nearest = None if key in (*known, *_FOREIGN) else did_you_mean(key, known)
        if nearest and nearest not in values:
            raise ConfigError(f"{where} has no key {clip(repr(key))}; did you mean {nearest!r}?")


_Config = TypeVar("_Config", SiglipTextConfig, SiglipVisionConfig, SiglipConfig)


def _from_dict(kind: type[_Config], values: Any, where: str) -> _Config:
    """Take the keys that shape the model; foreign bookkeeping keys of published files pass, those misspelt do not."""
    model_type = as_mapping(values, where).get("model_type", "siglip")
    if isinstance(model_type, str) and "siglip2" in model_type:
        raise NotYetSupported(
            f"{where}: model_type {clip(repr(model_type))} is a NaFlex SigLIP 2, which this version does not run yet; "
            "use a fixed-resolution one such as google/siglip2-base-patch16-256"
        )
    if not isinstance(model_type, str) or "siglip" not in model_type:
        raise ConfigError(
            f"{where}: model_type is {clip(repr(model_type))}, expected 'siglip'; this folder holds another model"
        )
    known = [spec.name for spec in fields(kind)]
    reject_misspelt(values, known, where)
    return kind(**{name: values[name] for name in known if name in values})
