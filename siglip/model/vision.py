"""pixel_values f32[b, 3, h, w] -> patch tokens f32[b, p, w] and one pooled vector f32[b, d] a picture."""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from siglip.config import SiglipVisionConfig
from siglip.errors import ShapeError
from siglip.model.layers import Encoder, MapHead, PositionTable, global_state_kept, lecun_normal_
from siglip.pretrained import PretrainedModel
from siglip.types import TowerOutput, for_scripts


def resize_position_embedding(
    weight: Float[Tensor, "patches width"], grid: tuple[int, int], *, method: Literal["bicubic", "corner-bilinear"]
) -> Float[Tensor, "new_patches width"]:
    """Stretch a square grid of position embeddings to `grid` = (rows, columns); float32 inside.

    "corner-bilinear" keeps the corners where they are: what the paper's code does before training goes on at another
    resolution (resample_posemb in big_vision/models/vit.py). "bicubic" is what users of the published checkpoints
    run without training. Raises ShapeError if `weight` is not a square grid.
    """
    side = math.isqrt(weight.shape[0])
    if side * side != weight.shape[0]:
        raise ShapeError(f"{weight.shape[0]} position embeddings do not form a square grid, so they cannot be resized")
    if (side, side) == grid:
        return weight
    square = weight.float().unflatten(0, (side, side)).permute(2, 0, 1).unsqueeze(0)
    if method == "bicubic":
        resized = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    else:
        resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=True)
    return resized.squeeze(0).flatten(1).T.to(weight.dtype)


class VisionEmbeddings(nn.Module):
    """Cut the picture into patches, project each, add its position.

    While training, the share `patch_dropout` of each picture's patches is left out, others at each visit (FLIP,
    arXiv 2212.00794): the layers then have so much less to do, and learn from parts.
    """

    def __init__(self, config: SiglipVisionConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.image_size = config.image_size
        self.patch_dropout = 0.0
        self.patch_embedding = nn.Conv2d(config.num_channels, width, kernel_size=patch, stride=patch)
        self.position_embedding = PositionTable(config.num_patches, width)
        lecun_normal_(self.patch_embedding.weight, config.num_channels * patch**2, generator)
        assert self.patch_embedding.bias is not None
        nn.init.zeros_(self.patch_embedding.bias)
        nn.init.normal_(self.position_embedding.weight, std=1.0 / math.sqrt(width), generator=generator)

    def forward(
        self, pixel_values: Float[Tensor, "batch channels height width"], interpolate_pos_encoding: bool
    ) -> Float[Tensor, "batch kept dim"]:
        height, width = pixel_values.shape[-2:]
        if not interpolate_pos_encoding and (height, width) != (self.image_size, self.image_size):
            raise ShapeError(
                f"this image tower takes {self.image_size} x {self.image_size} pixels, got {height} x {width}; "
                "prepare pictures with the checkpoint's processor, or pass interpolate_pos_encoding=True"
            )
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        positions = self.position_embedding()
        if interpolate_pos_encoding:
            positions = resize_position_embedding(positions, (patches.shape[2], patches.shape[3]), method="bicubic")
        # one token after the other in memory: sums keep the layout, so every layer would walk through it in strides
        tokens = (patches.flatten(2).transpose(1, 2) + positions).contiguous()
        return self._some(tokens) if self.training and self.patch_dropout else tokens

    def _some(self, tokens: Float[Tensor, "batch patches dim"]) -> Float[Tensor, "batch kept dim"]:
        """Those that are not dropped, in any order: each carries its position, and attention pools them all."""
        kept = max(1, round(tokens.shape[1] * (1 - self.patch_dropout)))
        chosen = torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)[:, :kept]
        return tokens.gather(1, chosen.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


class SiglipVisionModel(PretrainedModel, nn.Module):
    """Image tower with attention pooling (`pooler_output`), or without a head if `vision_use_head` is false."""

    main_input_name: ClassVar[str] = "pixel_values"

    def __init__(self, config: SiglipVisionConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        with global_state_kept(generator):
            self.embeddings = VisionEmbeddings(config, generator)
            self.encoder = Encoder(config, generator)
            self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.head = MapHead(config, generator) if config.vision_use_head else None

    @for_scripts
    def forward(
        self,
        pixel_values: Float[Tensor, "batch channels height width"],
        *,
        output_hidden_states: bool | None = False,
        interpolate_pos_encoding: bool = False,
    ) -> TowerOutput:
        """Patch tokens and pooled vector; hidden states start with the embeddings and end before the last norm.

        `interpolate_pos_encoding` accepts other sizes than the checkpoint's. Raises ShapeError otherwise.
        """
        x, states = self.encoder(self.embeddings(pixel_values, interpolate_pos_encoding), bool(output_hidden_states))
        x = self.post_layernorm(x)
        return TowerOutput(x, self.head(x) if self.head is not None else None, states)

    def get_input_embeddings(self) -> nn.Module:
        """What turns the input into vectors, as adapters ask for it."""
        return self.embeddings.patch_embedding

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.post_layernorm.weight.device
