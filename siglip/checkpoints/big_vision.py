"""The layout of the original JAX checkpoints: one `.npz` file, from whose shapes the configuration follows.

Read with and without the prefix `params/`, with blocks one by one or stacked for `lax.scan`, with and without text
head. Written with the prefix, blocks one by one. Names and shapes are those of models/vit.py and
models/proj/image_text/ in github.com/google-research/big_vision.
"""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from siglip.checkpoints.npz import read_npz, write_npz
from siglip.checkpoints.preparation import stored_image_size
from siglip.checkpoints.tensors import BATCH_OF_ONE, Checkpoint, Content, Layout, Rule, StoredTensor, translate
from siglip.config import SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.errors import CheckpointError, NotYetSupported
from siglip.releases import RELEASES

WEIGHTS = "model.npz"

_IMAGE_BLOCKS, _TEXT_BLOCKS = "img/Transformer/encoderblock", "txt/Encoder_0/encoderblock"
_ATTENTION = "MultiHeadDotProductAttention_0"
_TEXT_POSITIONS, _OLD_TEXT_POSITIONS = "txt/pos_embedding", "txt/Encoder_0/pos_embedding"

TRANSPOSED = Layout(lambda kernel: kernel.T, lambda weight: weight.T)
CONVOLUTION = Layout(lambda kernel: kernel.permute(3, 2, 0, 1), lambda weight: weight.permute(2, 3, 1, 0))


def holds(path: Path) -> bool:
    """Whether a file, or a folder with such a file, is of this layout."""
    return path.suffix == ".npz" if path.is_file() else any(path.glob("*.npz"))


def read_config(path: Path) -> SiglipConfig:
    """The configuration that follows from the shapes."""
    return read(path).config


def read(path: Path) -> Checkpoint:
    """The checkpoint of a file, or of the only `.npz` file of a folder."""
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if len(files) != 1:
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{path} holds {len(files)} .npz files ({names}); give the path of the one you mean")
    tensors = _tensors(files[0])
    config = _config(files[0], tensors)
    return Checkpoint(files[0], config, tensors, tuple(_rules(config)))


def write(folder: Path, content: Content) -> None:
    """Write a whole model; raises CheckpointError for one that the original code cannot run."""
    config = content.config
    for tower in (config.text_config, config.vision_config):
        if tower.hidden_act != "gelu_pytorch_tanh" or tower.layer_norm_eps != 1e-6:
            raise CheckpointError(
                "big_vision runs hidden_act 'gelu_pytorch_tanh' and layer_norm_eps 1e-06 only, this model has "
                f"{tower.hidden_act!r} and {tower.layer_norm_eps}; write it as huggingface"
            )
    theirs = translate((rule.back() for rule in _rules(config)), content.tensors)
    write_npz(folder / WEIGHTS, {f"params/{name}": tensor for name, tensor in theirs.items()})


def _tensors(path: Path) -> dict[str, StoredTensor]:
    arrays = read_npz(path)
    prefix = "params/" if "params/b" in arrays else ""
    tensors: dict[str, StoredTensor] = {}
    for full_name, array in arrays.items():
        name = full_name.removeprefix(prefix)
        if not full_name.startswith(prefix):
            # a training checkpoint also holds the state of its optimiser
            continue
        if "/encoderblock/" in name:
            for layer in range(array.shape[0]):
                tensors[name.replace("/encoderblock/", f"/encoderblock_{layer}/")] = array.layer(layer)
        else:
            tensors[name] = array.stored()
    if _OLD_TEXT_POSITIONS in tensors and _TEXT_POSITIONS in tensors:
        # some early text towers learned their positions in two places by mistake (text_transformer.py, load)
        first, second = tensors[_TEXT_POSITIONS], tensors.pop(_OLD_TEXT_POSITIONS)
        tensors[_TEXT_POSITIONS] = StoredTensor(first.shape, first.dtype, lambda: first.read() + second.read())
    return tensors


def _config(path: Path, tensors: Mapping[str, StoredTensor]) -> SiglipConfig:
    def shape(name: str, *axes: str) -> tuple[int, ...]:
        found = tensors[name].shape if name in tensors else None
        if found is None or len(found) != len(axes):
            raise CheckpointError(
                f"{path} is not a SigLIP checkpoint of big_vision: {name} is "
                f"{'missing' if found is None else list(found)}, expected "
                f"[{', '.join(axes)}]; give a file with both towers (img/..., txt/...)"
            )
        return found

    def blocks(prefix: str) -> tuple[int, int, int]:
        depth = sum(bool(re.fullmatch(rf"{prefix}_\d+/LayerNorm_0/scale", name)) for name in tensors)
        num_heads = shape(f"{prefix}_0/{_ATTENTION}/query/kernel", "width", "heads", "head width")[1]
        return depth, num_heads, shape(f"{prefix}_0/MlpBlock_0/Dense_0/kernel", "width", "mlp width")[1]

    if "img/embedding/kernel" in tensors and len(tensors["img/embedding/kernel"].shape) == 2:
        raise NotYetSupported(
            f"{path} is a NaFlex SigLIP 2, which this version does not run yet; "
            "use a fixed-resolution one such as siglip2_b16_256.npz"
        )
    vocab_size, text_width = shape("txt/Embed_0/embedding", "vocabulary", "width")
    patch_size, _, channels, width = shape("img/embedding/kernel", "patch", "patch", "channels", "width")
    grid_size = math.isqrt(shape("img/pos_embedding", "1", "patches", "width")[1])
    text_use_head = "txt/head/kernel" in tensors
    text_depth, text_heads, text_mlp = blocks(_TEXT_BLOCKS)
    depth, num_heads, mlp = blocks(_IMAGE_BLOCKS)
    return SiglipConfig(
        text_config=SiglipTextConfig(
            vocab_size=vocab_size,
            hidden_size=text_width,
            intermediate_size=text_mlp,
            num_hidden_layers=text_depth,
            num_attention_heads=text_heads,
            max_position_embeddings=shape(_TEXT_POSITIONS, "1", "context length", "width")[1],
            projection_size=shape("txt/head/kernel", "width", "dim")[1] if text_use_head else None,
            text_use_head=text_use_head,
        ),
        vision_config=SiglipVisionConfig(
            hidden_size=width,
            intermediate_size=mlp,
            num_hidden_layers=depth,
            num_attention_heads=num_heads,
            num_channels=channels,
            image_size=_image_size(path, patch_size, grid_size),
            patch_size=patch_size,
            vision_use_head="img/MAPHead_0/probe" in tensors,
        ),
    )


def _image_size(path: Path, patch_size: int, grid_size: int) -> int:
    # pixels beyond the last whole patch leave no trace in the shapes: 384 px in patches of 14 looks like 378 px
    released = [release.image_size for release in RELEASES if release.big_vision.endswith(f"/{path.stem}")]
    for image_size in (stored_image_size(path.parent), *released):
        if image_size is not None and image_size // patch_size == grid_size:
            return image_size
    return grid_size * patch_size


def _rules(config: SiglipConfig) -> Iterator[Rule]:
    text, vision = config.text_config, config.vision_config
    yield Rule("t", "logit_scale")
    yield Rule("b", "logit_bias")
    yield Rule("img/embedding/kernel", "vision_model.embeddings.patch_embedding.weight", layout=CONVOLUTION)
    yield Rule("img/embedding/bias", "vision_model.embeddings.patch_embedding.bias")
    yield Rule("img/pos_embedding", "vision_model.embeddings.position_embedding.weight", layout=BATCH_OF_ONE)
    for layer in range(vision.num_hidden_layers):
        yield from block_rules(f"{_IMAGE_BLOCKS}_{layer}/", f"vision_model.encoder.layers.{layer}.", vision)
    yield from norm_rules("img/Transformer/encoder_norm", "vision_model.post_layernorm")
    if vision.vision_use_head:
        yield from _map_head(vision)
    yield Rule("txt/Embed_0/embedding", "text_model.embeddings.token_embedding.weight")
    yield Rule(_TEXT_POSITIONS, "text_model.embeddings.position_embedding.weight", layout=BATCH_OF_ONE)
    for layer in range(text.num_hidden_layers):
        yield from block_rules(f"{_TEXT_BLOCKS}_{layer}/", f"text_model.encoder.layers.{layer}.", text)
    yield from norm_rules("txt/Encoder_0/encoder_norm", "text_model.final_layer_norm")
    if text.text_use_head:
        yield from dense_rules("txt/head", "text_model.head")


def block_rules(theirs: str, ours: str, config: SiglipTextConfig | SiglipVisionConfig) -> Iterator[Rule]:
    """One transformer block of a tower."""
    yield from norm_rules(f"{theirs}LayerNorm_0", f"{ours}layer_norm1")
    yield from norm_rules(f"{theirs}LayerNorm_1", f"{ours}layer_norm2")
    kernel, bias = _into_heads(config.num_attention_heads)
    for name, letter in (("query", "q"), ("key", "k"), ("value", "v")):
        yield Rule(f"{theirs}{_ATTENTION}/{name}/kernel", f"{ours}self_attn.{letter}_proj.weight", layout=kernel)
        yield Rule(f"{theirs}{_ATTENTION}/{name}/bias", f"{ours}self_attn.{letter}_proj.bias", layout=bias)
    yield from _out_of_heads(f"{theirs}{_ATTENTION}/out", f"{ours}self_attn.out_proj", config.num_attention_heads)
    for number in (0, 1):
        yield from dense_rules(f"{theirs}MlpBlock_0/Dense_{number}", f"{ours}mlp.fc{number + 1}")


def _map_head(config: SiglipVisionConfig) -> Iterator[Rule]:
    theirs, ours = "img/MAPHead_0/", "vision_model.head."
    yield Rule(f"{theirs}probe", f"{ours}probe")
    kernel, bias = _into_heads(config.num_attention_heads)
    for part, name in enumerate(("query", "key", "value")):
        source, rows = f"{theirs}{_ATTENTION}/{name}", (part, part + 1, 3)
        yield Rule(f"{source}/kernel", f"{ours}attention.in_proj_weight", target_rows=rows, layout=kernel)
        yield Rule(f"{source}/bias", f"{ours}attention.in_proj_bias", target_rows=rows, layout=bias)
    yield from _out_of_heads(f"{theirs}{_ATTENTION}/out", f"{ours}attention.out_proj", config.num_attention_heads)
    yield from norm_rules(f"{theirs}LayerNorm_0", f"{ours}layernorm")
    for number in (0, 1):
        yield from dense_rules(f"{theirs}MlpBlock_0/Dense_{number}", f"{ours}mlp.fc{number + 1}")


def norm_rules(theirs: str, ours: str) -> Iterator[Rule]:
    """A layer norm."""
    yield Rule(f"{theirs}/scale", f"{ours}.weight")
    yield Rule(f"{theirs}/bias", f"{ours}.bias")


def dense_rules(theirs: str, ours: str) -> Iterator[Rule]:
    """A linear layer: kernel [in, out]."""
    yield Rule(f"{theirs}/kernel", f"{ours}.weight", layout=TRANSPOSED)
    yield Rule(f"{theirs}/bias", f"{ours}.bias")


def _into_heads(num_heads: int) -> tuple[Layout, Layout]:
    """Kernel [in, heads, head width] and bias [heads, head width]."""
    kernel = Layout(lambda kernel: kernel.flatten(1).T, functools.partial(_split_transposed, num_heads, 1))
    return kernel, Layout(lambda bias: bias.flatten(), functools.partial(_split, num_heads, 0))


def _out_of_heads(theirs: str, ours: str, num_heads: int) -> Iterator[Rule]:
    """Kernel [heads, head width, out]."""
    layout = Layout(lambda kernel: kernel.flatten(0, 1).T, functools.partial(_split_transposed, num_heads, 0))
    yield Rule(f"{theirs}/kernel", f"{ours}.weight", layout=layout)
    yield Rule(f"{theirs}/bias", f"{ours}.bias")


def _split(num_heads: int, axis: int, tensor: Tensor) -> Tensor:
    return tensor.unflatten(axis, (num_heads, -1))


def _split_transposed(num_heads: int, axis: int, weight: Tensor) -> Tensor:
    return _split(num_heads, axis, weight.T)
