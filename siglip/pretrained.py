"""The one door from a class to its files: `from_pretrained` and `save_pretrained`.

Models, processors and configurations know nothing of files; this door asks `siglip.checkpoints` when it is opened,
so that every class keeps the two methods its users know. It is the only upward import of the house.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from siglip import keywords
from siglip.errors import ConfigError, InputError, clip
from siglip.keywords import ConfigOptions, LoadOptions, ModelOptions, SaveOptions, accepted, chosen_dtype

if TYPE_CHECKING:
    import torch

StrPath = str | Path
Self = TypeVar("Self")  # typing.Self cannot be checked method by method at run time


def settled(kind: type[Self]) -> type[Self]:
    """A frozen configuration that says how to change it; trainers may switch off a cache that no model here has."""
    made: Any = kind
    names = {item.name for item in fields(made)}

    def set_attribute(self: Any, name: str, value: object) -> None:
        if name == "use_cache":
            return
        if name in names:
            how = f"make another: model.config = dataclasses.replace(model.config, {name}=...)"
        elif name in ("num_labels", "label2id"):
            how = f"give from_pretrained {name}=..., or make another: config.with_labels([...])"
        else:
            how = f"it has no {name}"
        raise FrozenInstanceError(f"a {kind.__name__} cannot be changed once it is made; {how}")

    kind.__setattr__ = set_attribute
    return kind


class PretrainedConfig:
    """Reading and writing of a configuration."""

    __slots__ = ()

    @classmethod
    def from_pretrained(cls: type[Self], source: StrPath, **options: Unpack[ConfigOptions]) -> Self:
        """The configuration of "nano", a local folder or file, or a hub name "owner/name".

        `num_labels`, `id2label`, `label2id` and `problem_type` change the classes of a SiglipConfig. Raises InputError
        for an unknown keyword or classes that contradict each other.
        """
        from siglip import checkpoints

        known = keywords.CONFIG if hasattr(cls, "with_labels") else ()
        given = accepted(options, f"{cls.__name__}.from_pretrained", known=known)
        told = {name: given.pop(name) for name in known if name in given}
        config: Any = checkpoints.load_config(cls, source, **given)
        if told:
            problem_type = told.pop("problem_type", config.problem_type)
            labels = keywords.named_classes(**told) or list(config.id2label.values())
            config = config.with_labels(labels, problem_type)
        return config

    def save_pretrained(self, folder: StrPath) -> None:
        """Write the `config.json` that `from_pretrained` reads."""
        from siglip.files import replacing

        with replacing(Path(folder) / "config.json") as temporary:
            temporary.write_text(self.to_json_string(), encoding="utf-8")

    def to_json_string(self) -> str:
        """What `save_pretrained` writes."""
        mine: Any = self
        return json.dumps(mine.to_dict(), indent=2) + "\n"


class PretrainedProcessing:
    """Reading and writing of a tokenizer, an image processor, or both joined."""

    @classmethod
    def from_pretrained(cls: type[Self], source: StrPath, **hub: Unpack[LoadOptions]) -> Self:
        """How the checkpoint prepares its input; `source` is "nano", a local folder, or a hub name "owner/name".

        Raises CheckpointError if the files are missing or broken, DownloadError if a hub name cannot be fetched.
        """
        from siglip import checkpoints

        return checkpoints.load_processing(cls, source, **accepted(hub, f"{cls.__name__}.from_pretrained"))

    def save_pretrained(self, folder: StrPath) -> None:
        """Write the files that `from_pretrained` reads, each complete or not at all."""
        from siglip import checkpoints

        checkpoints.save_processing(self, folder)


class PretrainedModel:
    """Reading and writing of weights."""

    @classmethod
    def from_pretrained(
        cls: type[Self],
        source: StrPath,
        *,
        dtype: "torch.dtype | str | None" = None,
        device_map: "torch.device | str | int | Mapping[str, Any] | None" = None,
        attn_implementation: str = "sdpa",
        image_size: int | None = None,
        labels: Sequence[str] | None = None,
        config: PretrainedConfig | None = None,
        **options: Unpack[ModelOptions],
    ) -> Self:
        """The model of "nano", a local folder or file, or a hub name "owner/name"; weights are read lazily.

        `dtype` is a torch dtype, its name (None: float32), or "auto" (as stored); `device_map` a device, "auto" (the
        first GPU, else the CPU), or {"": device}. `labels` names the classes of a fresh classifier head, as
        `num_labels`, `id2label` and `label2id` do in existing scripts; `problem_type` is that of SiglipConfig.
        Attention is always PyTorch's scaled dot product. `config` takes the place of the checkpoint's, for other
        classes or dropout, or for a folder that holds weights alone.
        `image_size` in pixels resizes the position embeddings while loading, as the paper's code does. The processor
        must then be told, `processor.image_processor.settings = dataclasses.replace(
        processor.image_processor.settings, image_size=...)`; one from a folder where this model was saved knows it.
        Raises InputError for an unknown keyword or classes that contradict each other,
        TensorMismatch listing every missing, unexpected or wrongly shaped tensor, CheckpointError for
        anything else that is wrong with the files, DownloadError if a hub name cannot be fetched.
        """
        from siglip import checkpoints

        given = accepted(options, f"{cls.__name__}.from_pretrained", known=keywords.MODEL)
        if attn_implementation != "sdpa":
            raise ConfigError(
                f"attn_implementation={clip(repr(attn_implementation))}, but attention here is always PyTorch's scaled "
                "dot product, which chooses the fastest kernel itself; pass 'sdpa' or nothing"
            )
        device: Any = device_map[""] if isinstance(device_map, Mapping) and [*device_map] == [""] else device_map
        chosen = chosen_dtype(dtype, given.pop("dtype", None))
        named = {name: given.pop(name, None) for name in ("num_labels", "id2label", "label2id")}
        # a head of another size is replaced by a fresh one whenever classes are given
        given.pop("ignore_mismatched_sizes", None)
        return checkpoints.load_model(
            cls,
            source,
            dtype=chosen if chosen is not None else "float32",
            device=device,
            image_size=image_size,
            labels=keywords.named_classes(labels, **named),
            config=config,
            **given,
        )

    def save_pretrained(
        self,
        folder: StrPath,
        *,
        max_shard_bytes: int = 5_000_000_000,
        max_shard_size: int | str | None = None,
        is_main_process: bool = True,
        state_dict: Mapping[str, Any] | None = None,
        **options: Unpack[SaveOptions],
    ) -> None:
        """Write `config.json` and the weights as safetensors, in shards of at most `max_shard_bytes`.

        The others are for existing scripts. `max_shard_size` is bytes too, or a text such as "5GB"; `state_dict` is
        written in place of the model's own; processes other than the main one write nothing. Raises InputError.
        """
        from siglip import checkpoints

        for name, value in options.items():
            if name not in SaveOptions.__annotations__:
                raise keywords.unknown(name, "save_pretrained", keywords.SAVING)
            if value is (name == "push_to_hub") or (name, value) == ("save_function", None):
                raise InputError(
                    f"save_pretrained got {name}={clip(repr(value))}, but it writes safetensors, into a "
                    f"folder; leave it out"
                )
        limit = max_shard_bytes if max_shard_size is None else _num_bytes(max_shard_size)
        if is_main_process:
            checkpoints.save_model(self, folder, max_shard_bytes=limit, state_dict=state_dict)

    @classmethod
    def from_config(cls: type[Self], config: PretrainedConfig) -> Self:
        """A model with fresh weights, as `cls(config)` makes it."""
        made: Any = cls
        return made(config)

    @property
    def dtype(self) -> "torch.dtype":
        """What most numbers of the model are stored as; temperature and bias are float32 always."""
        module: Any = self
        return max(module.parameters(), key=lambda parameter: parameter.numel()).dtype

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the model has, or those that learn; with or without the tables that are looked up."""
        module: Any = self
        left_out = {
            f"{name}.weight"
            for name, part in module.named_modules()
            if exclude_embeddings and any(kind.__name__ == "Embedding" for kind in type(part).__mro__)
        }
        return sum(
            weight.numel()
            for name, weight in module.named_parameters()
            if (weight.requires_grad or not only_trainable) and name not in left_out
        )

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: Mapping[str, Any] | None = None,
        *,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recompute each layer in the backward pass instead of keeping what it made: slower, and less memory.

        The keywords of existing scripts may say what happens: `use_reentrant=False`, every layer, nothing elsewhere.
        """
        asked = {**(gradient_checkpointing_kwargs or {}), **(activation_checkpointing_kwargs or {})}
        asked |= {"every_n_layers": every_n_layers, "offload": offload}
        happens = {"use_reentrant": [False, None], "every_n_layers": [1], "offload": [False]}
        keywords.agreed(asked, happens, "gradient checkpointing")
        self._set_gradient_checkpointing(True)

    activation_checkpointing_enable = gradient_checkpointing_enable

    def gradient_checkpointing_disable(self) -> None:
        """Keep what the layers made for the backward pass, the default."""
        self._set_gradient_checkpointing(False)

    def _set_gradient_checkpointing(self, on: bool) -> None:
        module: Any = self
        for part in module.modules():
            if hasattr(part, "gradient_checkpointing"):
                part.gradient_checkpointing = on


def _num_bytes(size: int | str) -> int:
    if isinstance(size, int):
        return size
    found = re.fullmatch(r"(\d+)\s*([KMG]?)I?B", size.strip().upper())
    if found is None:
        raise InputError(f"max_shard_size is bytes or a text such as '5GB', got {clip(repr(size))}")
    base = 1024 if "I" in size.upper() else 1000
    return int(found[1]) * base ** " KMG".index(found[2] or " ")
