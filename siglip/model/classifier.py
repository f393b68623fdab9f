"""pixel_values f32[b, 3, h, w] -> class scores f32[b, classes], from the mean of the patch tokens."""

from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from siglip.config import ProblemType, SiglipConfig
from siglip.errors import ShapeError
from siglip.model.layers import EncoderLayer, MapHead, global_state_kept
from siglip.model.vision import SiglipVisionModel
from siglip.pretrained import PretrainedModel
from siglip.types import ImageClassifierOutput, for_scripts

# how large what the pooling layer adds is beside the tokens it adds it to: these are then hardly seen behind it, and
# its numbers stay within float16
_LOUDER = 100.0


class SiglipForImageClassification(PretrainedModel, nn.Module):
    """Image tower, mean over patch tokens, one linear layer to the classes of `config.id2label`.

    The attention-pooling head is not part of it, so every parameter gets a gradient. The linear layer starts at zero,
    as the heads of the paper's code do.
    """

    main_input_name: ClassVar[str] = "pixel_values"

    def __init__(self, config: SiglipConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        config = replace(config, vision_config=replace(config.vision_config, vision_use_head=False))
        self.config = config
        self.vision_model = SiglipVisionModel(config.vision_config, generator=generator)
        with global_state_kept(generator):
            self.classifier = nn.Linear(config.vision_config.hidden_size, config.num_labels)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    @for_scripts
    def forward(
        self,
        pixel_values: Float[Tensor, "batch channels height width"],
        labels: Shaped[Tensor, "batch *classes"] | None = None,
        *,
        output_hidden_states: bool | None = False,
        interpolate_pos_encoding: bool = False,
    ) -> ImageClassifierOutput:
        """Scores, and the loss if `labels` are given.

        `labels` are class indices [b] (cross-entropy), or zeros and ones [b, classes] (binary cross-entropy,
        several labels a picture), or numbers [b, classes] (mean squared error) where `problem_type` is "regression".
        Raises ShapeError for other shapes.
        """
        output = self.vision_model(
            pixel_values,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
        )
        logits = self.classifier(output.last_hidden_state.mean(dim=1))
        loss = None if labels is None else self._loss(logits.float(), labels)
        return ImageClassifierOutput(loss, logits, output.hidden_states)

    def get_image_features(
        self, pixel_values: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dim"]:
        """What the linear layer reads: the mean of the patch tokens."""
        return self.vision_model(pixel_values).last_hidden_state.mean(dim=1)

    @property
    def problem_type(self) -> ProblemType | None:
        """That of the configuration; where it leaves it open and there is one score, it is a regression."""
        told = self.config.problem_type
        return "regression" if told is None and self.config.num_labels == 1 else told

    def _loss(self, logits: Float[Tensor, "batch classes"], labels: Tensor) -> Float[Tensor, ""]:
        if self.problem_type == "regression":
            if labels.shape in (logits.shape, logits.squeeze(1).shape):
                return F.mse_loss(logits.reshape(labels.shape), labels.float())
            raise ShapeError(
                f"regression needs one number for each score, {list(logits.shape)}, got {list(labels.shape)}"
            )
        if labels.shape == logits.shape and self.problem_type != "single_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.float())
        if labels.shape == logits.shape[:1] and not labels.is_floating_point():
            return F.cross_entropy(logits, labels)
        raise ShapeError(
            f"labels must be whole class numbers [{len(logits)}] or zeros and ones {list(logits.shape)}, "
            f"got {labels.dtype} {list(labels.shape)} with problem_type={self.problem_type!r}"
        )

    @property
    def num_labels(self) -> int:
        """Classes."""
        return self.config.num_labels

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.classifier.weight.device


@torch.no_grad()
def pooling_as_layer(tower: SiglipVisionModel) -> SiglipVisionModel:
    """A tower without a head whose patch tokens are what the head of `tower` gave, normalised, but for some per cent.

    A classifier reads the mean of the patch tokens, but it was the pooled vector that was trained to be compared.
    Attention pooling is an encoder layer in which every token asks what the head's query asks: no kernel for queries,
    and the query as their bias. What this layer adds is made so much larger than the token that the token drowns in
    it, and the last norm makes it small again. A tower without a head is returned as it is.
    """
    head = tower.head
    if not isinstance(head, MapHead):
        return tower
    shape = tower.config
    shape = replace(shape, num_hidden_layers=shape.num_hidden_layers + 1, vision_use_head=False)
    made = SiglipVisionModel(shape)
    made.load_state_dict(tower.state_dict(), strict=False)
    layer = made.encoder.layers[-1]
    assert isinstance(layer, EncoderLayer)
    kernels, biases = head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3)
    for part, kernel, bias in zip(("q_proj", "k_proj", "v_proj"), kernels, biases, strict=True):
        linear = layer.self_attn.get_submodule(part)
        linear.load_state_dict({"weight": kernel, "bias": bias})
    layer.self_attn.q_proj.bias.copy_(layer.self_attn.q_proj(head.probe).flatten())
    layer.self_attn.q_proj.weight.zero_()
    layer.layer_norm1.load_state_dict(tower.post_layernorm.state_dict())
    layer.layer_norm2.load_state_dict(head.layernorm.state_dict())
    layer.self_attn.out_proj.load_state_dict(head.attention.out_proj.state_dict())
    layer.mlp.load_state_dict(head.mlp.state_dict())
    for linear in (layer.self_attn.out_proj, layer.mlp.fc2):
        for parameter in linear.parameters():
            parameter.mul_(_LOUDER)
    made.post_layernorm.weight.fill_(1.0)
    made.post_layernorm.bias.zero_()
    return made.eval()
