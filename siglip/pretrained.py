"""The one door from a class to its files: `from_pretrained` and `save_pretrained`.

Models, processors and configurations know nothing of files; this door asks `siglip.checkpoints` when it is opened,
so that every class keeps the two methods its users know. It is the only upward import of the house.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar, Unpack

if TYPE_CHECKING:
    import torch

StrPath = str | Path
Self = TypeVar("Self")  # typing.Self cannot be checked method by method at run time


class HubOptions(TypedDict, total=False):
    """Where and how a name such as "google/siglip-base-patch16-224" is looked up; unused for local folders.

    `revision` is a branch, tag or commit; `token` opens private models; `cache_dir` replaces the hub's cache folder;
    `local_files_only` never touches the network.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: StrPath | None
    local_files_only: bool


class PretrainedConfig:
    """Reading and writing of a configuration."""

    __slots__ = ()

    @classmethod
    def from_pretrained(cls: type[Self], source: StrPath, **hub: Unpack[HubOptions]) -> Self:
        """The configuration of "nano", a local folder or file, or a hub name "owner/name"."""
        from siglip import checkpoints

        return checkpoints.load_config(cls, source, **hub)


class PretrainedProcessing:
    """Reading and writing of a tokenizer, an image processor, or both joined."""

    @classmethod
    def from_pretrained(cls: type[Self], source: StrPath, **hub: Unpack[HubOptions]) -> Self:
        """How the checkpoint prepares its input; `source` is "nano", a local folder, or a hub name "owner/name".

        Raises CheckpointError if the files are missing or broken, DownloadError if a hub name cannot be fetched.
        """
        from siglip import checkpoints

        return checkpoints.load_processing(cls, source, **hub)

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
        dtype: "torch.dtype | str" = "float32",
        device_map: "torch.device | str | int | None" = None,
        attn_implementation: Literal["sdpa"] = "sdpa",
        image_size: int | None = None,
        labels: Sequence[str] | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """The model of "nano", a local folder or file, or a hub name "owner/name"; weights are read lazily.

        `dtype` is a torch dtype, its name, or "auto" (as stored); `device_map` a device, or "auto" (the first GPU, else
        the CPU). `labels` names the classes of a fresh classifier head. Attention is always PyTorch's scaled dot
        product. `image_size` in pixels resizes the position embeddings while loading, as the paper's code does. The
        processor must then be told, `processor.image_processor.settings = dataclasses.replace(
        processor.image_processor.settings, image_size=...)`; one from a folder where this model was saved knows it.
        Raises TensorMismatch listing every missing, unexpected or wrongly shaped tensor, CheckpointError for
        anything else that is wrong with the files, DownloadError if a hub name cannot be fetched.
        """
        from siglip import checkpoints

        return checkpoints.load_model(
            cls,
            source,
            dtype=dtype,
            device=device_map,
            attn_implementation=attn_implementation,
            image_size=image_size,
            labels=labels,
            **hub,
        )

    def save_pretrained(self, folder: StrPath, *, max_shard_bytes: int = 5_000_000_000) -> None:
        """Write `config.json` and the weights as safetensors, in shards of at most `max_shard_bytes`."""
        from siglip import checkpoints

        checkpoints.save_model(self, folder, max_shard_bytes=max_shard_bytes)
