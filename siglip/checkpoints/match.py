"""A model and a checkpoint -> the tensors of the one in the other, unread, or one error that lists what is wrong."""

import torch
from torch import nn

from siglip.checkpoints.tensors import Checkpoint, Rule, StoredTensor, translate
from siglip.errors import TensorMismatch
from siglip.model import kind_of

POSITIONS = {f"{tower}.embeddings.position_embedding.weight" for tower in ("vision_model", "vision_tower")}
CLASSIFIER = ("classifier.weight", "classifier.bias")

# buffers in files of old versions of transformers; models make them themselves
_HARMLESS = "position_ids"
_LISTED = 20


def find_tensors(model: nn.Module, checkpoint: Checkpoint, *, fresh_head: bool = False) -> dict[str, StoredTensor]:
    """The tensors of `model` by their names there, shapes checked; without a classifier's head if it is a fresh one.

    Position embeddings keep the number they have in the file. Raises TensorMismatch under the names of the file.
    """
    kind = kind_of(model)
    wanted = {kind.prefix + name: StoredTensor.of(tensor) for name, tensor in model.state_dict().items()}
    if fresh_head:
        wanted = {name: tensor for name, tensor in wanted.items() if name not in CLASSIFIER}
    for positions in POSITIONS & wanted.keys():
        stored = checkpoint.config.vision_config
        wanted[positions] = StoredTensor.of(torch.empty(stored.num_patches, stored.hidden_size, device="meta"))
    rules = checkpoint.rules if checkpoint.rules is not None else [Rule(name, name) for name in wanted]
    needed = [rule for rule in rules if rule.target in wanted]
    known = {rule.source for rule in rules}
    unexpected = [
        name
        for name in checkpoint.tensors
        if name not in known
        and not name.endswith(_HARMLESS)
        # only a file with our names tells which part of the model an unknown name belongs to
        and (checkpoint.rules is not None or kind.knows(name))
    ]
    _check(checkpoint, translate((rule.back() for rule in needed), wanted), unexpected)
    found = translate(needed, checkpoint.tensors)
    return {name.removeprefix(kind.prefix): found[name] for name in wanted}


def _check(checkpoint: Checkpoint, expected: dict[str, StoredTensor], unexpected: list[str]) -> None:
    found = checkpoint.tensors
    missing = [name for name in expected if name not in found]
    misshapen = [
        f"{name} is {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in expected
        if name in found and _squeezed(found[name].shape) != _squeezed(expected[name].shape)
    ]
    if not missing and not unexpected and not misshapen:
        return
    parts: list[str] = []
    for word, names in (("missing", missing), ("unexpected", unexpected), ("wrongly shaped", misshapen)):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            parts.append(f"{len(names)} {word}: {', '.join(names[:_LISTED])}{more}")
    raise TensorMismatch(
        f"{checkpoint.path} does not fit its configuration. {'. '.join(parts)}. "
        "Take weights and configuration from the same checkpoint, and load it with the class that it was saved from"
    )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    # a single number is stored with and without an axis
    return () if shape == (1,) else shape
