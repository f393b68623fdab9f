"""image_embeds f[n, d], text_embeds f[n, d] -> scalar: the sigmoid loss, dense and readable.

`Pairs` and `positive_pairs` say once for all forms of the loss what goes in and which pairs are positive.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from siglip.errors import ShapeError


def sigmoid_loss(
    image_embeds: Float[Tensor, "images image_dim"],
    text_embeds: Float[Tensor, "texts text_dim"],
    *,
    logit_scale: Float[Tensor, "..."],
    logit_bias: Float[Tensor, "..."],
    image_ids: Int[Tensor, "image_ids"] | None = None,
    text_ids: Int[Tensor, "text_ids"] | None = None,
) -> Float[Tensor, ""]:
    """Cost of every image with every text, summed over all n * n pairs and divided by n, in nats.

    Source: arXiv 2303.15343, Algorithm 1. Row i of both is one pair; rows have unit length. `logit_scale` is log t, as
    in the checkpoints. Computed in float32 (float64 if the embeddings are) whatever the autocast.

    Image i and text j are a positive if i == j, or if `image_ids[i] == image_ids[j]` (one picture, two captions), or
    if `text_ids[i] == text_ids[j]` (one caption, two pictures): then a duplicate is no false negative. A negative id
    means unknown and equals nothing. This is not transitive: captions of the same picture do not become equal by that.
    Without ids, or when all differ, it is the paper's loss.

    Keeps several n * n arrays for the backward pass; `chunked_sigmoid_loss` keeps none. Raises ShapeError if the
    batches or widths differ, are empty, or the ids, scale or bias do not fit.
    """
    pairs = Pairs.checked(image_embeds, text_embeds, logit_scale, logit_bias, image_ids, text_ids)
    with torch.autocast(image_embeds.device.type, enabled=False):
        logits = pairs.images @ pairs.texts.T * pairs.logit_scale.exp() + pairs.logit_bias
        positive = positive_pairs(pairs.ids, pairs.ids).fill_diagonal_(True)
        signs = torch.where(positive, 1.0, -1.0).to(logits.dtype)
        return -F.logsigmoid(signs * logits).sum() / pairs.batch_size()


class Pairs(NamedTuple):
    """A checked batch in the dtype of the loss. `ids` has a row for each kind of ids given, 0 to 2."""

    images: Float[Tensor, "batch dim"]
    texts: Float[Tensor, "batch dim"]
    logit_scale: Float[Tensor, ""]
    logit_bias: Float[Tensor, ""]
    ids: Int[Tensor, "kinds batch"]

    @classmethod
    def checked(
        cls,
        images: Tensor,
        texts: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor,
        image_ids: Tensor | None,
        text_ids: Tensor | None,
    ) -> "Pairs":
        """Check all shapes, raising ShapeError, and convert."""
        if images.ndim != 2 or images.shape != texts.shape:
            raise ShapeError(
                f"the loss pairs row i with row i, got images {list(images.shape)} and texts {list(texts.shape)}; "
                "give [batch, dim] twice: drop the unpaired rows, or score them all with SiglipModel"
            )
        for name, number in (("logit_scale", logit_scale), ("logit_bias", logit_bias)):
            if number.numel() != 1:
                raise ShapeError(f"{name} must be one number of shape () or (1,), got {list(number.shape)}")
        given = {name: ids for name, ids in (("image_ids", image_ids), ("text_ids", text_ids)) if ids is not None}
        for name, ids in given.items():
            if ids.shape != images.shape[:1]:
                raise ShapeError(f"{name} must hold one id for each pair, [{len(images)}], got {list(ids.shape)}")
        # Tensor.to is differentiable: gradients leave in the dtype the embeddings came in
        dtype = torch.promote_types(torch.promote_types(images.dtype, texts.dtype), torch.float32)
        return cls(
            images.to(dtype),
            texts.to(dtype),
            logit_scale.to(dtype).reshape(()),
            logit_bias.to(dtype).reshape(()),
            torch.stack([*given.values()]).long() if given else images.new_empty(0, len(images), dtype=torch.int64),
        )

    def batch_size(self) -> int:
        """The number n that the loss is divided by; raises ShapeError if it is 0."""
        if not len(self.images):
            raise ShapeError("the batch is empty, and its loss undefined; give at least one pair")
        return len(self.images)


def positive_pairs(
    image_side: Int[Tensor, "kinds images"], text_side: Int[Tensor, "kinds texts"]
) -> Bool[Tensor, "images texts"]:
    """Pairs with an equal, known id of either kind; the pairs' own diagonal is the caller's."""
    found = image_side.new_zeros(image_side.shape[1], text_side.shape[1], dtype=torch.bool)
    for mine, theirs in zip(image_side, text_side, strict=True):
        found |= mine.masked_fill(mine < 0, -1)[:, None] == theirs.masked_fill(theirs < 0, -2)
    return found
