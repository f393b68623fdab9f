"""Every published SigLIP, SigLIP 2 and PaliGemma checkpoint: what it is made of, what it scores. No torch here.

Facts from the papers (arXiv 2303.15343 Table 3, 2502.14786 Table 1, 2407.07726, 2412.03555) and the releases.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from siglip.config import Clean, Resample, SiglipConfig, SiglipTextConfig, SiglipVisionConfig
from siglip.config_paligemma import GemmaConfig, PaliGemmaConfig
from siglip.errors import CheckpointError, ConfigError, NotYetSupported, clip, did_you_mean
from siglip.files import existing

# what is in the package: the one that compares, and the one that writes
BUILT_IN, BUILT_IN_WRITER = "nano", "nano-caption"

Size = Literal["base", "large", "so400m", "giant-opt"]

# width, depth, heads, mlp width (big_vision/models/vit.py, decode_variant)
_SHAPES: dict[Size, tuple[int, int, int, int]] = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giant-opt": (1536, 40, 16, 6144),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One published checkpoint. Sizes in pixels and tokens; parameters in millions; ImageNet zero-shot top-1 in %."""

    name: str
    version: Literal[1, 2]
    size: Size
    patch_size: int
    image_size: int
    parameters_millions: float
    imagenet_top1: float
    big_vision: str
    open_clip: str
    context_length: int = 64
    vocab_size: int = 256000
    text_use_head: bool = True
    naflex: bool = False

    @property
    def clean(self) -> Clean:
        """How its text is cleaned: decided by the vocabulary, not by the model type."""
        return "lower" if self.vocab_size == 256000 else "canonicalize-hf"

    @property
    def resample(self) -> Resample:
        """The filter its published preparation uses."""
        return "bicubic" if self.version == 1 else "bilinear"

    @property
    def embedding_size(self) -> int:
        """Length of its vectors."""
        return _SHAPES[self.size][0]

    @property
    def config(self) -> SiglipConfig:
        """Its configuration; raises NotYetSupported for the two NaFlex checkpoints."""
        if self.naflex:
            raise NotYetSupported(
                f"{self.name} takes pictures of any aspect ratio (NaFlex), which this version does not run yet; "
                f"use a fixed-resolution one such as google/siglip2-{self.size}-patch16-256"
            )
        width, depth, heads, mlp = _SHAPES[self.size]
        # the giant image tower was trained with the so400m text tower
        text_width, text_depth, text_heads, text_mlp = _SHAPES["so400m" if self.size == "giant-opt" else self.size]
        return SiglipConfig.from_text_vision_configs(
            SiglipTextConfig(
                vocab_size=self.vocab_size,
                hidden_size=text_width,
                intermediate_size=text_mlp,
                num_hidden_layers=text_depth,
                num_attention_heads=text_heads,
                max_position_embeddings=self.context_length,
                projection_size=width if self.text_use_head else None,
                text_use_head=self.text_use_head,
            ),
            SiglipVisionConfig(
                hidden_size=width,
                intermediate_size=mlp,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                image_size=self.image_size,
                patch_size=self.patch_size,
            ),
        )


# a row each: name (which tells version, size, patch and pixels), millions of parameters, ImageNet top-1, and what
# big_vision and open_clip call it
# fmt: off
_PUBLISHED: tuple[tuple[str, float, float, str, str], ...] = (
    ("siglip-base-patch16-224", 203.16, 76.2, "en_b16_224_63724782", "ViT-B-16-SigLIP"),
    ("siglip-base-patch16-256", 203.2, 76.7, "en_b16_256_60500360", "ViT-B-16-SigLIP-256"),
    ("siglip-base-patch16-384", 203.45, 78.6, "en_b16_384_68578854", "ViT-B-16-SigLIP-384"),
    ("siglip-base-patch16-512", 203.79, 79.2, "en_b16_512_68580893", "ViT-B-16-SigLIP-512"),
    ("siglip-large-patch16-256", 652.15, 80.5, "en_l16_256_60552751", "ViT-L-16-SigLIP-256"),
    ("siglip-large-patch16-384", 652.48, 82.1, "en_l16_384_63634585", "ViT-L-16-SigLIP-384"),
    ("siglip-so400m-patch14-224", 877.36, 82.2, "en_so400m_224_57633886", "ViT-SO400M-14-SigLIP"),
    ("siglip-so400m-patch14-384", 877.96, 83.2, "en_so400m_384_58765454", "ViT-SO400M-14-SigLIP-384"),
    ("siglip-base-patch16-256-multilingual", 370.63, 75.1, "i18n_b16_256_66117334", "ViT-B-16-SigLIP-i18n-256"),
    ("siglip-so400m-patch16-256-i18n", 1127.4, 80.8, "i18n_so400m_16_256_78061115", "ViT-SO400M-16-SigLIP-i18n-256"),
    ("siglip2-base-patch32-256", 376.9, 74.0, "b32_256", "ViT-B-32-SigLIP2-256"),
    ("siglip2-base-patch16-224", 375.2, 78.2, "b16_224", "ViT-B-16-SigLIP2"),
    ("siglip2-base-patch16-256", 375.2, 79.1, "b16_256", "ViT-B-16-SigLIP2-256"),
    ("siglip2-base-patch16-384", 375.5, 80.6, "b16_384", "ViT-B-16-SigLIP2-384"),
    ("siglip2-base-patch16-512", 375.8, 81.2, "b16_512", "ViT-B-16-SigLIP2-512"),
    ("siglip2-large-patch16-256", 881.5, 82.5, "l16_256", "ViT-L-16-SigLIP2-256"),
    ("siglip2-large-patch16-384", 881.9, 83.1, "l16_384", "ViT-L-16-SigLIP2-384"),
    ("siglip2-large-patch16-512", 882.3, 83.5, "l16_512", "ViT-L-16-SigLIP2-512"),
    ("siglip2-so400m-patch14-224", 1135.5, 83.2, "so400m14_224", "ViT-SO400M-14-SigLIP2"),
    ("siglip2-so400m-patch14-384", 1136.0, 84.1, "so400m14_384", "ViT-SO400M-14-SigLIP2-378"),
    ("siglip2-so400m-patch16-256", 1135.7, 83.4, "so400m16_256", "ViT-SO400M-16-SigLIP2-256"),
    ("siglip2-so400m-patch16-384", 1136.0, 84.1, "so400m16_384", "ViT-SO400M-16-SigLIP2-384"),
    ("siglip2-so400m-patch16-512", 1136.6, 84.3, "so400m16_512", "ViT-SO400M-16-SigLIP2-512"),
    ("siglip2-giant-opt-patch16-256", 1871.4, 84.5, "g-opt16_256", "ViT-gopt-16-SigLIP2-256"),
    ("siglip2-giant-opt-patch16-384", 1871.9, 85.0, "g-opt16_384", "ViT-gopt-16-SigLIP2-384"),
    ("siglip2-base-patch16-naflex", 375.2, 78.5, "b16_naflex", "ViT-B-16-SigLIP2-naflex"),
    ("siglip2-so400m-patch16-naflex", 1135.7, 83.5, "so400m16_naflex", "ViT-SO400M-16-SigLIP2-naflex"),
)
# fmt: on
# text towers unlike those of their version: a shorter context, tokens of a hundred languages, no projection
_OTHER_TEXT: dict[str, dict[str, Any]] = {
    "siglip-so400m-patch14-224": {"vocab_size": 32000, "context_length": 16},
    "siglip-base-patch16-256-multilingual": {"vocab_size": 250000},
    "siglip-so400m-patch16-256-i18n": {"vocab_size": 250000, "text_use_head": False},
}


def _release(name: str, parameters_millions: float, imagenet_top1: float, big_vision: str, open_clip: str) -> Release:
    version, size, patch_size, image_size = re.findall(r"siglip(2?)-(.+)-patch(\d+)-(\d+|naflex)", name)[0]
    return Release(
        name=f"google/{name}",
        version=2 if version else 1,
        size=size,
        patch_size=int(patch_size),
        # NaFlex checkpoints take 256 patches of 16 pixels
        image_size=256 if image_size == "naflex" else int(image_size),
        parameters_millions=parameters_millions,
        imagenet_top1=imagenet_top1,
        big_vision=("siglip2/siglip2_" if version else "siglip/webli_") + big_vision,
        open_clip=open_clip,
        naflex=image_size == "naflex",
        **_OTHER_TEXT.get(name, {} if version else {"vocab_size": 32000}),
    )


RELEASES: tuple[Release, ...] = tuple(_release(*row) for row in _PUBLISHED)


# layers, width, mlp, heads, key/value heads, head width (big_vision/models/ppp/gemma.py, get_config)
_DECODERS: dict[str, tuple[int, int, int, int, int, int]] = {
    "gemma-2b": (18, 2048, 16384, 8, 1, 256),
    "gemma2-2b": (26, 2304, 9216, 8, 4, 256),
    "gemma2-9b": (42, 3584, 14336, 16, 8, 256),
    "gemma2-27b": (46, 4608, 36864, 32, 16, 128),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PaliGemmaRelease:
    """One published PaliGemma. `parameters` counts 257,152 rows of the table, of which Hugging Face adds 64 unused."""

    name: str
    decoder: str
    image_size: int
    parameters: int

    @property
    def config(self) -> PaliGemmaConfig:
        """Its configuration on the hub."""
        layers, width, mlp, heads, kv_heads, head_dim = _DECODERS[self.decoder]
        second = self.decoder.startswith("gemma2")
        text = GemmaConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            intermediate_size=mlp,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            # the queries of 27B are scaled by width / heads
            query_pre_attn_scalar=144 if self.decoder == "gemma2-27b" else 256,
            attn_logit_softcapping=50.0 if second else None,
            final_logit_softcapping=30.0 if second else None,
            post_norms=second,
        )
        vision = PaliGemmaConfig().vision_config
        return PaliGemmaConfig(text_config=text, vision_config=replace(vision, image_size=self.image_size))


# size -> decoder, parameters at 224 pixels
_PALIGEMMAS = {
    "paligemma-3b": ("gemma-2b", 2_923_335_408),
    "paligemma2-3b": ("gemma2-2b", 3_032_094_960),
    "paligemma2-10b": ("gemma2-9b", 9_662_409_456),
    "paligemma2-28b": ("gemma2-27b", 27_650_192_112),
}
# what longer position embeddings add
_MORE_POSITIONS = {224: 0, 448: 884_736, 896: 4_423_680}
_EVERY_SIZE = [("pt", 224), ("pt", 448), ("pt", 896), ("mix", 224), ("mix", 448)]

# tasks of the first paper that it was fine-tuned for, at 224 and 448 pixels; those that read small print at 896 too
# fmt: off
_TASKS = (
    "ai2d", "aokvqa-da", "aokvqa-mc", "coco35l", "cococap", "docvqa", "gqa", "infovqa", "nlvr2", "ocrvqa", "okvqa",
    "refcoco-seg", "rsvqa-hr", "rsvqa-lr", "scicap", "science-qa", "screen2words", "stvqa", "tallyqa", "textcaps",
    "textvqa", "vizwizvqa", "vqav2", "widgetcap",
)
# fmt: on
_SMALL_PRINT = ("docvqa", "infovqa", "ocrvqa", "refcoco-seg", "stvqa", "textvqa")


def _kinds(size: str) -> list[tuple[str, int]]:
    """What each size was published as: the stage or task, and pixels."""
    if size in ("paligemma2-3b", "paligemma2-10b"):
        return [*_EVERY_SIZE, ("ft-docci", 448)]
    if size != "paligemma-3b":
        return _EVERY_SIZE
    tuned = [(f"ft-{task}", pixels) for task in _TASKS for pixels in (224, 448)]
    return [*_EVERY_SIZE, *tuned, *((f"ft-{task}", 896) for task in _SMALL_PRINT)]


PALIGEMMA_RELEASES: tuple[PaliGemmaRelease, ...] = tuple(
    PaliGemmaRelease(
        name=f"google/{size}-{kind}-{pixels}",
        decoder=decoder,
        image_size=pixels,
        parameters=parameters + _MORE_POSITIONS[pixels],
    )
    for size, (decoder, parameters) in _PALIGEMMAS.items()
    for kind, pixels in _kinds(size)
)


def find_release(name: str) -> Release:
    """The release of that hub name, with or without its owner; raises ConfigError with the nearest name."""
    names = {release.name: release for release in RELEASES}
    full = name if "/" in name else f"google/{name}"
    if full in names:
        return names[full]
    nearest = did_you_mean(name, names)
    hint = f"did you mean {nearest!r}?" if nearest else "`siglip models` lists them"
    raise ConfigError(f"{clip(repr(name))} is not a published SigLIP checkpoint; {hint}")


def check_model_name(name: str) -> None:
    """Raise CheckpointError, with the nearest name, for what is neither built in, nor a path here, nor a hub name.

    So does `RUN/best`, and a checkpoint that a run here does not have.
    """
    path = Path(name).expanduser()
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if (path.name == "best" or run != path.parent) and (run / "checkpoints").is_dir() and not existing(path):
        raise CheckpointError(
            f"{path} is a checkpoint of a run, not yet a model; `siglip convert {path} DST --to huggingface` "
            "makes one, and says which there are"
        )
    is_hub_name = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and path.suffix not in (".npz", ".safetensors", ".bin")
    if name in (BUILT_IN, BUILT_IN_WRITER) or is_hub_name or (name and existing(path)):
        return
    # only what would then load is offered
    known = [BUILT_IN, BUILT_IN_WRITER, *(release.name for release in RELEASES if not release.naflex)]
    nearest = did_you_mean(name, known)
    hint = f"did you mean {nearest!r}?" if nearest else "`siglip models` lists the published ones"
    raise CheckpointError(
        f"no model {clip(repr(name))}: expected {BUILT_IN!r}, a folder or file that exists, or a hub name "
        f"(owner/name); {hint}"
    )
