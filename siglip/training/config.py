"""What a run is: one frozen TrainConfig, made by a recipe, changed by `--set a.b=value`, saved with the run."""

import ast
import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from siglip.config import Clean, SiglipConfig
from siglip.config_paligemma import PaliGemmaConfig
from siglip.data import Augment, Columns
from siglip.errors import ConfigError, clip, did_you_mean
from siglip.fields import annotations, bounded, by_number, checked, described, options, reject_unknown_keys

TaskName = Literal["contrastive", "classification", "generation"]
Trainable = Literal["all", "text", "decoder", "lora", "head", "last-blocks"]


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """The model a run starts from: a checkpoint (`source`), or fresh weights of a shape (`config`).

    With `source`, `image_size` in pixels resizes the position embeddings. With `config`, `preparation` is the
    checkpoint whose vocabulary and image settings the model uses, or the path of a spiece.model or tokenizer.json, a
    vocabulary alone; `clean` is how its texts are cleaned (None: as its vocabulary says); and `image_tower` is a
    checkpoint whose image tower takes the place of the fresh one, as in locked-image tuning.

    `initial_bias` replaces b. The paper's -10 is right for 32k pairs: with small batches the log-odds of a positive
    pair, -log(batch_size - 1), is a better start. `classifier_start` is what the new layer of a classifier begins as:
    "zeros", or "probe", a logistic regression on the pooled vectors of the training pictures; the pooling head of the
    source is then one more layer of the tower.
    """

    source: str | None = None
    image_size: int | None = None
    config: SiglipConfig | PaliGemmaConfig | None = None
    preparation: str | None = None
    clean: Clean | None = None
    image_tower: str | None = None
    initial_bias: float | None = None
    classifier_start: Literal["zeros", "probe"] = "zeros"

    def __post_init__(self) -> None:
        bounded(self, "image_size", at_least=1)
        if (self.source is None) == (self.config is None):
            raise ConfigError(
                "model needs either source (a checkpoint to start from) or config (a fresh model's shape)"
            )
        if self.config is not None and self.preparation is None:
            raise ConfigError(
                "a fresh model needs model.preparation: a checkpoint or vocabulary file to prepare texts with"
            )
        unused = ("image_size",) if self.source is None else ("preparation", "clean", "image_tower")
        for name in unused:
            if getattr(self, name) is not None:
                instead = "model.config.vision_config.image_size" if self.source is None else "a model.config"
                raise ConfigError(f"model.{name} has no effect here; it belongs to {instead}")


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class DataSpec:
    """Where pairs come from and how pictures are varied. Paths as `siglip data stats` takes them.

    `held_out` is evaluated on, never trained on. `columns` names the columns of tables, of both, where their names do
    not tell, as in `--set data.columns.image=URL`. `augment` is applied while training; its default is the checkpoint's
    own resize alone, which a locked image tower needs. `workers` processes make batches, for each training process.
    `cache_images` computes the vectors of a locked image tower once and looks them up in every step.
    `max_broken` is the share of samples that may be broken before the run stops. `prefix` stands before the text of
    samples that bring none of their own, where the model writes. `positives`: "pairs" is the paper's
    loss; "equal" counts equal captions and equal concepts as positives too.
    """

    train: str
    held_out: str | None = None
    columns: Columns = field(default_factory=Columns)
    augment: Augment = field(default_factory=Augment)
    workers: int = 2
    cache_images: bool = True
    max_broken: float = 0.01
    prefix: str = "caption en"
    positives: Literal["pairs", "equal"] = "pairs"

    def __post_init__(self) -> None:
        bounded(self, "workers", at_least=0)
        bounded(self, "max_broken", at_least=0, at_most=1)


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSpec:
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
        bounded(self, "lr", "clip_norm", above=0)
        bounded(self, "beta1", "beta2", at_least=0, below=1)
        bounded(self, "weight_decay", "image_weight_decay", "text_weight_decay", "warmup_steps", at_least=0)
        bounded(self, "image_lr_multiplier", "text_lr_multiplier", "logit_lr_multiplier", at_least=0)


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSpec:
    """How much a decoder's linear layers may change: by a matrix of this rank, times alpha / rank."""

    rank: int = 16
    alpha: float = 32.0

    def __post_init__(self) -> None:
        bounded(self, "rank", at_least=1)
        bounded(self, "alpha", above=0)

    @property
    def scale(self) -> float:
        """The factor of B A."""
        return self.alpha / self.rank


@checked
@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides the numbers of a run.

    `batch_size` is the whole batch, over all processes; `micro_batch_size` rows go through the towers at a time (None:
    all of a process's share). `trainable`: "all"; "text" locks the image tower (SigLiT); "head" trains only the
    classifier, the pooling heads, or the projector before a decoder; "decoder" a decoder alone, "lora" a change of low
    rank to its linear layers, merged into them in whatever is exported; "last-blocks" the last `num_blocks` layers of
    each tower and what follows them. `label_smoothing` is for what is written.
    `patch_dropout` is the share of each picture's patches that the image tower does not see (FLIP, arXiv 2212.00794).
    `precision` is that of the towers; weights and losses are float32. `ema` is the decay of an exponential average of
    the weights that is evaluated and exported in their place. Steps are updates. `export`: the weights of the last
    step, or the best of those judged on held-out data, the start among them. `tensorboard` writes the numbers of
    the run for TensorBoard too, into its folder; `wandb` sends them to Weights & Biases.
    """

    model: ModelSpec
    data: DataSpec
    task: TaskName = "contrastive"
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    steps: int = 1000
    batch_size: int = 256
    micro_batch_size: int | None = None
    trainable: Trainable = "all"
    num_blocks: int = 1
    lora: LoraSpec = field(default_factory=LoraSpec)
    label_smoothing: float = 0.0
    patch_dropout: float = 0.0
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
    export: Literal["last", "best"] = "last"
    tensorboard: bool = False
    wandb: bool = False

    def __post_init__(self) -> None:
        bounded(self, "steps", "batch_size", "micro_batch_size", "num_blocks", "keep", at_least=1)
        bounded(self, "log_every", "evaluate_every", "save_every", at_least=1)
        bounded(self, "ema", above=0, below=1)
        bounded(self, "seed", at_least=0)
        bounded(self, "label_smoothing", "patch_dropout", at_least=0, below=1)
        if self.optimizer.warmup_steps >= self.steps:
            raise ConfigError(
                f"optimizer.warmup_steps={self.optimizer.warmup_steps} must be less than steps={self.steps}"
            )
        writes = self.task == "generation"
        if self.model.config is not None and isinstance(self.model.config, PaliGemmaConfig) != writes:
            wanted = "PaliGemmaConfig" if writes else "SiglipConfig"
            raise ConfigError(f"task {clip(repr(self.task))} needs a {wanted}, got {type(self.model.config).__name__}")
        if self.trainable in ("decoder", "lora") and not writes:
            raise ConfigError(f"trainable={self.trainable!r} is for task 'generation'; other models have no decoder")
        values = self.flat()
        for path, (key, wanted, default) in _EFFECTS.items():
            if values[path] != default and values[key] != wanted:
                raise ConfigError(
                    f"{path}={clip(repr(values[path]))} has no effect with {key}={values[key]!r}; "
                    f"set {key}={wanted!r}, or leave it out"
                )
        if self.task == "classification" and self.trainable == "text":
            raise ConfigError("a classifier has no text tower; trainable is 'all', 'head' or 'last-blocks'")
        if self.task == "classification" and self.model.image_tower is not None:
            raise ConfigError("a classifier starts from model.source; model.image_tower is for a pair of towers")
        if self.patch_dropout and self.trainable == "text":
            raise ConfigError("patch_dropout has no effect with trainable='text', whose image tower does not learn")
        if self.sharding == "fsdp" and self.optimizer.name == "adafactor":
            raise ConfigError(
                "adafactor's row and column means cannot be sharded; take optimizer.name=adamw or lion with "
                "sharding='fsdp', or sharding='replicate'"
            )
        if self.caches_images and self.data.augment != Augment():
            raise ConfigError(
                "a locked tower's vectors are computed once, so data.augment must stay at its default; "
                "or set data.cache_images=false to run the tower in every step"
            )

    @property
    def caches_images(self) -> bool:
        """Whether the image tower runs once for each picture, before training."""
        locking = ("text", "decoder", "lora", "head") if self.task == "generation" else ("text",)
        return self.trainable in locking and self.data.cache_images

    def with_overrides(self, assignments: Mapping[str, str]) -> "TrainConfig":
        """A copy with values such as {"optimizer.lr": "3e-4"} replaced, all at once.

        Raises ConfigError for an unknown key, naming the nearest, and for a value of another type.
        """
        for key in assignments:
            nearest = did_you_mean(key, self.flat())
            if nearest and key.split(".")[0] not in annotations(TrainConfig):
                raise ConfigError(f"the configuration has no key {clip(key)!r}; did you mean {nearest!r}?")
        return _replaced(self, {tuple(path.split(".")): text for path, text in assignments.items()}, "")

    def to_json(self) -> str:
        """The resolved configuration, read back equal by `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "TrainConfig":
        """Read what `to_json` wrote; raises ConfigError for anything else."""
        try:
            values: object = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"the configuration is not JSON ({error}); it begins with {clip(repr(text))}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"the configuration must be one JSON object, got {clip(repr(values))}")
        return _build(cls, typing.cast(dict[str, Any], values), "config")

    def flat(self) -> dict[str, object]:
        """Every single value by its path, as `--set` names it."""
        return dict(_leaves(dataclasses.asdict(self), ""))

    def changed(self) -> dict[str, object]:
        """Those values that are not the default, or have none."""
        plain = TrainConfig(model=ModelSpec(source=""), data=DataSpec(train="")).flat()
        return {path: value for path, value in self.flat().items() if path not in plain or plain[path] != value}


# what has an effect only with another key's value: path -> that key, the value, and the default
_EFFECTS: dict[str, tuple[str, str, object]] = {
    "model.initial_bias": ("task", "contrastive", None),
    "model.classifier_start": ("task", "classification", "zeros"),
    "data.positives": ("task", "contrastive", "pairs"),
    "data.prefix": ("task", "generation", "caption en"),
    "label_smoothing": ("task", "generation", 0.0),
    "patch_dropout": ("task", "contrastive", 0.0),
    "num_blocks": ("trainable", "last-blocks", 1),
    "lora.rank": ("trainable", "lora", 16),
    "lora.alpha": ("trainable", "lora", 32.0),
}

_Spec = TypeVar("_Spec")


def _leaves(values: Mapping[Any, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _build(kind: type[_Spec], values: Mapping[str, Any], where: str) -> _Spec:
    hints = annotations(kind)
    reject_unknown_keys(values, set(hints), where)
    return kind(**{key: _from_json(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _from_json(hint: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return value
    kinds = [option for option in options(hint) if is_dataclass(option) and isinstance(option, type)]
    if kinds:
        values = typing.cast(dict[str, Any], value)
        # of several kinds the one that has these fields; if none has, the first says which is unknown
        fitting = [kind for kind in kinds if set(values) <= {item.name for item in fields(kind)}]
        return _build((fitting or kinds)[0], values, where)
    return by_number(typing.cast(dict[str, Any], value), where)


def _replaced(spec: _Spec, assignments: Mapping[tuple[str, ...], str], where: str) -> _Spec:
    assert is_dataclass(spec) and not isinstance(spec, type)
    hints = annotations(type(spec))
    parts: dict[str, dict[tuple[str, ...], str]] = {}
    for path, text in assignments.items():
        reject_unknown_keys({path[0]: text}, {item.name for item in fields(spec)}, where or "the configuration")
        parts.setdefault(path[0], {})[path[1:]] = text
    values: dict[str, Any] = {}
    for key, inner in parts.items():
        full = f"{where}.{key}".lstrip(".")
        if () in inner:
            values[key] = _parse(hints[key], inner[()], full)
        elif is_dataclass(getattr(spec, key)):
            values[key] = _replaced(getattr(spec, key), inner, full)
        else:
            raise ConfigError(f"{full} is {clip(repr(getattr(spec, key)))} and has no parts to set")
    return dataclasses.replace(spec, **values)


def _parse(hint: Any, text: str, where: str) -> Any:
    """Text -> a value the annotation allows."""
    try:
        value: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: too deep for its parser
        value = {"none": None, "true": True, "false": False}.get(text.lower(), text)
    for option in options(hint):
        if typing.get_origin(option) is Literal and value in typing.get_args(option):
            return value
        if option is type(None) and value is None:
            return None
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return value
        if option in (int, bool) and type(value) is option:
            return value
        if option is str and value is not None:
            # a path is text, whatever else it might mean; only its quotes are not part of it
            return value if isinstance(value, str) else text
    raise ConfigError(f"{where} must be {described(hint)}, got {clip(repr(text))}")
