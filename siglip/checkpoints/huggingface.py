"""The folder layout of the published checkpoints, and our own: `config.json` and one or several safetensors files.

A model without text head has no place in that layout as transformers reads it, so it is written with an identity
head and `"text_use_head": false`, and read back without.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from siglip.checkpoints.tensors import Checkpoint, Content, StoredTensor
from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.errors import CheckpointError, clip

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# `model_type` of a folder that holds one tower, whose tensors then lack the tower's prefix
_TOWERS = {SiglipTextConfig.model_type: "text", SiglipVisionConfig.model_type: "vision"}
_TEXT_HEAD = ("text_model.head.weight", "text_model.head.bias")


def holds(path: Path) -> bool:
    """Whether a folder, or the folder of a safetensors file, is of this layout."""
    folder = path if path.is_dir() else path.parent
    return (folder / CONFIG).is_file() and (path.is_dir() or path.suffix == ".safetensors")


def read_config(path: Path) -> SiglipConfig:
    """The configuration of both towers, of one of them (the other is the default's), or of a classifier."""
    file = (path if path.is_dir() else path.parent) / CONFIG
    values = read_json(file)
    if "model_type" not in values:
        raise CheckpointError(
            f'{file} has no "model_type", so it does not say which model this is; expected "siglip". Get the file '
            "again, or add the key if this really is a SigLIP"
        )
    return SiglipConfig.from_dict(_whole(values))


def _whole(values: dict[str, Any]) -> dict[str, Any]:
    """With both towers, of which the one that is not there is the default's."""
    tower = _TOWERS.get(str(values.get("model_type")))
    return values if tower is None else {f"{tower}_config": values}


def read(path: Path, told: SiglipConfig | SiglipTextConfig | SiglipVisionConfig | None = None) -> Checkpoint:
    """The checkpoint of a folder, or of one safetensors file with `config.json` beside it, unless it is `told`."""
    folder = path if path.is_dir() else path.parent
    model_type = str(read_json(folder / CONFIG).get("model_type")) if told is None else told.model_type
    config = read_config(folder) if told is None else SiglipConfig.from_dict(_whole(told.to_dict()))
    files = open_weights(path)
    tower = _TOWERS.get(model_type)
    prefix = "" if tower is None else f"{tower}_model."
    tensors = {
        name if name.startswith(prefix) else prefix + name: tensor
        for file in files
        for name, tensor in file.tensors().items()
    }
    if not config.text_config.text_use_head:
        _drop_identity_head(tensors, path)

    def release() -> None:
        for file in files:
            file.release()

    return Checkpoint(path, config, tensors, release=release)


def write(folder: Path, content: Content) -> None:
    """Write what transformers' class of the same name reads, in as many files as `max_shard_bytes` asks for."""
    tensors = content.tensors
    largest = max(tensors.values(), key=_num_bytes)
    values = content.config.to_dict()
    # without these transformers takes the ids of another model's vocabulary, and warns
    values["text_config"] |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    dtype = str(largest.dtype).removeprefix("torch.")
    own = {"architectures": [content.kind.name], **content.kind.own_values(values), "dtype": dtype}
    write_json(folder / CONFIG, own)
    write_weights(folder, {**tensors, **_identity_head(content, largest.dtype)}, content.max_shard_bytes)


def write_weights(folder: Path, tensors: Mapping[str, StoredTensor], max_shard_bytes: int) -> None:
    """Write safetensors, with an index if they are several."""
    shards = _shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        write_safetensors(folder / SINGLE, tensors)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    total_size = sum(map(_num_bytes, tensors.values()))
    write_json(folder / INDEX, {"metadata": {"total_size": total_size}, "weight_map": weight_map})


def weight_files(folder: Path) -> list[str]:
    """Names of what holds the weights in a folder, the index included; empty if it has none."""
    names = [name for name in (SINGLE, INDEX) if (folder / name).is_file()]
    return [*names, *_indexed(folder)] if INDEX in names else names


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file with an object in it; raises CheckpointError for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); get the file again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a JSON {type(values).__name__}, expected an object; get the file again")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file as people can read it."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_safetensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write one safetensors file."""
    whole: dict[str, Tensor] = {}
    for name, stored in tensors.items():
        tensor = stored.read().contiguous()
        # the library refuses parts of a larger tensor, such as one of three stacked kernels
        whole[name] = tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    save_file(whole, path, {"format": "pt"})


class SafetensorsFile:
    """One safetensors file, opened when something is read; its tensors are mapped into memory, not copied."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: Any = None

    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors of the file; raises CheckpointError if it is broken or quantised."""
        views = {name: self._open().get_slice(name) for name in self._open().keys()}  # noqa: SIM118 - no dictionary
        strange = {view.get_dtype() for view in views.values()} - {*_DTYPES, "I64"}
        if strange:
            raise CheckpointError(
                f"{self.path} holds {', '.join(sorted(strange))} numbers, expected {', '.join(_DTYPES)}; "
                "get a checkpoint that is not quantised"
            )
        return {
            # whole numbers are position_ids of old files, which nothing reads
            name: StoredTensor(tuple(view.get_shape()), _DTYPES.get(view.get_dtype(), torch.int64), self._reader(name))
            for name, view in views.items()
        }

    def release(self) -> None:
        """Let go of the memory map; tensors that are in use keep it."""
        self._handle = None

    def _reader(self, name: str) -> Callable[[], Tensor]:
        return lambda: self._open().get_tensor(name)

    def _open(self) -> Any:
        if self._handle is None:
            try:
                self._handle = safe_open(self.path, "pt")
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self.path} cannot be read ({error}); get the file again") from error
        return self._handle


def open_weights(path: Path) -> list[SafetensorsFile]:
    """The safetensors file `path`, or those of a folder; raises CheckpointError if it has none."""
    if path.is_file():
        files = [path]
    # the order of transformers: a single file wins over an index
    elif (path / SINGLE).is_file():
        files = [path / SINGLE]
    elif (path / INDEX).is_file():
        files = [path / name for name in _indexed(path)]
    else:
        raise CheckpointError(
            f"{path} has {CONFIG} but no weights, expected {SINGLE} or {INDEX}; "
            "get the missing file, or save the model as safetensors"
        )
    return [SafetensorsFile(file) for file in files]


def _indexed(folder: Path) -> list[str]:
    weight_map: Any = read_json(folder / INDEX).get("weight_map")
    names: list[Any] = list(weight_map.values()) if isinstance(weight_map, dict) else [weight_map]
    for name in names:
        # a path would let an index from elsewhere open any file of this machine
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{folder / INDEX} points to {clip(repr(name))}, expected a .safetensors file in the same folder; "
                "get the index again from whoever made it"
            )
    return sorted(set(names))


def _drop_identity_head(tensors: dict[str, StoredTensor], path: Path) -> None:
    weight, bias = (tensors.pop(name, None) for name in _TEXT_HEAD)
    if weight is None or bias is None:
        return
    matrix = weight.read()
    if not torch.equal(matrix, torch.eye(len(matrix), dtype=matrix.dtype)) or bias.read().any():
        raise CheckpointError(
            f"{path}: config.json says text_use_head false, but the weights hold a text head that changes its input; "
            "set text_use_head to true"
        )


def _identity_head(content: Content, dtype: torch.dtype) -> dict[str, StoredTensor]:
    if content.config.text_config.text_use_head or "text" not in content.kind.towers:
        return {}
    width = content.config.text_config.hidden_size
    prefix = "" if content.kind.alone else "text_model."
    head = {"weight": torch.eye(width, dtype=dtype), "bias": torch.zeros(width, dtype=dtype)}
    return {f"{prefix}head.{name}": StoredTensor.of(tensor) for name, tensor in head.items()}


def _shards(tensors: Mapping[str, StoredTensor], max_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = max_bytes
    for name, tensor in tensors.items():
        room -= _num_bytes(tensor)
        if room < 0 and shards[-1]:
            shards.append([])
            room = max_bytes - _num_bytes(tensor)
        shards[-1].append(name)
    return shards


def _num_bytes(tensor: StoredTensor) -> int:
    return torch.Size(tensor.shape).numel() * tensor.dtype.itemsize
