"""Keywords that scripts written for transformers pass: which are honoured, which say what happens anyway, which not.

One rule: a keyword has its meaning there, or says what is done here without it, or is refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from siglip.errors import InputError, clip, did_you_mean

if TYPE_CHECKING:
    import torch


class HubOptions(TypedDict, total=False):
    """Where and how a name such as "google/siglip-base-patch16-224" is looked up; unused for local folders.

    `revision` is a branch, tag or commit; `token` opens private models; `cache_dir` replaces the hub's cache folder;
    `local_files_only` never touches the network.
    """

    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


class LoadOptions(HubOptions, total=False):
    """Further keywords of existing scripts, each with the values that mean what happens here anyway; see `accepted`."""

    torch_dtype: "torch.dtype | str | None"
    use_safetensors: bool | None
    low_cpu_mem_usage: bool | None
    trust_remote_code: bool | None
    use_fast: bool | None


class ClassOptions(LoadOptions, total=False):
    """The same where there may be classes, which are told as a number or as either dictionary."""

    num_labels: int
    id2label: Mapping[int, str] | Mapping[str, str]
    label2id: Mapping[str, int] | Mapping[str, str]
    problem_type: str | None


class ModelOptions(ClassOptions, total=False):
    """The same for models, whose head is a fresh one where its classes are told."""

    ignore_mismatched_sizes: bool


class ConfigOptions(ClassOptions, total=False):
    """The same for a configuration that is read in order to be changed."""

    finetuning_task: str


class EmbedOptions(TypedDict, total=False):
    """Keywords of sentence-transformers: its name for a bar, and those that may say what happens."""

    show_progress_bar: bool | None
    precision: str
    normalize_embeddings: bool
    convert_to_numpy: bool
    convert_to_tensor: bool


class TokenizerOptions(TypedDict, total=False):
    """Keywords of a tokenizer's call that may say what happens."""

    add_special_tokens: bool
    return_attention_mask: bool | None
    return_token_type_ids: bool | None
    padding_side: str | None
    verbose: bool


class ImageOptions(TypedDict, total=False):
    """Keywords of an image processor's call that may say what happens; floats from 0 to 1 need no scaling."""

    do_resize: bool | None
    do_rescale: bool | None
    do_normalize: bool | None
    do_convert_rgb: bool | None
    resample: Any
    rescale_factor: float | None
    image_mean: Sequence[float] | None
    image_std: Sequence[float] | None
    data_format: Any


class SaveOptions(TypedDict, total=False):
    """Keywords of saving in existing scripts that change nothing here."""

    safe_serialization: bool
    save_function: Callable[..., object]
    push_to_hub: bool


# what the doors of configurations and models, and saving, know beside the rest
CONFIG = ("num_labels", "id2label", "label2id", "problem_type")
MODEL = (
    *("config", "dtype", "device_map", "attn_implementation", "image_size", "labels", "ignore_mismatched_sizes"),
    *CONFIG,
)
SAVING = ("max_shard_bytes", "max_shard_size", "is_main_process", "state_dict", *SaveOptions.__annotations__)
_HUB = ("revision", "token", "cache_dir", "local_files_only")
# weights are always read lazily, and there is one tokenizer and one image processor
_HARMLESS: dict[str, tuple[bool | str | None, ...]] = {
    "use_safetensors": (True, None),
    "trust_remote_code": (False, None),
    "low_cpu_mem_usage": (True, False, None),
    "use_fast": (True, False, None),
    "finetuning_task": ("image-classification", None),
}


def accepted(given: Mapping[str, Any], where: str, *, known: Sequence[str] = ()) -> dict[str, Any]:
    """Keywords of a loading function, under their names here and without those that change nothing.

    `torch_dtype` is `dtype`, if that is among `known`. Raises InputError for an unknown keyword, naming the nearest
    known one, and for a value that asks for something else than what happens.
    """
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if name in _HARMLESS:
            if value not in _HARMLESS[name]:
                raise InputError(
                    f"{where} got {name}={clip(repr(value))}, but here it is always {_HARMLESS[name][0]} (no code "
                    "from a checkpoint is run, and weights are safe to read); leave it out"
                )
        elif name == "torch_dtype" and "dtype" in known:
            kept["dtype"] = value
        elif name in known or name in _HUB:
            kept[name] = value
        else:
            raise unknown(name, where, (*known, *_HUB))
    return kept


def agreed(
    given: Mapping[str, Any], happens: Mapping[str, Sequence[Any]], where: str, *, known: Sequence[str] = ()
) -> None:
    """Keywords that may say what happens without them, and nothing else.

    `happens` has the values that do, the first of which is named; `known` are further keywords that an error may name.
    Raises InputError for other names and values.
    """
    for name, value in given.items():
        if name not in happens:
            raise unknown(name, where, [*known, *happens])
        if not any(value is one or (type(value) is type(one) and value == one) for one in happens[name]):
            raise InputError(
                f"{where} got {name}={clip(repr(value))}, but here it is always {clip(repr(happens[name][0]))}; "
                "leave it out"
            )


def unknown(name: str, where: str, known: Sequence[str]) -> InputError:
    """The error for a keyword that `where` does not have: with the nearest one, or all that it has."""
    nearest = did_you_mean(name, known)
    hint = f"did you mean {nearest!r}?" if nearest else f"it takes {', '.join(known)}"
    return InputError(f"{where} has no keyword {clip(name)!r}; {hint}")


def chosen_dtype(dtype: Any, torch_dtype: Any) -> Any:
    """The one that is given, under its name here or that of existing scripts; raises InputError if they differ."""
    if dtype is not None and torch_dtype is not None and _plain(dtype) != _plain(torch_dtype):
        raise InputError(
            f"got dtype={clip(repr(dtype))} and torch_dtype={clip(repr(torch_dtype))}, which mean the same; give one"
        )
    return torch_dtype if dtype is None else dtype


def _plain(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def named_classes(
    labels: Sequence[str] | None = None,
    num_labels: Any = None,
    id2label: Mapping[Any, str] | None = None,
    label2id: Mapping[str, Any] | None = None,
) -> list[str] | None:
    """The classes that all of these name; raises InputError where they contradict each other."""
    told: dict[str, list[str]] = {}
    numbered = [*(id2label or {}), *(label2id or {}).values()]
    if num_labels is not None and (not isinstance(num_labels, int) or num_labels < 1):
        raise InputError(f"num_labels must be a whole number of at least 1, got {clip(repr(num_labels))}")
    if wrong := [number for number in numbered if not str(number).isdecimal()]:
        raise InputError(f"id2label and label2id number the classes 0, 1, 2, ..., got {clip(repr(wrong[0]))}")
    if labels is not None:
        told["labels"] = list(labels)
    if id2label is not None:
        told["id2label"] = [id2label[key] for key in sorted(id2label, key=int)]
    if label2id is not None:
        told["label2id"] = sorted(label2id, key=lambda label: int(label2id[label]))
    numbers = [sorted(map(int, keys)) for keys in (id2label, label2id.values() if label2id else None) if keys]
    if any(found != list(range(len(found))) for found in numbers):
        raise InputError(f"classes are numbered 0, 1, 2, ... without gaps, got {clip(numbers[0])}")
    if num_labels is not None and not told:
        return [f"LABEL_{number}" for number in range(num_labels)]
    answers = list(told.values())
    counts = {len(answer) for answer in answers} | ({num_labels} if num_labels is not None else set[int]())
    if len(counts) > 1 or any(answer != answers[0] for answer in answers):
        raise InputError(f"num_labels={num_labels} and {clip(told)} name different classes; give one of them")
    return answers[0] if answers else None
