"""input_ids and pixel_values -> unit vectors -> logits: exp(logit_scale) * <image, text> + logit_bias."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from siglip.config import SiglipConfig
from siglip.errors import ShapeError
from siglip.model.text import SiglipTextModel
from siglip.model.vision import SiglipVisionModel
from siglip.pretrained import PretrainedModel
from siglip.types import Features, SiglipOutput, TowerOutput, for_scripts


class SiglipModel(PretrainedModel, nn.Module):
    """Image and text tower side by side, with temperature t = exp(logit_scale) and bias b.

    A fresh model starts with t = 10 and b = -10, as in the paper (Section 3.2); t is never clamped. The scale and the
    bias stay float32 when the towers are cast to half precision: in bfloat16 they would move every probability.
    """

    def __init__(self, config: SiglipConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        config.check_towers_meet()
        self.config = config
        self.text_model = SiglipTextModel(config.text_config, generator=generator)
        self.vision_model = SiglipVisionModel(config.vision_config, generator=generator)
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(10.0)))
        self.logit_bias = nn.Parameter(torch.full((1,), -10.0))

    @for_scripts
    def forward(
        self,
        input_ids: Int[Tensor, "texts ctx"],
        pixel_values: Float[Tensor, "images channels height width"],
        attention_mask: object = None,
        *,
        return_loss: bool | None = False,
        output_hidden_states: bool | None = False,
        interpolate_pos_encoding: bool = False,
    ) -> SiglipOutput:
        """Score every picture against every text; probabilities are `logits_per_image.sigmoid()`.

        With `return_loss`, row i of both is one pair and the loss is Algorithm 1 of the paper: summed over all pairs,
        divided by the number of pictures. Raises ShapeError if the batches then differ, PreparationError for a mask.
        What the towers say is in `text_model_output` and `vision_model_output`; `output_hidden_states` is theirs.
        """
        texts = self.text_model(input_ids, attention_mask, output_hidden_states=output_hidden_states)
        images = self.vision_model(
            pixel_values,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
        )
        text_embeds = F.normalize(texts.pooler_output.float(), dim=-1)
        image_embeds = F.normalize(_pooled(images).float(), dim=-1)
        logits = image_embeds @ text_embeds.T * self.logit_scale.float().exp() + self.logit_bias.float()
        loss = _pair_loss(logits) if return_loss else None
        return SiglipOutput(loss, logits, logits.T, text_embeds, image_embeds, texts, images)

    def get_text_features(
        self, input_ids: Int[Tensor, "batch ctx"], attention_mask: object = None
    ) -> Float[Tensor, "batch dim"]:
        """Text vectors before normalisation."""
        pooled = self.text_model(input_ids, attention_mask, last_token_only=True).pooler_output
        return _askable(pooled)

    def get_image_features(
        self, pixel_values: Float[Tensor, "batch channels height width"], *, interpolate_pos_encoding: bool = False
    ) -> Float[Tensor, "batch dim"]:
        """Image vectors before normalisation; a tower without a head gives the mean of its patch tokens."""
        output = self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        return _askable(_pooled(output))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SiglipModel":
        kept = {name: getattr(self, name).data for name in ("logit_scale", "logit_bias")}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            parameter: Any = getattr(self, name)
            if parameter.dtype in (torch.float16, torch.bfloat16) and before.dtype == torch.float32:
                parameter.data = before.to(parameter.device)
        return self


def _pooled(output: TowerOutput) -> Float[Tensor, "batch dim"]:
    return output.pooler_output if output.pooler_output is not None else output.last_hidden_state.mean(dim=1)


def _askable(features: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """With `.pooler_output`, but in graphs, where a tensor must be no more than that."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return features if tracing else features.as_subclass(Features)


def _pair_loss(logits: Float[Tensor, "images texts"]) -> Float[Tensor, ""]:
    if logits.shape[0] != logits.shape[1]:
        raise ShapeError(
            f"return_loss pairs picture i with text i, got {logits.shape[0]} pictures and {logits.shape[1]} texts; "
            "give as many of both, or leave return_loss out to score all against all"
        )
    signs = 2.0 * torch.eye(len(logits), device=logits.device) - 1.0
    return -F.logsigmoid(signs * logits).sum(dim=-1).mean()
