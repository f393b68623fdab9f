"""What a run is: one frozen TrainConfig, made by a recipe, changed by `--set a.b=value`, saved with the run."""

import ast
import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from siglip.config import Clean, SiglipConfig, reject_unknown_keys
from siglip.data import Augment
from siglip.errors import ConfigError

Task = Literal["contrastive", "classification"]
Trainable = Literal["all", "text", "head", "last-blocks"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """The model a run starts from: a checkpoint (`source`), or fresh weights of a shape (`config`).

    `preparation` is the checkpoint whose vocabulary and image settings a fresh model uses; a path to a spiece.model or
    tokenizer.json is a vocabulary alone. `clean` is how such a model's texts are cleaned; None: as its vocabulary says.
    `image_size` in pixels resizes the position embeddings of `source`. `initial_bias` replaces b of a fresh model: at
    small batches the log-odds of a positive pair, -log(batch_size - 1), is a better start than the paper's -10.
    """

    source: str | None = None
    config: SiglipConfig | None = None
    preparation: str | None = None
    clean: Clean | None = None
    image_size: int | None = None
    initial_bias: float | None = None

    def __post_init__(self) -> None:
        if (self.source is None) == (self.config is None):
            raise ConfigError(
                "model needs either source (a checkpoint to start from) or config (a fresh model's shape)"
            )
        if self.config is not None and self.preparation is None:
            raise ConfigError(
                "a fresh model needs model.preparation: a checkpoint or vocabulary file to prepare texts with"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """Where pairs come from and how pictures are varied. Paths as `siglip data stats` takes them.

    `held_out` is evaluated on, never trained on. `augment` is applied while training; its default is the checkpoint's
    own resize alone, which a locked image tower needs. `workers` processes make batches, for each training process.
    `cache_images` computes the vectors of a locked image tower once and looks them up in every step.
    `max_broken` is the share of samples that may be broken before the run stops. `positives`: "pairs" is the paper's
    loss; "equal" counts equal captions and equal concepts as positives too.
    """

    train: str
    held_out: str | None = None
    augment: Augment = field(default_factory=Augment)
    workers: int = 2
    cache_images: bool = True
    max_broken: float = 0.01
    positives: Literal["pairs", "equal"] = "pairs"


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """Optimizer, schedule and clipping. `weight_decay` is AdamW's: the paper's 1e-4 at lr 1e-3 is 0.1 here.

    The multipliers scale the learning rate of one tower, or of t and b; a tower's own weight decay replaces the
    common one. `clip_norm` bounds the norm over all trainable parameters (None: no clipping).
    """

    name: Literal["adamw", "adafactor", "lion"] = "adamw"
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    image_lr_multiplier: float = 1.0
    text_lr_multiplier: float = 1.0
    logit_lr_multiplier: float = 1.0
    image_weight_decay: float | None = None
    text_weight_decay: float | None = None
    warmup_steps: int = 0
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1 or self.weight_decay < 0:
            raise ConfigError(
                "optimizer needs lr > 0, betas in [0, 1) and weight_decay >= 0, got "
                f"lr={self.lr}, beta1={self.beta1}, beta2={self.beta2}, weight_decay={self.weight_decay}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides the numbers of a run.

    `batch_size` is the whole batch, over all processes; `micro_batch_size` rows go through the towers at a time (None:
    all of a process's share). `trainable`: "all"; "text" locks the image tower (SigLiT); "head" trains only the
    classifier or the pooling heads; "last-blocks" the last `num_blocks` layers of each tower and what follows them.
    `ema` is the decay of an exponential average of the weights that is exported in their place. Steps are updates.
    """

    model: ModelSpec
    data: DataSpec
    task: Task = "contrastive"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    steps: int = 1000
    batch_size: int = 256
    micro_batch_size: int | None = None
    trainable: Trainable = "all"
    num_blocks: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    compile: bool = False
    sharding: Literal["replicate", "fsdp"] = "replicate"
    ema: float | None = None
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 500
    save_every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "num_blocks", "log_every", "evaluate_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.optimizer.warmup_steps >= self.steps:
            raise ConfigError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} must be less than steps={self.steps}"
            )
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise ConfigError(f"micro_batch_size must be >= 1, got {self.micro_batch_size}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema must be between 0 and 1, got {self.ema}")
        if self.task == "classification" and self.trainable == "text":
            raise ConfigError("a classifier has no text tower; trainable is 'all', 'head' or 'last-blocks'")

    def with_overrides(self, assignments: Mapping[str, str]) -> "TrainConfig":
        """A copy with values such as {"optimizer.lr": "3e-4"} replaced.

        Raises ConfigError for an unknown key, naming the nearest, and for a value of another type.
        """
        config = self
        for path, text in assignments.items():
            config = _replaced(config, path.split("."), text, path)
        return config

    def to_json(self) -> str:
        """The resolved configuration, read back equal by `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Read what `to_json` wrote."""
        return _build(cls, json.loads(text), "config")


_Spec = TypeVar("_Spec")


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the hint alone."""
    return (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )


def _build(kind: type[_Spec], values: Mapping[str, Any], where: str) -> _Spec:
    hints = _hints(kind)
    reject_unknown_keys(values, set(hints), where)
    return kind(**{key: _from_json(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _from_json(hint: Any, value: Any, where: str) -> Any:
    for option in _options(hint):
        if isinstance(value, dict):
            if is_dataclass(option) and isinstance(option, type):
                return _build(option, typing.cast(dict[str, Any], value), where)
            if typing.get_origin(option) is not None:
                return {int(key): text for key, text in typing.cast(dict[str, Any], value).items()}
    return value


def _replaced(spec: _Spec, path: list[str], text: str, full: str) -> _Spec:
    assert is_dataclass(spec) and not isinstance(spec, type)
    key = path[0]
    reject_unknown_keys(
        {key: text}, {item.name for item in fields(spec)}, full.rpartition(key)[0].rstrip(".") or "config"
    )
    value: Any
    if len(path) > 1:
        inner = getattr(spec, key)
        if not is_dataclass(inner):
            raise ConfigError(f"{full}: {key} is {inner!r} and has no parts to set")
        value = _replaced(inner, path[1:], text, full)
    else:
        value = _parse(_hints(type(spec))[key], text, full)
    return dataclasses.replace(spec, **{key: value})


def _parse(hint: Any, text: str, where: str) -> Any:
    """Text -> a value the annotation allows."""
    options = _options(hint)
    try:
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"none": None, "true": True, "false": False}.get(text.lower(), text)
    for option in options:
        if typing.get_origin(option) is Literal and value in typing.get_args(option):
            return value
        if option is type(None) and value is None:
            return None
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option in (int, bool, str) and type(value) is option:
            return value
        if option is str and text.lower() not in ("none",):
            return text
    raise ConfigError(f"{where} must be {getattr(hint, '__name__', hint)}, got {text!r}")
