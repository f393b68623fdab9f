"""PaliGemma in the files of others: Hugging Face folders of every age, and big_vision's `.npz` of PaliGemma 1 and 2.

Hugging Face names changed twice; all three layouts are read, the oldest is written, which every version reads. The
shapes in an `.npz` do not tell the soft caps: a model with post norms has Gemma 2's on attention and none on the
output, as the authors fine-tune it, unless a `config.json` of PaliGemma beside the file says otherwise.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siglip.checkpoints import huggingface
from siglip.checkpoints.big_vision import CONVOLUTION, TRANSPOSED, block_rules, dense_rules, norm_rules
from siglip.checkpoints.npz import NpzArray, read_npz
from siglip.checkpoints.tensors import BATCH_OF_ONE, Checkpoint, Content, Layout, Rule, StoredTensor
from siglip.config import SiglipConfig, SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.errors import CheckpointError, TensorMismatch

_TABLE = "language_model.embed_tokens.weight"
_THEIR_TABLE = "llm/embedder/input_embedding"
_HEADS = ("lm_head.weight", "language_model.lm_head.weight")
_PREFIXES = ("params/", "opt/target/")
# ids of the published vocabulary
_IMAGE_TOKEN = 257152
# of Gemma 2 27B, whose queries are scaled by width / heads instead of the head's width
_WIDTH_A_HEAD = {(4608, 32): 144}
_MODEL_TYPE = "paligemma"


@dataclass(frozen=True, slots=True)
class PaliGemmaCheckpoint:
    """The whole configuration, and the tensors under our names or with rules to them."""

    config: PaliGemmaConfig
    stored: Checkpoint


def holds(path: Path) -> bool:
    """Whether a folder, safetensors file or `.npz` holds a PaliGemma."""
    file = _npz(path)
    if file is not None:
        return any(name.endswith(_THEIR_TABLE) for name in read_npz(file))
    folder = path if path.is_dir() else path.parent
    config = folder / huggingface.CONFIG
    return config.is_file() and huggingface.read_json(config).get("model_type") == _MODEL_TYPE


def read_config(path: Path) -> PaliGemmaConfig:
    """The configuration of a folder or file; raises CheckpointError, or ConfigError if it holds another model."""
    if _npz(path) is not None:
        return read(path).config
    file = (path if path.is_dir() else path.parent) / huggingface.CONFIG
    return PaliGemmaConfig.from_dict(huggingface.read_json(file))


def read(path: Path) -> PaliGemmaCheckpoint:
    """What a folder or file holds, unread."""
    file = _npz(path)
    if file is None:
        return _read_folder(path)
    tensors = _tensors(read_npz(file))
    config = _config(file, tensors)
    return PaliGemmaCheckpoint(config, Checkpoint(file, _tower_only(config), tensors, tuple(_rules(config))))


def write(folder: Path, content: Content) -> None:
    """Write a folder that we and every version of transformers read."""
    tensors = content.tensors
    values = {"architectures": [content.kind.name], **content.config.to_dict()}
    values["dtype"] = str(tensors[_TABLE].dtype).removeprefix("torch.")
    huggingface.write_json(folder / huggingface.CONFIG, values)
    huggingface.write_weights(
        folder, {_hub_name(name): tensor for name, tensor in tensors.items()}, content.max_shard_bytes
    )


def _npz(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix == ".npz" else None
    files = sorted(path.glob("*.npz"))
    if (path / huggingface.CONFIG).is_file() and list(path.glob("*.safetensors")):
        return None
    return files[0] if len(files) == 1 else None


def _hub_name(name: str) -> str:
    for ours, theirs in (("language_model.", "language_model.model."), ("vision_tower.", "vision_tower.vision_model.")):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _our_name(name: str) -> str:
    name = name.removeprefix("model.")
    return name.replace("language_model.model.", "language_model.", 1).replace(".vision_model.", ".", 1)


def _read_folder(path: Path) -> PaliGemmaCheckpoint:
    config = read_config(path)
    files = huggingface.open_weights(path)
    tensors = {_our_name(name): tensor for file in files for name, tensor in file.tensors().items()}

    def release() -> None:
        for file in files:
            file.release()

    _drop_tied_head(tensors, path)
    if _TABLE in tensors:
        # of all sizes only this one is told wrongly by published files
        rows = tensors[_TABLE].shape[0]
        config = replace(config, text_config=replace(config.text_config, vocab_size=rows))
    release()
    return PaliGemmaCheckpoint(config, Checkpoint(path, _tower_only(config), tensors, release=release))


def _drop_tied_head(tensors: dict[str, StoredTensor], path: Path) -> None:
    for name in _HEADS:
        head = tensors.pop(name, None)
        if head is None:
            continue
        table = tensors.get(_TABLE)
        if table is None:
            tensors[_TABLE] = head
        elif head.shape != table.shape or not torch.equal(head.read(), table.read()):
            raise TensorMismatch(
                f"{path}: {name} differs from the table of tokens, which PaliGemma's output head must "
                "equal; this is another model, or "
                "one trained with the two untied, which we do not run"
            )


def _tower_only(config: PaliGemmaConfig) -> SiglipConfig:
    return SiglipConfig(vision_config=config.vision_config)


def _tensors(arrays: Mapping[str, NpzArray]) -> dict[str, StoredTensor]:
    prefix = next((prefix for prefix in _PREFIXES if prefix + _THEIR_TABLE in arrays), "")
    tensors: dict[str, StoredTensor] = {}
    for full_name, array in arrays.items():
        name = full_name.removeprefix(prefix)
        stack = next((part for part in ("/encoderblock/", "llm/layers/") if part in name), None)
        if not full_name.startswith(prefix):
            # a training checkpoint also holds the state of its optimiser
            continue
        if stack is None:
            tensors[name] = array.stored()
        else:
            for layer in range(array.shape[0]):
                tensors[name.replace(stack, f"{stack[:-1]}_{layer}/")] = array.layer(layer)
    return tensors


def _config(path: Path, tensors: Mapping[str, StoredTensor]) -> PaliGemmaConfig:
    def shape(name: str, axes: int) -> tuple[int, ...]:
        found = tensors[name].shape if name in tensors else None
        if found is None or len(found) != axes:
            raise CheckpointError(
                f"{path} is not a PaliGemma checkpoint of big_vision: {name} is "
                f"{'missing' if found is None else list(found)}; give "
                "a file with the tower (img/...) and the decoder (llm/...)"
            )
        return found

    def depth(name: str) -> int:
        return sum(name.replace("_0/", f"_{layer}/", 1) in tensors for layer in range(len(tensors)))

    block, attention = "img/Transformer/encoderblock_0/", "llm/layers_0/attn/"
    patch_size, _, channels, tower_width = shape("img/embedding/kernel", 4)
    rows, width = shape(_THEIR_TABLE, 2)
    heads, _, head_dim = shape(f"{attention}q_einsum/w", 3)
    post_norms = "llm/layers_0/post_ffw_norm/scale" in tensors
    text = GemmaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=shape("llm/layers_0/mlp/linear", 2)[0],
        num_hidden_layers=depth("llm/layers_0/mlp/linear"),
        num_attention_heads=heads,
        num_key_value_heads=shape(f"{attention}kv_einsum/w", 4)[1],
        head_dim=head_dim,
        post_norms=post_norms,
        query_pre_attn_scalar=_WIDTH_A_HEAD.get((width, heads), head_dim) if post_norms else None,
        attn_logit_softcapping=50.0 if post_norms else None,
    )
    vision = SiglipVisionConfig(
        hidden_size=tower_width,
        intermediate_size=shape(f"{block}MlpBlock_0/Dense_0/kernel", 2)[1],
        num_hidden_layers=depth(f"{block}LayerNorm_0/scale"),
        num_attention_heads=shape(f"{block}MultiHeadDotProductAttention_0/query/kernel", 3)[1],
        num_channels=channels,
        image_size=math.isqrt(shape("img/pos_embedding", 3)[1]) * patch_size,
        patch_size=patch_size,
        vision_use_head=False,
    )
    return PaliGemmaConfig(
        vision_config=vision, text_config=_told_beside(path, text), image_token_index=min(rows, _IMAGE_TOKEN)
    )


def _told_beside(path: Path, text: GemmaConfig) -> GemmaConfig:
    file = path.parent / huggingface.CONFIG
    if not file.is_file():
        return text
    values: Any = huggingface.read_json(file)
    if values.get("model_type") != _MODEL_TYPE:
        return text
    said = PaliGemmaConfig.from_dict(values).text_config
    return replace(
        text,
        attn_logit_softcapping=said.attn_logit_softcapping,
        final_logit_softcapping=said.final_logit_softcapping,
        query_pre_attn_scalar=said.query_pre_attn_scalar,
    )


def _rules(config: PaliGemmaConfig) -> Iterator[Rule]:
    tower, text = "vision_tower.", config.text_config
    yield Rule("img/embedding/kernel", f"{tower}embeddings.patch_embedding.weight", layout=CONVOLUTION)
    yield Rule("img/embedding/bias", f"{tower}embeddings.patch_embedding.bias")
    yield Rule("img/pos_embedding", f"{tower}embeddings.position_embedding.weight", layout=BATCH_OF_ONE)
    for layer in range(config.vision_config.num_hidden_layers):
        theirs, ours = f"img/Transformer/encoderblock_{layer}/", f"{tower}encoder.layers.{layer}."
        yield from block_rules(theirs, ours, config.vision_config)
    yield from norm_rules("img/Transformer/encoder_norm", f"{tower}post_layernorm")
    yield from dense_rules("img/head", "multi_modal_projector.linear")
    yield Rule(_THEIR_TABLE, _TABLE)
    for layer in range(text.num_hidden_layers):
        yield from _decoder_rules(f"llm/layers_{layer}/", f"language_model.layers.{layer}.", text)
    yield Rule("llm/final_norm/scale", "language_model.norm.weight")


def _decoder_rules(theirs: str, ours: str, text: GemmaConfig) -> Iterator[Rule]:
    def part(source: str, target: str, layout: Layout, rows: tuple[int, int, int]) -> Rule:
        return Rule(f"{theirs}{source}", f"{ours}{target}_proj.weight", source_rows=rows, layout=layout)

    whole, first, second = (0, 1, 1), (0, 1, 2), (1, 2, 2)
    yield part("attn/q_einsum/w", "self_attn.q", _into_heads(text.num_attention_heads), whole)
    into = _first_of(_into_heads(text.num_key_value_heads))
    yield part("attn/kv_einsum/w", "self_attn.k", into, first)
    yield part("attn/kv_einsum/w", "self_attn.v", into, second)
    yield part("attn/attn_vec_einsum/w", "self_attn.o", _out_of_heads(text.num_attention_heads), whole)
    yield part("mlp/gating_einsum", "mlp.gate", _first_of(TRANSPOSED), first)
    yield part("mlp/gating_einsum", "mlp.up", _first_of(TRANSPOSED), second)
    yield part("mlp/linear", "mlp.down", TRANSPOSED, whole)
    before_mlp = "pre_feedforward_layernorm" if text.post_norms else "post_attention_layernorm"
    yield Rule(f"{theirs}pre_attention_norm/scale", f"{ours}input_layernorm.weight")
    yield Rule(f"{theirs}pre_ffw_norm/scale", f"{ours}{before_mlp}.weight")
    if text.post_norms:
        yield Rule(f"{theirs}post_attention_norm/scale", f"{ours}post_attention_layernorm.weight")
        yield Rule(f"{theirs}post_ffw_norm/scale", f"{ours}post_feedforward_layernorm.weight")


def _into_heads(num_heads: int) -> Layout:
    """[heads, width, head width] <-> [heads x head width, width]."""

    def into(kernel: Tensor) -> Tensor:
        return kernel.transpose(1, 2).flatten(0, 1)

    def back(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (num_heads, -1)).transpose(1, 2)

    return Layout(into, back)


def _out_of_heads(num_heads: int) -> Layout:
    """[heads, head width, width] <-> [width, heads x head width]."""

    def into(kernel: Tensor) -> Tensor:
        return kernel.flatten(0, 1).T

    def back(weight: Tensor) -> Tensor:
        return weight.T.unflatten(0, (num_heads, -1))

    return Layout(into, back)


def _first_of(layout: Layout) -> Layout:
    """The same for one of two kernels that are stacked."""
    return Layout(lambda pair: layout.to_ours(pair[0]), lambda weight: layout.to_theirs(weight)[None])
